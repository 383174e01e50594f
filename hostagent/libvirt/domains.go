package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

// Domains lists our desktops' VMs: those whose metadata says so. One whose metadata cannot be read fails the list, since
// nothing is known then; one with other metadata is somebody else's.
func (h *Host) Domains(ctx context.Context) ([]hostagent.Domain, error) {
	found, err := h.list(ctx, false)
	if err != nil {
		return nil, err
	}
	h.patience.keepOnly(found)
	return found, nil
}

func (h *Host) list(ctx context.Context, builds bool) ([]hostagent.Domain, error) {
	listed := make(chan []hostagent.Domain, 1)
	err := h.lists.do(ctx, h.cfg.ListTimeout, "", "list VMs", func(c *lv.Connect) error {
		all, err := c.ListAllDomains(0)
		if err != nil {
			return fmt.Errorf("list VMs: %w", err)
		}
		var ours []hostagent.Domain
		for i := range all {
			d, isOurs, err := describe(&all[i], builds)
			if err != nil {
				freeAll(all[i:])
				return fmt.Errorf("list VMs: %w", err)
			}
			if isOurs {
				ours = append(ours, d)
			}
			free(&all[i])
		}
		listed <- ours
		return nil
	})
	if err != nil {
		return nil, err
	}
	return <-listed, nil
}

func free(d *lv.Domain) {
	d.Free() //nolint:errcheck // drops a reference; nothing can be done about it
}

func freeAll(all []lv.Domain) {
	for i := range all {
		free(&all[i])
	}
}

// describe reads whose a domain is and what it does. One that is gone meanwhile is not ours.
func describe(d *lv.Domain, build bool) (_ hostagent.Domain, ours bool, _ error) {
	life, ours, err := lifeOf(d, build)
	if err != nil || !ours {
		return hostagent.Domain{}, false, err
	}
	state, reason, err := d.GetState()
	if errors.Is(err, lv.ERR_NO_DOMAIN) {
		return hostagent.Domain{}, false, nil
	}
	if err != nil {
		return hostagent.Domain{}, false, fmt.Errorf("read state of %s: %w", life.Desktop, err)
	}
	uuid, err := d.GetUUIDString()
	if err != nil {
		return hostagent.Domain{}, false, fmt.Errorf("read UUID of %s: %w", life.Desktop, err)
	}
	kib, err := d.GetMaxMemory()
	if errors.Is(err, lv.ERR_NO_DOMAIN) {
		return hostagent.Domain{}, false, nil
	}
	if err != nil {
		return hostagent.Domain{}, false, fmt.Errorf("read memory of %s: %w", life.Desktop, err)
	}
	return hostagent.Domain{Life: life, VMUUID: uuid, State: stateOf(state, reason), MemoryMiB: kib >> 10}, true, nil
}

// lifeOf reads whose a domain is: which desktop's, or which build's.
func lifeOf(d *lv.Domain, build bool) (_ hostagent.Life, ours bool, _ error) {
	_, uri := elementOf(build)
	text, err := d.GetMetadata(lv.DOMAIN_METADATA_ELEMENT, uri, lv.DOMAIN_AFFECT_CURRENT)
	if errors.Is(err, lv.ERR_NO_DOMAIN_METADATA) || errors.Is(err, lv.ERR_NO_DOMAIN) {
		return hostagent.Life{}, false, nil
	}
	if err != nil {
		return hostagent.Life{}, false, fmt.Errorf("read metadata: %w", err)
	}
	life, err := parseLife(text, build)
	return life, err == nil, nil
}

// stateOf translates libvirt's states. Those that say nothing certain become DomainUnknown, which is no reason to act.
func stateOf(state lv.DomainState, reason int) hostagent.DomainState {
	switch state {
	case lv.DOMAIN_RUNNING, lv.DOMAIN_BLOCKED:
		return hostagent.DomainRunning
	case lv.DOMAIN_PAUSED:
		if lv.DomainPausedReason(reason) == lv.DOMAIN_PAUSED_IOERROR {
			return hostagent.DomainPausedIO
		}
		return hostagent.DomainPaused
	case lv.DOMAIN_PMSUSPENDED:
		return hostagent.DomainPaused
	case lv.DOMAIN_SHUTDOWN:
		return hostagent.DomainShuttingDown
	case lv.DOMAIN_SHUTOFF, lv.DOMAIN_CRASHED:
		return hostagent.DomainGone
	}
	return hostagent.DomainUnknown
}

