//go:build e2e

package e2e

import (
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

func killPID(t *testing.T, pid int) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to kill: %d", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// dataDisk: what a user writes to the data disk is there in the next incarnation, and goes only by explicit word.
func dataDisk(t *testing.T, r *rig) {
	r.apply(t, pool("files", 1, ", dataDiskGib: 1"))
	d := r.settled(t, "files", 1, 4*time.Minute)["files-1"]
	host, uuid := d.GetIncarnation().GetHost(), d.GetSpec().GetVmUuid()
	r.eventually(t, time.Minute, "data disk mounted", func() (bool, string) {
		out := r.guestRun(t, host, uuid, "mount | grep ' /data ' || true")
		return out != "", "no /data"
	})
	r.guestRun(t, host, uuid, "echo kept >/data/letter; sync; umount /data 2>/dev/null; sync")
	r.cli(t, "claim", "files", "--user", "jiro", "--no-wait")
	r.cli(t, "release", "files", "--user", "jiro")
	r.eventually(t, 4*time.Minute, "files-1 made anew", func() (bool, string) {
		found, err := r.tryDesktops("files")
		if err != nil {
			return false, err.Error()
		}
		now := found["files-1"]
		return isReady(now) && now.GetIncarnation().GetGeneration() > d.GetIncarnation().GetGeneration(), states(found)
	})
	now := r.desktops(t, "files")["files-1"]
	if now.GetIncarnation().GetHost() != host {
		t.Fatalf("files-1 left the host of its data: %s, was %s", now.GetIncarnation().GetHost(), host)
	}
	r.eventually(t, time.Minute, "letter found", func() (bool, string) {
		out := r.guestRun(t, host, uuid, "cat /data/letter 2>/dev/null || true")
		return out == "kept", out
	})
	if out, err := r.try("delete", "pool", "files"); err == nil {
		t.Errorf("a pool with data was deleted without a word on the data: %s", out)
	}
	r.cli(t, "delete", "pool", "files", "--data", "delete")
	r.eventually(t, 3*time.Minute, "pool files gone", func() (bool, string) {
		_, err := r.try("get", "pool", "files")
		return err != nil, "still there"
	})
}

// killedWhileWarming kills every part at arbitrary moments of a warm-up.
func killedWhileWarming(t *testing.T, r *rig) {
	old := generationsOf(r.desktops(t, "counter"))
	before := r.pids(t)
	r.apply(t, pool("counter", 9, ""))
	victims := []struct{ where, name string }{
		{"control", "daybreakd"}, {"h1", "agent"}, {"h2", "libvirtd"}, {"h2", "agent"}, {"h1", "libvirtd"}, {"control", "daybreakd"},
	}
	for _, victim := range victims {
		time.Sleep(time.Duration(300+rand.IntN(1700)) * time.Millisecond)
		r.checkOneQEMU(t)
		if out, err := r.command(time.Minute, filepath.Join(r.root, "deploy", "lab"), "pid", victim.where, victim.name); err != nil {
			t.Logf("%s on %s is not up to be killed: %s", victim.name, victim.where, out)
			continue
		}
		r.kill(t, victim.where, victim.name)
	}
	found := r.settled(t, "counter", 9, 6*time.Minute)
	now := r.pids(t)
	for uuid, pid := range before {
		if now[uuid] != pid {
			t.Errorf("the desktop with UUID %s, ready before, was stopped by the kills", uuid)
		}
	}
	for name, generation := range old {
		if found[name].GetIncarnation().GetGeneration() != generation {
			t.Errorf("%s was made anew", name)
		}
	}
}

// partition: an unreachable host is not a free one; its desktops run on and are found again.
func partition(t *testing.T, r *rig) {
	before := r.pids(t)
	generations := generationsOf(r.desktops(t, "counter"))
	r.lab(t, "link", "h2", "down")
	r.eventually(t, 3*time.Minute, "h2 down and its desktops lost", func() (bool, string) {
		found, err := r.tryDesktops("counter")
		if err != nil {
			return false, err.Error()
		}
		for _, d := range found {
			if d.GetIncarnation().GetHost() == "h2" && d.GetStatus().GetState() != v1.DesktopState_DESKTOP_STATE_LOST {
				return false, states(found)
			}
		}
		return true, ""
	})
	if now := r.pids(t); !maps.Equal(before, now) {
		t.Errorf("QEMU processes changed: before %v, now %v", before, now)
	}
	r.lab(t, "link", "h2", "up")
	found := r.settled(t, "counter", 9, 3*time.Minute)
	if now := r.pids(t); !maps.Equal(before, now) {
		t.Errorf("QEMU processes changed over the partition: before %v, now %v", before, now)
	}
	if now := generationsOf(found); !maps.Equal(generations, now) {
		t.Errorf("incarnations changed: before %v, now %v", generations, now)
	}
}

// powerLoss: the whole host dies and comes back; its desktops come back as new incarnations, nobody else's stop.
func powerLoss(t *testing.T, r *rig) {
	before := r.desktops(t, "counter")
	pids := r.pids(t)
	r.kill(t, "h1", "init")
	r.lab(t, "power-on", "h1")
	r.eventually(t, 3*time.Minute, "the dead desktops of h1 replaced", func() (bool, string) {
		found, err := r.tryDesktops("counter")
		if err != nil {
			return false, err.Error()
		}
		for name, d := range before {
			if d.GetIncarnation().GetHost() == "h1" && found[name].GetIncarnation().GetGeneration() <= d.GetIncarnation().GetGeneration() {
				return false, name + " is still the incarnation that died: " + states(found)
			}
		}
		return true, ""
	})
	r.settled(t, "counter", 9, 8*time.Minute)
	now := r.pids(t)
	for name, d := range before {
		uuid := d.GetSpec().GetVmUuid()
		if d.GetIncarnation().GetHost() == "h2" && now[uuid] != pids[uuid] {
			t.Errorf("%s on h2 was stopped by the power loss of h1", name)
		}
	}
}

// deleteLeavesNothing: after the pool went, no QEMU and no overlay is left on any host.
func deleteLeavesNothing(t *testing.T, r *rig) {
	r.cli(t, "delete", "pool", "counter")
	r.eventually(t, 4*time.Minute, "pool counter gone", func() (bool, string) {
		out, err := r.try("get", "pool", "counter")
		return err != nil && strings.Contains(out, "counter"), out
	})
	r.eventually(t, time.Minute, "no QEMU left", func() (bool, string) {
		vms := r.qemus(t)
		return len(vms) == 0, "still running"
	})
	overlays, err := filepath.Glob(filepath.Join(r.dir, "h*", "agent", "store", "overlays", "*.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(overlays) != 0 {
		t.Errorf("overlays left behind: %v", overlays)
	}
	if _, err := os.Stat(r.dir); err != nil {
		t.Fatal(err)
	}
}
