package hosttest

import (
	"bytes"
	"context"
	"errors"
	"image/png"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"daybreak/hostagent"
)

// Run holds a host to the contracts. open is called once; the suite's desktops are new ones, and gone at the end.
func Run(t *testing.T, open func(t *testing.T) *Rig) {
	r := open(t)
	if err := r.Disks.EnsureBase(t.Context(), r.Image.Digest(), r.Image, func(uint32) {}); err != nil {
		t.Fatal(err)
	}
	t.Run("Base", r.testBase)
	t.Run("TrashBases", r.testTrashBases)
	t.Run("NextVersion", r.testNextVersion)
	t.Run("Scrub", r.testScrub)
	t.Run("Overlay", r.testOverlay)
	t.Run("Data", r.testData)
	t.Run("NoSpace", r.testNoSpace)
	t.Run("NothingThere", r.testNothingThere)
	t.Run("Life", r.testLife)
	t.Run("Sleep", r.testSleep)
	t.Run("SleepFails", r.testSleepFails)
	t.Run("KilledWhileSaving", r.testKilledWhileSaving)
	t.Run("Session", r.testSession)
	t.Run("GuestKilled", r.testGuestKilled)
	t.Run("GuestHangs", r.testGuestHangs)
	t.Run("HypervisorKilled", r.testHypervisorKilled)
	t.Run("HypervisorHangs", r.testHypervisorHangs)
	t.Run("StoreFull", r.testStoreFull)
	t.Run("Build", r.testBuild)
	t.Run("BuildKilled", r.testBuildKilled)
}

func (r *Rig) testNothingThere(t *testing.T) {
	life := newLife("nobody")
	for what, call := range map[string]func() error{
		"Destroy":    func() error { return r.Hypervisor.Destroy(t.Context(), life) },
		"Shutdown":   func() error { return r.Hypervisor.Shutdown(t.Context(), life) },
		"Ping":       func() error { return r.Guest.Ping(t.Context(), life) },
		"Exec":       func() error { _, _, err := r.Guest.Exec(t.Context(), life, r.Argv); return err },
		"Describe":   func() error { _, err := r.Guest.Describe(t.Context(), life); return err },
		"Screenshot": func() error { _, err := r.Guest.Screenshot(t.Context(), life); return err },
		"Session":    func() error { _, err := r.Guest.Session(t.Context(), life); return err },
		"SetClock":   func() error { return r.Guest.SetClock(t.Context(), life, time.Now()) },
		"Wake":       func() error { return r.Hypervisor.Wake(t.Context(), life) },
		"ReadBytes":  func() error { _, err := r.Hypervisor.ReadBytes(t.Context(), life); return err },
	} {
		if err := call(); !errors.Is(err, hostagent.ErrNotFound) {
			t.Errorf("%s of a VM that is not there: %v, want ErrNotFound", what, err)
		}
	}
}

// testLife goes through a VM's whole life, since a boot is dear on a real host.
func (r *Rig) testLife(t *testing.T) {
	m := r.boot(t, "life")
	if err := r.is(t.Context(), m, hostagent.DomainRunning); err != nil {
		t.Errorf("a VM whose guest answers: %v", err)
	}
	r.fencing(t, m)
	nonce := r.guest(t, m)
	begun := time.Now()
	if err := r.Hypervisor.Shutdown(t.Context(), m.Life); err != nil || time.Since(begun) > r.Deadline {
		t.Fatalf("Shutdown: %v after %v", err, time.Since(begun))
	}
	r.eventually(t, "VM ends after Shutdown", func() error { return r.isGone(t.Context(), m.Life) })
	if err := r.Hypervisor.Destroy(t.Context(), m.Life); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("Destroy of a VM that ended: %v, want ErrNotFound", err)
	}
	// The same life may be run again: its overlay is there.
	r.start(t, m)
	r.eventually(t, "guest agent answers again", func() error { return r.Guest.Ping(t.Context(), m.Life) })
	if report, err := r.Guest.Describe(t.Context(), m.Life); err != nil || r.ImageVersion != "" && report.GetBootNonce() == nonce {
		t.Errorf("after another boot: nonce %q as before (%v)", report.GetBootNonce(), err)
	}
	if err := r.Hypervisor.Destroy(t.Context(), m.Life); err != nil {
		t.Fatal(err)
	}
	if err := r.isGone(t.Context(), m.Life); err != nil {
		t.Errorf("after Destroy returned: %v", err)
	}
}

