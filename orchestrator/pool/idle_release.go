package pool

import (
	"slices"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// endsAtOnce: whoever lets go of the desktop now lets go of what is on it.
func (in idleInput) endsAtOnce(now time.Time, desktop *v1.Desktop) bool {
	at, ever := refreshAt(in.pool, desktop)
	return ever && !at.After(now)
}

// turns says which of the desktops that are to be taken back may be looked at and ended now, by name. A life that was released
// and waits for its end would be nobody's, and its user could come back to it unseen; so no more are released than may end at
// once, and all others stay their users'. Those come first whose guests were asked already.
func (in idleInput) turns(now time.Time) map[string]bool {
	turns := map[string]bool{}
	if in.rule.GetAction() != v1.IdleAction_IDLE_ACTION_RELEASE || in.round == nil {
		return turns
	}
	room := in.round.roomToEnd()
	for _, asked := range []bool{true, false} {
		for _, desktop := range in.desktops {
			if isToRelease(now, desktop) && wasAsked(desktop) == asked && (!in.endsAtOnce(now, desktop) || room.take(desktop)) {
				turns[desktop.GetMeta().GetName()] = true
			}
		}
	}
	return turns
}

// isToRelease: the desktop is to be taken back, and the time that its user was told has come.
func isToRelease(now time.Time, desktop *v1.Desktop) bool {
	reclaim := desktop.GetClaim().GetReclaim()
	return reclaim.GetAction() == v1.IdleAction_IDLE_ACTION_RELEASE && !reclaim.GetActing() && !now.Before(reclaim.GetActAt().AsTime())
}

// wasAsked: the guest was asked whether the desktop is used after its user was warned in vain.
func wasAsked(desktop *v1.Desktop) bool {
	look := desktop.GetIncarnation().GetLookAt()
	return look != nil && !look.AsTime().Before(desktop.GetClaim().GetReclaim().GetActAt().AsTime())
}

// roomToEnd is how many more lives of held desktops may end now.
type roomToEnd struct {
	*decision
	budget int // to be made anew
	excess int // to go for good, since the pool wants fewer
}

// roomToEnd leaves the budget first to what waits already to be made anew.
func (d *decision) roomToEnd() *roomToEnd {
	room := &roomToEnd{decision: d, budget: d.budget()}
	for _, desktop := range slices.Concat(d.failed, d.used) {
		counted := d.surplus[desktop.GetMeta().GetName()] || d.onTheWay(desktop)
		if !counted && d.targetFor(desktop) != nil && d.alone(desktop).IsZero() {
			room.budget--
		}
	}
	for _, t := range d.targets() {
		if t.hold.trial() {
			room.budget = min(room.budget, 1) // one tries it before the others
		}
	}
	room.excess = len(d.Desktops) - len(d.removing) - len(d.surplus) - int(d.Pool.GetSpec().GetDesktops())
	for _, desktop := range d.retiring {
		if isTakenBack(desktop) && mayBeSurplus(letGo(desktop, d.now)) {
			room.excess--
		}
	}
	return room
}

// take uses the room for one desktop, if there is any for it.
func (r *roomToEnd) take(desktop *v1.Desktop) bool {
	switch {
	case r.excess > 0 && mayBeSurplus(letGo(desktop, r.now)):
		r.excess--
	case r.budget > 0 && r.targetFor(desktop) != nil:
		r.budget--
	default:
		return false
	}
	return true
}
