//go:build e2e

package libvirt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp/raw"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/hostagent/disk"
	"daybreak/hostagent/hosttest"
	"daybreak/hostagent/libvirt"
)

// The suite on real libvirt and QEMU: one lab host without an agent, its store on a small file system of its own. As root:
//
//	go test -tags libvirt_dlopen,e2e ./hostagent/libvirt
func TestConformance(t *testing.T) {
	hosttest.Run(t, func(t *testing.T) *hosttest.Rig {
		r, _ := newRig(t)
		return r
	})
}

// A VM's monitor through libvirt: go-qemu's types read what QEMU says today.
func TestMonitor(t *testing.T) {
	r, host := newRig(t)
	if err := r.Disks.EnsureBase(t.Context(), r.Image.Digest(), r.Image, func(uint32) {}); err != nil {
		t.Fatal(err)
	}
	life := hostagent.Life{Desktop: "monitored", UID: uuid.NewString(), Generation: 1}
	base, overlay, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Hypervisor.Start(t.Context(), hostagent.Machine{
		Life: life, VMUUID: uuid.NewString(), MAC: "52:54:00:00:00:01", VCPUs: 1, MemoryMiB: 64,
		Base: base, Overlay: overlay, VNC: filepath.Join(r.VNCDir, "monitored.vnc"), Emulate: r.Emulate,
	})
	if err != nil {
		t.Fatal(err)
	}
	monitor := raw.NewMonitor(host.Monitor(life))
	status, err := monitor.QueryStatus()
	if err != nil || !status.Running {
		t.Errorf("QueryStatus = %+v, %v", status, err)
	}
	blocks, err := monitor.QueryBlock()
	if err != nil || len(blocks) != 1 || blocks[0].Inserted.File != overlay || blocks[0].IOStatus == nil {
		t.Errorf("QueryBlock = %+v, %v", blocks, err)
	}
	if err := monitor.Stop(); err != nil {
		t.Fatal(err)
	}
	if status, err := monitor.QueryStatus(); err != nil || status.Running {
		t.Errorf("after stop: QueryStatus = %+v, %v", status, err)
	}
	if err := r.Hypervisor.Destroy(t.Context(), life); err != nil {
		t.Error(err)
	}
}

const (
	imageVersion = "e2e"
	storeBytes   = 1 << 30
)

// lab is one bare lab host.
type lab struct {
	dir   string
	store string
}

