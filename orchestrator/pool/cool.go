package pool

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxCooled bounds the desktops that one round takes out of service for want of use.
const maxCooled = 32

// cool gives back what runs beyond what is wanted, now and soon: desktops that nobody holds and nobody used. Their lives
// end, and the next ones wait cold. Those that one user alone can have are suspended, so that nothing of theirs is lost.
func (d *decision) cool(surplus map[string]bool) {
	if !d.scheduled() {
		return
	}
	for _, desktop := range d.coolable(surplus) {
		if d.full() || len(d.actions.Cool) >= maxCooled {
			return
		}
		switch state := store.State(desktop); {
		case isStray(d.now, desktop), desktop.GetIncarnation().GetHost() == "" && desktop.GetIncarnation().GetUnplacedReason() != "":
			if d.warm < d.soon {
				continue // it is of use
			}
			d.chill(desktop)
			continue
		case d.warm <= d.soon:
			continue
		case state == v1.DesktopState_DESKTOP_STATE_READY && d.readySpares <= d.step.Buffer:
			continue
		case d.runs(desktop, d.next) && d.trials() >= 0 && d.Pool.GetRelease().GetMoving():
			continue // its wave is not proven without it
		case state == v1.DesktopState_DESKTOP_STATE_READY:
			d.readySpares--
		}
		d.uncount(desktop)
		d.chill(desktop)
	}
	d.suspendKept(surplus)
}

// coolable are the desktops that may be given back, the least useful first: what has no host, what is not ready, then of
// each host in turn.
func (d *decision) coolable(surplus map[string]bool) []*v1.Desktop {
	var found []*v1.Desktop
	turn, onHost := map[*v1.Desktop]int{}, map[string]int{}
	for _, desktop := range d.rest {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		if desktop.GetClaim() != nil || inc.GetUsedBy() != "" || surplus[name] || d.stopped[name] {
			continue
		}
		runs := isDue(d.now, desktop) && !store.Broken(store.State(desktop))
		if runs && store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY {
			d.readySpares++
		}
		if isStray(d.now, desktop) || runs && !d.isEarly(desktop) {
			onHost[inc.GetHost()]++
			turn[desktop] = onHost[inc.GetHost()]
			found = append(found, desktop)
		}
	}
	rank := func(desktop *v1.Desktop) int {
		switch {
		case desktop.GetIncarnation().GetHost() == "" || isStray(d.now, desktop):
			return 0
		case store.State(desktop) != v1.DesktopState_DESKTOP_STATE_READY:
			return 1
		case store.Present(desktop).GetPausedIo():
			return 2
		}
		return 3
	}
	slices.SortStableFunc(found, func(a, b *v1.Desktop) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(turn[b], turn[a]), bySeat(b, a))
	})
	return found
}

// isEarly: a plan started the desktop for a deadline that is still to come.
func (d *decision) isEarly(desktop *v1.Desktop) bool { return d.now.Before(d.startedFor(desktop)) }

// startedFor is the deadline that a plan started the desktop for; zero when none did.
func (d *decision) startedFor(desktop *v1.Desktop) time.Time {
	inc := desktop.GetIncarnation()
	if inc.GetStartAt() == nil {
		return time.Time{}
	}
	at := inc.GetStartAt().AsTime()
	for _, plan := range d.Plans {
		starts := plan.GetStarts() // in order of time
		i, _ := slices.BinarySearchFunc(starts, at, func(s *v1.PlannedStart, at time.Time) int { return s.GetStartAt().AsTime().Compare(at) })
		for ; i < len(starts) && starts[i].GetStartAt().AsTime().Equal(at); i++ {
			if int(starts[i].GetSeat()) == seatNumber(desktop) {
				return starts[i].GetDeadline().AsTime()
			}
		}
	}
	return time.Time{}
}

// chill ends a life so that the next one waits. One that no host has heard of is told to wait itself.
func (d *decision) chill(desktop *v1.Desktop) {
	changed := retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)
	if desktop.GetIncarnation().GetHost() == "" {
		changed = proto.CloneOf(desktop)
		changed.Incarnation.Desired, changed.Incarnation.StartAt, changed.Incarnation.Woken = v1.DesiredState_DESIRED_STATE_PREPARED, nil, nil
	}
	d.stopped[desktop.GetMeta().GetName()] = true
	d.actions.Cool = append(d.actions.Cool, Change{Desktop: changed, Reason: ReasonCooled, Message: d.whyWanted()})
}

// suspendKept gives back the memory of desktops that one user alone can have and does not hold.
func (d *decision) suspendKept(surplus map[string]bool) {
	for _, desktop := range slices.Backward(d.rest) {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		ready := store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY && isDue(d.now, desktop) && !store.Present(desktop).GetPausedIo()
		if desktop.GetClaim() != nil || inc.GetUsedBy() == "" || !ready || surplus[name] || d.stopped[name] {
			continue
		}
		kept := d.kept
		if !isDedicated(d.Pool) {
			kept--
		}
		wanted, soon := d.needs(kept)
		h := d.host(inc.GetHost())
		memory := int64(inc.GetShape().GetMemoryMib())
		switch {
		case d.full() || len(d.actions.Cool) >= maxCooled || d.warm-1 < max(wanted, soon):
			return
		case h == nil || h.SaidMiB < memory || h.ReservableMiB < memory:
			continue // nowhere to save it
		}
		h.SaidMiB, h.ReservableMiB = h.SaidMiB-memory, h.ReservableMiB-memory
		d.warm, d.kept = d.warm-1, kept
		d.want, d.soon = wanted, soon
		changed := proto.CloneOf(desktop)
		changed.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_SUSPENDED
		d.stopped[name] = true
		d.actions.Cool = append(d.actions.Cool, Change{Desktop: changed, Reason: ReasonCooled, Message: d.whyWanted()})
	}
}
