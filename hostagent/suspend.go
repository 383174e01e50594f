package hostagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// A suspended life's memory lies in one file, and the file itself says how far things are: while it is there the guest has not
// run since it was written, and once it is gone it may have. Restore makes a VM that stands still, which may fail and be tried again;
// then the file goes, durably; only then is the guest let run. So no crash ever has a guest run twice from one memory, or
// boot from a disk that a memory belongs to.

const (
	// maxSaves of a host may go on at once: more only share the one disk, and keep all of them from being done.
	maxSaves = 2
	// saveSlackMiB is what a save takes beside the guest's memory: its devices, its screen, its description.
	saveSlackMiB = 64
)

// sleep brings a life to SUSPENDED. One that does not run yet is not begun.
func (s situation) sleep(now time.Time) step {
	switch s.status.GetState() {
	case v1.DesktopState_DESKTOP_STATE_READY:
		return s.lieDown(now)
	case v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return s.asleep(now)
	}
	return s.raise(now)
}

// lieDown suspends a life that is ready.
func (s situation) lieDown(now time.Time) step {
	if s.domain != presentNow || s.domainState == DomainPausedIO || s.domainState == DomainShuttingDown || s.domainState == DomainUnknown {
		return s.running(now)
	}
	return s.heed(now, s.save(now))
}

// save writes the memory of a VM that is there to a file.
func (s situation) save(now time.Time) step {
	if now.Before(s.trouble.next) {
		later := s.stay("suspending will be tried again" + s.because())
		later.until = s.trouble.next
		return later
	}
	next := s.stay("its memory is being saved")
	next.do = suspend
	if !s.saver {
		next.do, next.message = askSaver, fmt.Sprintf("waits to be suspended: at most %d desktops are at once", maxSaves)
	}
	return next
}

// asleep keeps a suspended life suspended.
func (s situation) asleep(now time.Time) step {
	switch {
	case !s.keptKnown:
		return s.find(now)
	case s.domain == presentNow && now.Before(s.trouble.next):
		later := s.stay("suspending will be tried again" + s.because())
		later.until = s.trouble.next
		return later
	case s.domain == presentNow && s.kept != KeptWhole:
		return s.save(now) // it was woken before this was wanted
	case s.domain == presentNow && s.domainState == DomainPaused:
		return s.in(s.status.GetState(), destroy, "") // it was restored, and nothing in it ran
	case s.domain == presentNow && s.domainState == DomainRunning:
		return s.in(s.status.GetState(), dropMemory, "")
	case s.kept != KeptWhole:
		return s.forgotten()
	}
	return s.stay("")
}

// find looks for a life's saved memory.
func (s situation) find(now time.Time) step {
	if now.Before(s.trouble.next) {
		later := s.stay("looking for its memory will be tried again" + s.because())
		later.until = s.trouble.next
		return later
	}
	return s.in(s.status.GetState(), findMemory, s.status.GetMessage())
}

// forgotten is about a life whose VM is not seen and whose memory is not there.
func (s situation) forgotten() step {
	if s.domain == presenceAbsent {
		return s.fail("QEMU ended while the desktop was woken, and its memory is gone with it")
	}
	return s.stay("waiting for the hypervisor to say whether the VM runs").listening()
}

// rouse brings a suspended life back to READY.
func (s situation) rouse(now time.Time) step {
	switch {
	case s.assignment.GetIncarnation().GetDesired() != v1.DesiredState_DESIRED_STATE_READY:
		return s.stay("")
	case !s.keptKnown:
		return s.find(now)
	case s.kept == KeptWhole && s.domain == presentNow && s.domainState == DomainRunning:
		return s.in(s.status.GetState(), dropMemory, "it was woken by somebody else")
	case s.kept == KeptWhole:
		return s.restore(now)
	case s.domain == presentNow && s.domainState == DomainPaused:
		return s.resumeSoon(now)
	case s.domain == presentNow && s.domainState == DomainPausedIO:
		next := s.stay("the VM stands still: the host's store is full or failing; it goes on when that is mended")
		next.paused = true
		return next
	case s.domain == presentNow, s.woken && s.domain == presenceUnknown:
		return s.awake(now)
	}
	return s.forgotten()
}

// restore makes the VM again, when the host has room for it.
func (s situation) restore(now time.Time) step {
	switch {
	case errors.Is(s.trouble.err, ErrPermanent):
		return s.fail("cannot be woken, and what was open in it is lost: %v", s.trouble.err)
	case s.late(now):
		return s.fail("not awake within %s, and what was open in it is lost%s", s.limit(), s.because())
	case s.rival != 0:
		return s.stay(fmt.Sprintf("waiting until generation %d of this desktop has ended", s.rival)).listening()
	case !s.told:
		return s.stay("the host restarted: waiting until the control plane says what it shall run")
	case now.Before(s.trouble.next):
		later := s.stay("waking will be tried again" + s.because())
		later.until = earlier(s.trouble.next, s.wakeDeadline())
		return later
	case s.base.running:
		return s.stay("fetching the image")
	case !s.base.done:
		return s.in(s.status.GetState(), fetchBase, "fetching the image")
	case !s.slot:
		next := s.in(s.status.GetState(), askSlot, s.slotMessage())
		next.until = s.wakeDeadline()
		return next
	}
	return s.resumeSoon(now)
}

