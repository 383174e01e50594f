//go:build e2e

// Package e2e proves the main job on real guests: a lab of real libvirt hosts, real QEMU, real etcd, mTLS, and the
// programs as they are shipped.
//
// Here: the rig that starts a lab and looks at it from outside, and the stories. Not here: anything that a test without
// guests can prove. Run by deploy/test, as root: go test -tags libvirt_dlopen,e2e ./deploy/e2e
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// rig is a running lab, seen from outside: through its command line, /proc and virsh.
type rig struct {
	root string
	dir  string
	env  []string
}

// start brings a lab up for the whole test and takes it down afterwards.
func start(t *testing.T, hosts int) *rig {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	// Short, since paths of UNIX sockets end at 108 bytes.
	dir, err := os.MkdirTemp("/var/tmp", "dbk")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{root: root, dir: dir}
	r.env = append(os.Environ(), "DAYBREAK_LAB_DIR="+dir, "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
	t.Cleanup(func() {
		if t.Failed() {
			r.showLogs(t)
		}
		if out, err := r.command(2*time.Minute, filepath.Join(root, "deploy", "lab"), "down", "--purge"); err != nil {
			t.Errorf("lab down: %v\n%s", err, out)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r.lab(t, "up", "--hosts", strconv.Itoa(hosts), "--emulate")
	r.env = append(r.env, "DAYBREAK_CONFIG="+filepath.Join(dir, "control", "data", "admin.yaml"))
	return r
}

// command runs a program to its end and returns what it printed.
func (r *rig) command(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = r.env
	cmd.Dir = r.root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	return out.String(), err
}

func (r *rig) lab(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.command(5*time.Minute, filepath.Join(r.root, "deploy", "lab"), args...)
	if err != nil {
		t.Fatalf("deploy/lab %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// cli runs the daybreak command line and fails the test if it fails.
func (r *rig) cli(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.try(args...)
	if err != nil {
		t.Fatalf("daybreak %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// try runs the command line and returns its error.
func (r *rig) try(args ...string) (string, error) {
	return r.command(10*time.Minute, filepath.Join(r.root, "bin", "daybreak"), args...)
}

// apply writes objects to a file and applies it.
func (r *rig) apply(t *testing.T, yaml string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	r.cli(t, "apply", "-f", file)
}

// golden makes the micro image of a version, once per lab.
func (r *rig) golden(t *testing.T, version int) string {
	t.Helper()
	out := filepath.Join(r.dir, "images", fmt.Sprintf("micro-%d.raw", version))
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := r.command(5*time.Minute, filepath.Join(r.root, "deploy", "golden", "micro"), out, "--version", strconv.Itoa(version))
	if err != nil {
		t.Fatalf("golden/micro: %v\n%s", err, text)
	}
	return out
}

// desktops returns a pool's desktops as the API shows them, by name.
func (r *rig) desktops(t *testing.T, pool string) map[string]*v1.Desktop {
	t.Helper()
	found, err := r.tryDesktops(pool)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (r *rig) tryDesktops(pool string) (map[string]*v1.Desktop, error) {
	out, err := r.try("get", "desktops", "--pool", pool, "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("get desktops: %w: %s", err, out)
	}
	found := map[string]*v1.Desktop{}
	for _, item := range items(out) {
		desktop := &v1.Desktop{}
		if err := protojson.Unmarshal(item, desktop); err != nil {
			return nil, fmt.Errorf("read %s: %w", item, err)
		}
		found[desktop.GetMeta().GetName()] = desktop
	}
	return found, nil
}

// get reads one object of the API.
func (r *rig) get(t *testing.T, kind, name string, into proto.Message) {
	t.Helper()
	out := r.cli(t, "get", kind, name, "-o", "json")
	if err := protojson.Unmarshal([]byte(out), into); err != nil {
		t.Fatalf("read %s: %v", out, err)
	}
}

// settled waits until the pool has exactly n desktops and every one is ready in its present generation.
func (r *rig) settled(t *testing.T, pool string, n int, limit time.Duration) map[string]*v1.Desktop {
	t.Helper()
	var found map[string]*v1.Desktop
	r.eventually(t, limit, fmt.Sprintf("%d desktops of %s ready", n, pool), func() (bool, string) {
		var err error
		if found, err = r.tryDesktops(pool); err != nil {
			return false, err.Error()
		}
		ready := 0
		for _, d := range found {
			if isReady(d) {
				ready++
			}
		}
		return ready == n && len(found) == n, fmt.Sprintf("%d of %d ready: %s", ready, len(found), states(found))
	})
	return found
}

func isReady(d *v1.Desktop) bool {
	return d.GetStatus().GetGeneration() == d.GetIncarnation().GetGeneration() &&
		d.GetStatus().GetState() == v1.DesktopState_DESKTOP_STATE_READY && d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY
}

func states(found map[string]*v1.Desktop) string {
	var parts []string
	for name, d := range found {
		parts = append(parts, fmt.Sprintf("%s@%s %s (%s)", name, d.GetIncarnation().GetHost(), d.GetStatus().GetState(), d.GetStatus().GetMessage()))
	}
	return strings.Join(parts, "; ")
}

// promised waits until a host says that so much memory is promised to the VMs that run there, MiB.
func (r *rig) promised(t *testing.T, limit time.Duration, name string, mib uint64) {
	t.Helper()
	r.eventually(t, limit, fmt.Sprintf("host %s has promised %d MiB", name, mib), func() (bool, string) {
		out, err := r.try("get", "hosts", "-o", "json")
		if err != nil {
			return false, fmt.Sprint(err, out)
		}
		for _, item := range items(out) {
			var host v1.Host
			if err := protojson.Unmarshal(item, &host); err != nil {
				return false, err.Error()
			}
			if host.GetMeta().GetName() == name {
				return host.GetStatus().GetUsage().GetRunningMemoryMib() == mib, host.GetStatus().GetUsage().String()
			}
		}
		return false, "it is not in the list"
	})
}

// onHost counts the desktops on a host.
func onHost(found map[string]*v1.Desktop, host string) int {
	n := 0
	for _, d := range found {
		if d.GetIncarnation().GetHost() == host {
			n++
		}
	}
	return n
}

// eventually asks until the answer is yes. The lab runs in real time, so there is nothing to wait on but the clock.
func (r *rig) eventually(t *testing.T, limit time.Duration, what string, ask func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		ok, why := ask()
		r.checkOneQEMU(t)
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s\nlast seen: %s", limit, what, why)
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// kill sends SIGKILL to one of the lab's processes, by its process id.
func (r *rig) kill(t *testing.T, where, name string) {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(r.lab(t, "pid", where, name)))
	if err != nil || pid <= 1 {
		t.Fatalf("pid of %s on %s: %d, %v", name, where, pid, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s on %s (pid %d): %v", name, where, pid, err)
	}
}

// logged counts the lines of a log in the lab's directory that have a text.
func (r *rig) logged(t *testing.T, log, text string) int {
	t.Helper()
	lines, err := os.ReadFile(filepath.Join(r.dir, log))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(lines, []byte(text))
}

func (r *rig) showLogs(t *testing.T) {
	for _, pattern := range []string{"*/log/*.log"} {
		files, _ := filepath.Glob(filepath.Join(r.dir, pattern))
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			if len(text) > 6000 {
				text = text[len(text)-6000:]
			}
			t.Logf("--- %s\n%s", file, text)
		}
	}
}
