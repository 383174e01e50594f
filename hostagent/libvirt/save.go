package libvirt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/digitalocean/go-qemu/qmp/raw"
	lv "libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"daybreak/hostagent"
)

// places for VMs on their way to sleep or back: each keeps a disk busy for as long as its memory takes.
const sleepPlaces = 2

// sleeping is change for calls that move a VM's whole memory: they take long, and must not keep starts and stops of other
// desktops waiting.
func (h *Host) sleeping(ctx context.Context, life hostagent.Life, file, what string, call func(*lv.Connect) error) error {
	if err := errors.Join(checkLife(life), h.cfg.checkSaveFile(file)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	what = fmt.Sprintf("%s of %s generation %d", what, life.Desktop, life.Generation)
	return h.sleeps.do(ctx, h.cfg.SaveTimeout, life.UID, what, call)
}

func (cfg Config) checkSaveFile(file string) error {
	if err := checkPath("saved memory", file, maxPath); err != nil {
		return err
	}
	if !strings.HasPrefix(file, filepath.Clean(cfg.Store)+"/") {
		return fmt.Errorf("path of the saved memory, %.120q, is not in the store: %w", file, hostagent.ErrPermanent)
	}
	return nil
}

// Suspend saves a VM's memory and ends QEMU. libvirt marks the file as whole only when all of it is on the disk, and ends QEMU
// after that.
func (h *Host) Suspend(ctx context.Context, life hostagent.Life, file string) error {
	return h.sleeping(ctx, life, file, "suspend VM", func(c *lv.Connect) error {
		d, err := find(c, life)
		if errors.Is(err, hostagent.ErrNotFound) {
			return savedBefore(c, life, file, err)
		}
		if err != nil {
			return err
		}
		defer free(d)
		err = d.SaveFlags(file, "", 0)
		switch {
		case err == nil:
			return nil
		case ended(d):
			return savedBefore(c, life, file, fmt.Errorf("suspend VM of %s: it ended meanwhile: %w: %w", life.Desktop, err, hostagent.ErrNotFound))
		}
		return fmt.Errorf("suspend VM of %s generation %d: %w", life.Desktop, life.Generation, err)
	})
}

// savedBefore returns nil when the file holds the whole memory of a VM that is gone, else why there is no VM.
func savedBefore(c *lv.Connect, life hostagent.Life, file string, gone error) error {
	err := checkSave(c, life, "", file)
	if err == nil || !errors.Is(err, hostagent.ErrPermanent) {
		return err
	}
	return fmt.Errorf("%w; %v", gone, err) //nolint:errorlint // only that it is gone counts
}

// checkSave finds out whether a file is the whole memory of a life, and of the VM with that UUID, if one is given. libvirt opens
// none that it did not finish.
func checkSave(c *lv.Connect, life hostagent.Life, vmUUID, file string) error {
	what := fmt.Sprintf("read saved memory of %s generation %d", life.Desktop, life.Generation)
	text, err := c.DomainSaveImageGetXMLDesc(file, 0)
	gone := errors.Is(err, lv.ERR_SYSTEM_ERROR) && strings.Contains(err.Error(), "No such file or directory")
	if gone || errors.Is(err, lv.ERR_OPERATION_FAILED) || errors.Is(err, lv.ERR_INTERNAL_ERROR) {
		return fmt.Errorf("%s: %w: %w", what, err, hostagent.ErrPermanent)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		return fmt.Errorf("%s: %w: %w", what, err, hostagent.ErrPermanent)
	}
	if d.Metadata == nil {
		return fmt.Errorf("%s: it is not ours: %w", what, hostagent.ErrPermanent)
	}
	have, err := parseLife(d.Metadata.XML, false)
	if err != nil || have != life || vmUUID != "" && d.UUID != vmUUID {
		return fmt.Errorf("%s: it is of generation %d of %s (%v): %w", what, have.Generation, have.Desktop, err, hostagent.ErrPermanent)
	}
	return nil
}

// Restore makes a VM again from its saved memory. It stands still, and libvirt keeps it so, even when it is restarted.
func (h *Host) Restore(ctx context.Context, m hostagent.Machine, file string) error {
	return h.sleeping(ctx, m.Life, file, "restore VM", func(c *lv.Connect) error {
		there, err := present(c, m)
		if err != nil {
			return err
		}
		if there {
			return h.restored(c, m.Life)
		}
		if err := checkSave(c, m.Life, m.VMUUID, file); err != nil {
			return err
		}
		if err := c.DomainRestoreFlags(file, "", lv.DOMAIN_SAVE_PAUSED); err != nil {
			return restoreError(m.Life, err)
		}
		return nil
	})
}

// restored finds out whether a VM that is there has all its memory: a call before this one may still be at it.
func (h *Host) restored(c *lv.Connect, life hostagent.Life) error {
	d, err := find(c, life)
	if err != nil {
		return err
	}
	defer free(d)
	state, reason, err := d.GetState()
	if err != nil {
		return fmt.Errorf("restore VM of %s: %w", life.Desktop, err)
	}
	if state == lv.DOMAIN_PAUSED && lv.DomainPausedReason(reason) == lv.DOMAIN_PAUSED_STARTING_UP {
		return fmt.Errorf("restore VM of %s: its memory is still being read", life.Desktop)
	}
	status, err := raw.NewMonitor(&connected{d: d}).QueryStatus()
	if err != nil {
		return fmt.Errorf("restore VM of %s: %w", life.Desktop, err)
	}
	if status.Status == raw.RunStateInmigrate {
		return fmt.Errorf("restore VM of %s: its memory is still being read", life.Desktop)
	}
	return nil
}

// restoreError says what libvirt and QEMU meant. Memory that this QEMU or this CPU does not take never becomes other.
func restoreError(life hostagent.Life, err error) error {
	text := err.Error()
	for _, hopeless := range []string{"error while loading state", "load of migration failed", "not match specification", "incompatible", "is not supported by"} {
		if strings.Contains(text, hopeless) {
			return fmt.Errorf("restore VM of %s generation %d: its memory does not fit this host's QEMU or CPU any more: %w: %w",
				life.Desktop, life.Generation, err, hostagent.ErrPermanent)
		}
	}
	return startError(life, err)
}

// Wake lets a VM run that stands still. One that stands still because its disk is full goes on by itself when that is mended.
func (h *Host) Wake(ctx context.Context, life hostagent.Life) error {
	return h.change(ctx, life, "wake VM", func(c *lv.Connect) error {
		d, err := find(c, life)
		if err != nil {
			return err
		}
		defer free(d)
		state, reason, err := d.GetState()
		if err != nil {
			return fmt.Errorf("wake VM of %s: %w", life.Desktop, err)
		}
		if state != lv.DOMAIN_PAUSED || lv.DomainPausedReason(reason) == lv.DOMAIN_PAUSED_IOERROR {
			return nil
		}
		if err := d.Resume(); err != nil {
			return fmt.Errorf("wake VM of %s generation %d: %w", life.Desktop, life.Generation, err)
		}
		return nil
	})
}

// ReadBytes is what the guest read from its system disk since QEMU was started.
func (h *Host) ReadBytes(ctx context.Context, life hostagent.Life) (uint64, error) {
	if err := checkLife(life); err != nil {
		return 0, fmt.Errorf("count reads: %w", err)
	}
	read := make(chan uint64, 1)
	what := "count reads of " + life.Desktop
	err := h.guests.do(ctx, h.cfg.GuestTimeout, "monitor "+life.UID, what, func(c *lv.Connect) error {
		d, err := find(c, life)
		if err != nil {
			return err
		}
		defer free(d)
		stats, err := d.BlockStats("vda")
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if stats.RdBytesSet && stats.RdBytes > 0 {
			read <- uint64(stats.RdBytes)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	select {
	case bytes := <-read:
		return bytes, nil
	default:
		return 0, nil
	}
}
