package hosttest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"daybreak/hostagent"
)

// testSleep goes through a VM's sleep: its memory is in a file, QEMU is gone, and it wakes where it was.
func (r *Rig) testSleep(t *testing.T) {
	m := r.boot(t, "sleeper")
	t.Cleanup(func() { _ = r.Disks.DropMemory(context.WithoutCancel(t.Context()), m.Life) })
	r.nothingKept(t, m.Life)
	before, tick := r.describe(t, m), r.tick(t, m)
	if r.Identity != nil {
		before += r.Identity(t, m.Life)
	}
	file := r.suspend(t, m)
	if err := r.isGone(t.Context(), m.Life); err != nil {
		t.Errorf("a VM that sleeps: %v", err)
	}
	if r.HasProcess != nil && r.HasProcess(m.Life) {
		t.Error("a VM that sleeps still takes memory")
	}
	if err := r.suspendAgain(t, m); err != nil {
		t.Errorf("Suspend of a VM that sleeps already: %v, want success", err)
	}
	if err := r.Hypervisor.Wake(t.Context(), m.Life); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("Wake of a VM that is not there: %v, want ErrNotFound", err)
	}
	r.restoreFencing(t, m, file)
	asleep := time.Now()
	for _, again := range []string{"", " once more"} {
		if err := r.Hypervisor.Restore(t.Context(), m, file); err != nil {
			t.Fatalf("Restore%s: %v", again, err)
		}
		if err := r.is(t.Context(), m, hostagent.DomainPaused); err != nil {
			t.Errorf("after Restore%s: %v", again, err)
		}
	}
	// Until it is let go on, it may be thrown away and made again.
	if err := r.Hypervisor.Destroy(t.Context(), m.Life); err != nil {
		t.Fatal(err)
	}
	if err := r.Hypervisor.Restore(t.Context(), m, file); err != nil {
		t.Fatalf("Restore after Destroy: %v", err)
	}
	if err := r.Disks.DropMemory(t.Context(), m.Life); err != nil {
		t.Fatal(err)
	}
	r.nothingKept(t, m.Life)
	for _, again := range []string{"", " once more"} {
		if err := r.Hypervisor.Wake(t.Context(), m.Life); err != nil {
			t.Fatalf("Wake%s: %v", again, err)
		}
	}
	r.eventually(t, "guest agent answers after Wake", func() error { return r.Guest.Ping(t.Context(), m.Life) })
	t.Logf("awake %v after Restore was first asked for", time.Since(asleep))
	r.wokeWhereItWas(t, m, before, tick)
}

func (r *Rig) wokeWhereItWas(t *testing.T, m hostagent.Machine, before string, tick float64) {
	t.Helper()
	after := r.describe(t, m)
	if r.Identity != nil {
		after += r.Identity(t, m.Life)
	}
	if after != before {
		t.Errorf("boot nonce and identity %q, before %q", after, before)
	}
	if after := r.tick(t, m); r.Tick != nil && !(after > tick) {
		t.Errorf("its memory said %v, before %v", after, tick)
	}
	if err := r.Guest.SetClock(t.Context(), m.Life, time.Now()); err != nil {
		t.Errorf("SetClock: %v", err)
	}
	if r.Clock != nil {
		if off := time.Since(r.Clock(t, m.Life)).Abs(); off > 5*time.Second {
			t.Errorf("its clock is off by %v", off)
		}
	}
	if err := r.is(t.Context(), m, hostagent.DomainRunning); err != nil {
		t.Error(err)
	}
}

func (r *Rig) describe(t *testing.T, m hostagent.Machine) (nonce string) {
	t.Helper()
	report, err := r.Guest.Describe(t.Context(), m.Life)
	if err != nil {
		t.Fatal(err)
	}
	return report.GetBootNonce()
}

func (r *Rig) tick(t *testing.T, m hostagent.Machine) float64 {
	t.Helper()
	if r.Tick == nil {
		return 0
	}
	return r.Tick(t, m.Life)
}

func (r *Rig) nothingKept(t *testing.T, life hostagent.Life) {
	t.Helper()
	if file, kept, err := r.Disks.Memory(t.Context(), life); err != nil || kept != hostagent.KeptNone {
		t.Errorf("Memory = %q, %d, %v; want none", file, kept, err)
	}
}

// suspend has a VM sleep and returns where its memory is.
func (r *Rig) suspend(t *testing.T, m hostagent.Machine) (file string) {
	t.Helper()
	begun := time.Now()
	if err := r.suspendAgain(t, m); err != nil {
		t.Fatal(err)
	}
	t.Logf("asleep after %v", time.Since(begun))
	file, kept, err := r.Disks.Memory(t.Context(), m.Life)
	if err != nil || kept != hostagent.KeptWhole {
		t.Fatalf("Memory = %q, %d, %v; want all of it", file, kept, err)
	}
	return file
}

func (r *Rig) suspendAgain(t *testing.T, m hostagent.Machine) error {
	return r.Disks.KeepMemory(t.Context(), m.Life, 192<<20, func(file string) error { return r.Hypervisor.Suspend(t.Context(), m.Life, file) })
}

