package hostagent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"buf.build/go/protovalidate"

	v1 "daybreak/proto/daybreak/v1"
)

// Pauses between questions to a guest that is not ready: a twentieth of the time it has had, within these bounds.
const (
	minPing             = 250 * time.Millisecond
	maxPing             = 3 * time.Second
	defaultProbeTimeout = 10 * time.Second
)

// do does one step. Everything it calls comes back by its own deadline.
func (w *worker) do(ctx context.Context, e entry, p *progress, do action) error {
	a := w.agent
	switch do {
	case fetchBase:
		a.fetcher.ask(e.assignment.GetIncarnation().GetDigest())
		return nil
	case createOverlay:
		return w.createOverlay(ctx, e, p)
	case createData:
		gib := uint64(e.assignment.GetIncarnation().GetShape().GetDataDiskGib())
		path, err := a.disks.CreateData(ctx, e.life.Desktop, e.life.UID, gib<<30)
		p.data = path
		return err
	case start:
		return w.start(ctx, e, p)
	case seek:
		return w.seek(ctx, e, p)
	case ping, probe, describe, tell, askUse, confirm:
		return w.question(ctx, e, p, do)
	case shutdown:
		return w.shutdown(ctx, e, p)
	case destroy:
		err := a.hypervisor.Destroy(ctx, e.life)
		p.acted = a.view.mark()
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		return err
	case suspend, resume, findMemory, dropMemory:
		return w.wakeStep(ctx, e, p, do)
	case trashOverlay:
		// A guest's memory holds its keys and passwords: it goes at once, and with it whatever could wake this life.
		if err := a.disks.DropMemory(ctx, e.life); err != nil {
			return err
		}
		err := a.disks.TrashOverlay(ctx, e.life)
		p.overlayTrashed = err == nil
		return err
	case trashData:
		err := a.disks.TrashData(ctx, e.life.UID)
		p.dataTrashed = err == nil
		return err
	}
	return fmt.Errorf("do %s: no such step", do)
}

func (w *worker) createOverlay(ctx context.Context, e entry, p *progress) error {
	a := w.agent
	inc := e.assignment.GetIncarnation()
	reserve := uint64(inc.GetShape().GetOverlayReserveMib())
	if reserve == 0 {
		reserve = 1024
	}
	base, overlay, err := a.disks.CreateOverlay(ctx, e.life, inc.GetDigest(), reserve<<20)
	if errors.Is(err, ErrNotFound) {
		a.fetcher.lost(inc.GetDigest())
	}
	if err == nil {
		p.base, p.overlay = base, overlay
	}
	return err
}

func (w *worker) start(ctx context.Context, e entry, p *progress) error {
	a := w.agent
	err := a.hypervisor.Start(ctx, a.machine(e, p))
	p.acted = a.view.mark()
	if err != nil {
		return err
	}
	p.nextPing = time.Now().Add(minPing)
	p.atOnce, _ = a.governor.counts()
	return a.book.enterStarting(e.life, time.Now(), startMark{phase: startConfirmed, bootID: a.bootID})
}

// machine is what a life's VM is made of.
func (a *Agent) machine(e entry, p *progress) Machine {
	spec, shape := e.assignment.GetSpec(), e.assignment.GetIncarnation().GetShape()
	return Machine{
		Life: e.life, VMUUID: spec.GetVmUuid(), MAC: spec.GetMac(), Bridge: a.cfg.Zones[spec.GetZone()],
		VCPUs: max(shape.GetVcpus(), 1), MemoryMiB: defaultTo(shape.GetMemoryMib(), standardMiB),
		Base: p.base, Overlay: p.overlay, Data: p.data,
		VNC:     filepath.Join(a.cfg.VNCDir, e.life.UID+"."+strconv.FormatInt(e.life.Generation, 10)+".sock"),
		Emulate: a.cfg.Platform.Emulate,
	}
}

// standardMiB is the memory of a VM whose shape does not say.
const standardMiB = 1024

// memoryMiB is the memory that a life's VM takes, by its shape.
func (a *Agent) memoryMiB(e entry) uint64 {
	return uint64(defaultTo(e.assignment.GetIncarnation().GetShape().GetMemoryMib(), standardMiB))
}

func defaultTo(value, standard uint32) uint32 {
	if value == 0 {
		return standard
	}
	return value
}

