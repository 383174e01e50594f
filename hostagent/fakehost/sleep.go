package fakehost

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"daybreak/hostagent"
)

// saved is the memory of a VM in a file.
type saved struct {
	// vm is what was saved; nil while nothing was.
	vm *domain
	// runs is how often the VM's disk had been run on by then.
	runs int
	at   time.Time
}

func memoryPath(life hostagent.Life) string {
	return "/fake/memory/" + life.UID + "." + strconv.FormatInt(life.Generation, 10)
}

func partPath(life hostagent.Life) string { return memoryPath(life) + ".part" }

// KeepMemory implements hostagent.MemoryFiles.
func (h *Host) KeepMemory(ctx context.Context, life hostagent.Life, bytes uint64, write func(file string) error) error {
	there := false
	err := h.call(ctx, OpKeepMemory, life, func() error {
		if _, there = h.saves[memoryPath(life)]; there {
			return nil
		}
		if _, begun := h.saves[partPath(life)]; begun {
			return nil
		}
		if h.full || h.available() < bytes {
			return fmt.Errorf("keep memory: %w", hostagent.ErrNoSpace)
		}
		h.saves[partPath(life)] = &saved{}
		return nil
	})
	if err != nil || there {
		return err
	}
	if err := write(partPath(life)); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.saves[partPath(life)]
	o := h.overlays[keyOf(life)]
	if s == nil || s.vm == nil || o == nil || o.runs != s.runs {
		delete(h.saves, partPath(life))
		return fmt.Errorf("keep memory: its disk was written to since: %w", hostagent.ErrCorrupt)
	}
	delete(h.saves, partPath(life))
	h.saves[memoryPath(life)] = s
	return nil
}

// Memory implements hostagent.MemoryFiles.
func (h *Host) Memory(ctx context.Context, life hostagent.Life) (file string, kept hostagent.Kept, err error) {
	err = h.call(ctx, OpMemory, life, func() error {
		if _, ok := h.saves[memoryPath(life)]; ok {
			file, kept = memoryPath(life), hostagent.KeptWhole
		} else if _, ok := h.saves[partPath(life)]; ok {
			file, kept = partPath(life), hostagent.KeptBegun
		}
		return nil
	})
	return file, kept, err
}

// DropMemory implements hostagent.MemoryFiles.
func (h *Host) DropMemory(ctx context.Context, life hostagent.Life) error {
	return h.call(ctx, OpDropMemory, life, func() error {
		delete(h.saves, memoryPath(life))
		delete(h.saves, partPath(life))
		return nil
	})
}

// Suspend implements hostagent.Hypervisor.
func (h *Host) Suspend(ctx context.Context, life hostagent.Life, file string) error {
	return h.hypervisor(ctx, OpSuspend, life, func() error {
		d, ok := h.domains[keyOf(life)]
		if !ok || d.state == hostagent.DomainGone {
			if s := h.saves[file]; s != nil && s.vm != nil && s.vm.machine.Life == life {
				return nil
			}
			return fmt.Errorf("suspend %s: %w", life.Desktop, hostagent.ErrNotFound)
		}
		s := h.saves[file]
		if s == nil || file != partPath(life) {
			h.wrong("the memory of %s generation %d is saved where nobody keeps it", life.Desktop, life.Generation)
			return fmt.Errorf("suspend %s: open %s: %w", life.Desktop, file, hostagent.ErrPermanent)
		}
		s.vm, s.at, s.runs = d, time.Now(), h.overlays[keyOf(life)].runs
		delete(h.domains, keyOf(life))
		h.tally.Suspends[life]++
		return nil
	})
}

// Restore implements hostagent.Hypervisor.
func (h *Host) Restore(ctx context.Context, m hostagent.Machine, file string) error {
	return h.hypervisor(ctx, OpRestore, m.Life, func() error {
		if d, ok := h.domains[keyOf(m.Life)]; ok && d.state != hostagent.DomainGone {
			return nil
		}
		if err := h.alone(m); err != nil {
			return err
		}
		s := h.saves[file]
		if s == nil || s.vm == nil || s.vm.machine.Life != m.Life || file != memoryPath(m.Life) {
			h.wrong("%s generation %d is restored from what is not its memory", m.Desktop, m.Generation)
			return fmt.Errorf("restore %s: %w", m.Desktop, hostagent.ErrPermanent)
		}
		if o := h.overlays[keyOf(m.Life)]; o == nil || o.runs != s.runs {
			h.wrong("%s generation %d is restored from memory that is older than its disk", m.Desktop, m.Generation)
		}
		d := *s.vm
		d.state, d.behind = hostagent.DomainPaused, time.Since(s.at)
		h.domains[keyOf(m.Life)] = &d
		return nil
	})
}

// Wake implements hostagent.Hypervisor.
func (h *Host) Wake(ctx context.Context, life hostagent.Life) error {
	return h.hypervisor(ctx, OpWake, life, func() error {
		d, ok := h.domains[keyOf(life)]
		if !ok || d.state == hostagent.DomainGone {
			return fmt.Errorf("wake %s: %w", life.Desktop, hostagent.ErrNotFound)
		}
		if d.state != hostagent.DomainPaused {
			return nil
		}
		if _, kept := h.saves[memoryPath(life)]; kept {
			h.wrong("%s generation %d is woken while its memory is kept: it could be woken twice", life.Desktop, life.Generation)
		}
		d.state = hostagent.DomainRunning
		h.overlays[keyOf(life)].runs++
		h.tally.Wakes[life]++
		return nil
	})
}

// SetClock implements hostagent.Guest.
func (h *Host) SetClock(ctx context.Context, life hostagent.Life, _ time.Time) error {
	return h.guest(ctx, OpSetClock, life, func(d *domain) error {
		d.behind = 0
		return nil
	})
}

// ClockBehind is by how much a guest's clock is behind.
func (h *Host) ClockBehind(life hostagent.Life) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d := h.domains[keyOf(life)]; d != nil {
		return d.behind
	}
	return 0
}

// Session implements hostagent.Guest. Unless SetSession said something, the guest says nothing.
func (h *Host) Session(ctx context.Context, life hostagent.Life) (session hostagent.Session, err error) {
	err = h.guest(ctx, OpSession, life, func(*domain) error {
		h.tally.Asked[life]++
		u, ok := h.uses[life]
		if !ok {
			return nil
		}
		session = u.session
		if session.InputKnown {
			session.InputIdle += time.Since(u.said)
		}
		return nil
	})
	return session, err
}

// use is what a guest says of its use, from when it was said on.
type use struct {
	session hostagent.Session
	said    time.Time
}

// SetSession has a life's guest say from now on who uses it; input that was idle goes on being idle.
func (h *Host) SetSession(life hostagent.Life, session hostagent.Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.uses[life] = use{session: session, said: time.Now()}
}

// ReadBytes implements hostagent.Hypervisor: every guest here reads as much while it boots.
func (h *Host) ReadBytes(ctx context.Context, life hostagent.Life) (bytes uint64, err error) {
	err = h.hypervisor(ctx, OpReadBytes, life, func() error {
		if _, ok := h.domains[keyOf(life)]; !ok {
			return fmt.Errorf("read what %s read: %w", life.Desktop, hostagent.ErrNotFound)
		}
		bytes = BootReads
		return nil
	})
	return bytes, err
}

// BootReads is what every guest here reads from its disk, bytes.
const BootReads = 96 << 20
