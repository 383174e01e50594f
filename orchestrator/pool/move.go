package pool

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Ranks of the desktops that are to move: those whom it costs nothing first. One that no host takes comes last: with it
// a wave would prove nothing.
const (
	rankIdle      = iota // not in service
	rankFree             // ready, and nobody holds it
	rankAnnounced        // its user knows when it restarts
	rankHeld
	rankUnplaced
)

// move ends healthy lives for the version's sake while the release lets it, within the budget and above min_ready. It
// returns the claimed desktops whose restart goes on being announced.
func (d *decision) move(surplus map[string]bool, budget int) map[string]bool {
	turns := map[string]bool{}
	t := d.moveTarget()
	slots, spare, soon := d.slots(surplus), d.spare(surplus), 0
	for _, desktop := range d.candidates(t, surplus) {
		if slots <= 0 || !d.open(t) || d.full() {
			break
		}
		rank, cost := rankOf(desktop), 1
		if d.onTheWay(desktop) {
			cost = 0 // it is counted already
		}
		cold := isCold(d.now, desktop) && desktop.GetClaim() == nil // not in service
		switch {
		case desktop.GetIncarnation().GetHost() == "" && desktop.GetClaim() != nil && t == d.next && d.unproven():
			continue // it has waited long enough for a host
		case desktop.GetIncarnation().GetHost() == "":
			d.uncount(desktop)
			d.renew(desktop)
			d.stopped[desktop.GetMeta().GetName()] = true
			turns[desktop.GetMeta().GetName()] = true
		case desktop.GetClaim() != nil:
			turn := d.restart(desktop, &soon)
			if turn == turnNone {
				continue
			}
			turns[desktop.GetMeta().GetName()] = true
			if turn == turnNow && budget >= cost {
				budget -= cost
				d.moveAway(desktop, t)
			}
		case cold:
			d.moveAway(desktop, t)
		case budget < cost || rank == rankFree && spare <= 0:
			continue
		default:
			budget -= cost
			if rank == rankFree {
				spare--
			}
			d.moveAway(desktop, t)
		}
		slots--
	}
	return turns
}

// moveBack takes cold lives of the next version back to the one before where fewer are admitted by now, since they failed:
// else the schedule would start what nobody trusts.
func (d *decision) moveBack(surplus map[string]bool) {
	excess := d.onNext - int(d.Pool.GetRelease().GetAdmitted())
	for _, desktop := range slices.Backward(d.rest) {
		name := desktop.GetMeta().GetName()
		if excess <= 0 || d.next == d.base || !d.open(d.base) || d.full() {
			return
		}
		if !d.runs(desktop, d.next) || !isCold(d.now, desktop) || desktop.GetClaim() != nil || surplus[name] || d.stopped[name] {
			continue
		}
		excess--
		d.stopped[name] = true
		if desktop.GetIncarnation().GetHost() == "" {
			d.renew(desktop)
			continue
		}
		d.moveAway(desktop, d.base)
	}
}

// moveTarget returns what desktops are moved to now; nil when none is.
func (d *decision) moveTarget() *target {
	t := d.base
	if d.next != nil {
		t = d.next
	}
	if !d.Pool.GetRelease().GetMoving() || !d.open(t) {
		return nil
	}
	return t
}

// slots is how many more desktops may move: those admitted that neither run the next version nor are about to. What ended
// or is ending takes the next version when it begins anew, if there is room, whyever it ended.
func (d *decision) slots(surplus map[string]bool) int {
	if d.next == nil {
		return len(d.Desktops)
	}
	slots := int(d.Pool.GetRelease().GetAdmitted()) - d.onNext - d.ending
	for _, desktop := range d.retiring {
		if store.State(desktop) != v1.DesktopState_DESKTOP_STATE_LOST && !d.runs(desktop, d.next) {
			slots--
		}
	}
	renewed := map[string]bool{}
	for _, change := range d.actions.Renew {
		renewed[change.Desktop.GetMeta().GetName()] = true
	}
	for _, desktop := range d.over {
		name := desktop.GetMeta().GetName()
		if !renewed[name] && !surplus[name] && !d.runs(desktop, d.next) {
			slots--
		}
	}
	return slots
}

// spare is how many ready desktops that nobody holds there are beyond min_ready.
func (d *decision) spare(surplus map[string]bool) int {
	free := 0
	for _, desktop := range d.rest {
		if rankOf(desktop) == rankFree && !surplus[desktop.GetMeta().GetName()] {
			free++
		}
	}
	return free - int(d.Pool.GetSpec().GetMinReady())
}

// candidates are the desktops that do not run the target yet, in the order in which they move; among equals those first
// that run neither it nor what the pool runs.
func (d *decision) candidates(t *target, surplus map[string]bool) []*v1.Desktop {
	if t == nil {
		return nil
	}
	var found []*v1.Desktop
	for _, desktop := range d.rest {
		name := desktop.GetMeta().GetName()
		if !d.runs(desktop, t) && !surplus[name] && !d.stopped[name] {
			found = append(found, desktop)
		}
	}
	slices.SortStableFunc(found, func(a, b *v1.Desktop) int {
		return cmp.Or(
			cmp.Compare(rankOf(a), rankOf(b)),
			a.GetClaim().GetRestartAt().AsTime().Compare(b.GetClaim().GetRestartAt().AsTime()),
			cmp.Compare(d.age(a), d.age(b)),
		)
	})
	return found
}

func (d *decision) age(desktop *v1.Desktop) int {
	if d.runs(desktop, d.base) {
		return 1
	}
	return 0
}

func rankOf(desktop *v1.Desktop) int {
	inc := desktop.GetIncarnation()
	switch {
	case desktop.GetClaim().GetRestartAt() != nil:
		return rankAnnounced
	case desktop.GetClaim() != nil:
		return rankHeld
	case inc.GetHost() == "" && inc.GetUnplacedReason() != "":
		return rankUnplaced
	case store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY && !store.Present(desktop).GetPausedIo():
		return rankFree
	}
	return rankIdle
}

// moveAway ends a healthy life. A claim stays: its user goes on with the next one.
func (d *decision) moveAway(desktop *v1.Desktop, t *target) {
	t.take()
	d.stopped[desktop.GetMeta().GetName()] = true
	d.uncount(desktop)
	inc := desktop.GetIncarnation()
	changed := retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)
	calm(changed)
	message := fmt.Sprintf("generation %d on host %s gives way to version %d", inc.GetGeneration(), inc.GetHost(), t.version.GetNumber())
	if rollout := d.Pool.GetRelease().GetRollout(); rollout != "" {
		message += " (rollout " + rollout + ")"
	}
	if claim := desktop.GetClaim(); claim != nil {
		message += fmt.Sprintf("; %s holds it and goes on with the new one", claim.GetUser())
	}
	d.actions.Retire = append(d.actions.Retire, Change{Desktop: changed, Reason: ReasonMoved, Message: message})
}

// calm takes an announced restart from a desktop's claim.
func calm(desktop *v1.Desktop) {
	if desktop.GetClaim() == nil {
		return
	}
	desktop.Claim = proto.CloneOf(desktop.Claim)
	desktop.Claim.RestartAt, desktop.Claim.Deferrals = nil, 0
}