// find looks up the domain of a life and checks that it is this life. The caller frees it.
func find(c *lv.Connect, life hostagent.Life) (*lv.Domain, error) {
	d, err := c.LookupDomainByName(domainName(life))
	if errors.Is(err, lv.ERR_NO_DOMAIN) {
		return nil, fmt.Errorf("VM of %s generation %d: %w", life.Desktop, life.Generation, hostagent.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("look up VM of %s: %w", life.Desktop, err)
	}
	have, ours, err := lifeOf(d, life.Build)
	if err == nil && (!ours || have.UID != life.UID || have.Generation != life.Generation) {
		err = fmt.Errorf("VM of %s generation %d: %w", life.Desktop, life.Generation, hostagent.ErrNotFound)
	}
	if err != nil {
		free(d)
		return nil, err
	}
	return d, nil
}

// change runs a call that changes a VM. Those of one desktop run one after another, so that none that came late can meet
// a VM that came after it.
func (h *Host) change(ctx context.Context, life hostagent.Life, what string, call func(*lv.Connect) error) error {
	if err := checkLife(life); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	what = fmt.Sprintf("%s of %s generation %d", what, life.Desktop, life.Generation)
	return h.changes.do(ctx, h.cfg.ChangeTimeout, life.UID, what, call)
}

// Start creates the VM as a transient domain and runs it.
//
// QEMU may hang before it takes libvirt's connection to its monitor (7.2 was seen to), and libvirt waits for it without
// end. The start is given up in time then, the calls of other desktops go on in the other places, and those of this one
// fail until its life's deadline has it ended: see Destroy.
func (h *Host) Start(ctx context.Context, m hostagent.Machine) error {
	xml, err := h.cfg.domainXML(m)
	if err != nil {
		return err
	}
	if m.Build {
		h.ends.expect(m.VMUUID)
	}
	return h.change(ctx, m.Life, "start VM", func(c *lv.Connect) error {
		if running, err := present(c, m); running || err != nil {
			return err
		}
		d, err := c.DomainCreateXML(xml, lv.DOMAIN_NONE)
		if err == nil {
			free(d)
			return nil
		}
		// Another call may have started it meanwhile: what is there decides, then what libvirt said.
		if running, presentErr := present(c, m); running || errors.Is(presentErr, hostagent.ErrPermanent) {
			return presentErr
		}
		return startError(m.Life, err)
	})
}

// present says whether the VM runs already. One of the same desktop and another generation, or another of the same UUID,
// stands in the way.
func present(c *lv.Connect, m hostagent.Machine) (running bool, err error) {
	byName, nameErr := c.LookupDomainByName(domainName(m.Life))
	byUUID, uuidErr := c.LookupDomainByUUIDString(m.VMUUID)
	for _, found := range []struct {
		d   *lv.Domain
		err error
	}{{byName, nameErr}, {byUUID, uuidErr}} {
		if found.err != nil {
			if !errors.Is(found.err, lv.ERR_NO_DOMAIN) {
				err = errors.Join(err, fmt.Errorf("look for VM of %s: %w", m.Desktop, found.err))
			}
			continue
		}
		d, ours, describeErr := describe(found.d, m.Build)
		free(found.d)
		switch {
		case describeErr != nil:
			err = errors.Join(err, describeErr)
		case !ours || d.UID != m.UID || d.VMUUID != m.VMUUID:
			err = errors.Join(err, fmt.Errorf("start VM of %s: another VM has its name or its UUID %s: %w", m.Desktop, m.VMUUID, hostagent.ErrPermanent))
		case d.Generation != m.Generation:
			err = errors.Join(err, fmt.Errorf("start VM of %s generation %d: its generation %d is still there: %w",
				m.Desktop, m.Generation, d.Generation, hostagent.ErrPermanent))
		case d.State == hostagent.DomainShuttingDown || d.State == hostagent.DomainGone:
			err = errors.Join(err, fmt.Errorf("start VM of %s generation %d: it is just ending", m.Desktop, m.Generation))
		default:
			running = true
		}
	}
	return running && err == nil, err
}

// startError says what libvirt and QEMU meant. What cannot get better by trying again is permanent.
func startError(life hostagent.Life, err error) error {
	what := fmt.Sprintf("start VM of %s generation %d", life.Desktop, life.Generation)
	text := err.Error()
	switch {
	case strings.Contains(text, `Failed to get "write" lock`), strings.Contains(text, "Failed to get shared"):
		return fmt.Errorf("%s: another QEMU has its disk open: %w", what, err)
	case strings.Contains(text, "already exists with uuid"), strings.Contains(text, "is already active as"),
		strings.Contains(text, "is already defined with uuid"):
		return fmt.Errorf("%s: %w: %w", what, err, hostagent.ErrPermanent)
	case errors.Is(err, lv.ERR_XML_ERROR), errors.Is(err, lv.ERR_XML_DETAIL), errors.Is(err, lv.ERR_XML_INVALID_SCHEMA),
		errors.Is(err, lv.ERR_CONFIG_UNSUPPORTED), errors.Is(err, lv.ERR_NO_SUPPORT), errors.Is(err, lv.ERR_ACCESS_DENIED):
		return fmt.Errorf("%s: %w: %w", what, err, hostagent.ErrPermanent)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// guestShutdown is sent as it is, since libvirt's own call would wait a minute for a guest that does not end.
const guestShutdown = `{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}`

// Shutdown asks the guest to power off: by its agent, and where that has no effect within five seconds, by the power
// button too.
func (h *Host) Shutdown(ctx context.Context, life hostagent.Life) error {
	return h.change(ctx, life, "shut down VM", func(c *lv.Connect) error {
		d, err := find(c, life)
		if err != nil {
			return err
		}
		defer free(d)
		// An agent that powers its guest off has no time to answer.
		_, agentErr := d.QemuAgentCommand(guestShutdown, agentSeconds, 0)
		if ending(d) {
			return nil
		}
		if err := d.ShutdownFlags(lv.DOMAIN_SHUTDOWN_ACPI_POWER_BTN); err != nil && !ending(d) {
			return fmt.Errorf("shut down VM of %s by its agent, then by the power button: %w", life.Desktop, errors.Join(agentErr, err))
		}
		return nil
	})
}

// Destroy ends QEMU: libvirt sends SIGTERM, on which QEMU writes out what it holds, and after ten seconds SIGKILL.
//
// It is the one change that does not stay behind a call that hangs: on a connection kept for this it ends the QEMU that
// the start of this life waits for, so that the start comes back with an error. Only then is it done in its turn, so that
// no start that libvirt heard late can follow it unseen.
func (h *Host) Destroy(ctx context.Context, life hostagent.Life) error {
	if err := checkLife(life); err != nil {
		return fmt.Errorf("destroy VM: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, h.cfg.ChangeTimeout)
	defer cancel()
	end := func(c *lv.Connect) error { return endVM(c, life) }
	what := fmt.Sprintf("free start of %s generation %d", life.Desktop, life.Generation)
	for _, stuck := range []*line{h.changes, h.sleeps} {
		err := stuck.gate.unblock(ctx, life.UID, what, func() error {
			return h.rescues.do(ctx, h.cfg.ChangeTimeout, "", what, end)
		})
		if err != nil {
			return err
		}
	}
	return h.change(ctx, life, "destroy VM", end)
}

func endVM(c *lv.Connect, life hostagent.Life) error {
	d, err := find(c, life)
	if err != nil {
		return err
	}
	defer free(d)
	err = d.Destroy()
	// It may end by itself at the same moment.
	if err != nil && !ended(d) {
		return fmt.Errorf("destroy VM of %s generation %d: %w", life.Desktop, life.Generation, err)
	}
	return nil
}

// ended says whether libvirt does not have the domain any more, or only its description.
func ended(d *lv.Domain) bool {
	state, _, err := d.GetState()
	return errors.Is(err, lv.ERR_NO_DOMAIN) || err == nil && state == lv.DOMAIN_SHUTOFF
}

// ending says whether the guest has powered off.
func ending(d *lv.Domain) bool {
	state, _, err := d.GetState()
	return ended(d) || err == nil && state == lv.DOMAIN_SHUTDOWN
}
