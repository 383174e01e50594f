package rollout

import (
	"context"
	"errors"
	"fmt"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// stewardAttempts bounds how often a call begins anew after somebody else was quicker.
const stewardAttempts = 16

// Steward does what people ask of rollouts. Each call is one transaction on the pool and its rollouts, so any daybreakd may
// make it, leader or not. Safe for concurrent use.
type Steward struct {
	objects *store.Store
	api     *store.Store
}

// NewSteward makes a Steward. objects is opened for store.WriterRollout; api for store.WriterAPI, whose is the word whether
// a rollout is paused.
func NewSteward(objects, api *store.Store) *Steward {
	return &Steward{objects: objects, api: api}
}

// Start moves a pool to the version that it should run by its spec, also if that was given up before. Errors wrap
// ErrRefused or the store's sentinels.
func (s *Steward) Start(ctx context.Context, now time.Time, pool, by string) (*v1.Rollout, error) {
	made, err := s.act(ctx, now, pool, func(d *decision) error { return d.startFor(by) })
	return made, wrap(err, "start a rollout of pool %s", pool)
}

// startFor begins what the pool should run because somebody asked for it.
func (d *decision) startFor(by string) error {
	name := d.Pool.GetMeta().GetName()
	switch {
	case d.release == nil || d.target == 0:
		return refuse("there is no version to run: %s", whyNone(d.Pool, d.Image))
	case d.release.GetImage() != d.Pool.GetSpec().GetImage():
		d.otherImage()
	case d.active != nil && d.active.GetSpec().GetToVersion() == d.target && d.active.GetStatus().GetPhase() == halted:
		return refuse("%s is halted; let it go on with \"daybreak rollout resume %s\"", d.title(), name)
	case d.active != nil && d.active.GetSpec().GetToVersion() == d.target:
		return refuse("%s goes on already", d.title())
	case d.active == nil && d.release.GetVersion() == d.target:
		return refuse("there is nothing to move: the pool runs version %d, which is what it should; publish another version, "+
			"or name one in the pool's spec.version", d.target)
	default:
		d.begin(d.target, by, fmt.Sprintf("%s asked for version %d", by, d.target))
	}
	return nil
}

func whyNone(pool *v1.Pool, image *v1.Image) string {
	name, number := pool.GetSpec().GetImage(), pool.GetSpec().GetVersion()
	switch {
	case image == nil:
		return fmt.Sprintf("image %s does not exist", name)
	case number == 0 && image.GetStatus().GetCurrent() == 0:
		return fmt.Sprintf("image %s has no published version", name)
	case store.WantedVersion(pool, image) == 0:
		return fmt.Sprintf("the version of image %s that the pool should run is not ready; publish one", name)
	}
	return "the pool is new; ask again in a moment"
}

// RollBack takes the newest rollout of a pool back, whether it runs, is halted or is done. Errors wrap ErrRefused or the
// store's sentinels.
func (s *Steward) RollBack(ctx context.Context, now time.Time, pool, by, reason string) (*v1.Rollout, error) {
	made, err := s.act(ctx, now, pool, func(d *decision) error { return d.backFor(by, reason) })
	return made, wrap(err, "roll pool %s back", pool)
}

// backFor takes the newest rollout back because somebody asked for it.
func (d *decision) backFor(by, why string) error {
	if why == "" {
		why = by + " asked for it"
	}
	to, from, previous, err := d.back()
	if err != nil {
		return err
	}
	if store.Runnable(d.Image, to) == nil {
		return refuse("version %d of image %s, to which it would go back, may not be run any more; name another in the pool's spec.version",
			to, d.Pool.GetSpec().GetImage())
	}
	d.goBack(to, previous, from, by, why, false)
	return nil
}

// back finds where a rollback goes to and comes from, and what the pool has as previous then.
func (d *decision) back() (to, from, previous uint32, err error) {
	last := newest(d.Rollouts)
	spec := last.GetSpec()
	switch {
	case last == nil || d.release == nil:
		return 0, 0, 0, refuse("nothing was ever rolled out to it")
	case d.release.GetImage() != d.Pool.GetSpec().GetImage() || spec.GetImage() != d.release.GetImage() || spec.GetFromVersion() == 0:
		return 0, 0, 0, refuse("its image was changed, and versions of another image are not gone back to; name the former image in the pool's spec.image")
	case spec.GetRollback():
		return 0, 0, 0, refuse("%s took it back already, and a rollback is not rolled back; publish the version that is wanted, name it in the "+
			"pool's spec.version, or try the last one again with \"daybreak rollout start %s\"", Title(last), spec.GetPool())
	case d.active != nil && d.release.GetVersion() == spec.GetToVersion():
		return 0, 0, 0, refuse("version %d, which it came from, may not be run any more; name another in the pool's spec.version", spec.GetFromVersion())
	case d.active != nil:
		return d.release.GetVersion(), spec.GetToVersion(), d.release.GetPrevious(), nil
	case last.GetStatus().GetPhase() != done || d.release.GetVersion() != spec.GetToVersion() || d.release.GetPrevious() == 0:
		return 0, 0, 0, refuse("%s ended without a version to go back to: %s", Title(last), last.GetStatus().GetMessage())
	}
	return d.release.GetPrevious(), d.release.GetVersion(), d.release.GetVersion(), nil
}

// Resume lets a paused or halted rollout go on; failures up to now are accepted. Errors wrap ErrRefused or the store's
// sentinels.
func (s *Steward) Resume(ctx context.Context, now time.Time, pool, by string) (*v1.Rollout, error) {
	r, err := s.pause(ctx, now, pool, by, false)
	unpaused := err == nil
	if err != nil && !errors.Is(err, errAsItWas) {
		return nil, wrap(err, "resume the rollout of pool %s", pool)
	}
	if unpaused && r.GetStatus().GetPhase() != halted {
		return r, nil
	}
	r, err = s.act(ctx, now, pool, func(d *decision) error { return d.resumeFor(by) })
	return r, wrap(err, "resume the rollout of pool %s", pool)
}

// resumeFor lets a halted rollout go on with the wave that it was in.
func (d *decision) resumeFor(by string) error {
	s, spec := d.active.GetStatus(), d.active.GetSpec()
	if d.active == nil {
		return refuse("no rollout of it runs")
	}
	if s.GetPhase() != halted {
		return refuse("%s is neither paused nor halted", d.title())
	}
	if store.Runnable(d.Image, spec.GetToVersion()) == nil {
		return refuse("version %d of image %s may not be run any more; publish another one, or roll it back", spec.GetToVersion(), spec.GetImage())
	}
	d.phase(d.active, running)
	s.Accepted, s.WaveReady, s.Message = s.GetFailed(), nil, "resumed"
	if sizes := Waves(d.Pool.GetSpec().GetRollout(), d.census().seats); !spec.GetRollback() && s.GetWave() > 0 {
		for _, size := range sizes {
			if size >= int(s.GetAdmitted()) {
				s.Admitted, d.release.Admitted = uint32(size), uint32(size)
				break
			}
		}
	}
	d.note(ReasonResumed, false, "%s goes on, asked for by %s: %s accepted", d.title(), by, plural(int(s.GetAccepted()), "failure"))
	return nil
}

// Pause keeps a rollout from taking further desktops out of service. Errors wrap ErrRefused or the store's sentinels.
func (s *Steward) Pause(ctx context.Context, now time.Time, pool, by string) (*v1.Rollout, error) {
	r, err := s.pause(ctx, now, pool, by, true)
	return r, wrap(err, "pause the rollout of pool %s", pool)
}

// errAsItWas: the rollout is not paused.
var errAsItWas = errors.New("as it was")

// pause sets whether the active rollout is paused.
func (s *Steward) pause(ctx context.Context, now time.Time, pool, by string, paused bool) (*v1.Rollout, error) {
	return s.again(func() (*v1.Rollout, error) {
		snapshot, err := s.load(ctx, pool)
		if err != nil {
			return nil, err
		}
		d := newDecision(now, snapshot)
		switch {
		case d.active == nil:
			return nil, refuse("no rollout of it runs")
		case d.active.GetSpec().GetPaused() == paused && paused:
			return nil, refuse("%s is paused already", d.title())
		case d.active.GetSpec().GetPaused() == paused:
			return nil, errAsItWas
		}
		d.active.Spec.Paused = paused
		reason, did := ReasonResumed, "goes on"
		if paused {
			reason, did = ReasonPaused, "is paused"
		}
		d.note(reason, false, "%s %s, asked for by %s", d.title(), did, by)
		revision, err := commit(ctx, s.api, now, snapshot.Pool, snapshot.Image, Actions{Update: []*v1.Rollout{d.active}, Notes: d.notes})
		if err != nil {
			return nil, err
		}
		d.active.Meta.Revision = revision
		return d.active, nil
	})
}

// act lets do work on the newest state of a pool and commits what it did, in one transaction.
func (s *Steward) act(ctx context.Context, now time.Time, pool string, do func(*decision) error) (*v1.Rollout, error) {
	return s.again(func() (*v1.Rollout, error) {
		snapshot, err := s.load(ctx, pool)
		if err != nil {
			return nil, err
		}
		d := newDecision(now, snapshot)
		if d.Pool.GetMeta().GetDeletion() != nil {
			return nil, refuse("the pool is being deleted")
		}
		if err := do(d); err != nil {
			return nil, err
		}
		revision, err := commit(ctx, s.objects, now, snapshot.Pool, snapshot.Image, d.actions())
		if err != nil {
			return nil, err
		}
		d.active.Meta.Revision = revision
		return d.active, nil
	})
}

// again repeats a call while others are quicker.
func (s *Steward) again(call func() (*v1.Rollout, error)) (r *v1.Rollout, err error) {
	for range stewardAttempts {
		r, err = call()
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) {
			return r, err
		}
	}
	return r, err
}

