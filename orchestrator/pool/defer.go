package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels of Defer.
var (
	// ErrNoRestart: nothing is announced that could be put off.
	ErrNoRestart = errors.New("no restart is announced")
	// ErrNoDeferral: the pool's policy lets the user put the restart off no more.
	ErrNoDeferral = errors.New("the restart can be put off no more")
)

// Defer puts off the restart that a rollout announced to a user, and returns the desktop with the new time and how often
// the user may do that again. ErrNotClaimed, ErrNoRestart, ErrNoDeferral, store.ErrNotFound (no such pool).
func (c *Claimer) Defer(ctx context.Context, pool, user string, now time.Time) (*v1.Desktop, uint32, error) {
	fail := func(err error) (*v1.Desktop, uint32, error) {
		return nil, 0, fmt.Errorf("put off a restart in pool %s: %w", pool, err)
	}
	if _, err := c.mirror.Wait(ctx, 0); err != nil {
		return fail(err)
	}
	var unsure *v1.Desktop // what may have been written
	for range claimAttempts {
		object, err := store.Get[*v1.Pool](ctx, c.store, pool)
		if err != nil {
			return fail(err)
		}
		desktop, err := c.held(ctx, pool, user)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fail(err)
		}
		if unsure != nil && proto.Equal(desktop.GetClaim(), unsure.GetClaim()) {
			return desktop, inUseOf(object).left(desktop.GetClaim()), nil // it went through
		}
		zone := clockOf(c.mirror.View(), object)
		changed, err := deferred(now, object, zone, desktop)
		if err != nil {
			return fail(err)
		}
		event := store.NewEvent(now, changed, ReasonRestartDeferred, fmt.Sprintf("%s put the restart off: it will be at %s, not at %s", user,
			clock(zone, changed.GetClaim().GetRestartAt().AsTime()), clock(zone, desktop.GetClaim().GetRestartAt().AsTime())), false)
		revision, err := c.store.Commit(ctx, store.Update(changed), store.Create(event))
		if err == nil {
			changed.Meta.Revision = revision
			return changed, inUseOf(object).left(changed.GetClaim()), nil
		}
		if !lookAgain(err) {
			return fail(err)
		}
		if errors.Is(err, store.ErrUnknownOutcome) {
			unsure = changed
		}
	}
	return fail(fmt.Errorf("others were quicker %d times: %w", claimAttempts, store.ErrConflict))
}

// deferred returns the desktop with its restart put off once, as the pool's policy says, but never past the deadline.
func deferred(now time.Time, pool *v1.Pool, zone *time.Location, desktop *v1.Desktop) (*v1.Desktop, error) {
	p, claim := inUseOf(pool), desktop.GetClaim()
	if claim.GetRestartAt() == nil {
		return nil, fmt.Errorf("desktop %s: %w", desktop.GetMeta().GetName(), ErrNoRestart)
	}
	if p.left(claim) == 0 {
		return nil, fmt.Errorf("desktop %s restarts at %s: %w", desktop.GetMeta().GetName(), clock(zone, claim.GetRestartAt().AsTime()), ErrNoDeferral)
	}
	at := later(claim.GetRestartAt().AsTime(), now).Add(p.deferBy)
	if !p.force.IsZero() {
		at = earlier(at, p.force) // later than it was, since something was left
	}
	counted := proto.CloneOf(desktop)
	counted.Claim.Deferrals++
	return announced(now, pool, zone, counted, at), nil
}
