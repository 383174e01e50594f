package pool

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

func (d *decision) amendSeats() {
	for _, desktop := range d.amend {
		if d.full() {
			return
		}
		changed := proto.CloneOf(desktop)
		changed.Spec.DataHost = dataHostToRecord(desktop)
		d.actions.Amend = append(d.actions.Amend, Change{Desktop: changed})
	}
}

// makeAndMend renews what ended, makes what is missing and retires what is to be made anew, as far as the restraints
// allow. surplus are the seats that were disposed of in this round.
func (d *decision) makeAndMend(surplus map[string]bool) {
	trial := d.hold.trial()
	if trial && d.trialInFlight() {
		return
	}
	for _, desktop := range d.over {
		if surplus[desktop.GetMeta().GetName()] {
			continue
		}
		if d.full() {
			return
		}
		d.renew(desktop)
		if trial {
			return
		}
	}
	if d.create(trial) && trial {
		return
	}
	budget := d.budget()
	if trial {
		budget = min(budget, 1)
	}
	for _, desktop := range slices.Concat(d.failed, d.used) {
		if budget <= 0 || d.full() {
			return
		}
		if surplus[desktop.GetMeta().GetName()] {
			continue
		}
		budget--
		if desktop.GetIncarnation().GetHost() == "" {
			d.renew(desktop) // no host would ever say that this life ended
			continue
		}
		d.retire(desktop)
	}
}

func (d *decision) renew(desktop *v1.Desktop) {
	reason := d.renewalReason(desktop)
	next := proto.CloneOf(desktop)
	next.Incarnation = d.following(desktop, reason)
	d.actions.Renew = append(d.actions.Renew, Change{
		Desktop: next, Reason: ReasonRenewed,
		Message: fmt.Sprintf("generation %d begins with version %d of image %s: %s",
			next.Incarnation.Generation, next.Incarnation.Version, next.Incarnation.Image, reason),
	})
}

func (d *decision) retire(desktop *v1.Desktop) {
	change := Change{Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)}
	if inc := desktop.GetIncarnation(); inc.GetUsedBy() == "" {
		change.Reason, change.Warning = ReasonReplaced, true
		change.Message = fmt.Sprintf("generation %d on host %s is replaced: %s", inc.GetGeneration(), inc.GetHost(), failure(desktop))
		if neverReady(desktop) {
			change.Attempt = attemptOf(inc)
		}
	}
	d.actions.Retire = append(d.actions.Retire, change)
}

// create makes the missing seats, at the lowest free numbers. A seat that is about to go still counts: the unreachable
// is not free, and the number comes free with it.
func (d *decision) create(trial bool) bool {
	missing := int(d.Pool.GetSpec().GetDesktops()) - len(d.Desktops)
	if trial {
		missing = min(missing, 1)
	}
	if missing <= 0 {
		return false
	}
	taken := map[int]bool{}
	for _, desktop := range d.Desktops {
		taken[seatNumber(desktop)] = true
	}
	number := 0
	for _, identity := range d.Identities {
		if missing <= 0 || d.full() {
			break
		}
		missing--
		for number++; taken[number]; number++ {
		}
		d.actions.Create = append(d.actions.Create, Change{Desktop: d.seat(number, identity)})
	}
	return len(d.actions.Create) > 0
}

// budget is how many more desktops may be taken out of service for being made anew.
func (d *decision) budget() int {
	limit := int(d.Pool.GetSpec().GetMaxUnavailable())
	if limit == 0 {
		limit = max(1, int(d.Pool.GetSpec().GetDesktops())/4)
	}
	for _, desktop := range d.retiring {
		if State(desktop) != v1.DesktopState_DESKTOP_STATE_LOST { // else one dead host would stop all mending
			limit--
		}
	}
	limit -= len(d.over)
	for _, desktop := range d.rest {
		inc := desktop.GetIncarnation()
		// One that finds no host does not count: it may wait for the very room that a failed one takes.
		if inc.GetReason() != reasonNew && inc.GetHost() != "" && isStarting(State(desktop)) {
			limit--
		}
	}
	return limit
}
