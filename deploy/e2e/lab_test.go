//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestLab starts a lab of its own beside any other, takes libvirtd and then a whole host from it, and checks that `down` leaves
// no process, mount, namespace or interface.
func TestLab(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the lab needs root: run this test as root")
	}
	dir := t.TempDir()
	lab := func(args ...string) string {
		t.Helper()
		return runLab(t, dir, args...)
	}
	before := interfaces(t)
	t.Cleanup(func() { runLab(t, dir, "down") })
	lab("up", "--bare", "--hosts", "2")
	if diff := cmp.Diff(before, interfaces(t)); diff != "" {
		t.Errorf("the lab changed the machine's own network (-before +while it is up):\n%s", diff)
	}

	// A dead libvirtd comes back by itself.
	first := lab("pid", "h1", "libvirtd")
	kill(t, first)
	eventually(t, "a new libvirtd on h1", func() bool {
		pid, err := tryLab(dir, "pid", "h1", "libvirtd")
		return err == nil && pid != first
	})

	// A host without power runs nothing; with power it is back under its old name.
	libvirtd := lab("pid", "h2", "libvirtd")
	kill(t, lab("pid", "h2", "init"))
	eventually(t, "the end of h2's libvirtd", func() bool { return syscall.Kill(atoi(t, libvirtd), 0) == syscall.ESRCH })
	lab("power-on", "h2")
	if got := lab("shell", "h2", "hostname"); got != "h2" {
		t.Errorf("hostname of h2 after power-on = %q", got)
	}

	held := map[string]bool{}
	for _, node := range []string{"control", "h1", "h2"} {
		for _, ns := range namespaces(lab("pid", node, "init")) {
			held[ns] = true
		}
	}
	if len(held) != 3*len(kinds) {
		t.Fatalf("the nodes' own namespaces = %v, want %d", held, 3*len(kinds))
	}
	lab("down")
	eventually(t, "the end of every process of the lab", func() bool { return len(leftovers(t, dir, held)) == 0 })
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(mounts, []byte(dir)) {
		t.Errorf("mounts of the lab are left:\n%s", mounts)
	}
	if diff := cmp.Diff(before, interfaces(t)); diff != "" {
		t.Errorf("interfaces (-before +after):\n%s", diff)
	}
}

var kinds = []string{"mnt", "net", "pid", "uts", "ipc"}

func namespaces(pid string) []string {
	var found []string
	for _, kind := range kinds {
		if ns, err := os.Readlink(filepath.Join("/proc", pid, "ns", kind)); err == nil {
			found = append(found, ns)
		}
	}
	return found
}

// leftovers lists the processes that name the lab's folder or live in one of its namespaces.
func leftovers(t *testing.T, dir string, held map[string]bool) []string {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, proc := range procs {
		cmdline, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		mine := bytes.Contains(cmdline, []byte(dir))
		for _, ns := range namespaces(filepath.Base(proc)) {
			mine = mine || held[ns]
		}
		if mine {
			left = append(left, proc+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return left
}

func interfaces(t *testing.T) []string {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

func runLab(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := tryLab(dir, args...)
	if err != nil {
		t.Fatalf("deploy/lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// tryLab returns only when nothing holds the command's output open any more, so it also shows that the lab's daemons do not.
func tryLab(dir string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "../lab", args...)
	cmd.Env = append(os.Environ(), "DAYBREAK_LAB_DIR="+dir)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func kill(t *testing.T, pid string) {
	t.Helper()
	if err := syscall.Kill(atoi(t, pid), syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", pid, err)
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil || n <= 1 {
		t.Fatalf("%q is no process id", text)
	}
	return n
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("not within 30 s: %s", what)
		case <-tick.C:
		}
	}
}
