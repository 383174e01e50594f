package placement

import (
	"slices"

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

// ledger is what each host has and has promised, desktops on their way included.
type ledger struct {
	hosts []*host // sorted by name
}

// host is one host in the ledger. Free amounts are signed: a host may have promised more than it has, after an edit.
type host struct {
	*v1.Host
	zones, images map[string]bool

	vcpus, memoryMiB int64 // in all, after overcommit and reserve
	freeVCPUs        int64
	freeMemoryMiB    int64
	buildMiB         int64           // memory that builds take, in none of the promises
	saidMiB          int64           // store space: what the host says is free, less what is still to be made there
	reservableMiB    int64           // store space: what would be free if every desktop filled what is reserved for it
	coming           map[string]bool // digests of bases that will be fetched
	ofPool           map[string]int
	boots            int // lives that were placed and are not ready
	failed           int
	maxBoots         int
	strangers        bool // VMs run there that no desktop owns
}

func (h *host) name() string { return h.GetMeta().GetName() }

// open makes the ledger of all hosts.
func open(view *store.View) *ledger {
	l := &ledger{}
	for _, object := range store.All[*v1.Host](view) {
		l.hosts = append(l.hosts, account(view, object))
	}
	return l
}

// account adds up what a host has promised: every life placed there that has not ended counts in full.
func account(view *store.View, object *v1.Host) *host {
	status, capacity := object.GetStatus(), object.GetStatus().GetCapacity()
	h := &host{
		Host: object, zones: set(status.GetZones()), images: set(status.GetImages()), coming: map[string]bool{},
		ofPool: map[string]int{}, maxBoots: int(capacity.GetMaxBoots()),
	}
	for _, orphan := range status.GetOrphans() {
		h.strangers = h.strangers || orphan.GetRunning()
	}
	if h.maxBoots == 0 {
		h.maxBoots = defaultBootsAtOnce
	}
	overcommit := object.GetSpec().GetCpuOvercommit()
	if overcommit == 0 {
		overcommit = defaultOvercommit
	}
	reserved := object.GetSpec().GetReservedMemoryMib()
	if reserved == 0 {
		reserved = max(leastReservedMiB, capacity.GetMemoryMib()/reservedShare)
	}
	h.vcpus = int64(float64(capacity.GetCpus()) * overcommit)
	h.memoryMiB = int64(capacity.GetMemoryMib()) - int64(reserved)
	h.freeVCPUs, h.freeMemoryMiB = h.vcpus, h.memoryMiB
	// VMs of builds are nobody's desktops: what they take is known from the host only.
	h.buildMiB = int64(status.GetUsage().GetBuildMemoryMib())
	h.freeMemoryMiB -= h.buildMiB

	const mib = 1 << 20
	h.saidMiB = int64(status.GetUsage().GetStoreAvailableBytes() / mib)
	h.reservableMiB = int64(capacity.GetStoreBytes() / mib)
	for _, desktop := range view.DesktopsOnHost(h.name()) {
		state := store.State(desktop)
		if state == v1.DesktopState_DESKTOP_STATE_DELETED {
			continue
		}
		h.enter(needOf(view, desktop), state)
	}
	return h
}

// enter notes one life on the host.
func (h *host) enter(n need, state v1.DesktopState) {
	h.freeVCPUs -= int64(n.vcpus)
	h.freeMemoryMiB -= int64(n.memoryMiB)
	h.reservableMiB -= n.toReserve()
	if state < v1.DesktopState_DESKTOP_STATE_PREPARED {
		h.saidMiB -= h.toMake(n)
		h.coming[n.digest] = true
	}
	h.ofPool[n.pool]++
	if state < v1.DesktopState_DESKTOP_STATE_READY {
		h.boots++
	}
	if state == v1.DesktopState_DESKTOP_STATE_FAILED {
		h.failed++
	}
}

// toMake is the store space that a life will take which has nothing there yet, MiB.
func (h *host) toMake(n need) int64 {
	space := n.toReserve()
	if n.dataHost != "" { // its data disk is made
		space = int64(n.overlayMiB)
	}
	if !h.images[n.digest] && !h.coming[n.digest] {
		space += int64(n.baseMiB)
	}
	return space
}

// toReserve is the store space that a life may fill, MiB.
func (n need) toReserve() int64 { return int64(n.overlayMiB + n.dataMiB) }

func set(values []string) map[string]bool {
	s := make(map[string]bool, len(values))
	for _, v := range values {
		s[v] = true
	}
	return s
}

// choose returns the best host that passes every filter, or nil and the sentence that says why none does.
func (l *ledger) choose(n need) (*host, string) {
	refusals := make([]refusal, len(filters))
	var fitting []*host
	for _, h := range l.hosts {
		if !refused(h, n, refusals) {
			fitting = append(fitting, h)
		}
	}
	if len(fitting) == 0 {
		return nil, sentence(n, len(l.hosts), refusals)
	}
	best := slices.MaxFunc(fitting, func(a, b *host) int {
		switch x, y := score(a, n), score(b, n); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0 // MaxFunc keeps the first, and hosts are sorted by name
	})
	return best, ""
}
