package pool

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// shortPause is how long a pool that is short waits before it looks again for room on hosts.
const shortPause = 30 * time.Second

// wake starts cold desktops while fewer run than are wanted, on hosts that have room for them. A cold one on a host that has
// none is ended and made anew where there is some: nothing of it runs, and nothing is lost. It is what is left to do when
// the warm-up plan did not suffice, or users came whom nobody expected.
func (d *decision) wake(surplus map[string]bool) {
	if d.warm >= d.want && d.trials() <= 0 {
		return
	}
	var crowded []*v1.Desktop
	defer func() {
		if d.warm < d.want && d.scheduled() {
			d.again(d.now.Add(shortPause)) // hosts may have room by then
		}
	}()
	homeless := d.homeless(surplus)
	for _, desktop := range d.sleepers(surplus) {
		if desktop.GetIncarnation().GetHost() == "" && homeless >= max(d.want-d.warm, d.trials()) {
			continue // as many wait for a host already; cool would only make one of them wait in its place
		}
		t := d.versionOf(desktop)
		trial := t != nil && t == d.next && d.trials() > 0
		if d.full() || d.warm >= d.want && d.trials() <= 0 {
			return
		}
		if d.warm >= d.want && !trial || t != nil && !d.open(t) {
			continue
		}
		switch other := d.outdated(desktop, t); {
		case other:
			crowded = append(crowded, desktop)
		case d.fitsWhereItLies(desktop):
			d.rouse(desktop, t)
		default:
			crowded = append(crowded, desktop)
		}
	}
	d.makeElsewhere(crowded)
}

// homeless counts the desktops that are told to run, and that no host takes.
func (d *decision) homeless(surplus map[string]bool) (n int) {
	for _, desktop := range d.rest {
		inc := desktop.GetIncarnation()
		waits := inc.GetHost() == "" && inc.GetUnplacedReason() != "" && isDue(d.now, desktop) && !store.Broken(store.State(desktop))
		if waits && desktop.GetClaim() == nil && desktop.GetSpec().GetDataHost() == "" && !surplus[desktop.GetMeta().GetName()] {
			n++
		}
	}
	return n
}

// versionOf is the target that a desktop's life is of; nil when it is of neither.
func (d *decision) versionOf(desktop *v1.Desktop) *target {
	switch {
	case d.runs(desktop, d.next):
		return d.next
	case d.runs(desktop, d.base):
		return d.base
	}
	return nil
}

// outdated: the life is of a version that the pool has left, and another can begin instead.
func (d *decision) outdated(desktop *v1.Desktop, t *target) bool {
	return t == nil && store.State(desktop) <= v1.DesktopState_DESKTOP_STATE_PREPARED && d.targetFor(desktop) != nil
}

// sleepers are the desktops that could be told to run, the soonest ready first: those that run already, those that are
// suspended, those that are prepared.
func (d *decision) sleepers(surplus map[string]bool) []*v1.Desktop {
	var found []*v1.Desktop
	for _, desktop := range d.rest {
		name := desktop.GetMeta().GetName()
		if desktop.GetClaim() != nil || surplus[name] || d.stopped[name] || d.waitsWithdrawn(desktop) {
			continue
		}
		own := isSuspended(desktop) && isDedicated(d.Pool)
		if isStray(d.now, desktop) || own || isCold(d.now, desktop) {
			found = append(found, desktop)
		}
	}
	if len(found) == 0 {
		return nil
	}
	readiness := func(desktop *v1.Desktop) int {
		inc := desktop.GetIncarnation()
		switch {
		case isStray(d.now, desktop):
			return 0
		case isSuspended(desktop):
			return 1
		case inc.GetHost() == "":
			return 4
		case store.State(desktop) == v1.DesktopState_DESKTOP_STATE_PREPARED:
			return 2
		}
		return 3
	}
	slices.SortStableFunc(found, func(a, b *v1.Desktop) int {
		x, y := a.GetIncarnation(), b.GetIncarnation()
		return cmp.Or(
			cmp.Compare(readiness(a), readiness(b)),
			cmp.Compare(d.crowd(x.GetHost()), d.crowd(y.GetHost())),
			x.GetStartAt().AsTime().Compare(y.GetStartAt().AsTime()), // what no plan starts first
		)
	})
	return found
}

