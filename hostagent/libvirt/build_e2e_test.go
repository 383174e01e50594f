//go:build e2e

package libvirt_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/hostagent/disk"
	"daybreak/hostagent/hosttest"
	"daybreak/hostagent/libvirt"
	v1 "daybreak/proto/daybreak/v1"
)

// Builds on real libvirt and QEMU, in real guests: one lab host, one image, several builds one after another.
func TestBuilds(t *testing.T) {
	r, host := newRig(t)
	b := newBuilds(t, r, host, r.Image)
	t.Run("Online", b.online)
	t.Run("Offline", b.offline)
	t.Run("Fails", b.fails)
	t.Run("CtrlC", b.ctrlC)
}

// newBuilds runs a host's builds until the test ends.
func newBuilds(t *testing.T, r *hosttest.Rig, host *libvirt.Host, versions ...*hosttest.Image) *builds {
	t.Helper()
	b := &builds{t: t, rig: r, deb: makeDeb(t), vnc: r.VNCDir, plane: hosttest.NewPlane(versions...), memory: 128}
	b.plane.ID = "e2e"
	var err error
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var group errgroup.Group
	group.Go(func() error { return b.plane.Serve(ctx) })
	b.builder, err = build.New(build.Config{VNCDir: r.VNCDir, Emulate: r.Emulate}, host, host, r.BuildDisks,
		zerolog.New(zerolog.NewTestWriter(t)).With().Timestamp().Logger())
	if err != nil {
		t.Fatal(err)
	}
	group.Go(func() error { return b.builder.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		_ = group.Wait()
	})
	return b
}

type builds struct {
	t       *testing.T
	rig     *hosttest.Rig
	plane   *hosttest.Plane
	builder *build.Builder
	deb     []byte
	vnc     string
	// memory of the VMs, MiB.
	memory uint32
}

// makeDeb makes a package of one file and one MiB that nothing compresses.
func makeDeb(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	script := `set -e; mkdir -p tree/DEBIAN tree/usr/share/greeting; umask 022
printf 'Package: greeting\nVersion: 1.2-3\nArchitecture: all\nMaintainer: Town Hall <it@example.jp>\nDescription: a greeting\n' >tree/DEBIAN/control
echo good morning >tree/usr/share/greeting/text; head -c 1048576 /dev/urandom >tree/usr/share/greeting/noise
dpkg-deb -Zgzip --root-owner-group -b tree greeting.deb`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make package: %v\n%s", err, out)
	}
	deb, err := os.ReadFile(filepath.Join(dir, "greeting.deb"))
	if err != nil {
		t.Fatal(err)
	}
	return deb
}

// order makes an order for a version.
func (b *builds) order(kind v1.BuildKind, digest string, change func(*v1.BuildOrder)) *v1.BuildAssignment {
	order := &v1.BuildOrder{
		Kind: kind, Image: "micro", Shape: &v1.Shape{Vcpus: 1, MemoryMib: b.memory}, BootTimeout: durationpb.New(b.rig.Patience),
		ScriptTimeout: durationpb.New(b.rig.Patience),
	}
	if change != nil {
		change(order)
	}
	b.plane.Task, b.plane.Then, b.plane.Say = &v1.BuildAssignment{Order: order, Digest: digest}, nil, nil
	if order.GetOffline() {
		b.plane.Task.ApplianceDigest = b.rig.Image.Digest()
	}
	return b.plane.Task
}

// bring adds the package to the order.
func (b *builds) bring(order *v1.BuildOrder) {
	order.Files = []*v1.BuildFile{{Path: "/root/pkg/greeting.deb", Size: uint64(len(b.deb)), Mode: 0o600}}
}

// run does what was ordered, and looks that nothing is left of it.
func (b *builds) run(t *testing.T) hosttest.Told {
	t.Helper()
	for part := range slices.Chunk(b.deb, 300_000) {
		if len(b.plane.Task.GetOrder().GetFiles()) > 0 {
			b.plane.Then = append(b.plane.Then, &v1.BuildTask{Say: &v1.BuildTask_FilePiece{FilePiece: part}})
		}
	}
	b.plane.Told()
	b.await(t, "the call is taken", func() bool {
		return b.builder.Accept(hostagent.BuildCall{ID: b.plane.ID, MemoryMiB: b.memory, Dial: b.plane.Dial, Source: b.plane}) == nil
	})
	b.await(t, "the build ends", func() bool { return b.builder.MemoryMiB() == 0 })
	told := b.plane.Told()
	for _, line := range told.Progress {
		t.Log(line)
	}
	t.Logf("output: %s\noutcome: %v", told.Output, told.Outcome)
	b.nothingLeft(t)
	return told
}

