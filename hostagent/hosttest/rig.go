package hosttest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
)

// Rig is a host under test, with what the suite needs to know of it.
type Rig struct {
	Hypervisor hostagent.Hypervisor
	Guest      hostagent.Guest
	Disks      hostagent.Disks
	// Builds, BuildGuest and BuildDisks are the same host's, as builds see it.
	Builds     build.Hypervisor
	BuildGuest build.Guest
	BuildDisks build.Disks
	// Image boots to a guest whose agent answers.
	Image *Image
	// ImageVersion is what the guest says of itself; empty where it says nothing.
	ImageVersion string
	// Argv is a program in the guest, and Output what it prints before it exits with 0.
	Argv   []string
	Output string
	// WriteFile makes the arguments of a program in the guest that writes content to path and exits with status.
	WriteFile func(path, content string, status int) []string
	// Tick reads a number that only grows and that only the guest's memory holds; nil where there is none. Clock reads the
	// guest's clock. Use makes it look used, and checks what it says then.
	Tick  func(*testing.T, hostagent.Life) float64
	Clock func(*testing.T, hostagent.Life) time.Time
	Use   func(*testing.T, hostagent.Life)
	// Identity is what the guest takes its hardware for; HasProcess reports whether a VM's QEMU takes memory.
	Identity   func(*testing.T, hostagent.Life) string
	HasProcess func(hostagent.Life) bool
	// ForeignMemory makes files out of saved memory that nothing may be restored from, by what is wrong with them.
	ForeignMemory func(t *testing.T, file string) map[string]string
	// Saving returns in the middle of a VM's suspension.
	Saving func(*testing.T, hostagent.Life)
	// Emulate, Bridge and VNC's directory as Machine has them.
	Emulate bool
	Bridge  string
	VNCDir  string
	// Patience is how long a guest may take to boot or to end.
	Patience time.Duration
	// Deadline is the longest that a call may take when nothing answers.
	Deadline time.Duration

	// Ways to hurt the host; nil where it cannot be.

	// KillGuest ends a VM's QEMU from outside.
	KillGuest func(hostagent.Life)
	// StopGuest lets a VM's QEMU hang for good.
	StopGuest func(hostagent.Life)
	// KillHypervisor ends the daemon that the Hypervisor talks to. Somebody starts it again.
	KillHypervisor func()
	// StopHypervisor lets it hang until resume is called.
	StopHypervisor func() (resume func())
	// FillStore takes all free space of the store but a little, until undo is called.
	FillStore func() (undo func())
	// WriteMuch has a guest write more than FillStore left.
	WriteMuch []string
}

var errNotYet = errors.New("not yet")

// newLife makes a life of a new desktop.
func newLife(name string) hostagent.Life {
	return hostagent.Life{Desktop: name, UID: uuid.NewString(), Generation: 100}
}

// machine makes the disks of a life and describes its VM.
func (r *Rig) machine(t *testing.T, life hostagent.Life, vmUUID string) hostagent.Machine {
	t.Helper()
	base, overlay, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Disks.TrashOverlay(context.WithoutCancel(t.Context()), life); err != nil {
			t.Errorf("after the test: %v", err)
		}
	})
	return hostagent.Machine{
		Life: life, VMUUID: vmUUID, MAC: "52:54:00:" + hexPairs(vmUUID), Bridge: r.Bridge, VCPUs: 1, MemoryMiB: 128,
		Base: base, Overlay: overlay, VNC: filepath.Join(r.VNCDir, life.UID+".vnc"), Emulate: r.Emulate,
	}
}

// hexPairs takes three bytes of a UUID.
func hexPairs(id string) string {
	return id[0:2] + ":" + id[2:4] + ":" + id[4:6]
}

// start starts a VM and sees to its end with the test.
func (r *Rig) start(t *testing.T, m hostagent.Machine) {
	t.Helper()
	t.Cleanup(func() { r.destroy(t, m.Life) })
	if err := r.Hypervisor.Start(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// destroy ends a VM for good, whatever the test left it in.
func (r *Rig) destroy(t *testing.T, life hostagent.Life) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), r.Patience)
	defer cancel()
	err := poll(ctx, func() error {
		if err := r.Hypervisor.Destroy(ctx, life); !errors.Is(err, hostagent.ErrNotFound) {
			return fmt.Errorf("%w: %w", errNotYet, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("VM of %s does not end: %v", life.Desktop, err)
	}
}

// eventually waits until try succeeds.
func (r *Rig) eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), r.Patience)
	defer cancel()
	if err := poll(ctx, try); err != nil {
		t.Fatalf("%s: not within %v: %v", what, r.Patience, err)
	}
}

func poll(ctx context.Context, try func() error) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// look finds a desktop's VMs in the list.
func (r *Rig) look(ctx context.Context, uid string) ([]hostagent.Domain, error) {
	all, err := r.Hypervisor.Domains(ctx)
	return slices.DeleteFunc(all, func(d hostagent.Domain) bool { return d.UID != uid }), err
}

// is says whether the list has exactly one VM of a desktop, in one of some states.
func (r *Rig) is(ctx context.Context, m hostagent.Machine, states ...hostagent.DomainState) error {
	found, err := r.look(ctx, m.UID)
	switch {
	case err != nil:
		return err
	case len(found) != 1 || found[0].Life != m.Life || found[0].VMUUID != m.VMUUID || !slices.Contains(states, found[0].State):
		return fmt.Errorf("%w: listed %+v", errNotYet, found)
	}
	return nil
}

// isGone says whether a desktop has no VM.
func (r *Rig) isGone(ctx context.Context, life hostagent.Life) error {
	found, err := r.look(ctx, life.UID)
	found = slices.DeleteFunc(found, func(d hostagent.Domain) bool { return d.State == hostagent.DomainGone })
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%w: listed %+v", errNotYet, found)
	}
	return err
}

// boot starts a VM of a new desktop and waits until its guest answers.
func (r *Rig) boot(t *testing.T, name string) hostagent.Machine {
	t.Helper()
	m := r.machine(t, newLife(name), uuid.NewString())
	r.start(t, m)
	r.eventually(t, "guest agent answers", func() error { return r.Guest.Ping(t.Context(), m.Life) })
	return m
}