// crowd is 0 for a host that has a boot slot free, and 1 for others.
func (d *decision) crowd(host string) int {
	if h := d.host(host); h != nil && h.Boots >= h.MaxBoots {
		return 1
	}
	return 0
}

// fitsWhereItLies: the desktop may be started on its host. One without a host is placement's to find one for, and a start
// that was promised for later has its place.
func (d *decision) fitsWhereItLies(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	if inc.GetHost() == "" || isStray(d.now, desktop) || d.rooms() == nil {
		return true
	}
	h := d.host(inc.GetHost())
	if h == nil || h.GetSpec().GetUnschedulable() && desktop.GetSpec().GetDataHost() == "" {
		return false
	}
	n := need(desktop, room.PhaseOf(desktop))
	if n.Phase == room.Runs {
		return h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP
	}
	return h.Wakes(n)
}

// rouse tells a life to run now.
func (d *decision) rouse(desktop *v1.Desktop, t *target) {
	changed := roused(desktop, timestamppb.New(d.now))
	if h := d.host(desktop.GetIncarnation().GetHost()); h != nil && !isStray(d.now, desktop) {
		h.Wake(need(desktop, room.PhaseOf(desktop)))
	}
	if t != nil {
		t.take()
	}
	d.warm++
	if d.runs(desktop, d.next) {
		d.trying++
	}
	d.stopped[desktop.GetMeta().GetName()] = true
	d.actions.Wake = append(d.actions.Wake, Change{Desktop: changed, Reason: ReasonWarmed, Message: d.whyWanted()})
}

// roused returns the desktop with its life told to run at once.
func roused(desktop *v1.Desktop, at *timestamppb.Timestamp) *v1.Desktop {
	changed := proto.CloneOf(desktop)
	if changed.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_SUSPENDED {
		changed.Incarnation.Woken = at
	}
	changed.Incarnation.Desired, changed.Incarnation.StartAt = v1.DesiredState_DESIRED_STATE_READY, nil
	changed.Incarnation.UnlessUsedSince = nil
	return changed
}

// makeElsewhere ends cold lives that cannot be started where they lie, as many as other hosts have room for and are short
// when all that is being made anew is there.
func (d *decision) makeElsewhere(crowded []*v1.Desktop) {
	short := d.want - d.warm - len(d.over)
	for _, desktop := range d.retiring {
		if store.State(desktop) != v1.DesktopState_DESKTOP_STATE_LOST {
			short--
		}
	}
	for _, desktop := range crowded {
		inc := desktop.GetIncarnation()
		if short <= 0 || d.full() {
			return
		}
		if !isCold(d.now, desktop) || desktop.GetSpec().GetDataHost() != "" || inc.GetHost() == "" || d.targetFor(desktop) == nil {
			continue
		}
		other := d.roomElsewhere(desktop)
		if other == nil {
			continue
		}
		n := need(desktop, room.Runs)
		n.State = v1.DesktopState_DESKTOP_STATE_PLACED
		other.Enter(n)
		short--
		d.stopped[desktop.GetMeta().GetName()] = true
		d.countEnding(desktop)
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonMadeElsewhere,
			Message: fmt.Sprintf("generation %d, which waited cold on host %s, is made anew: it is wanted now (%s), and host %s has room for it",
				inc.GetGeneration(), inc.GetHost(), d.whyWanted(), other.Name()),
		})
	}
}

// roomElsewhere is a host that could run the desktop; nil when none that is known could.
func (d *decision) roomElsewhere(desktop *v1.Desktop) *room.Host {
	n := need(desktop, room.Runs)
	for _, h := range d.rooms() {
		capacity := h.GetStatus().GetCapacity()
		runs := capacity.GetKvm() || capacity.GetEmulation()
		if runs && !h.GetSpec().GetUnschedulable() && h.Zones[n.Zone] && h.Wakes(n) {
			return h
		}
	}
	return nil
}

// whyWanted says how many should run and why.
func (d *decision) whyWanted() string {
	seats := int(d.Pool.GetSpec().GetDesktops())
	return fmt.Sprintf("wanted %d of %d now: %s", d.want, seats, d.step.Why(d.held, d.kept, seats))
}
