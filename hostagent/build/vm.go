package build

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"daybreak/hostagent"
)

const (
	// defaultReserve is the space that is reserved for what a script writes when the order does not say.
	defaultReserve = 4 << 30
	// applianceReserve is that for the appliance's own writing.
	applianceReserve = 256 << 20
	defaultBoot      = 5 * time.Minute
	powerOffTimeout  = 5 * time.Minute
	watchEvery       = 2 * time.Second
	pingEvery        = 500 * time.Millisecond
)

// overlayDisk is an overlay of a version.
type overlayDisk struct {
	life    hostagent.Life
	digest  string
	base    hostagent.Base
	overlay string
}

// vm is a VM that runs.
type vm struct {
	j      *job
	life   hostagent.Life
	vnc    string
	begun  time.Time
	system System
	// runs counts the scripts that were run in the guest.
	runs int
}

// disk makes an overlay of a version, with space reserved for it. It is taken away at the build's end.
func (j *job) disk(ctx context.Context, image, digest string, reserve uint64) (overlayDisk, error) {
	if reserve == 0 {
		reserve = defaultReserve
	}
	what := fmt.Sprintf("fetching image %s, content %.12s", image, digest)
	if err := j.talk.progress(what, 0); err != nil {
		return overlayDisk{}, err
	}
	said := uint32(0)
	err := j.b.disks.EnsureBase(ctx, digest, j.source, func(percent uint32) {
		if percent >= said+10 && percent < 100 {
			said = percent
			_ = j.talk.progress(what, percent) // that nobody listens shows elsewhere
		}
	})
	if err != nil {
		return overlayDisk{}, fmt.Errorf("fetch image %s, content %.12s: %w", image, digest, err)
	}
	d := overlayDisk{life: hostagent.Life{Desktop: image, UID: uuid.NewString(), Generation: 1, Build: true}, digest: digest}
	j.b.claim(d.life)
	j.lives = append(j.lives, d.life)
	d.base, d.overlay, err = j.b.disks.CreateOverlay(ctx, d.life, digest, reserve)
	return d, err
}

// boot starts a VM on a disk, with another one to work on or nil, waits until its guest answers, and runs work, whose context
// ends when the VM does.
func (j *job) boot(ctx context.Context, disk overlayDisk, target *overlayDisk, work func(ctx context.Context, v *vm) error) (*vm, error) {
	v, err := j.start(ctx, disk, target)
	if err != nil {
		return nil, err
	}
	group, during := errgroup.WithContext(ctx)
	done := errors.New("the work is done")
	group.Go(func() error { return v.watch(during) })
	group.Go(func() error {
		if err := v.await(during); err != nil {
			return err
		}
		if err := work(during, v); err != nil {
			return err
		}
		return done // ends the watch
	})
	if err := group.Wait(); !errors.Is(err, done) {
		return nil, err
	}
	return v, nil
}

func (j *job) start(ctx context.Context, disk overlayDisk, target *overlayDisk) (*vm, error) {
	id := disk.life.UID
	m := hostagent.Machine{
		Life: disk.life, VMUUID: id, MAC: "52:54:00:" + id[0:2] + ":" + id[2:4] + ":" + id[4:6], Bridge: j.b.cfg.Zones[j.order.GetZone()],
		VCPUs: j.order.GetShape().GetVcpus(), MemoryMiB: memoryOf(j.order), Base: disk.base, Overlay: disk.overlay,
		VNC: j.b.screen(disk.life), Emulate: j.b.cfg.Emulate,
	}
	if m.VCPUs == 0 {
		m.VCPUs = 2
	}
	if target != nil {
		m.Target, m.TargetBase = target.overlay, target.base
	}
	if err := j.talk.progress("starting the VM", 0); err != nil {
		return nil, err
	}
	v := &vm{j: j, life: m.Life, vnc: m.VNC, begun: time.Now()}
	if err := j.b.hypervisor.Start(ctx, m); err != nil {
		return nil, err
	}
	return v, nil
}

// await waits until the guest answers, and asks it what it is.
func (v *vm) await(ctx context.Context) error {
	limit := defaultBoot
	if d := v.j.order.GetBootTimeout(); d != nil {
		limit = d.AsDuration()
	}
	if err := v.j.talk.progress("waiting for the guest agent", 0); err != nil {
		return err
	}
	booting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := v.j.b.guest.Ping(booting, v.life)
		if err == nil {
			break
		}
		if !pause(booting, pingEvery) {
			return fmt.Errorf("the guest agent did not answer within %v of the start: %w", limit, err)
		}
	}
	return v.retry(ctx, func() (err error) {
		v.system, err = v.j.b.guest.System(ctx, v.life)
		return err
	})
}

// watch returns an error when the VM has ended, or stands still for want of space, and nil when ctx ends.
func (v *vm) watch(ctx context.Context) error {
	missing := 0
	for pause(ctx, watchEvery) {
		list, err := v.j.b.hypervisor.Builds(ctx)
		if err != nil {
			continue // nothing is known
		}
		state := hostagent.DomainGone
		for _, d := range list {
			if d.Life == v.life {
				state = d.State
			}
		}
		switch state {
		case hostagent.DomainGone:
			missing++
		case hostagent.DomainPausedIO:
			return fmt.Errorf("the VM stands still, since the host's store is full or fails: %w", hostagent.ErrNoSpace)
		default:
			missing = 0
		}
		if missing >= 2 {
			return errors.New("the VM ended by itself")
		}
	}
	return nil
}

// guestPatience is how long a guest may be out of reach: its agent is started anew, or it is being booted again.
const guestPatience = 2 * time.Minute

// retry does what may be done twice until it succeeds, the guest refuses it, or patience ends.
func (v *vm) retry(ctx context.Context, try func() error) error {
	begun := time.Now()
	for {
		err := try()
		if errors.Is(err, hostagent.ErrNotFound) {
			return fmt.Errorf("the VM ended by itself: %w", err)
		}
		if err == nil || errors.Is(err, hostagent.ErrGuest) || errors.Is(err, hostagent.ErrPermanent) {
			return err
		}
		if time.Since(begun) > guestPatience || !pause(ctx, pingEvery) {
			return err
		}
	}
}

// powerOff lets the guest end in order.
func (v *vm) powerOff(ctx context.Context) error {
	if err := v.j.talk.progress("shutting the guest down", 0); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, powerOffTimeout)
	defer cancel()
	if err := v.j.b.hypervisor.PowerOff(ctx, v.life); err != nil {
		return fmt.Errorf("the guest was not shut down in order, so its disk is not published: %w", err)
	}
	return nil
}