func (w *worker) shutdown(ctx context.Context, e entry, p *progress) error {
	err := w.agent.hypervisor.Shutdown(ctx, e.life)
	// A guest that cannot be asked is given its time all the same: it may have heard.
	p.stopAsked = time.Now()
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// question asks the guest something. A changed assignment breaks it off.
func (w *worker) question(ctx context.Context, e entry, p *progress, do action) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.mu.Lock()
	w.interrupt = cancel
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.interrupt = nil
		w.mu.Unlock()
	}()
	var err error
	switch do {
	case ping:
		err = w.ping(ctx, e, p)
	case probe:
		err = w.probe(ctx, e, p)
	case describe:
		return w.describe(ctx, e, p)
	case tell:
		return w.tell(ctx, e, p)
	case askUse:
		return w.askUse(ctx, e, p)
	case confirm:
		return w.confirm(ctx, e, p)
	}
	now, begun := time.Now(), e.startedAt
	if p.wakingSince.IsZero() && e.status.GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED {
		p.wakingSince = now
	}
	if !p.wakingSince.IsZero() {
		begun = p.wakingSince
	}
	p.nextPing = now.Add(min(max(now.Sub(begun)/20, minPing), maxPing))
	if errors.Is(err, ErrNotFound) {
		w.agent.view.listen(w.uid)
		w.agent.observer.hurry()
	}
	return err
}

// seek asks for a VM that the lists lack. Only that it is not found proves anything; otherwise the lists have to say it
// again.
func (w *worker) seek(ctx context.Context, e entry, p *progress) error {
	err := w.agent.guest.Ping(ctx, e.life)
	if errors.Is(err, ErrNotFound) {
		p.sought = true
		return nil
	}
	if err == nil {
		w.agent.log.Error().Str("desktop", e.life.Desktop).Int64("generation", e.life.Generation).Msg("the hypervisor's lists lack a VM whose guest answers")
	}
	p.acted = w.agent.view.mark()
	w.agent.view.listen(w.uid)
	w.agent.observer.hurry()
	return err
}

func (w *worker) ping(ctx context.Context, e entry, p *progress) error {
	err := w.agent.guest.Ping(ctx, e.life)
	if err != nil {
		p.doubt = "the guest agent does not answer"
		return err
	}
	switch e.status.GetState() {
	case v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		w.setClock(ctx, e)
	case v1.DesktopState_DESKTOP_STATE_STARTING:
		w.countReads(ctx, e, p)
	}
	p.answered, p.doubt = true, ""
	return nil
}

func (w *worker) probe(ctx context.Context, e entry, p *progress) error {
	readiness := e.assignment.GetIncarnation().GetReadiness()
	timeout := defaultProbeTimeout
	if d := readiness.GetProbeTimeout(); d != nil {
		timeout = d.AsDuration()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	status, output, err := w.agent.guest.Exec(ctx, e.life, readiness.GetProbe())
	switch {
	case errors.Is(err, ErrTimeout) || errors.Is(err, context.DeadlineExceeded):
		p.doubt = fmt.Sprintf("the probe did not end within %s", timeout)
	case err != nil:
		p.doubt = fmt.Sprintf("the probe could not be run: %v", err)
	case status != 0:
		p.doubt = exitWord("the probe", status, cleanText(output, 256))
	default:
		p.proven = true
		w.countReads(ctx, e, p)
	}
	return err
}

// countReads notes what the guest has read so far. Where that is not to be had, it is not known.
func (w *worker) countReads(ctx context.Context, e entry, p *progress) {
	if read, err := w.agent.hypervisor.ReadBytes(ctx, e.life); err == nil {
		p.read = read
	}
}

func (w *worker) describe(ctx context.Context, e entry, p *progress) error {
	guest, err := w.agent.guest.Describe(ctx, e.life)
	now := time.Now()
	p.described++
	p.nextDescribe = now.Add(describeAgain)
	if p.described == 1 {
		// Addresses come a little after readiness.
		p.nextDescribe = now.Add(time.Minute)
	}
	if err != nil {
		return err
	}
	guest = cleanGuest(guest)
	if err := protovalidate.Validate(guest); err != nil {
		return fmt.Errorf("read what the guest says of itself: %w", err)
	}
	return w.setGuest(e, now, guest)
}

// cleanGuest makes the guest's words fit to be stored and shown, whoever read them.
func cleanGuest(guest *v1.GuestReport) *v1.GuestReport {
	clean := &v1.GuestReport{
		ImageVersion: cleanText(guest.GetImageVersion(), 64), BootNonce: cleanText(guest.GetBootNonce(), 64),
		Hostname: cleanText(guest.GetHostname(), 64), AgentVersion: cleanText(guest.GetAgentVersion(), 64),
	}
	for _, address := range guest.GetAddresses()[:min(len(guest.GetAddresses()), 16)] {
		clean.Addresses = append(clean.Addresses, cleanText(address, 64))
	}
	return clean
}
