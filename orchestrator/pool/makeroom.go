package pool

import (
	"fmt"
	"slices"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// makeRoom ends desktops that nobody holds and nobody used where users who came back wait for memory: theirs sleep on that
// host and wake nowhere else, and any host will do for a spare.
func (d *decision) makeRoom(surplus map[string]bool) {
	waiting := map[string]int64{} // memory that is waited for, by host
	for _, desktop := range d.rest {
		if d.waitsForRoom(desktop) {
			waiting[desktop.GetIncarnation().GetHost()] += int64(desktop.GetIncarnation().GetShape().GetMemoryMib())
		}
	}
	if len(waiting) == 0 {
		return
	}
	lack := map[string]int64{}
	for name, memory := range waiting {
		lack[name] = min(memory, -d.host(name).FreeMemoryMiB)
	}
	for _, desktop := range slices.Concat(d.retiring, d.used) { // on its way back already
		if room.PhaseOf(desktop) == room.Runs && store.State(desktop) != v1.DesktopState_DESKTOP_STATE_DELETED {
			lack[desktop.GetIncarnation().GetHost()] -= int64(desktop.GetIncarnation().GetShape().GetMemoryMib())
		}
	}
	for _, desktop := range slices.Backward(d.rest) {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		state := store.State(desktop)
		runs := state == v1.DesktopState_DESKTOP_STATE_STARTING || state == v1.DesktopState_DESKTOP_STATE_READY
		if lack[inc.GetHost()] <= 0 || !runs || desktop.GetClaim() != nil || inc.GetUsedBy() != "" || surplus[name] || d.stopped[name] ||
			desktop.GetSpec().GetDataHost() != "" || d.targetFor(desktop) == nil {
			continue
		}
		if d.full() {
			return
		}
		lack[inc.GetHost()] -= int64(inc.GetShape().GetMemoryMib())
		d.stopped[name] = true
		d.uncount(desktop)
		d.countEnding(desktop)
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonMadeElsewhere,
			Message: fmt.Sprintf("generation %d, which nobody used, makes room on host %s for users who came back to theirs", inc.GetGeneration(), inc.GetHost()),
		})
	}
}

// waitsForRoom: its user came back to a desktop that sleeps on a host which has promised more memory than it has.
func (d *decision) waitsForRoom(desktop *v1.Desktop) bool {
	inc, h := desktop.GetIncarnation(), d.host(desktop.GetIncarnation().GetHost())
	asleep := store.State(desktop) == v1.DesktopState_DESKTOP_STATE_SUSPENDED || store.State(desktop) == v1.DesktopState_DESKTOP_STATE_PREPARED
	return desktop.GetClaim() != nil && asleep && isDue(d.now, desktop) && inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY &&
		h != nil && h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP && h.FreeMemoryMiB < 0
}
