package pool

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
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

// makeMissing renews what ended and makes the seats that are missing, as far as the restraints allow. surplus are the
// seats that were disposed of in this round.
func (d *decision) makeMissing(surplus map[string]bool) {
	for _, desktop := range d.over {
		if d.full() {
			return
		}
		if !surplus[desktop.GetMeta().GetName()] && !endsWithClaim(desktop) { // first the claim ends
			d.renew(desktop)
		}
	}
	d.create()
}

// mend retires what is to be made anew, within the budget, and returns what is left of it.
func (d *decision) mend(surplus map[string]bool, budget int) int {
	d.stopWithdrawn(surplus)
	for _, desktop := range d.toMend() {
		cost := 1
		if d.onTheWay(desktop) { // released before it was ready: it is out of service as it is
			cost = 0
		}
		if d.full() {
			break
		}
		if surplus[desktop.GetMeta().GetName()] || budget < cost {
			continue
		}
		t := d.targetFor(desktop)
		if t == nil {
			continue // nothing could follow
		}
		if d.heldAlone(desktop, t) {
			continue
		}
		budget -= cost
		if desktop.GetIncarnation().GetHost() == "" {
			d.renew(desktop) // no host would ever say that this life ended
			continue
		}
		t.take()
		d.countEnding(desktop)
		d.retire(desktop)
	}
	return budget
}

// toMend are the desktops that are to be made anew, those that failed first. What is tried after a hold is best one that was
// well before: one that fails whatever it runs must not keep the others waiting.
func (d *decision) toMend() []*v1.Desktop {
	for _, t := range d.targets() {
		if t.hold.trial() {
			return slices.Concat(d.used, d.failed)
		}
	}
	return slices.Concat(d.failed, d.used)
}

// stopWithdrawn ends lives that have not begun to run when their version is withdrawn, whether or not another can follow.
// They serve nobody yet, so that no budget is asked.
func (d *decision) stopWithdrawn(surplus map[string]bool) {
	for _, desktop := range d.rest {
		if d.full() {
			return
		}
		if surplus[desktop.GetMeta().GetName()] || d.stopped[desktop.GetMeta().GetName()] || !d.waitsWithdrawn(desktop) {
			continue
		}
		inc := desktop.GetIncarnation()
		d.stopped[desktop.GetMeta().GetName()] = true
		d.uncount(desktop)
		d.countEnding(desktop)
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonReplaced, Warning: true,
			Message: fmt.Sprintf("generation %d ends before it was started: version %d of image %s was withdrawn",
				inc.GetGeneration(), inc.GetVersion(), inc.GetImage()),
		})
	}
}

func (d *decision) countEnding(desktop *v1.Desktop) {
	if !d.runs(desktop, d.next) {
		d.ending++
	}
}

// renew begins the next life, if one may begin now.
func (d *decision) renew(desktop *v1.Desktop) {
	t := d.targetFor(desktop)
	if t == nil {
		return
	}
	reason := d.renewalReason(desktop, t)
	next := proto.CloneOf(desktop)
	calm(next) // another reminder comes if that life is to restart, too
	next.Incarnation = d.following(desktop, t, reason)
	next.Incarnation.Desired = d.birth(desktop, t)
	if next.GetClaim() != nil {
		next.Claim.Reclaim = nil // it is done
	}
	d.give(desktop, t)
	gotReady := ""
	if !neverReady(desktop) {
		gotReady = store.Attempt(desktop.GetIncarnation())
	}
	d.actions.Renew = append(d.actions.Renew, Change{
		Desktop: next, Reason: ReasonRenewed, Attempt: gotReady,
		Message: fmt.Sprintf("generation %d begins with version %d of image %s: %s",
			next.Incarnation.Generation, next.Incarnation.Version, next.Incarnation.Image, reason),
	})
}

func (d *decision) retire(desktop *v1.Desktop) {
	change := Change{Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)}
	if inc := desktop.GetIncarnation(); inc.GetUsedBy() == "" || desktop.GetClaim() != nil || !d.toRefresh(desktop) {
		change.Reason, change.Warning = ReasonReplaced, true
		change.Message = fmt.Sprintf("generation %d on host %s is replaced: %s", inc.GetGeneration(), inc.GetHost(), failure(desktop))
		if neverReady(desktop) {
			change.Attempt = store.Attempt(inc)
		}
	} else {
		change.Desktop.Incarnation.UnlessUsedSince = d.unlessUsed(desktop)
	}
	d.actions.Retire = append(d.actions.Retire, change)
}

// create makes the missing seats, at the lowest free numbers. A seat that is about to go still counts: the unreachable
// is not free, and the number comes free with it.
func (d *decision) create() {
	missing := int(d.Pool.GetSpec().GetDesktops()) - len(d.Desktops)
	taken := map[int]bool{}
	for _, desktop := range d.Desktops {
		taken[seatNumber(desktop)] = true
	}
	number := 0
	for _, identity := range d.Identities {
		t := d.targetFor(nil)
		if missing <= 0 || t == nil || d.full() {
			return
		}
		missing--
		for number++; taken[number]; number++ {
		}
		d.actions.Create = append(d.actions.Create, Change{Desktop: d.seat(number, identity, t)})
		d.give(nil, t)
	}
}

// limit is how many desktops may be out of service at once for being made anew.
func (d *decision) limit() int {
	if limit := int(d.Pool.GetSpec().GetMaxUnavailable()); limit > 0 {
		return limit
	}
	return max(1, int(d.Pool.GetSpec().GetDesktops())/4)
}

// budget is how many more desktops may be taken out of service for being made anew. Where a schedule wants fewer than there
// are, no more are out of service than are wanted and not there: what ends to wait cold is not missed.
func (d *decision) budget() int {
	out := len(d.over)
	for _, desktop := range d.retiring {
		if store.State(desktop) != v1.DesktopState_DESKTOP_STATE_LOST { // else one dead host would stop all mending
			out++
		}
	}
	ready := 0
	for _, desktop := range slices.Concat(d.rest, d.used) {
		if d.onTheWay(desktop) {
			out++
		}
	}
	for _, desktop := range d.rest {
		if store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY {
			ready++
		}
	}
	if d.scheduled() {
		out = min(out, max(0, d.want-ready))
	}
	return d.limit() - out
}

// onTheWay: the life follows another, is to run and is not ready yet. One that finds no host does not count: it may wait for
// the very room that a failed one takes. Neither does one that waited cold before it was told to run.
func (d *decision) onTheWay(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	return inc.GetReason() != reasonNew && inc.GetUnplacedReason() == "" && isStarting(store.State(desktop)) &&
		isDue(d.now, desktop) && !bornCold(desktop)
}