func (b *builds) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := time.After(3 * b.rig.Patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func (b *builds) nothingLeft(t *testing.T) {
	t.Helper()
	vms, err := b.rig.Builds.Builds(t.Context())
	if err != nil || len(vms) != 0 {
		t.Errorf("VMs left: %v (%v)", vms, err)
	}
	overlays, err := b.rig.BuildDisks.BuildOverlays(t.Context())
	if err != nil || len(overlays) != 0 {
		t.Errorf("overlays left: %v (%v)", overlays, err)
	}
	for _, entry := range readDir(t, b.vnc) {
		t.Errorf("screen left: %s", entry)
	}
}

func readDir(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// soil leaves in a guest what its sealing has to take away.
const soil = `mkdir -p /etc/ssh /var/lib/dhcp /var/lib/systemd /var/tmp
for file in /etc/ssh/ssh_host_rsa_key /var/lib/dhcp/eth0.leases /var/lib/systemd/random-seed /root/.ash_history /var/log/old.1 /var/tmp/left; do
  echo secret >$file
done
echo secret >/var/log/messages
`

// inspect prints what is to be known of a patched guest.
const inspect = `cat /usr/share/greeting/text
stat -c '%s %a' /usr/share/greeting/noise
find / -xdev -type f \( -path '/etc/ssh/*' -o -path '/var/lib/dhcp/*' -o -path '/var/lib/systemd/*' -o -path '/var/tmp/*' -o -name '.ash_history' \
  -o -path '/var/log/*' -size +0 -o -path '*daybreak-build*' -o -name policy-rc.d \) | sed 's/^/left: /'
echo "machine-id $(cat /etc/machine-id)"
`

// patched looks at a version in a guest of its own, through an interactive build.
func (b *builds) patched(t *testing.T, digest string) string {
	t.Helper()
	b.order(v1.BuildKind_BUILD_KIND_PATCH, digest, func(o *v1.BuildOrder) {
		o.Script, o.Interactive, o.Unsealed = []byte("#!/bin/sh\n"+inspect), true, true
	})
	var heard []string
	b.plane.Say = func(update *v1.BuildUpdate, answer func(*v1.BuildTask)) error {
		if len(update.GetScreen()) == 0 {
			return nil
		}
		heard = append(heard, string(update.GetScreen()))
		switch len(heard) {
		case 1: // the greeting
			answer(&v1.BuildTask{Say: &v1.BuildTask_Screen{Screen: []byte("RFB 003.008\n")}})
		case 2: // the ways to log in; this viewer goes
			answer(&v1.BuildTask{Say: &v1.BuildTask_Screen{}})
		case 3: // the greeting for the next viewer
			answer(&v1.BuildTask{Say: &v1.BuildTask_Seal{Seal: &v1.SealNow{}}})
		}
		return nil
	}
	told := b.run(t)
	if want := []string{"RFB 003.008\n", "\x01\x01", "RFB 003.008\n"}; told.Outcome.GetError() != "" || !slices.Equal(heard, want) {
		t.Errorf("outcome %v; of the screen %q was heard, want %q", told.Outcome, heard, want)
	}
	if !strings.HasPrefix(told.Output, "good morning\n1048576 644\nmachine-id ") {
		t.Errorf("the new version's guest has:\n%s", told.Output)
	}
	return told.Output
}

// cheap looks that a patch cost what it changed, by and large.
func cheap(t *testing.T, told hosttest.Told) {
	t.Helper()
	if o := told.Outcome; o.GetReadBytes() < 1<<20 || o.GetReadBytes() > 24<<20 || o.GetSentBytes() < 1<<20 || o.GetSentBytes() > 3<<20 {
		t.Errorf("%d bytes read and %d sent for a package of 1 MiB", o.GetReadBytes(), o.GetSentBytes())
	}
}

func (b *builds) online(t *testing.T) {
	b.order(v1.BuildKind_BUILD_KIND_PATCH, b.rig.Image.Digest(), func(o *v1.BuildOrder) {
		b.bring(o)
		o.Script = []byte("ls -l /root/pkg\ndpkg -i /root/pkg/greeting.deb\nrm -r /root/pkg\n" + soil + "cat /etc/machine-id\n")
	})
	told := b.run(t)
	if told.Outcome.GetError() != "" || told.Manifest == nil || !strings.Contains(told.Outcome.GetPackages(), "greeting 1.2-3\n") {
		t.Fatalf("outcome %v", told.Outcome)
	}
	cheap(t, told)
	digest := told.Manifest.Digest().String()
	b.order(v1.BuildKind_BUILD_KIND_CHECK, digest, nil)
	if check := b.run(t).Outcome; check.GetError() != "" || !strings.HasPrefix(check.GetCheck(), "guest agent answered ") || !strings.Contains(check.GetPackages(), "greeting 1.2-3\n") {
		t.Errorf("check: %v", check)
	}
	output := b.patched(t, digest)
	lines := strings.Fields(told.Output)
	if id := lines[len(lines)-1]; len(id) != 32 || strings.Contains(output, id) {
		t.Errorf("machine-id %q of the build is in the version:\n%s", id, output)
	}
}

func (b *builds) offline(t *testing.T) {
	b.deb = makeDeb(t) // one whose noise the store does not have
	b.order(v1.BuildKind_BUILD_KIND_PATCH, b.rig.Image.Digest(), func(o *v1.BuildOrder) {
		b.bring(o)
		o.Offline, o.Appliance = true, "micro"
		o.Script = []byte("ls -l /root/pkg\ndpkg -i /root/pkg/greeting.deb\nrm -r /root/pkg\n" + soil)
	})
	told := b.run(t)
	if told.Outcome.GetError() != "" || told.Manifest == nil || !strings.Contains(told.Outcome.GetPackages(), "greeting 1.2-3\n") {
		t.Fatalf("outcome %v", told.Outcome)
	}
	cheap(t, told)
	b.patched(t, told.Manifest.Digest().String())
}

func (b *builds) fails(t *testing.T) {
	b.order(v1.BuildKind_BUILD_KIND_PATCH, b.rig.Image.Digest(), func(o *v1.BuildOrder) { o.Script = []byte("echo before\nfalse\necho after\n") })
	if told := b.run(t); told.Output != "before\n" || !strings.Contains(told.Outcome.GetError(), "exit status 1") || told.Manifest != nil {
		t.Errorf("a script that fails: %+v", told)
	}
	b.order(v1.BuildKind_BUILD_KIND_PATCH, b.rig.Image.Digest(), func(o *v1.BuildOrder) {
		o.Script, o.ScriptTimeout = []byte("echo o >/proc/sysrq-trigger; sleep 100\n"), durationpb.New(time.Minute)
	})
	if told := b.run(t); told.Outcome.GetError() == "" || told.Manifest != nil {
		t.Errorf("a guest that cuts its own power: %+v", told)
	}
}

func (b *builds) ctrlC(t *testing.T) {
	b.order(v1.BuildKind_BUILD_KIND_PATCH, b.rig.Image.Digest(), func(o *v1.BuildOrder) { o.Script = []byte("echo begun; sleep 1000\n") })
	b.plane.Say = func(update *v1.BuildUpdate, _ func(*v1.BuildTask)) error {
		if len(update.GetOutput()) > 0 {
			return fmt.Errorf("Ctrl-C")
		}
		return nil
	}
	if told := b.run(t); told.Outcome != nil || told.Manifest != nil {
		t.Errorf("an outcome for nobody: %+v", told)
	}
}

// An agent that is killed in the middle of a build leaves nothing that the next one does not take away.
func TestBuildAgentKilled(t *testing.T) {
	if socket := os.Getenv("DAYBREAK_BUILD_PLANE"); socket != "" {
		buildAgent(t, socket)
		return
	}
	r, host := newRig(t)
	socket := filepath.Join(t.TempDir(), "plane")
	plane, err := hosttest.NewPlaneAt(socket, r.Image)
	if err != nil {
		t.Fatal(err)
	}
	b := &builds{t: t, rig: r, plane: plane, vnc: r.VNCDir, memory: 128}
	plane.ID = "e2e"
	b.order(v1.BuildKind_BUILD_KIND_PATCH, r.Image.Digest(), func(o *v1.BuildOrder) { o.Script = []byte("echo begun; sleep 1000\n") })
	begun := make(chan struct{}, 100)
	plane.Say = func(update *v1.BuildUpdate, _ func(*v1.BuildTask)) error {
		if len(update.GetOutput()) > 0 {
			begun <- struct{}{}
		}
		return nil
	}
	var group errgroup.Group
	ctx, cancel := context.WithCancel(t.Context())
	group.Go(func() error { return plane.Serve(ctx) })
	defer func() {
		cancel()
		_ = group.Wait()
	}()
	if err := r.BuildDisks.EnsureBase(t.Context(), r.Image.Digest(), r.Image, func(uint32) {}); err != nil {
		t.Fatal(err)
	}
	// The store is the other process's.
	store := r.BuildDisks.(*disk.Store)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(os.Args[0], "-test.run", "^TestBuildAgentKilled$", "-test.v")
	agent.Env = append(os.Environ(), "DAYBREAK_BUILD_PLANE="+socket, "DAYBREAK_BUILD_LIBVIRT="+host.Config().URI, "DAYBREAK_BUILD_STORE="+host.Config().Store,
		"DAYBREAK_BUILD_VNC="+r.VNCDir, "DAYBREAK_BUILD_DIGEST="+r.Image.Digest(), fmt.Sprint("DAYBREAK_BUILD_EMULATE=", r.Emulate))
	agent.Stdout, agent.Stderr = os.Stderr, os.Stderr
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-begun:
	case <-time.After(r.Patience):
		t.Error("the build did not begin")
	}
	if err := agent.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = agent.Wait()
	if vms, err := r.Builds.Builds(t.Context()); err != nil || len(vms) != 1 {
		t.Fatalf("VMs after the kill: %v, %v; the test proves nothing", vms, err)
	}
	disks, err := disk.Open(disk.Config{Root: host.Config().Store, UID: os.Getuid(), GID: os.Getgid()}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer disks.Close()
	r.BuildDisks = disks
	b.builder, err = build.New(build.Config{VNCDir: r.VNCDir}, host, host, disks, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	group.Go(func() error { return b.builder.Run(ctx) })
	b.await(t, "the next agent is ready", func() bool {
		return b.builder.Accept(hostagent.BuildCall{ID: "other", Dial: func() (*grpc.ClientConn, error) { return nil, os.ErrClosed }}) == nil
	})
	b.nothingLeft(t)
}

// buildAgent is an agent's process as far as builds go.
func buildAgent(t *testing.T, socket string) {
	uid, gid := qemuUser(t)
	log := zerolog.New(os.Stderr)
	store := os.Getenv("DAYBREAK_BUILD_STORE")
	disks, err := disk.Open(disk.Config{Root: store, UID: uid, GID: gid}, log)
	if err != nil {
		t.Fatal(err)
	}
	host, err := libvirt.Open(libvirt.Config{URI: os.Getenv("DAYBREAK_BUILD_LIBVIRT"), Store: store, AllowEmulation: true}, log)
	if err != nil {
		t.Fatal(err)
	}
	builder, err := build.New(build.Config{VNCDir: os.Getenv("DAYBREAK_BUILD_VNC"), Emulate: os.Getenv("DAYBREAK_BUILD_EMULATE") == "true"},
		host, host, disks, log)
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.Go(func() error { return host.Run(t.Context()) })
	group.Go(func() error { return builder.Run(t.Context()) })
	dial := func() (*grpc.ClientConn, error) { return hosttest.DialPlaneAt(socket) }
	// The base lies in the store, so no source is asked.
	if err := os.Setenv("DAYBREAK_BUILD_PLANE", ""); err != nil {
		t.Fatal(err)
	}
	for builder.Accept(hostagent.BuildCall{ID: "e2e", MemoryMiB: 128, Dial: dial}) != nil {
		time.Sleep(100 * time.Millisecond)
	}
	t.Log(group.Wait())
}