// restoreFencing: memory is for its own life only.
func (r *Rig) restoreFencing(t *testing.T, m hostagent.Machine, file string) {
	t.Helper()
	if r.ForeignMemory == nil {
		return // what the in-memory host calls wrong
	}
	next := m.Life
	next.Generation++
	if err := r.Hypervisor.Restore(t.Context(), r.machine(t, next, m.VMUUID), file); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("Restore of the next generation from it: %v, want ErrPermanent", err)
	}
	if err := r.Hypervisor.Restore(t.Context(), r.machine(t, newLife("stranger"), uuid.NewString()), file); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("Restore of another desktop from it: %v, want ErrPermanent", err)
	}
	for what, broken := range r.ForeignMemory(t, file) {
		if err := r.Hypervisor.Restore(t.Context(), m, broken); !errors.Is(err, hostagent.ErrPermanent) {
			t.Errorf("Restore from a file that is %s: %v, want ErrPermanent", what, err)
		}
		if err := r.isGone(t.Context(), m.Life); err != nil {
			t.Errorf("after Restore from a file that is %s: %v", what, err)
		}
	}
}

// testSleepFails: what goes wrong while a VM is suspended leaves it running, or no memory that it could be woken from.
func (r *Rig) testSleepFails(t *testing.T) {
	nobody := newLife("nobody-sleeps")
	r.machine(t, nobody, uuid.NewString())
	err := r.Disks.KeepMemory(t.Context(), nobody, 1<<20, func(file string) error { return r.Hypervisor.Suspend(t.Context(), nobody, file) })
	if !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("Suspend of a VM that is not there: %v, want ErrNotFound", err)
	}
	if _, kept, err := r.Disks.Memory(t.Context(), nobody); err != nil || kept == hostagent.KeptWhole {
		t.Errorf("and then Memory = %d, %v", kept, err)
	}
	if err := r.Disks.DropMemory(t.Context(), nobody); err != nil {
		t.Error(err)
	}
	r.nothingKept(t, nobody)
	if err := r.Disks.DropMemory(t.Context(), nobody); err != nil {
		t.Errorf("DropMemory of nothing: %v", err)
	}
	if r.FillStore == nil {
		return
	}
	m := r.boot(t, "wide-awake")
	undo := r.FillStore()
	defer undo()
	called := false
	err = r.Disks.KeepMemory(t.Context(), m.Life, 192<<20, func(string) error { called = true; return nil })
	if !errors.Is(err, hostagent.ErrNoSpace) || called {
		t.Errorf("KeepMemory on a full store: %v, want ErrNoSpace before anything is written", err)
	}
	if err := r.is(t.Context(), m, hostagent.DomainRunning); err != nil {
		t.Error(err)
	}
}

// testKilledWhileSaving: a hypervisor that is killed in the middle leaves no half of a memory that anybody would wake from.
func (r *Rig) testKilledWhileSaving(t *testing.T) {
	if r.KillHypervisor == nil || r.Saving == nil {
		t.Skip("nobody sees when this host is in the middle of it")
	}
	m := r.boot(t, "killed-saving")
	t.Cleanup(func() { _ = r.Disks.DropMemory(context.WithoutCancel(t.Context()), m.Life) })
	before := r.describe(t, m)
	done := make(chan error, 1)
	go func() {
		done <- r.suspendAgain(t, m)
	}()
	r.Saving(t, m.Life)
	r.KillHypervisor()
	err := <-done
	t.Logf("Suspend: %v", err)
	var there bool
	r.eventually(t, "the hypervisor says what became of it", func() error {
		found, err := r.look(t.Context(), m.UID)
		there = len(found) == 1 && found[0].State != hostagent.DomainGone
		return err
	})
	_, kept, memoryErr := r.Disks.Memory(t.Context(), m.Life)
	if memoryErr != nil || err != nil && kept == hostagent.KeptWhole {
		t.Errorf("Memory = %d, %v", kept, memoryErr)
	}
	t.Logf("the VM is there: %v", there)
	if !there {
		err := r.suspendAgain(t, m)
		t.Logf("once more: %v", err)
		if err != nil && !errors.Is(err, hostagent.ErrNotFound) && !errors.Is(err, hostagent.ErrCorrupt) {
			t.Errorf("Suspend after that: %v", err)
		}
		return
	}
	r.eventually(t, "the guest goes on", func() error { return r.Guest.Ping(t.Context(), m.Life) })
	if after := r.describe(t, m); after != before {
		t.Errorf("boot nonce %q, before %q", after, before)
	}
	r.eventually(t, "it is suspended once more", func() error { return r.suspendAgain(t, m) })
}

// testSession asks a guest who uses it.
func (r *Rig) testSession(t *testing.T) {
	m := r.boot(t, "used")
	session, err := r.Guest.Session(t.Context(), m.Life)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("it says %+v", session)
	if r.Use == nil {
		return
	}
	r.Use(t, m.Life)
	if err := r.Hypervisor.Destroy(t.Context(), m.Life); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Guest.Session(t.Context(), m.Life); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("Session of a VM that is not there: %v, want ErrNotFound", err)
	}
}

// Words returns what a program in the guest prints.
func (r *Rig) Words(t *testing.T, life hostagent.Life, argv ...string) string {
	t.Helper()
	status, output, err := r.Guest.Exec(t.Context(), life, argv)
	if err != nil || status != 0 {
		t.Fatalf("%q: %d, %q, %v", argv, status, output, err)
	}
	return strings.TrimSpace(output)
}