// fencing: nothing but a VM's own life may touch it, and it is alone.
func (r *Rig) fencing(t *testing.T, m hostagent.Machine) {
	t.Helper()
	if err := r.Hypervisor.Start(t.Context(), m); err != nil {
		t.Errorf("Start of a VM that runs: %v, want success", err)
	}
	next := m.Life
	next.Generation++
	if err := r.Hypervisor.Start(t.Context(), r.machine(t, next, m.VMUUID)); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("Start of the next generation beside it: %v, want ErrPermanent", err)
	}
	if err := r.Hypervisor.Start(t.Context(), r.machine(t, next, uuid.NewString())); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("Start of the next generation with another UUID: %v, want ErrPermanent", err)
	}
	if err := r.Hypervisor.Start(t.Context(), r.machine(t, newLife("usurper"), m.VMUUID)); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("Start of another desktop with its UUID: %v, want ErrPermanent", err)
	}
	for what, call := range map[string]func(context.Context, hostagent.Life) error{
		"Destroy": r.Hypervisor.Destroy, "Shutdown": r.Hypervisor.Shutdown, "Ping": r.Guest.Ping,
	} {
		if err := call(t.Context(), next); !errors.Is(err, hostagent.ErrNotFound) {
			t.Errorf("%s of another generation: %v, want ErrNotFound", what, err)
		}
	}
	if err := r.is(t.Context(), m, hostagent.DomainRunning); err != nil {
		t.Errorf("after all that: %v", err)
	}
	if err := r.Guest.Ping(t.Context(), m.Life); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// guest asks a guest that answers for all it can say.
func (r *Rig) guest(t *testing.T, m hostagent.Machine) (nonce string) {
	t.Helper()
	report, err := r.Guest.Describe(t.Context(), m.Life)
	if err != nil || report.GetImageVersion() != r.ImageVersion {
		t.Errorf("Describe = %v, %v; want image version %q", report, err, r.ImageVersion)
	}
	if read, err := r.Hypervisor.ReadBytes(t.Context(), m.Life); err != nil || read == 0 {
		t.Errorf("ReadBytes of a guest that booted: %d, %v", read, err)
	}
	status, output, err := r.Guest.Exec(t.Context(), m.Life, r.Argv)
	if err != nil || status != 0 || output != r.Output {
		t.Errorf("Exec(%q) = %d, %q, %v; want 0, %q", r.Argv, status, output, err, r.Output)
	}
	if _, _, err := r.Guest.Exec(t.Context(), m.Life, nil); err == nil {
		t.Error("Exec of nothing succeeded")
	}
	shot, err := r.Guest.Screenshot(t.Context(), m.Life)
	if err != nil || len(shot) > 3<<20 {
		t.Fatalf("Screenshot: %d bytes, %v", len(shot), err)
	}
	if _, err := png.Decode(bytes.NewReader(shot)); err != nil {
		t.Errorf("Screenshot is no PNG: %v", err)
	}
	return report.GetBootNonce()
}

func (r *Rig) testGuestKilled(t *testing.T) {
	if r.KillGuest == nil {
		t.Skip("this host's guests cannot be killed")
	}
	m := r.machine(t, newLife("killed"), uuid.NewString())
	r.start(t, m)
	r.KillGuest(m.Life)
	r.eventually(t, "VM is gone from the list", func() error { return r.isGone(t.Context(), m.Life) })
	if lives, err := r.Disks.Overlays(t.Context()); err != nil || !slices.Contains(lives, m.Life) {
		t.Errorf("its overlay went with it: %v, %v", lives, err)
	}
	// Nothing stands in the way of the next life.
	next := m.Life
	next.Generation++
	r.start(t, r.machine(t, next, m.VMUUID))
}

// testGuestHangs: one QEMU that hangs harms nobody else, and can be ended.
func (r *Rig) testGuestHangs(t *testing.T) {
	if r.StopGuest == nil {
		t.Skip("this host's guests cannot be stopped")
	}
	m := r.boot(t, "stuck")
	r.StopGuest(m.Life)
	for what, call := range map[string]func() error{
		"Ping":       func() error { return r.Guest.Ping(t.Context(), m.Life) },
		"Screenshot": func() error { _, err := r.Guest.Screenshot(t.Context(), m.Life); return err },
	} {
		begun := time.Now()
		if err := call(); err == nil || errors.Is(err, hostagent.ErrNotFound) || time.Since(begun) > r.Deadline {
			t.Errorf("%s of a guest that hangs: %v after %v", what, err, time.Since(begun))
		}
	}
	if found, err := r.look(t.Context(), m.UID); err != nil || len(found) != 1 {
		t.Errorf("listed %+v, %v", found, err)
	}
	other := r.machine(t, newLife("unharmed"), uuid.NewString())
	r.start(t, other)
	r.eventually(t, "VM ends after Destroy", func() error {
		if err := r.Hypervisor.Destroy(t.Context(), m.Life); err != nil && !errors.Is(err, hostagent.ErrNotFound) {
			t.Logf("Destroy of a QEMU that hangs: %v", err)
		}
		return r.isGone(t.Context(), m.Life)
	})
	if err := r.is(t.Context(), other, hostagent.DomainRunning); err != nil {
		t.Error(err)
	}
}

