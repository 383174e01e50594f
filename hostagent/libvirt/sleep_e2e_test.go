//go:build e2e

package libvirt_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/libvirt"
)

// said is what a program in a guest prints.
func said(t *testing.T, host *libvirt.Host, life hostagent.Life, argv ...string) string {
	t.Helper()
	status, output, err := host.Exec(t.Context(), life, argv)
	if err != nil || status != 0 {
		t.Fatalf("%q: %d, %q, %v", argv, status, output, err)
	}
	return strings.TrimSpace(output)
}

// number reads the first word of a text.
func number(t *testing.T, text string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(strings.Fields(text + " ")[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// foreignMemory makes files that libvirt and QEMU must not wake anything from.
func foreignMemory(t *testing.T, file string) map[string]string {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v, %v; want a file of mode 0600", file, info.Mode(), err)
	}
	t.Logf("%d MiB of memory in a file of %d MiB", 128, len(whole)>>20)
	files := map[string]string{"not there": filepath.Join(filepath.Dir(file), "nothing.save")}
	for what, content := range map[string][]byte{
		"empty": nil, "rubbish": bytes.Repeat([]byte("rubbish"), 10_000), "cut off": whole[:len(whole)/2],
		"not finished": bytes.Replace(whole, []byte("LibvirtQemudSave"), []byte("LibvirtQemudPart"), 1),
	} {
		path := filepath.Join(filepath.Dir(file), strings.ReplaceAll(what, " ", "-")+".save")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
		files[what] = path
	}
	return files
}

// awaitSaving returns when libvirt writes a VM's memory.
func (l *lab) awaitSaving(t *testing.T, life hostagent.Life) {
	t.Helper()
	part := filepath.Join(l.store, "memory", fmt.Sprintf("%s.%d.save.part", life.UID, life.Generation))
	for deadline := time.Now().Add(time.Minute); ; {
		if info, err := os.Stat(part); err == nil && info.Size() > 4<<20 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is saved")
		}
	}
}

// useGuest presses a key in a guest and sees that it tells.
func (l *lab) useGuest(t *testing.T, host *libvirt.Host, life hostagent.Life) {
	t.Helper()
	ask := func() hostagent.Session {
		session, err := host.Session(t.Context(), life)
		if err != nil {
			t.Fatal(err)
		}
		return session
	}
	await := func(what string, holds func(hostagent.Session) bool) hostagent.Session {
		t.Helper()
		for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(time.Second) {
			session := ask()
			if holds(session) {
				return session
			}
			if time.Now().After(deadline) {
				t.Fatalf("not %s: %+v; helper's file: %q", what, session, said(t, host, life, "/bin/sh", "-c", "cat /run/daybreak/input-idle; date +%s; ls -l /run/daybreak/.input"))
			}
		}
	}
	first := await("known", func(s hostagent.Session) bool { return s.UsersKnown && s.InputKnown })
	if first.Users != 1 {
		t.Errorf("%d users, want the one on the screen", first.Users)
	}
	idle := await("idle", func(s hostagent.Session) bool { return s.InputKnown && s.InputIdle > 20*time.Second })
	out, err := exec.Command("virsh", "-c", host.Config().URI, "send-key", life.Desktop+"-"+life.UID[:8], "KEY_SPACE").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	touched := await("touched", func(s hostagent.Session) bool { return s.InputKnown && s.InputIdle < 20*time.Second })
	t.Logf("before the key %+v, then %+v, after it %+v", first, idle, touched)
	// A helper that has died knows nothing of who came since.
	said(t, host, life, "/bin/sh", "-c", `echo "$(($(date +%s) - 600)) 3600" >/run/daybreak/input-idle.new && mv /run/daybreak/input-idle.new /run/daybreak/input-idle`)
	if stale := ask(); stale.InputKnown && stale.InputIdle > time.Minute {
		t.Errorf("an old word of the helper was believed: %+v", stale)
	}
}
