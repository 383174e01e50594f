//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// qemu is one running QEMU, found in /proc: the truth that no part of Daybreak had a hand in.
type qemu struct {
	pid  int
	uuid string
	host string
	// files that it has open for the guest: overlays, bases, data disks.
	files []string
	uid   string
}

// qemus lists the QEMU processes of this lab. They are recognised by a mount namespace in which the lab's directory is
// mounted, so that other labs on the machine are not counted.
func (r *rig) qemus(t *testing.T) []qemu {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []qemu
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil || !bytes.Contains(text, []byte("qemu-system")) {
			continue
		}
		dir := filepath.Dir(entry)
		mounts, err := os.ReadFile(filepath.Join(dir, "mountinfo"))
		if err != nil || !bytes.Contains(mounts, []byte(filepath.Base(r.dir)+"/h")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		args := strings.Split(string(text), "\x00")
		vm := qemu{pid: pid, host: hostOf(string(mounts), filepath.Base(r.dir)), uid: realUID(dir)}
		for i, arg := range args {
			if arg == "-uuid" && i+1 < len(args) {
				vm.uuid = args[i+1]
			}
		}
		if vm.uuid == "" {
			continue // a capability probe of libvirt's, not a guest
		}
		links, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
		for _, link := range links {
			if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, "/var/lib/daybreak-agent") {
				vm.files = append(vm.files, target)
			}
		}
		found = append(found, vm)
	}
	return found
}

// hostOf reads the host's name out of the source of its bind mounts: …/dbk123/h1/agent.
func hostOf(mounts, lab string) string {
	_, rest, ok := strings.Cut(mounts, lab+"/h")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return "h" + name
}

func realUID(dir string) string {
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(status), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Uid:" {
			return fields[1]
		}
	}
	return ""
}

// checkOneQEMU is invariant 1: a desktop has at most one running QEMU, on whatever host.
func (r *rig) checkOneQEMU(t *testing.T) {
	t.Helper()
	seen := map[string]qemu{}
	disks := map[string]qemu{}
	for _, vm := range r.qemus(t) {
		if other, twice := seen[vm.uuid]; twice && alive(other.pid) && alive(vm.pid) {
			t.Fatalf("desktop %s runs twice: pid %d on %s and pid %d on %s", vm.uuid, other.pid, other.host, vm.pid, vm.host)
		}
		seen[vm.uuid] = vm
		for _, file := range vm.files {
			if !strings.Contains(file, "/overlays/") && !strings.Contains(file, "/data/") {
				continue
			}
			key := vm.host + file
			if other, twice := disks[key]; twice && other.pid != vm.pid && alive(other.pid) && alive(vm.pid) {
				t.Fatalf("%s is open in pid %d and pid %d", key, other.pid, vm.pid)
			}
			disks[key] = vm
		}
	}
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return ok && !strings.HasPrefix(rest, "Z")
}

// pids returns the process id of each desktop's QEMU by VM UUID.
func (r *rig) pids(t *testing.T) map[string]int {
	t.Helper()
	found := map[string]int{}
	for _, vm := range r.qemus(t) {
		found[vm.uuid] = vm.pid
	}
	return found
}

// guestRun runs a shell command inside a guest through virsh, past everything of Daybreak's, and returns its output.
func (r *rig) guestRun(t *testing.T, host, uuid, script string) string {
	t.Helper()
	start, err := json.Marshal(map[string]any{"execute": "guest-exec", "arguments": map[string]any{
		"path": "/bin/sh", "arg": []string{"-c", script}, "capture-output": true}})
	if err != nil {
		t.Fatal(err)
	}
	var begun struct{ Return struct{ Pid int } }
	r.guestAgent(t, host, uuid, string(start), &begun)
	var output string
	r.eventually(t, 30*time.Second, "guest command ends: "+script, func() (bool, string) {
		var state struct {
			Return struct {
				Exited   bool
				Exitcode int
				OutData  string `json:"out-data"`
				ErrData  string `json:"err-data"`
			}
		}
		r.guestAgent(t, host, uuid, fmt.Sprintf(`{"execute":"guest-exec-status","arguments":{"pid":%d}}`, begun.Return.Pid), &state)
		text, _ := base64.StdEncoding.DecodeString(state.Return.OutData)
		output = string(text)
		if state.Return.Exited && state.Return.Exitcode != 0 {
			errText, _ := base64.StdEncoding.DecodeString(state.Return.ErrData)
			t.Fatalf("in guest %s: %s: exit %d: %s%s", uuid, script, state.Return.Exitcode, text, errText)
		}
		return state.Return.Exited, "still running"
	})
	return strings.TrimSpace(output)
}

func (r *rig) guestAgent(t *testing.T, host, uuid, command string, into any) {
	t.Helper()
	out := r.lab(t, "shell", host, "virsh", "-q", "qemu-agent-command", "--timeout", "10", uuid, command)
	if err := json.Unmarshal([]byte(strings.TrimSpace(out)), into); err != nil {
		t.Fatalf("guest agent of %s said %q: %v", uuid, out, err)
	}
}

// items cuts the list that -o json prints into its objects.
func items(out string) []json.RawMessage {
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil
	}
	return list.Items
}