func (l *lab) run(t *testing.T, command string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join("..", "..", "deploy", command), args...)
	cmd.Env = append(os.Environ(), "DAYBREAK_LAB_DIR="+filepath.Join(l.dir, "lab"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("deploy/%s %s: %v\n%s%s", command, strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func (l *lab) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	pid, err := strconv.Atoi(l.run(t, "lab", "pid", "h1", "libvirtd"))
	if err == nil {
		err = syscall.Kill(pid, sig)
	}
	if err != nil {
		t.Fatalf("signal libvirtd: %v", err)
	}
}

// newLab mounts the store before the host starts, since the host's namespace is a copy of what is mounted then.
func newLab(t *testing.T, storeBytes int64) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("/var/tmp", "dbkhost")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l := &lab{dir: dir, store: filepath.Join(dir, "fs", "store")}
	image, mount := filepath.Join(dir, "fs.img"), filepath.Join(dir, "fs")
	err = errors.Join(os.Chmod(dir, 0o711), os.Mkdir(mount, 0o711), os.WriteFile(image, nil, 0o600), os.Truncate(image, storeBytes))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", command, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mount).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	l.run(t, "lab", "up", "--bare", "--hosts", "1")
	t.Cleanup(func() { l.run(t, "lab", "down", "--purge") })
	return l
}

// golden is the micro image: DAYBREAK_MICRO names one with version "e2e", else it is made.
func (l *lab) golden(t *testing.T) *hosttest.Image {
	t.Helper()
	path := os.Getenv("DAYBREAK_MICRO")
	if path == "" {
		path = filepath.Join(l.dir, "micro.raw")
		l.run(t, filepath.Join("golden", "micro"), path, "--version", imageVersion)
	}
	return readImage(t, path)
}

func readImage(t *testing.T, path string) *hosttest.Image {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return hosttest.NewImage(t, f, info.Size())
}

// qemuUser returns who QEMU runs as on a lab host.
func qemuUser(t *testing.T) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("libvirt-qemu")
	if err == nil {
		uid, err = strconv.Atoi(u.Uid)
	}
	if err == nil {
		gid, err = strconv.Atoi(u.Gid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

// A QEMU that hangs before it speaks to libvirt keeps its start for ever. Others go on, and Destroy ends it.
func TestStartThatHangs(t *testing.T) {
	r, host := newRig(t)
	if err := r.Disks.EnsureBase(t.Context(), r.Image.Digest(), r.Image, func(uint32) {}); err != nil {
		t.Fatal(err)
	}
	machine := func(desktop, mac string) hostagent.Machine {
		life := hostagent.Life{Desktop: desktop, UID: uuid.NewString(), Generation: 1}
		base, overlay, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return hostagent.Machine{
			Life: life, VMUUID: uuid.NewString(), MAC: mac, Bridge: r.Bridge, VCPUs: 1, MemoryMiB: 64,
			Base: base, Overlay: overlay, VNC: filepath.Join(r.VNCDir, desktop+".vnc"), Emulate: r.Emulate,
		}
	}
	hanging, other := machine("hanging", "52:54:00:00:00:01"), machine("other", "52:54:00:00:00:02")
	var g errgroup.Group
	g.Go(func() error {
		for {
			if pid, ok := findQEMU(hanging.Life); ok {
				return syscall.Kill(pid, syscall.SIGSTOP)
			}
		}
	})
	err := host.Start(t.Context(), hanging)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, hostagent.ErrTimeout) {
		t.Fatalf("Start = %v, want ErrTimeout", err)
	}
	if err := errors.Join(host.Start(t.Context(), other), host.Destroy(t.Context(), other.Life)); err != nil {
		t.Errorf("another desktop meanwhile: %v", err)
	}
	if err := host.Destroy(t.Context(), hanging.Life); err != nil && !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("Destroy = %v", err)
	}
	if pid, ok := findQEMU(hanging.Life); ok {
		t.Errorf("QEMU %d is still there", pid)
	}
	if err := errors.Join(host.Start(t.Context(), hanging), host.Destroy(t.Context(), hanging.Life)); err != nil {
		t.Errorf("started once more: %v", err)
	}
}

func newRig(t *testing.T) (*hosttest.Rig, *libvirt.Host) {
	return newRigOf(t, storeBytes)
}

func newRigOf(t *testing.T, storeBytes int64) (*hosttest.Rig, *libvirt.Host) {
	l := newLab(t, storeBytes)
	uid, gid := qemuUser(t)
	vnc := filepath.Join(l.dir, "vnc")
	if err := errors.Join(os.Mkdir(vnc, 0o700), os.Chown(vnc, uid, gid)); err != nil {
		t.Fatal(err)
	}
	log := zerolog.New(zerolog.NewTestWriter(t)).With().Timestamp().Logger()
	disks, err := disk.Open(disk.Config{Root: l.store, UID: uid, GID: gid}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disks.Close() })
	host, err := libvirt.Open(libvirt.Config{
		URI:   "qemu+unix:///system?socket=" + filepath.Join(l.dir, "lab", "h1", "run", "libvirt-sock"),
		Store: l.store, AllowEmulation: true,
		ListTimeout: 5 * time.Second, ChangeTimeout: 15 * time.Second, GuestTimeout: 8 * time.Second,
	}, log)
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { return host.Run(t.Context()) })
	t.Cleanup(func() {
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	posture, err := host.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if posture.UID != uid || posture.GID != gid || posture.QEMUVersion == "" || posture.LibvirtVersion == "" {
		t.Errorf("posture %+v, want QEMU as %d:%d", posture, uid, gid)
	}
	noKVM := libvirt.ProbeKVM(t.Context(), posture.Emulator, posture.UID, posture.GID, 10*time.Second)
	t.Logf("posture %+v, KVM: %v", posture, noKVM)
	return &hosttest.Rig{
		Hypervisor: host, Guest: host, Disks: disks, Builds: host, BuildGuest: host, BuildDisks: disks,
		Image: l.golden(t), ImageVersion: imageVersion, Argv: []string{"/bin/echo", "warm", "desktops"}, Output: "warm desktops\n",
		Emulate: noKVM != nil, Bridge: "br-office", VNCDir: vnc, Patience: 3 * time.Minute, Deadline: 20 * time.Second,
		KillGuest:      func(life hostagent.Life) { signalQEMU(t, life, syscall.SIGKILL) },
		StopGuest:      func(life hostagent.Life) { signalQEMU(t, life, syscall.SIGSTOP) },
		KillHypervisor: func() { l.signal(t, syscall.SIGKILL) },
		StopHypervisor: func() func() {
			l.signal(t, syscall.SIGSTOP)
			return sync.OnceFunc(func() { l.signal(t, syscall.SIGCONT) })
		},
		FillStore: func() func() { return l.fill(t) },
		WriteFile: func(path, content string, status int) []string {
			return []string{"/bin/sh", "-c", `printf %s "$2" >"$1"; exit "$3"`, "sh", path, content, strconv.Itoa(status)}
		},
		WriteMuch: []string{"/bin/dd", "if=/dev/urandom", "of=/much", "bs=1M", "count=40", "conv=fsync"},
		Tick: func(t *testing.T, life hostagent.Life) float64 {
			return number(t, said(t, host, life, "/bin/cat", "/proc/uptime"))
		},
		Clock: func(t *testing.T, life hostagent.Life) time.Time {
			return time.Unix(int64(number(t, said(t, host, life, "/bin/date", "+%s"))), 0)
		},
		Use: func(t *testing.T, life hostagent.Life) { l.useGuest(t, host, life) },
		Identity: func(t *testing.T, life hostagent.Life) string {
			return said(t, host, life, "/bin/cat", "/sys/class/net/eth0/address", "/sys/class/dmi/id/product_uuid")
		},
		HasProcess:    func(life hostagent.Life) bool { _, ok := findQEMU(life); return ok },
		ForeignMemory: foreignMemory,
		Saving:        func(t *testing.T, life hostagent.Life) { l.awaitSaving(t, life) },
	}, host
}

// fill takes all of the store but 4 MiB.
func (l *lab) fill(t *testing.T) (undo func()) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(l.store, &st); err != nil {
		t.Fatal(err)
	}
	ballast, err := os.Create(filepath.Join(l.dir, "fs", "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	if err := unix.Fallocate(int(ballast.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-4<<20); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		if err := os.Remove(ballast.Name()); err != nil {
			t.Error(err)
		}
	})
}

// signalQEMU signals the one QEMU whose arguments name the life's overlay.
func signalQEMU(t *testing.T, life hostagent.Life, sig syscall.Signal) {
	t.Helper()
	pid, ok := findQEMU(life)
	if !ok {
		t.Fatalf("no QEMU runs on the overlay of %+v", life)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

func findQEMU(life hostagent.Life) (pid int, ok bool) {
	overlay := fmt.Sprintf("%s.%d.qcow2", life.UID, life.Generation)
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		args, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(args, []byte(overlay)) || !bytes.Contains(args, []byte("qemu-system")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		return pid, err == nil
	}
	return 0, false
}
