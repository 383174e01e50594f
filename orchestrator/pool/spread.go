package pool

import (
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// spreadAfter is how long a life lies where it was placed before it may be made anew elsewhere: should placement think
// otherwise of the hosts, no seat goes back and forth without end.
const spreadAfter = 10 * time.Minute

// maxSpread bounds the cold desktops that are made anew on other hosts at a time.
const maxSpread = 16

// spread takes cold desktops from hosts that could not run all that lie there to hosts that could: what lies well starts
// where it lies when its time comes. A host that was the first to be up may have got them all; a new one has none; one that
// takes no desktops any more keeps none that only wait.
func (d *decision) spread(surplus map[string]bool) {
	if !d.scheduled() || len(d.over)+len(d.retiring)+len(d.actions.Retire)+len(d.actions.Cool)+len(d.actions.Wake) > 0 {
		return
	}
	var movable []*v1.Desktop
	for _, desktop := range slices.Backward(d.rest) {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		if inc.GetHost() == "" && isCold(d.now, desktop) {
			return // where that goes is not known yet
		}
		waits := isCold(d.now, desktop) && inc.GetDesired() == v1.DesiredState_DESIRED_STATE_PREPARED && desktop.GetClaim() == nil
		made := store.State(desktop) == v1.DesktopState_DESKTOP_STATE_PREPARED
		if waits && made && !surplus[name] && !d.stopped[name] && desktop.GetSpec().GetDataHost() == "" && !holdsData(desktop) {
			movable = append(movable, desktop)
		}
	}
	moved := 0
	for _, desktop := range movable {
		from := d.host(desktop.GetIncarnation().GetHost())
		if moved == maxSpread || d.full() || d.targetFor(desktop) == nil {
			return
		}
		if from == nil || from.GetStatus().GetPhase() != v1.HostPhase_HOST_PHASE_UP {
			continue // nobody would say that the life ended
		}
		drained := from.GetSpec().GetUnschedulable()
		if !drained && from.FreeMemoryMiB >= from.ColdMiB {
			continue
		}
		n := d.nextNeed(desktop)
		to := d.emptier(n, from, drained)
		if to == nil {
			continue
		}
		if settled := desktop.GetIncarnation().GetCreated().AsTime().Add(spreadAfter); !drained && settled.After(d.now) {
			d.again(settled)
			continue
		}
		from.ColdMiB, to.ColdMiB = from.ColdMiB-int64(n.MemoryMiB), to.ColdMiB+int64(n.MemoryMiB)
		moved++
		d.stopped[desktop.GetMeta().GetName()] = true
		d.countEnding(desktop)
		why := fmt.Sprintf("which could not run all that lie there: %d MiB are free, and %d are wanted", max(0, from.FreeMemoryMiB), from.ColdMiB+int64(n.MemoryMiB))
		if drained {
			why = "which takes no desktops any more"
		}
		inc := desktop.GetIncarnation()
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonMadeElsewhere,
			Message: fmt.Sprintf("generation %d, which waits cold on host %s, %s, is made anew: host %s has room", inc.GetGeneration(), inc.GetHost(), why, to.Name()),
		})
	}
}

// nextNeed is what a desktop's next life asks of a host while it waits cold.
func (d *decision) nextNeed(desktop *v1.Desktop) room.Need {
	wanted, version := shape(d.Pool.GetSpec().GetShape()), d.targetFor(desktop).version
	return room.Need{
		Pool: desktop.GetSpec().GetPool(), Zone: desktop.GetSpec().GetZone(), Digest: version.GetDigest(), VCPUs: uint64(wanted.GetVcpus()),
		MemoryMiB: uint64(wanted.GetMemoryMib()), OverlayMiB: uint64(wanted.GetOverlayReserveMib()), DataMiB: uint64(wanted.GetDataDiskGib()) * 1024,
		BaseMiB: room.Mebibytes(version.GetSizeBytes()), Phase: room.Cold, State: v1.DesktopState_DESKTOP_STATE_PLACED,
	}
}

// emptier is the host with most room beside all that lies there, if that is enough for one more, or if what lies there cannot
// stay: then any will do that could run it some time. nil when there is none. It is one that placement would choose, too.
func (d *decision) emptier(n room.Need, from *room.Host, leaves bool) *room.Host {
	var best *room.Host
	for _, h := range d.rooms() {
		capacity := h.GetStatus().GetCapacity()
		runs := capacity.GetKvm() || capacity.GetEmulation()
		left := h.FreeMemoryMiB - h.ColdMiB - int64(n.MemoryMiB)
		takes := h != from && runs && !h.GetSpec().GetUnschedulable() && h.Zones[n.Zone] && h.SaidMiB >= h.ToMake(n) && h.ReservableMiB >= n.ToReserve()
		fits := h.Wakes(n) && left >= 0 || leaves && h.Wakes(room.Need{}) && h.MemoryMiB >= int64(n.MemoryMiB) && h.VCPUs >= int64(n.VCPUs)
		if takes && fits && (best == nil || left > best.FreeMemoryMiB-best.ColdMiB-int64(n.MemoryMiB)) {
			best = h
		}
	}
	return best
}
