//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

const zones = `
kind: zone
meta: {name: office}
spec: {displayName: 庁内}
`

func pool(name string, desktops int, more string) string {
	return fmt.Sprintf(`
kind: pool
meta: {name: %s}
spec:
  image: micro
  zone: office
  desktops: %d
  maxUnavailable: 8
  shape: {vcpus: 1, memoryMib: 128, overlayReserveMib: 64%s}
  readiness: {probe: ["/bin/test", "-s", "/run/daybreak/boot-nonce"], deadline: 280s}
`, name, desktops, more)
}

// TestMainJob tells the life of one lab. Its chapters build on each other, since a lab takes a while to start.
func TestMainJob(t *testing.T) {
	r := start(t, 2)
	image := r.golden(t, 1)
	r.apply(t, zones)
	r.cli(t, "image", "import", "micro", image, "--note", "first", "--publish")
	r.apply(t, pool("counter", 6, ""))
	r.settled(t, "counter", 6, 6*time.Minute)

	for _, chapter := range []struct {
		name string
		tell func(*testing.T, *rig)
	}{
		{"guests prove themselves", guestsProveThemselves},
		{"import is repeatable", importIsRepeatable},
		{"daybreakd killed", func(t *testing.T, r *rig) {
			killedStopsNothing(t, r, "control", "daybreakd", "h1/log/agent.log", "session begun")
		}},
		{"agent killed", func(t *testing.T, r *rig) {
			killedStopsNothing(t, r, "h1", "agent", "h1/log/agent.log", "session begun")
		}},
		{"libvirtd killed", func(t *testing.T, r *rig) {
			killedStopsNothing(t, r, "h2", "libvirtd", "h2/log/agent.log", "connected to libvirtd again")
		}},
		{"screenshot", screenshot},
		{"bad input changes nothing", badInput},
		{"QEMU killed", qemuKilled},
		{"claim and release", claimAndRelease},
		{"data disk outlives the incarnation", dataDisk},
		{"killed while warming", killedWhileWarming},
		{"partition", partition},
		{"power loss", powerLoss},
		{"delete leaves nothing", deleteLeavesNothing},
	} {
		if !t.Run(chapter.name, func(t *testing.T) { chapter.tell(t, r) }) {
			return // what follows would fail for the same reason
		}
	}
}

// guestsProveThemselves asks every guest, through virsh, which image it runs and compares with what Daybreak says.
func guestsProveThemselves(t *testing.T, r *rig) {
	nonces := map[string]string{}
	hosts := map[string]int{}
	// What a guest says of itself is asked for after it is ready, and again a minute later.
	r.eventually(t, 3*time.Minute, "all guests described", func() (bool, string) {
		for name, d := range r.desktops(t, "counter") {
			if d.GetStatus().GetGuest().GetBootNonce() == "" {
				return false, name + " has said nothing of itself"
			}
		}
		return true, ""
	})
	for name, d := range r.desktops(t, "counter") {
		host := d.GetIncarnation().GetHost()
		hosts[host]++
		if v := r.guestRun(t, host, d.GetSpec().GetVmUuid(), "cat /run/daybreak/image-version"); v != "1" || v != d.GetStatus().GetGuest().GetImageVersion() {
			t.Errorf("%s runs image version %q, Daybreak says %q, want 1", name, v, d.GetStatus().GetGuest().GetImageVersion())
		}
		nonce := r.guestRun(t, host, d.GetSpec().GetVmUuid(), "cat /run/daybreak/boot-nonce")
		if nonce == "" || nonce != d.GetStatus().GetGuest().GetBootNonce() {
			t.Errorf("%s: boot nonce %q, Daybreak says %q", name, nonce, d.GetStatus().GetGuest().GetBootNonce())
		}
		if other, twice := nonces[nonce]; twice {
			t.Errorf("%s and %s are one guest", name, other)
		}
		nonces[nonce] = name
		if mac := r.guestRun(t, host, d.GetSpec().GetVmUuid(), "cat /sys/class/net/eth0/address"); mac != d.GetSpec().GetMac() {
			t.Errorf("%s has MAC %s, want %s", name, mac, d.GetSpec().GetMac())
		}
	}
	if len(hosts) != 2 || hosts["h1"] != 3 || hosts["h2"] != 3 {
		t.Errorf("desktops by host: %v, want 3 on each", hosts)
	}
	for _, vm := range r.qemus(t) {
		if vm.uid == "0" {
			t.Errorf("QEMU of %s runs as root", vm.uuid)
		}
	}
}

func importIsRepeatable(t *testing.T, r *rig) {
	r.cli(t, "image", "import", "micro", filepath.Join(r.dir, "images", "micro-1.raw"), "--publish")
	var image v1.Image
	r.get(t, "image", "micro", &image)
	if n := len(image.GetStatus().GetVersions()); n != 1 {
		t.Errorf("the same file imported twice made %d versions", n)
	}
}