// load reads what a decision about a pool needs from the store itself: people's calls see what they did before, whichever
// daybreakd they ask.
func (s *Steward) load(ctx context.Context, name string) (Snapshot, error) {
	pool, err := store.Get[*v1.Pool](ctx, s.objects, name)
	if err != nil {
		return Snapshot{}, err
	}
	snapshot := Snapshot{Pool: pool}
	image, err := store.Get[*v1.Image](ctx, s.objects, pool.GetSpec().GetImage())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return Snapshot{}, err
	}
	if err == nil {
		snapshot.Image = image
	}
	rollouts, revision, err := store.List[*v1.Rollout](ctx, s.objects)
	if err != nil {
		return Snapshot{}, err
	}
	for _, r := range rollouts {
		if r.GetSpec().GetPool() == name {
			snapshot.Rollouts = append(snapshot.Rollouts, r)
		}
	}
	desktops, _, err := store.List[*v1.Desktop](ctx, s.objects)
	if err != nil {
		return Snapshot{}, err
	}
	for _, desktop := range desktops {
		if desktop.GetSpec().GetPool() == name {
			snapshot.Desktops = append(snapshot.Desktops, desktop)
		}
	}
	hosts, _, err := store.List[*v1.Host](ctx, s.objects)
	snapshot.Hosts, snapshot.Revision = hosts, revision
	return snapshot, err
}

// refuse makes an error that says why something cannot be done.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrRefused)
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
