package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// askedPace is how often at most it is written down that a user asked for the desktop that they hold.
const askedPace = time.Minute

// comeBack is a claim by a user who holds a desktop: a sign of use. It wakes the desktop if that sleeps, and takes back
// what was to be done about it as idle.
func (c *Claimer) comeBack(ctx context.Context, claim *v1.Claim, now time.Time) (*v1.Desktop, error) {
	desktop, err := c.desktopOf(ctx, claim)
	if err != nil {
		return nil, err
	}
	changed, events := returned(now, desktop)
	if changed == nil {
		return desktop, nil
	}
	if err := c.writeHeld(ctx, changed, events); err != nil {
		return nil, err
	}
	return changed, nil
}

// writeHeld writes a desktop that a user holds, with events, and sets its new revision.
func (c *Claimer) writeHeld(ctx context.Context, changed *v1.Desktop, events []*v1.Event) error {
	ops := []store.Op{store.Update(changed)}
	for _, event := range events {
		ops = append(ops, store.Create(event))
	}
	revision, err := c.store.Commit(ctx, ops...)
	if err != nil {
		return fmt.Errorf("note that desktop %s is used: %w", changed.GetMeta().GetName(), err)
	}
	changed.Meta.Revision = revision
	return nil
}

// returned is what a held desktop becomes when its user asks for it; nil when nothing is to be written.
func returned(now time.Time, desktop *v1.Desktop) (*v1.Desktop, []*v1.Event) {
	claim := desktop.GetClaim()
	changed := proto.CloneOf(desktop)
	var events []*v1.Event
	if claim.GetReclaim() != nil {
		if event := withdraw(now, changed, claim.GetUser()+" asked for it"); event != nil {
			events = append(events, event)
		}
	}
	if what := wake(now, changed); what != "" {
		events = append(events, store.NewEvent(now, changed, ReasonWoken, fmt.Sprintf("%s since %s asked for it", what, claim.GetUser()), false))
	}
	if len(events) == 0 && claim.GetReclaim() == nil && claim.GetAsked() != nil && now.Sub(claim.GetAsked().AsTime()) < askedPace {
		return nil, nil
	}
	changed.Claim.Asked = timestamppb.New(now)
	return changed, events
}

// Keep says that the user's desktop is busy for a time from now on, so that it is not reclaimed as idle; 0 takes an earlier
// word back. ErrNotClaimed.
func (c *Claimer) Keep(ctx context.Context, pool, user string, busy time.Duration, now time.Time) (*v1.Desktop, error) {
	for range claimAttempts {
		desktop, err := c.held(ctx, pool, user)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		changed := proto.CloneOf(desktop)
		changed.Claim.BusyUntil = nil
		var events []*v1.Event
		if busy > 0 {
			changed.Claim.BusyUntil = timestamppb.New(now.Add(busy))
			if reclaim := changed.GetClaim().GetReclaim(); reclaim != nil && !reclaim.GetActing() {
				events = append(events, withdraw(now, changed, user+" said that it is busy"))
			}
		}
		if proto.Equal(changed, desktop) {
			return desktop, nil
		}
		err = c.writeHeld(ctx, changed, events)
		if err == nil {
			return changed, nil
		}
		if !lookAgain(err) || errors.Is(err, store.ErrUnknownOutcome) && ctx.Err() != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("keep a desktop of pool %s: others were quicker %d times: %w", pool, claimAttempts, store.ErrConflict)
}
