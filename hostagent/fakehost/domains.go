package fakehost

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"slices"
	"strings"
	"time"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

// WriteMuch is a program that every guest here has: it writes until the store is full.
const WriteMuch = "write-much"

// Domains implements hostagent.Hypervisor.
func (h *Host) Domains(ctx context.Context) ([]hostagent.Domain, error) {
	var list []hostagent.Domain
	err := h.hypervisor(ctx, OpDomains, hostagent.Life{}, func() error {
		if h.empty > 0 {
			h.empty--
			return nil
		}
		for _, d := range h.domains {
			if d.machine.Build {
				continue
			}
			list = append(list, hostagent.Domain{Life: d.machine.Life, VMUUID: d.machine.VMUUID, State: d.state, MemoryMiB: uint64(d.machine.MemoryMiB)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list domains: %w", err)
	}
	slices.SortFunc(list, func(a, b hostagent.Domain) int {
		return cmp.Or(cmp.Compare(a.UID, b.UID), cmp.Compare(a.Generation, b.Generation))
	})
	return list, nil
}

// Start implements hostagent.Hypervisor.
func (h *Host) Start(ctx context.Context, m hostagent.Machine) error {
	return h.hypervisor(ctx, OpStart, m.Life, func() error {
		if d, ok := h.domains[keyOf(m.Life)]; ok && d.state != hostagent.DomainGone {
			return nil
		}
		if err := h.alone(m); err != nil {
			return err
		}
		if _, kept := h.saves[memoryPath(m.Life)]; kept {
			h.wrong("%s generation %d is booted although its memory is kept", m.Desktop, m.Generation)
		}
		if o, ok := h.overlays[keyOf(m.Life)]; !ok || overlayPath(o.life) != m.Overlay {
			h.wrong("start of %s generation %d without its overlay", m.Desktop, m.Generation)
			return fmt.Errorf("start domain: open %s: %w", m.Overlay, hostagent.ErrPermanent)
		}
		boot := h.cfg.Boot(m.Life)
		h.overlays[keyOf(m.Life)].runs++
		h.domains[keyOf(m.Life)] = &domain{machine: m, state: hostagent.DomainRunning, boot: boot, ready: time.Now().Add(boot.After), files: map[string][]byte{}}
		h.tally.Starts[m.Life]++
		return nil
	})
}

// alone says what else of a VM's desktop, or of its UUID, stands in its way.
func (h *Host) alone(m hostagent.Machine) error {
	for k, other := range h.domains {
		if k != keyOf(m.Life) && (k.uid == m.UID || other.machine.VMUUID == m.VMUUID) {
			h.tally.Clashes = append(h.tally.Clashes, fmt.Sprintf("start of %s generation %d while generation %d of %s runs", m.Desktop, m.Generation, other.machine.Generation, other.machine.Desktop))
			return fmt.Errorf("start domain: another life of the desktop, or of its UUID, runs: %w", hostagent.ErrPermanent)
		}
	}
	return nil
}

// Shutdown implements hostagent.Hypervisor. A guest that answers powers off after a while; any other does not.
func (h *Host) Shutdown(ctx context.Context, life hostagent.Life) error {
	return h.hypervisor(ctx, OpShutdown, life, func() error {
		d, ok := h.domains[keyOf(life)]
		if !ok {
			return fmt.Errorf("shut down %s: %w", life.Desktop, hostagent.ErrNotFound)
		}
		if d.state == hostagent.DomainRunning && d.answers() {
			d.state = hostagent.DomainShuttingDown
			time.AfterFunc(h.cfg.PowerOff, func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				if h.domains[keyOf(life)] == d {
					d.poweredOff = true
					delete(h.domains, keyOf(life))
				}
			})
		}
		return nil
	})
}

func (d *domain) answers() bool {
	return !d.boot.Hangs && !time.Now().Before(d.ready) && (d.state == hostagent.DomainRunning || d.state == hostagent.DomainShuttingDown)
}

// Destroy implements hostagent.Hypervisor.
func (h *Host) Destroy(ctx context.Context, life hostagent.Life) error {
	return h.hypervisor(ctx, OpDestroy, life, func() error {
		if _, ok := h.domains[keyOf(life)]; !ok {
			return fmt.Errorf("destroy %s: %w", life.Desktop, hostagent.ErrNotFound)
		}
		delete(h.domains, keyOf(life))
		h.tally.Destroys[life]++
		return nil
	})
}

// guest runs do on a VM whose guest agent answers.
func (h *Host) guest(ctx context.Context, op Op, life hostagent.Life, do func(*domain) error) error {
	silent := false
	err := h.hypervisor(ctx, op, life, func() error {
		d, ok := h.domains[keyOf(life)]
		if !ok {
			return fmt.Errorf("%s %s: %w", op, life.Desktop, hostagent.ErrNotFound)
		}
		if op != OpScreenshot && !d.answers() {
			silent = true
			return nil
		}
		return do(d)
	})
	if err == nil && silent {
		return fmt.Errorf("%s %s: the guest agent is not connected", op, life.Desktop)
	}
	return err
}

// Ping implements hostagent.Guest.
func (h *Host) Ping(ctx context.Context, life hostagent.Life) error {
	return h.guest(ctx, OpPing, life, func(*domain) error { return nil })
}

// Exec implements hostagent.Guest: every program is the probe, but for WriteMuch and those that show
// a text in a guest.
func (h *Host) Exec(ctx context.Context, life hostagent.Life, argv []string) (status int, output string, err error) {
	if len(argv) == 0 {
		return 0, "", errors.New("run program in guest: none was given")
	}
	err = h.guest(ctx, OpExec, life, func(d *domain) error {
		if argv[0] == WriteMuch && h.full {
			d.state = hostagent.DomainPausedIO
			return fmt.Errorf("run program in guest: %w", hostagent.ErrTimeout)
		}
		if slices.Contains(d.boot.Lacks, argv[0]) {
			return fmt.Errorf("run program in guest: there is no %s", argv[0])
		}
		if slices.Contains([]string{"/usr/lib/daybreak/notice", "/usr/bin/wall", `C:\Windows\System32\msg.exe`}, argv[0]) {
			h.tally.Shown[life] = append(h.tally.Shown[life], strings.Join(argv, " "))
			return nil
		}
		status, output = d.boot.Probe, d.boot.Output
		return nil
	})
	return status, output, err
}

// Describe implements hostagent.Guest.
func (h *Host) Describe(ctx context.Context, life hostagent.Life) (report *v1.GuestReport, err error) {
	err = h.guest(ctx, OpDescribe, life, func(d *domain) error {
		report = guestReport(d)
		return nil
	})
	return report, err
}

// Screenshot implements hostagent.Guest: a small black screen.
func (h *Host) Screenshot(ctx context.Context, life hostagent.Life) ([]byte, error) {
	var picture bytes.Buffer
	err := h.guest(ctx, OpScreenshot, life, func(*domain) error {
		return png.Encode(&picture, image.NewGray(image.Rect(0, 0, 64, 48)))
	})
	if err != nil {
		return nil, err
	}
	return picture.Bytes(), nil
}
