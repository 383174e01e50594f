package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Of the plan's loop.
const (
	planKey = "plan" // its one key: a plan is about all pools, since they share hosts
	// countEvery is how often claims and starts are counted at least.
	countEvery = time.Minute
	// planAhead is how far ahead start times are told to hosts.
	planAhead = 36 * time.Hour
)

// planner is one term of the plan's loop.
type planner struct {
	*term
	counted time.Time
	kept    map[string]unwritten // of histories
	pace    pace
	readAt  time.Time // when the clock was read
	clock   clockWatch
}

// changed queues another plan, when a change asks for one.
func (p *planner) changed(before, after *store.View, refs []store.Ref) {
	if p.pace.ask(urgencyOf(before, after, refs)) {
		p.plans.Add(planKey)
	}
}

// reconcile writes what pools remember, plans the warm-ups that are near, and tells hosts when desktops start.
func (p *planner) reconcile(ctx context.Context, _ string) (time.Duration, error) {
	now, view := time.Now(), p.mirror.View()
	p.clock.look(now, now.Sub(p.readAt)) // by the monotonic clock
	p.readAt = now
	round := dayRound{skipped: p.clock.skipped}
	due := p.pace.wait(now) == 0
	if since := now.Sub(p.counted); due || since < 0 || since >= countEvery {
		p.counted = now
		p.kept = round.remember(now, view, &p.curves, p.kept)
		round.sweep(now, view)
	}
	if due {
		p.pace.begin(now)
		near, next := round.plan(now, view, &p.curves, p.kept)
		p.pace.foresee(near, next)
	}
	if err := p.commit(ctx, round); err != nil {
		p.pace.ask(atOnce)
		return 0, err
	}
	return max(min(p.counted.Add(countEvery).Sub(now), p.pace.wait(now)), time.Millisecond), nil
}

// commit writes a round.
func (p *planner) commit(ctx context.Context, round dayRound) error {
	// Plans before start times: what a plan started is not cooled before its deadline.
	revision, err := p.write(ctx, round.objects, "plans and histories")
	if err != nil {
		return err
	}
	last, err := p.write(ctx, round.starts, "start times")
	if err != nil {
		return err
	}
	if _, err := p.write(ctx, round.events, "events about warm-ups"); err != nil {
		return err
	}
	if len(round.starts) > 0 {
		p.log.Info().Int("desktops", len(round.starts)).Msg("start times written")
	}
	_, err = p.mirror.Wait(ctx, max(revision, last))
	return err
}

// write commits what can be; what somebody else changed meanwhile is planned anew. What the store will not have, such as an
// object that is too large, keeps no other pool from its plan.
func (p *planner) write(ctx context.Context, ops []store.Op, what string) (int64, error) {
	if len(ops) == 0 {
		return 0, nil
	}
	revision, failed, err := p.store.CommitEach(ctx, ops)
	for _, f := range failed {
		if !errors.Is(f, store.ErrConflict) && !errors.Is(f, store.ErrExists) && !errors.Is(f, store.ErrNotFound) {
			p.log.Error().Err(f).Str("what", what).Msg("not written")
		}
	}
	if err != nil {
		return revision, fmt.Errorf("write %s: %w", what, err)
	}
	return revision, nil
}

// dayRound is what one round of the plan's loop writes.
type dayRound struct {
	objects []store.Op // plans and histories
	starts  []store.Op // start times of desktops
	events  []store.Op
	again   time.Time // when to look again even if nothing changes; zero means never
	skipped skip      // by the clock
}

// plan says what is to be written about the warm-ups of all pools. near: a start is so near that what happens meanwhile matters
// at once. next is when to plan again even if nothing changes; zero means some time. kept is what remember returned: starts of which
// the view's histories do not tell yet. It is pure.
func (r *dayRound) plan(now time.Time, view *store.View, known *curves, kept map[string]unwritten) (near bool, next time.Time) {
	if !slices.ContainsFunc(store.All[*v1.Pool](view), func(p *v1.Pool) bool { return p.GetSpec().GetSchedule() != nil }) {
		return false, time.Time{}
	}
	rooms := known.rooms.Of(view)
	in := warmup.Input{Until: now.Add(planAhead), Model: known.learned(view, kept)}
	out := warmup.Plan(now, planInput(view, now, in, rooms, func(pool *v1.Pool) []demand.Step { return known.get(view, pool, now) }))
	byName := map[string]*room.Host{}
	for _, h := range rooms {
		byName[h.Name()] = h
	}
	for _, plan := range out.Pools {
		pool, ok := store.Lookup[*v1.Pool](view, plan.Name)
		if !ok {
			continue
		}
		near = near || isNear(now, plan)
		r.startDesktops(now, view, pool, &plan, byName)
		r.writePlans(now, view, pool, plan, known)
	}
	return near, r.again
}

// lookAgain asks for another plan at a time.
func (r *dayRound) lookAgain(at time.Time) {
	if r.again.IsZero() || at.Before(r.again) {
		r.again = at
	}
}
