// Package room is what each host has, what of it is promised to desktops, and what is free.
//
// Here: the account of a host (Of, Account), what one life asks of it (NeedOf), and whether a life that lies there may be
// started (Wakes). Not here: which host a life gets (placement), who starts when (warmup), what a host really has in use
// (its agent, which admits starts by itself). It is pure. placement, pool and whoever plans ahead may call it.
//
// A life that runs, may run, or is told to run at some time is promised its CPUs and memory in full. One that is cold
// (prepared, and told no more) is promised store space only, and so is one that is suspended, with the memory that was
// saved there. So a host may have more desktops than it could run at once.
package room

import (
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Defaults of a host's spec, as its proto promises them.
const (
	defaultOvercommit  = 4.0
	reservedShare      = 16 // one sixteenth of the memory
	leastReservedMiB   = 256
	defaultBootsAtOnce = 4
)

const mib = 1 << 20

// Host is one host in the account. Free amounts are signed: a host may have promised more than it has, after an edit.
type Host struct {
	*v1.Host
	Zones  map[string]bool
	Images map[string]bool // digests of the bases that it has

	VCPUs, MemoryMiB int64 // in all, after overcommit and reserve
	FreeVCPUs        int64
	FreeMemoryMiB    int64
	ColdMiB          int64           // memory of the lives that are promised none: what they would take if they ran, too
	BuildMiB         int64           // memory that builds take, in none of the promises
	SaidMiB          int64           // store space: what the host says is free, less what is still to be made there
	ReservableMiB    int64           // store space: what would be free if every desktop filled what is reserved for it
	Coming           map[string]bool // digests of bases that will be fetched
	OfPool           map[string]int  // desktops by pool
	Boots            int             // lives that were placed, are to run and are not ready
	Failed           int
	MaxBoots         int  // boots at once: what the host bears now, or else the most that it ever lets run
	Strangers        bool // VMs run there that no desktop owns
}

// Name of the host.
func (h *Host) Name() string { return h.GetMeta().GetName() }

// Of makes the account of all hosts, sorted by name.
func Of(view *store.View) []*Host {
	var hosts []*Host
	for _, object := range store.All[*v1.Host](view) {
		hosts = append(hosts, Account(view, object))
	}
	return hosts
}

// Account adds up what a host has promised to the lives that are placed there and have not ended.
func Account(view *store.View, object *v1.Host) *Host {
	status, capacity := object.GetStatus(), object.GetStatus().GetCapacity()
	h := &Host{
		Host: object, Zones: set(status.GetZones()), Images: set(status.GetImages()), Coming: map[string]bool{},
		OfPool: map[string]int{}, MaxBoots: int(capacity.GetMaxBoots()),
	}
	if limit := int(status.GetUsage().GetBootLimit()); limit > 0 {
		h.MaxBoots = limit
	}
	if h.MaxBoots == 0 {
		h.MaxBoots = defaultBootsAtOnce
	}
	for _, orphan := range status.GetOrphans() {
		h.Strangers = h.Strangers || orphan.GetRunning()
	}
	overcommit := object.GetSpec().GetCpuOvercommit()
	if overcommit == 0 {
		overcommit = defaultOvercommit
	}
	h.VCPUs = int64(float64(capacity.GetCpus()) * overcommit)
	h.MemoryMiB = int64(capacity.GetMemoryMib()) - int64(ReservedMiB(object))
	h.FreeVCPUs, h.FreeMemoryMiB = h.VCPUs, h.MemoryMiB
	// VMs of builds are nobody's desktops: what they take is known from the host only.
	h.BuildMiB = int64(status.GetUsage().GetBuildMemoryMib())
	h.FreeMemoryMiB -= h.BuildMiB
	h.SaidMiB = int64(status.GetUsage().GetStoreAvailableBytes() / mib)
	h.ReservableMiB = int64(capacity.GetStoreBytes() / mib)
	for _, desktop := range view.DesktopsOnHost(h.Name()) {
		h.Enter(NeedOf(view, desktop))
	}
	return h
}

// ReservedMiB is the memory that is kept free for the host itself, by its spec or the default.
func ReservedMiB(host *v1.Host) uint64 {
	if reserved := host.GetSpec().GetReservedMemoryMib(); reserved != 0 {
		return reserved
	}
	return max(leastReservedMiB, host.GetStatus().GetCapacity().GetMemoryMib()/reservedShare)
}

// Enter notes one life on the host; one that ended takes nothing.
func (h *Host) Enter(n Need) {
	if n.State == v1.DesktopState_DESKTOP_STATE_DELETED {
		return
	}
	if n.Phase == Runs {
		h.FreeVCPUs -= int64(n.VCPUs)
		h.FreeMemoryMiB -= int64(n.MemoryMiB)
		if n.State < v1.DesktopState_DESKTOP_STATE_READY {
			h.Boots++
		}
	} else {
		h.ColdMiB += int64(n.MemoryMiB)
	}
	h.ReservableMiB -= n.ToReserve()
	switch {
	case n.State < v1.DesktopState_DESKTOP_STATE_PREPARED:
		h.SaidMiB -= h.ToMake(n)
		h.Coming[n.Digest] = true
	case n.saves() && n.State != v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		h.SaidMiB -= int64(n.MemoryMiB) // still to be written
	}
	h.OfPool[n.Pool]++
	if n.State == v1.DesktopState_DESKTOP_STATE_FAILED {
		h.Failed++
	}
}

// The same as in hostagent's room, which admits starts: below a sixty-fourth of the store, at most a GiB, nothing starts.
const (
	storeFloorShare = 64
	storeFloorMost  = 1 << 30
	// told is in what steps hosts' free space is told, rounded down.
	told = 256 << 20
)

// StoreFull: the host's agent starts nothing, since less than floorMiB of its store are free and not promised; freeMiB is what it said
// last. Only what surely is too little counts: free space is told in steps. A host that has told nothing is not full.
func StoreFull(host *v1.Host) (freeMiB, floorMiB uint64, full bool) {
	size, usage := host.GetStatus().GetCapacity().GetStoreBytes(), host.GetStatus().GetUsage()
	floor := min(size/storeFloorShare, storeFloorMost)
	full = size > 0 && usage != nil && usage.GetStoreAvailableBytes()+told-1 < floor
	return usage.GetStoreAvailableBytes() / mib, floor / mib, full
}

// Wakes: a cold or suspended life that lies on the host may be started there now. n is its need as it lies there.
func (h *Host) Wakes(n Need) bool {
	return h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP && h.GetMeta().GetDeletion() == nil && !h.Strangers && h.Holds(n)
}

// Holds: the host has CPUs and memory for one more life that runs.
func (h *Host) Holds(n Need) bool {
	return h.FreeVCPUs >= int64(n.VCPUs) && h.FreeMemoryMiB >= int64(n.MemoryMiB)
}

// Wake notes that a cold or suspended life of the host is started.
func (h *Host) Wake(n Need) {
	if n.Phase == Runs {
		return
	}
	h.ColdMiB -= int64(n.MemoryMiB)
	h.FreeVCPUs -= int64(n.VCPUs)
	h.FreeMemoryMiB -= int64(n.MemoryMiB)
	if n.Phase == Cold {
		h.Boots++
	}
}

// ToMake is the store space that a life will take which has nothing there yet, MiB.
func (h *Host) ToMake(n Need) int64 {
	space := n.ToReserve()
	if n.DataHost != "" { // its data disk is made
		space = int64(n.OverlayMiB)
	}
	if !h.Images[n.Digest] && !h.Coming[n.Digest] {
		space += int64(n.BaseMiB)
	}
	return space
}

func set(values []string) map[string]bool {
	s := make(map[string]bool, len(values))
	for _, v := range values {
		s[v] = true
	}
	return s
}