// resumeSoon lets go on what was suspended.
func (s situation) resumeSoon(now time.Time) step {
	next := s.in(s.status.GetState(), resume, "waking")
	if now.Before(s.trouble.next) {
		next.do, next.message, next.until = wait, "waking will be tried again"+s.because(), s.trouble.next
	}
	if s.late(now) {
		return s.fail("not awake within %s%s", s.limit(), s.because())
	}
	next.waking = true
	return next
}

// awake waits for the guest's word after it was let go on.
func (s situation) awake(now time.Time) step {
	next := s.in(v1.DesktopState_DESKTOP_STATE_SUSPENDED, wait, "woken: the guest agent has not answered yet")
	next.waking, next.listen = true, s.domain == presenceUnknown
	switch {
	case s.answered:
		return s.in(v1.DesktopState_DESKTOP_STATE_READY, wait, "")
	case s.assignment != nil && s.late(now):
		return s.fail("not awake within %s: the guest agent does not answer", s.limit())
	case now.Before(s.nextPing):
		next.until = earlier(s.nextPing, s.wakeDeadline())
	default:
		next.do = ping
	}
	return next
}

// late reports whether a wake has taken longer than a boot may.
func (s situation) late(now time.Time) bool {
	deadline := s.wakeDeadline()
	return !deadline.IsZero() && !now.Before(deadline)
}

// wakeDeadline is zero while no wake has begun.
func (s situation) wakeDeadline() time.Time {
	if s.wakingSince.IsZero() {
		return time.Time{}
	}
	return s.wakingSince.Add(s.limit())
}

// wakeStep does one of the steps of suspending and waking.
func (w *worker) wakeStep(ctx context.Context, e entry, p *progress, do action) error {
	a := w.agent
	switch do {
	case suspend:
		return w.suspend(ctx, e, p)
	case resume:
		return w.resume(ctx, e, p)
	case dropMemory:
		err := a.disks.DropMemory(ctx, e.life)
		p.keptKnown, p.kept = err == nil, KeptNone
		return err
	}
	file, kept, err := a.disks.Memory(ctx, e.life)
	p.file, p.kept, p.keptKnown = file, kept, err == nil
	return err
}

// suspend saves a VM's memory and ends its QEMU. When QEMU has ended already it finds out whether that was our doing.
func (w *worker) suspend(ctx context.Context, e entry, p *progress) error {
	a := w.agent
	p.keptKnown = false
	bytes := (a.memoryMiB(e) + a.memoryMiB(e)/64 + saveSlackMiB) << 20
	err := a.disks.KeepMemory(ctx, e.life, bytes, func(file string) error {
		err := a.hypervisor.Suspend(ctx, e.life, file)
		p.acted = a.view.mark()
		return err
	})
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
		// There is no VM, and no memory of it that fits its disk.
		dropped := a.disks.DropMemory(ctx, e.life)
		p.kept, p.keptKnown = KeptNone, dropped == nil
		return errors.Join(err, dropped)
	}
	if err != nil {
		return err
	}
	p.answered, p.proven, p.woken, p.wakingSince, p.doubt = false, false, false, time.Time{}, ""
	a.observer.hurry() // its memory is free once a list lacks it
	return a.book.update(e.life, time.Now(), func(status *v1.DesktopStatus) {
		status.State, status.Message = v1.DesktopState_DESKTOP_STATE_SUSPENDED, ""
	})
}

// resume makes the VM again, gives up its saved memory for good, and lets the guest go on.
func (w *worker) resume(ctx context.Context, e entry, p *progress) error {
	a := w.agent
	if p.wakingSince.IsZero() {
		p.wakingSince = time.Now()
	}
	if p.kept == KeptWhole {
		if err := w.hasDisk(ctx, e, p); err != nil {
			return err
		}
		err := a.hypervisor.Restore(ctx, a.machine(e, p), p.file)
		p.acted = a.view.mark()
		if err != nil {
			return err
		}
		p.keptKnown = false
		if err := a.disks.DropMemory(ctx, e.life); err != nil {
			return err
		}
		p.kept, p.keptKnown = KeptNone, true
	}
	err := a.hypervisor.Wake(ctx, e.life)
	p.acted = a.view.mark()
	if err != nil {
		return err
	}
	p.woken, p.answered, p.nextPing = true, false, time.Time{}
	return a.book.enterStarting(e.life, time.Now(), startMark{phase: startConfirmed, bootID: a.bootID})
}

// hasDisk makes sure that the disk that a memory belongs to is there as it was, and so is its base.
func (w *worker) hasDisk(ctx context.Context, e entry, p *progress) error {
	overlays, err := w.agent.disks.Overlays(ctx)
	if err != nil {
		return err
	}
	if !slices.Contains(overlays, e.life) {
		return fmt.Errorf("its disk is gone: %w", ErrPermanent)
	}
	if err := w.createOverlay(ctx, e, p); err != nil {
		return err
	}
	if gib := uint64(e.assignment.GetIncarnation().GetShape().GetDataDiskGib()); gib > 0 && !w.agent.inventory.hasData(e.life.UID) {
		return fmt.Errorf("its data disk is gone: %w", ErrPermanent)
	}
	return nil
}

// setClock sets the clock of a guest that has just been woken. A guest that cannot is none the worse for it.
func (w *worker) setClock(ctx context.Context, e entry) {
	if err := w.agent.guest.SetClock(ctx, e.life, time.Now()); err != nil && ctx.Err() == nil {
		w.agent.log.Warn().Err(err).Str("desktop", e.life.Desktop).Msg("the woken guest's clock was not set")
	}
}
