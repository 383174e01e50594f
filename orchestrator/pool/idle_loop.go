package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// emptiness is since when a life's guest has said that nobody is logged in. It is kept in memory: a new leader begins to
// count anew, which only delays.
type emptiness struct {
	generation int64
	since      time.Time
}

// watchEmpty notes which guests of a pool nobody is logged in to, given what was noted before.
func watchEmpty(now time.Time, before map[string]emptiness, desktops []*v1.Desktop) map[string]emptiness {
	after := map[string]emptiness{}
	for _, desktop := range desktops {
		session, name := store.Present(desktop).GetSession(), desktop.GetMeta().GetName()
		if desktop.GetClaim() == nil || !session.GetUsersKnown() || session.GetUsers() > 0 || session.GetAsked() == nil {
			continue
		}
		noted, ok := before[name]
		if !ok || noted.generation != desktop.GetIncarnation().GetGeneration() || noted.since.After(now) {
			noted = emptiness{generation: desktop.GetIncarnation().GetGeneration(), since: now}
		}
		after[name] = noted
	}
	return after
}

// idle looks after desktops of a pool that users hold and do not use, and returns when to look again, 0 for never.
func (t *term) idle(ctx context.Context, name string) (time.Duration, error) {
	now, view := time.Now(), t.mirror.View()
	pool, ok := store.Lookup[*v1.Pool](view, name)
	if !ok {
		delete(t.empty, name)
		return 0, nil
	}
	in := idleInput{pool: pool, desktops: view.DesktopsOfPool(name), clock: clockOf(view, pool), empty: map[string]time.Time{}}
	if pool.GetSpec().GetIdle() != nil {
		t.empty[name] = watchEmpty(now, t.empty[name], in.desktops)
		for desktop, noted := range t.empty[name] {
			in.empty[desktop] = noted.since
		}
		in.rule, in.ends = ruleNow(now, view, pool)
		if slices.ContainsFunc(in.desktops, func(d *v1.Desktop) bool { return isToRelease(now, d) }) {
			in.round = newDecision(now, snapshotOf(view, pool, now, &t.curves))
			in.round.weigh(in.round.surplus)
		}
	}
	changes, again := decideIdle(now, in)
	var last int64
	for _, change := range changes {
		ops := []store.Op{store.Update(change.desktop)}
		if change.event != nil {
			ops = append(ops, store.Create(change.event))
		}
		if change.releases {
			claim, ok := store.Lookup[*v1.Claim](view, claimName(name, claimant(view, change.desktop)))
			if !ok || claim.GetDesktop() != change.desktop.GetMeta().GetName() {
				continue // the mirror sees both sides of a claim or none: it was released
			}
			ops = append(ops, store.Delete(claim))
		}
		revision, err := t.store.Commit(ctx, ops...)
		if errors.Is(err, store.ErrConflict) {
			again = sooner(again, conflictPause) // the user came, or the host told something: look anew
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("look after desktop %s: %w", change.desktop.GetMeta().GetName(), err)
		}
		last = max(last, revision)
	}
	if _, err := t.mirror.Wait(ctx, last); err != nil {
		return 0, err
	}
	return again, nil
}

// claimant is who holds a desktop by a view.
func claimant(view *store.View, desktop *v1.Desktop) string {
	held, _ := store.Lookup[*v1.Desktop](view, desktop.GetMeta().GetName())
	return held.GetClaim().GetUser()
}

// ruleNow is what a pool's policy says for the present phase of its calendar, and when that ends. There is no rule while the
// calendar cannot be read.
func ruleNow(now time.Time, view *store.View, pool *v1.Pool) (rule *v1.IdleRule, ends time.Time) {
	policy := pool.GetSpec().GetIdle()
	if policy == nil || pool.GetSpec().GetCalendar() == "" {
		return policy.GetOpen(), time.Time{}
	}
	resolved := calendarOf(view, pool)
	if resolved == nil {
		return nil, time.Time{}
	}
	today := calendar.DateOf(now.In(resolved.Zone()))
	for opening := range resolved.Openings(today.Add(-1), today.Add(1)) {
		if !now.Before(opening.Open) && now.Before(opening.Close) {
			return policy.GetOpen(), opening.Close
		}
	}
	if next, ok := resolved.NextOpening(now); ok {
		ends = next.Open
	}
	return policy.GetClosed(), ends
}
