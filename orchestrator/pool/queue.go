package pool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxServed bounds how much of a queue one round serves; the next goes on.
const maxServed = maxChanges

// queueOf returns who waits for a desktop of a pool, who waits longest first.
func queueOf(view *store.View, pool string) []*v1.Claim {
	queue := view.ClaimsWaiting(pool)
	slices.SortFunc(queue, inQueue)
	return queue
}

// inQueue orders claims that wait.
func inQueue(a, b *v1.Claim) int {
	return cmp.Or(a.GetQueued().AsTime().Compare(b.GetQueued().AsTime()), cmp.Compare(a.GetMeta().GetName(), b.GetMeta().GetName()))
}

// service is what is to be done about a queue.
type service struct {
	// loans go to who waits, in order.
	loans []loan
	// drop are places that nobody is heard from any more.
	drop []*v1.Claim
	// again is when a place falls free if nothing more is heard from who waits; 0 means never.
	again time.Duration
}

// decideQueue says who of those that wait gets which desktop now. It is pure. pool may be nil: it is gone, and nobody waits
// for it.
func decideQueue(now time.Time, view *store.View, name string, pool *v1.Pool) service {
	var s service
	queue := queueOf(view, name)
	if len(queue) == 0 {
		return s
	}
	stock := newStock(now, view, pool)
	for _, claim := range queue {
		switch {
		case len(s.loans)+len(s.drop) >= maxServed:
			s.again = time.Millisecond
			return s
		case pool == nil || pool.GetMeta().GetDeletion() != nil || isExpired(claim, now):
			s.drop = append(s.drop, claim)
			continue
		}
		if desktop := stock.take(claim.GetUser()); desktop != nil {
			s.loans = append(s.loans, lend(pool, desktop, claim, claim.GetUser(), claim.GetRequestId(), now))
			continue
		}
		// A moment later, since what is due just now is not over.
		if left := claim.GetExpires().AsTime().Sub(now) + time.Millisecond; s.again == 0 || left < s.again {
			s.again = left
		}
	}
	return s
}

// stock is what a pool has to lend: to anybody, and to some.
type stock struct {
	open []*v1.Desktop
	// own are those that only one user can have, by user.
	own map[string][]*v1.Desktop
	// owners are those who own a desktop of a dedicated pool: they get no other.
	owners map[string]bool
}

func newStock(now time.Time, view *store.View, pool *v1.Pool) *stock {
	s := &stock{own: map[string][]*v1.Desktop{}, owners: map[string]bool{}}
	lasting := lastingVersion(pool)
	for _, desktop := range view.DesktopsOfPool(pool.GetMeta().GetName()) {
		spec := desktop.GetSpec()
		if isDedicated(pool) && spec.GetOwner() != "" {
			s.owners[spec.GetOwner()] = true
		}
		user := cmp.Or(spec.GetOwner(), spec.GetDataUser(), desktop.GetIncarnation().GetUsedBy())
		switch {
		case !lendable(view, desktop, user, now):
		case user != "":
			s.own[user] = append(s.own[user], desktop)
		default:
			s.open = append(s.open, desktop)
		}
	}
	for owner := range s.owners { // who kept data on another desktop, while the pool was floating, has that no more
		s.own[owner] = slices.DeleteFunc(s.own[owner], func(d *v1.Desktop) bool { return d.GetSpec().GetOwner() != owner })
	}
	onTrial := func(d *v1.Desktop) int {
		if d.GetIncarnation().GetVersion() == lasting && d.GetIncarnation().GetImage() == pool.GetSpec().GetImage() {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(s.open, func(a, b *v1.Desktop) int { return cmp.Compare(onTrial(a), onTrial(b)) })
	return s
}

// take takes the best desktop for a user out of the stock; nil when there is none for them.
func (s *stock) take(user string) *v1.Desktop {
	if own := s.own[user]; len(own) > 0 {
		s.own[user] = own[1:]
		return own[0]
	}
	if s.owners[user] || len(s.open) == 0 {
		return nil
	}
	first := s.open[0]
	s.open = s.open[1:]
	return first
}

// serve gives those who wait for a desktop of a pool what there is, and forgets those who went away. It returns when to
// look again, 0 for never.
func (t *term) serve(ctx context.Context, name string) (time.Duration, error) {
	now, view := time.Now(), t.mirror.View()
	pool, _ := store.Lookup[*v1.Pool](view, name)
	s := decideQueue(now, view, name, pool)
	var last int64
	quicker := false
	write := func(ops []store.Op) error {
		revision, err := t.store.Commit(ctx, ops...)
		if errors.Is(err, store.ErrConflict) { // the user went, or somebody took the desktop: the next round sees it
			quicker = true
			return nil
		}
		last = max(last, revision)
		return err
	}
	for _, claim := range s.drop {
		if err := write([]store.Op{store.Delete(claim)}); err != nil {
			return 0, fmt.Errorf("drop a place in the queue of pool %s: %w", name, err)
		}
	}
	for _, loan := range s.loans {
		if err := write(loan.ops()); err != nil {
			return 0, fmt.Errorf("lend %s to %q, who waited: %w", loan.desktop.GetMeta().GetName(), loan.claim.GetUser(), err)
		}
	}
	if _, err := t.mirror.Wait(ctx, last); err != nil {
		return 0, err
	}
	if quicker {
		return conflictPause, nil
	}
	return s.again, nil
}