// killedStopsNothing is the promise that the death of a part of Daybreak ends nobody's work. The part is back when the log
// has one more line that says so; only then does what is seen afterwards prove anything.
func killedStopsNothing(t *testing.T, r *rig, where, name, log, back string) {
	before := r.pids(t)
	generations := generationsOf(r.desktops(t, "counter"))
	lines := r.logged(t, log, back)
	r.kill(t, where, name)
	r.eventually(t, 2*time.Minute, name+" back", func() (bool, string) {
		return r.logged(t, log, back) > lines, "no new line " + back
	})
	r.eventually(t, time.Minute, "all hosts up", func() (bool, string) {
		out, err := r.try("get", "hosts")
		return err == nil && strings.Count(out, " UP ") == 2, out
	})
	after := r.settled(t, "counter", 6, 2*time.Minute)
	if now := r.pids(t); !maps.Equal(before, now) {
		t.Errorf("QEMU processes changed: before %v, now %v", before, now)
	}
	if now := generationsOf(after); !maps.Equal(generations, now) {
		t.Errorf("incarnations changed: before %v, now %v", generations, now)
	}
}

func generationsOf(found map[string]*v1.Desktop) map[string]int64 {
	generations := map[string]int64{}
	for name, d := range found {
		generations[name] = d.GetIncarnation().GetGeneration()
	}
	return generations
}

func screenshot(t *testing.T, r *rig) {
	file := filepath.Join(t.TempDir(), "screen.png")
	r.cli(t, "screenshot", "counter-1", "-O", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	picture, err := png.Decode(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	colours := map[any]bool{}
	for y := range picture.Bounds().Dy() {
		for x := range picture.Bounds().Dx() {
			colours[picture.At(x, y)] = true
		}
	}
	if len(colours) < 2 {
		t.Errorf("the screen of a booted guest shows a single colour (%v)", picture.Bounds())
	}
}

func badInput(t *testing.T, r *rig) {
	before := r.pids(t)
	for name, text := range map[string]string{
		"unknown field": strings.Replace(pool("counter", 6, ""), "desktops:", "dekstops:", 1),
		"wrong type":    strings.Replace(pool("counter", 6, ""), "desktops: 6", "desktops: six", 1),
		"out of range":  strings.Replace(pool("counter", 6, ""), "desktops: 6", "desktops: 600000", 1),
		"bad name":      strings.Replace(pool("counter", 6, ""), "name: counter", `name: "\"/><disk"`, 1),
		"other zone":    strings.Replace(pool("counter", 6, ""), "zone: office", "zone: nowhere", 1),
		"no image":      strings.Replace(pool("counter2", 6, ""), "image: micro", "image: nothing", 1),
	} {
		file := filepath.Join(t.TempDir(), "bad.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := r.try("apply", "-f", file); err == nil {
			t.Errorf("%s was accepted: %s", name, out)
		} else if strings.TrimSpace(out) == "" {
			t.Errorf("%s was refused without a word", name)
		}
	}
	r.settled(t, "counter", 6, time.Minute)
	if now := r.pids(t); !maps.Equal(before, now) {
		t.Errorf("QEMU processes changed: before %v, now %v", before, now)
	}
}

// qemuKilled: a desktop whose QEMU dies comes back as a new incarnation with the same identity.
func qemuKilled(t *testing.T, r *rig) {
	victim := r.desktops(t, "counter")["counter-2"]
	pid := r.pids(t)[victim.GetSpec().GetVmUuid()]
	killPID(t, pid)
	r.eventually(t, 4*time.Minute, "counter-2 replaced", func() (bool, string) {
		found, err := r.tryDesktops("counter")
		if err != nil {
			return false, err.Error()
		}
		now := found["counter-2"]
		return isReady(now) && now.GetIncarnation().GetGeneration() > victim.GetIncarnation().GetGeneration(), states(found)
	})
	now := r.desktops(t, "counter")["counter-2"]
	if now.GetSpec().GetVmUuid() != victim.GetSpec().GetVmUuid() || now.GetSpec().GetMac() != victim.GetSpec().GetMac() {
		t.Errorf("identity changed: %v, was %v", now.GetSpec(), victim.GetSpec())
	}
}

// claimAndRelease: the user's traces are gone before the seat is offered again.
func claimAndRelease(t *testing.T, r *rig) {
	out := r.cli(t, "claim", "counter", "--user", "花子", "--no-wait", "-o", "json")
	again := r.cli(t, "claim", "counter", "--user", "花子", "--no-wait", "-o", "json")
	name := claimed(t, r, "花子")
	if !strings.Contains(out, name) || !strings.Contains(again, name) {
		t.Fatalf("two claims of one user: %s and %s", out, again)
	}
	d := r.desktops(t, "counter")[name]
	r.guestRun(t, d.GetIncarnation().GetHost(), d.GetSpec().GetVmUuid(), "echo secret >/root/secret; sync")
	r.cli(t, "release", "counter", "--user", "花子")
	r.eventually(t, 4*time.Minute, name+" made anew", func() (bool, string) {
		found, err := r.tryDesktops("counter")
		if err != nil {
			return false, err.Error()
		}
		return isReady(found[name]) && found[name].GetIncarnation().GetGeneration() > d.GetIncarnation().GetGeneration(), states(found)
	})
	now := r.desktops(t, "counter")[name]
	if left := r.guestRun(t, now.GetIncarnation().GetHost(), now.GetSpec().GetVmUuid(), "ls /root/secret 2>/dev/null || true"); left != "" {
		t.Errorf("the next user of %s finds %s", name, left)
	}
}

func claimed(t *testing.T, r *rig, user string) string {
	t.Helper()
	for name, d := range r.desktops(t, "counter") {
		if d.GetClaim().GetUser() == user {
			return name
		}
	}
	t.Fatalf("nobody holds a desktop as %s", user)
	return ""
}