func (r *Rig) testHypervisorKilled(t *testing.T) {
	if r.KillHypervisor == nil {
		t.Skip("this host's hypervisor cannot be killed")
	}
	m := r.boot(t, "survivor")
	before, err := r.Guest.Describe(t.Context(), m.Life)
	if err != nil {
		t.Fatal(err)
	}
	r.KillHypervisor()
	r.eventually(t, "VM is listed again", func() error {
		found, err := r.look(t.Context(), m.UID)
		// Whoever asks meanwhile is told that nothing is known, never that there is nothing.
		if err == nil && len(found) == 0 {
			t.Error("the VM was left out of a list")
		}
		if err == nil {
			err = r.is(t.Context(), m, hostagent.DomainRunning)
		}
		return err
	})
	r.eventually(t, "its guest answers again", func() error { return r.Guest.Ping(t.Context(), m.Life) })
	after, err := r.Guest.Describe(t.Context(), m.Life)
	if err != nil || after.GetBootNonce() != before.GetBootNonce() {
		t.Errorf("nonce %q, before %q (%v): the guest was booted anew", after.GetBootNonce(), before.GetBootNonce(), err)
	}
}

func (r *Rig) testHypervisorHangs(t *testing.T) {
	if r.StopHypervisor == nil {
		t.Skip("this host's hypervisor cannot be stopped")
	}
	m := r.machine(t, newLife("patient"), uuid.NewString())
	r.start(t, m)
	resume := r.StopHypervisor()
	defer resume()
	for _, step := range []struct {
		what    string
		call    func() error
		unknown bool
	}{
		// The first one was on its way when the daemon stopped answering: nobody knows what it did.
		{"Destroy", func() error { return r.Hypervisor.Destroy(t.Context(), m.Life) }, true},
		{"Domains", func() error { _, err := r.Hypervisor.Domains(t.Context()); return err }, false},
		{"Ping", func() error { return r.Guest.Ping(t.Context(), m.Life) }, false},
	} {
		begun := time.Now()
		err := step.call()
		if took := time.Since(begun); err == nil || took > r.Deadline || step.unknown && !errors.Is(err, hostagent.ErrTimeout) {
			t.Errorf("%s while nothing answers: %v after %v", step.what, err, took)
		}
		if errors.Is(err, hostagent.ErrNotFound) {
			t.Errorf("%s while nothing answers says that the VM is not there: %v", step.what, err)
		}
	}
	resume()
	// What timed out may have happened; nothing else may.
	r.eventually(t, "the list comes again", func() error { _, err := r.Hypervisor.Domains(t.Context()); return err })
	other := r.machine(t, newLife("afterwards"), uuid.NewString())
	r.start(t, other)
	if err := r.is(t.Context(), other, hostagent.DomainRunning); err != nil {
		t.Error(err)
	}
}

func (r *Rig) testStoreFull(t *testing.T) {
	if r.FillStore == nil {
		t.Skip("this host's store cannot be filled")
	}
	m := r.boot(t, "full")
	undo := r.FillStore()
	defer undo()
	if _, _, err := r.Disks.CreateOverlay(t.Context(), newLife("late"), r.Image.Digest(), 64<<20); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("CreateOverlay on a full store: %v, want ErrNoSpace", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), r.Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		status, output, err := r.Guest.Exec(ctx, m.Life, r.WriteMuch)
		if err == nil && status != 0 {
			err = errors.New(output)
		}
		done <- err
	}()
	r.eventually(t, "VM stands still", func() error { return r.is(t.Context(), m, hostagent.DomainPausedIO) })
	undo()
	r.eventually(t, "VM goes on", func() error { return r.is(t.Context(), m, hostagent.DomainRunning) })
	// The Exec may have lost patience with a guest that stood still; the guest itself has not.
	t.Logf("the guest's writer: %v", <-done)
	r.eventually(t, "its guest answers again", func() error { return r.Guest.Ping(t.Context(), m.Life) })
}
