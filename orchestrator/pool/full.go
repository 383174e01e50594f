package pool

import (
	"fmt"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// isFree: the desktop is ready, nobody holds it, and anybody may claim it.
func (d *decision) isFree(desktop *v1.Desktop) bool {
	told := desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY
	return told && !d.Down[desktop.GetIncarnation().GetHost()] && d.deletion(desktop) == nil && !isKept(desktop) && rankOf(desktop) == rankFree
}

// fullness says that no desktop is free although more could be asked for: all are held or kept, users wait, or the seats
// leave no room for the spares; "" when that is not so. Where every seat is bound to its user, nobody else is expected.
func (d *decision) fullness(s *v1.PoolStatus) string {
	seats, claimed := int(d.Pool.GetSpec().GetDesktops()), int(s.Claimed)
	bound, kept := 0, 0
	for _, desktop := range d.Desktops {
		if desktop.GetSpec().GetOwner() != "" {
			bound++
		}
		if desktop.GetClaim() == nil && (desktop.GetSpec().GetOwner() != "" || desktop.GetSpec().GetDataUser() != "") {
			kept++
		}
	}
	spares, taken := d.step.Buffer, claimed+kept+len(d.Queue)
	if isDedicated(d.Pool) {
		spares = min(spares, max(0, seats-bound))
	}
	missing := max(0, spares-max(0, seats-taken))
	allBound := isDedicated(d.Pool) && bound >= seats
	if len(d.Queue) == 0 && missing == 0 && (taken < seats || allBound || seats == 0) {
		return ""
	}
	text := "none is free: "
	if s.Free > 0 {
		text = fmt.Sprintf("%d %s free: ", s.Free, are(int(s.Free)))
	}
	if total := max(seats, len(d.Desktops)-len(d.surplus)); claimed < total || total == 1 {
		text += fmt.Sprintf("%d of %d %s claimed", claimed, total, are(claimed))
	} else {
		text += fmt.Sprintf("all %d are claimed", claimed)
	}
	if kept > 0 {
		text += fmt.Sprintf(", %d kept for one user each", kept)
	}
	if n := len(d.Queue); n > 0 {
		text += ", " + waitPhrase(n)
	}
	if missing > 0 {
		text += fmt.Sprintf(", %s %s missing", plural(missing, "spare"), are(missing))
	}
	return text
}

// leaving is how many of a pool's desktops that end are not followed by others: the pool is to have fewer.
func leaving(view *store.View, pool string, desktops []*v1.Desktop) int {
	p, ok := store.Lookup[*v1.Pool](view, pool)
	if !ok {
		return 0
	}
	seats := int(p.GetSpec().GetDesktops())
	if p.GetMeta().GetDeletion() != nil {
		seats = 0
	}
	ending := 0
	for _, d := range desktops {
		deleted := d.GetMeta().GetDeletion() != nil && d.GetClaim() == nil
		if deleted || d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED && mayBeSurplus(d) {
			ending++
		}
	}
	return max(0, min(ending, len(desktops)-seats))
}

// allTaken: nothing of the pool can come to one who waits before somebody lets go of theirs.
func allTaken(view *store.View, pool string) bool {
	desktops := view.DesktopsOfPool(pool)
	p, _ := store.Lookup[*v1.Pool](view, pool)
	claimed, idle := 0, 0
	for _, d := range desktops {
		switch standing(view, d) {
		case "claimed":
			claimed++
		case "kept for its user":
			idle++
		}
	}
	idle += leaving(view, pool, desktops)
	return claimed > 0 && claimed+idle >= len(desktops) && len(desktops) >= int(p.GetSpec().GetDesktops())
}

// allBound: the pool is a dedicated one, and each of its seats is for ever that of another user.
func allBound(view *store.View, pool, user string) bool {
	p, ok := store.Lookup[*v1.Pool](view, pool)
	if !ok || !isDedicated(p) {
		return false
	}
	bound := 0
	for _, d := range view.DesktopsOfPool(pool) {
		switch d.GetSpec().GetOwner() {
		case "":
		case user:
			return false
		default:
			bound++
		}
	}
	return bound > 0 && bound >= int(p.GetSpec().GetDesktops())
}
