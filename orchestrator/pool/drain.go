package pool

import (
	"fmt"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// leaveDrained ends cold lives on hosts that take no desktops by now, when another could have them: nothing of them runs, and
// they would not be started there, so that each is made anew in time for the next opening, and not when it is missed.
func (d *decision) leaveDrained(surplus map[string]bool) {
	for _, desktop := range d.rest {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		h := d.host(inc.GetHost())
		if h == nil || !h.GetSpec().GetUnschedulable() || !isCold(d.now, desktop) || inc.GetUsedBy() != "" || surplus[name] || d.stopped[name] {
			continue
		}
		if desktop.GetClaim() != nil || holdsData(desktop) || desktop.GetSpec().GetOwner() != "" {
			continue
		}
		t := d.targetFor(desktop)
		if d.full() || t == nil {
			return
		}
		if !d.placeElsewhere(desktop) {
			continue
		}
		t.take()
		d.stopped[name] = true
		d.countEnding(desktop)
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonMadeElsewhere,
			Message: fmt.Sprintf("generation %d, which waited cold on host %s, is made anew elsewhere: the host takes no desktops any more",
				inc.GetGeneration(), inc.GetHost()),
		})
	}
}

// placeElsewhere: some host takes desktops like this one, and has store space for one more.
func (d *decision) placeElsewhere(desktop *v1.Desktop) bool {
	shape := desktop.GetIncarnation().GetShape()
	space := int64(shape.GetOverlayReserveMib())
	for _, h := range d.Rooms {
		capacity := h.GetStatus().GetCapacity()
		up := h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP && h.GetMeta().GetDeletion() == nil && !h.Strangers && !h.GetSpec().GetUnschedulable()
		able := (capacity.GetKvm() || capacity.GetEmulation()) && h.Zones[desktop.GetSpec().GetZone()] &&
			h.VCPUs >= int64(shape.GetVcpus()) && h.MemoryMiB >= int64(shape.GetMemoryMib())
		if up && able && h.SaidMiB >= space && h.ReservableMiB >= space {
			h.SaidMiB, h.ReservableMiB = h.SaidMiB-space, h.ReservableMiB-space
			return true
		}
	}
	return false
}

// takesDesktops tells whether new desktops may come to a host.
func takesDesktops(view *store.View, name string) bool {
	if view == nil {
		return false
	}
	host, ok := store.Lookup[*v1.Host](view, name)
	return ok && !host.GetSpec().GetUnschedulable()
}
