package pool

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// removeSeats takes down what was asked to go. A claimed desktop waits for its user. Data disks go or stay as the
// request says; a seat whose last life ended before the request came gets one more life that only disposes of the disk.
func (d *decision) removeSeats() {
	for _, desktop := range d.removing {
		if d.full() {
			return
		}
		if desktop.GetClaim() != nil {
			continue
		}
		inc, disposal := desktop.GetIncarnation(), d.disposal(desktop)
		told := inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED && inc.GetDataDisposal() == disposal && inc.GetUnlessUsedSince() == nil
		unplaced := inc.GetHost() == ""
		dataLeft := d.Hosts[desktop.GetSpec().GetDataHost()] && !(told && !unplaced)
		switch {
		case (d.isOver(desktop) || unplaced) && !dataLeft:
			d.actions.Remove = append(d.actions.Remove, removal(desktop, deletedBy(d.deletion(desktop))))
		case d.isOver(desktop):
			last := proto.CloneOf(desktop)
			last.Incarnation = d.following(desktop, nil, "disposes of the data disk")
			last.Incarnation.Desired, last.Incarnation.DataDisposal = v1.DesiredState_DESIRED_STATE_DELETED, disposal
			d.actions.Renew = append(d.actions.Renew, Change{Desktop: last})
		case !told:
			d.actions.Retire = append(d.actions.Retire, Change{Desktop: retired(desktop, disposal)})
		}
	}
}

// disposal returns what happens to the data disk of a desktop that goes. Without a word, data stays.
func (d *decision) disposal(desktop *v1.Desktop) v1.DataDisposal {
	if word := d.deletion(desktop).GetData(); word != v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED || !holdsData(desktop) {
		return word
	}
	return v1.DataDisposal_DATA_DISPOSAL_KEEP
}

func deletedBy(deletion *v1.Deletion) string {
	if by := deletion.GetBy(); by != "" {
		return "deleted, as " + by + " asked"
	}
	return "deleted, as was asked"
}

func removal(desktop *v1.Desktop, message string) Change {
	return Change{Desktop: desktop, Reason: ReasonDeleted, Message: message}
}

// retired returns the desktop with its life told to end.
func retired(desktop *v1.Desktop, data v1.DataDisposal) *v1.Desktop {
	changed := proto.CloneOf(desktop)
	if inc := changed.Incarnation; inc.Desired == v1.DesiredState_DESIRED_STATE_PREPARED && room.PhaseOf(desktop) == room.Cold {
		inc.StartAt = timestamppb.New(room.Never())
	}
	changed.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED
	changed.Incarnation.DataDisposal, changed.Incarnation.UnlessUsedSince = data, nil
	return changed
}

// findSurplus picks what is beyond the count and goes for good: never one with a claim, a data disk or an owner; what does
// least first, and among equals the newest.
func (d *decision) findSurplus() {
	d.surplus = map[string]bool{}
	excess := len(d.Desktops) - len(d.removing) - int(d.Pool.GetSpec().GetDesktops())
	if excess <= 0 {
		return
	}
	for _, desktop := range d.surplusOrder() {
		if len(d.surplus) >= excess {
			return
		}
		if mayBeSurplus(desktop) {
			d.surplus[desktop.GetMeta().GetName()] = true
		}
	}
}

// mayBeSurplus: nobody loses anything when the desktop goes for good.
func mayBeSurplus(desktop *v1.Desktop) bool {
	return desktop.GetClaim() == nil && !holdsData(desktop) && desktop.GetSpec().GetOwner() == ""
}

// removeSurplus takes away what is beyond the count and returns the seats that it disposed of in this round.
func (d *decision) removeSurplus() map[string]bool {
	gone := map[string]bool{}
	if len(d.surplus) == 0 {
		return gone
	}
	for _, desktop := range d.surplusOrder() {
		if d.full() {
			break
		}
		if !d.surplus[desktop.GetMeta().GetName()] {
			continue
		}
		gone[desktop.GetMeta().GetName()] = true
		inc := desktop.GetIncarnation()
		switch {
		case d.isOver(desktop) || inc.GetHost() == "":
			d.actions.Remove = append(d.actions.Remove, removal(desktop, "removed: the pool wants fewer desktops"))
		case inc.GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED:
			d.actions.Retire = append(d.actions.Retire, Change{Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)})
		}
	}
	return gone
}

// surplusOrder lists the seats that may be too many, the least useful first.
func (d *decision) surplusOrder() []*v1.Desktop {
	usefulness := func(desktop *v1.Desktop) int {
		switch {
		case d.isOver(desktop):
			return 0
		case desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
			return 1 // already on the way out
		case isCold(d.now, desktop):
			return 2
		case store.State(desktop) != v1.DesktopState_DESKTOP_STATE_READY:
			return 3
		case desktop.GetIncarnation().GetUsedBy() != "":
			return 4
		}
		return 5
	}
	all := slices.Concat(d.over, d.retiring, d.failed, d.lost, d.used, d.rest)
	slices.SortStableFunc(all, func(a, b *v1.Desktop) int {
		created := b.GetMeta().GetCreated().AsTime().Compare(a.GetMeta().GetCreated().AsTime())
		return cmp.Or(cmp.Compare(usefulness(a), usefulness(b)), created, bySeat(b, a))
	})
	return all
}
