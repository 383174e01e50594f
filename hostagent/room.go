package hostagent

import (
	"context"
	"fmt"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// Room that VMs are not started into.
const (
	// reservedShare of the memory is the host's own unless somebody says otherwise, and at least reservedLeast, MiB.
	reservedShare = 16
	reservedLeast = 256
	// A store is called full when a sixty-fourth of it, at most a GiB, is left that nobody was promised: below that, what
	// guests write beyond their promise would stop them all.
	storeFloorShare = 64
	storeFloorMost  = 1 << 30
)

// room is what a host has for VMs, and what of it is taken.
type room struct {
	// memoryMiB may be promised in all, promisedMiB is.
	memoryMiB, promisedMiB uint64
	// availableMiB is what the kernel could give out, less what boots under way are still to take; known says that it told.
	availableMiB   uint64
	availableKnown bool
	// storeBytes are free and not promised; below storeFloor nothing starts.
	storeBytes, storeFloor uint64
	storeKnown             bool
}

// lacks says why a VM cannot be started now, empty when it can, and whether it never could. The words name what changes
// seldom only, since each desktop that waits says them.
func (r room) lacks(mib uint64) (why string, never bool) {
	switch {
	case mib > r.memoryMiB:
		return fmt.Sprintf("waits for memory: it takes %d MiB, and this host has %d for desktops", mib, r.memoryMiB), true
	case r.promisedMiB+mib > r.memoryMiB:
		return fmt.Sprintf("waits for memory: it takes %d MiB, and more of this host's %d are promised to what runs than that leaves", mib, r.memoryMiB), false
	case r.availableKnown && r.availableMiB < mib:
		return fmt.Sprintf("waits for memory: it takes %d MiB, and other programs have left less than that of this host's", mib), false
	case r.storeKnown && r.storeBytes < r.storeFloor:
		return fmt.Sprintf("waits for space: less than %d MiB of this host's store are free and not promised", r.storeFloor>>20), false
	}
	return "", false
}

// reservedMiB is the memory that the host keeps: what the control plane says, or the usual share.
func reservedMiB(said, memory uint64) uint64 {
	if said > 0 {
		return said
	}
	return max(memory/reservedShare, reservedLeast)
}

// room measures what there is for VMs.
func (a *Agent) room(held map[lifeKey]uint64) room {
	r := room{memoryMiB: a.hardware.MemoryMiB}
	r.memoryMiB -= min(r.memoryMiB, reservedMiB(a.book.reservedMemory(), a.hardware.MemoryMiB))
	r.promisedMiB = a.running(held).memoryMiB + a.buildMiB()
	if load, err := a.meter.Load(); err == nil && load.MemoryAvailableMiB > 0 {
		r.availableMiB, r.availableKnown = load.MemoryAvailableMiB, true
		for _, mib := range held {
			r.availableMiB -= min(r.availableMiB, mib)
		}
	}
	a.inventory.mu.Lock()
	defer a.inventory.mu.Unlock()
	if a.inventory.fault == "" && a.inventory.space.Size > 0 {
		r.storeBytes, r.storeKnown = a.inventory.space.Available, true
		r.storeFloor = min(a.inventory.space.Size/storeFloorShare, storeFloorMost)
	}
	return r
}

// tally is how many VMs run, or may, and the memory that was promised to them.
type tally struct {
	vms       uint32
	memoryMiB uint64
}

// running counts the VMs that run or may: those on the list, those that the book says were started, and those that hold a slot.
// So one that was just started counts before any list has it.
func (a *Agent) running(held map[lifeKey]uint64) tally {
	listed := a.view.memory()
	var sum tally
	for _, e := range a.book.all() {
		key := keyOf(e.life)
		mib, here := listed[key]
		if _, holds := held[key]; !here && !holds && !mayHaveVM(e.status.GetState()) {
			continue
		}
		if mib == 0 {
			mib = a.memoryMiB(e)
		}
		sum.vms++
		sum.memoryMiB += mib
	}
	return sum
}

// mayHaveVM reports whether a life in that state has a VM as far as the book knows.
func mayHaveVM(state v1.DesktopState) bool {
	switch state {
	case v1.DesktopState_DESKTOP_STATE_STARTING, v1.DesktopState_DESKTOP_STATE_READY, v1.DesktopState_DESKTOP_STATE_STOPPING:
		return true
	}
	return false
}

func (a *Agent) buildMiB() uint64 {
	if a.cfg.Builder == nil {
		return 0
	}
	return a.cfg.Builder.MemoryMiB()
}

// heed tells the governor how the host bears its load, for as long as the agent runs.
func (a *Agent) heed(ctx context.Context) error {
	for {
		if load, err := a.meter.Load(); err == nil {
			a.governor.bear(time.Now(), bearing{known: load.PSIKnown, cpu: load.PSICPU, memory: load.PSIMemory, io: load.PSIIO})
		}
		if !sleepUntil(ctx, time.Now().Add(heedPeriod), nil) {
			return ctx.Err()
		}
	}
}

// heedPeriod is half of what the averages of pressure are taken over.
const heedPeriod = 5 * time.Second
