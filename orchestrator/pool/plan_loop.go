package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Of the plan's loop.
const (
	planKey = "plan" // its one key: a plan is about all pools, since they share hosts
	// planEvery is how often plans are made anew when nothing changed, and claims are counted.
	planEvery = time.Minute
	// planPause is how long at least lies between two plans.
	planPause = 5 * time.Second
	// planAhead is how far ahead start times are told to hosts.
	planAhead = 36 * time.Hour
)

// planner is one term of the plan's loop.
type planner struct {
	*term
	last time.Time // it planned
}

// planChanged tells whether a change may make for another plan.
func planChanged(refs []store.Ref) bool {
	for _, ref := range refs {
		switch ref.Kind {
		case v1.Kind_KIND_POOL, v1.Kind_KIND_DESKTOP, v1.Kind_KIND_CALENDAR, v1.Kind_KIND_HOST, v1.Kind_KIND_IMAGE:
			return true
		}
	}
	return false
}

// reconcile writes what pools remember, plans the warm-ups that are near, and tells hosts when desktops start.
func (p *planner) reconcile(ctx context.Context, _ string) (time.Duration, error) {
	now := time.Now()
	if since := now.Sub(p.last); since >= 0 && since < planPause {
		return planPause - since, nil
	}
	p.last = now
	view := p.mirror.View()
	round := planDay(now, view, p.curves.get)
	// Plans before start times: what a plan started is not cooled before its deadline.
	revision, err := p.write(ctx, round.objects, "plans and histories")
	if err != nil {
		return 0, err
	}
	last, err := p.write(ctx, round.starts, "start times")
	if err != nil {
		return 0, err
	}
	if _, err := p.write(ctx, round.events, "events about warm-ups"); err != nil {
		return 0, err
	}
	if len(round.starts) > 0 {
		p.log.Info().Int("desktops", len(round.starts)).Msg("start times written")
	}
	if _, err := p.mirror.Wait(ctx, max(revision, last)); err != nil {
		return 0, err
	}
	return planEvery, nil
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
}

// planDay says what is to be written about the days of all pools. It is pure.
func planDay(now time.Time, view *store.View, curveOf func(*store.View, *v1.Pool, time.Time) []demand.Step) dayRound {
	var r dayRound
	r.remember(now, view)
	r.sweep(now, view)
	if !slices.ContainsFunc(store.All[*v1.Pool](view), func(p *v1.Pool) bool { return p.GetSpec().GetSchedule() != nil }) {
		return r
	}
	in := planInput(view, now, now.Add(planAhead), func(pool *v1.Pool) []demand.Step { return curveOf(view, pool, now) })
	out := warmup.Plan(now, in)
	rooms := roomsOf(view)
	for _, plan := range out.Pools {
		pool, ok := store.Lookup[*v1.Pool](view, plan.Name)
		if !ok {
			continue
		}
		r.startDesktops(now, view, pool, &plan, rooms)
		r.writePlans(now, view, pool, plan)
	}
	return r
}
