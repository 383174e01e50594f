package pool

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// yield is a desktop that is to make room on its host: for one whose user came back, or, if waiting is nil, since the room was promised
// to others at the same moment.
type yield struct{ desktop, waiting *v1.Desktop }

// neighbours are the desktops of all pools, as far as hosts bring them together.
type neighbours struct {
	on   func(host string) []*v1.Desktop
	pool func(name string) (*v1.Pool, []*v1.Desktop)
}

func neighboursIn(view *store.View) neighbours {
	return neighbours{view.DesktopsOnHost, func(name string) (*v1.Pool, []*v1.Desktop) {
		pool, _ := store.Lookup[*v1.Pool](view, name)
		return pool, view.DesktopsOfPool(name)
	}}
}

// promisedTooMuch: the host is up, and has less memory than its desktops were promised.
func promisedTooMuch(h *room.Host) bool {
	return h.FreeMemoryMiB < 0 && h.MemoryMiB > 0 && h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP
}

// comesBack: its user wants a desktop that does not run yet, and lies on a host.
func comesBack(now time.Time, desktop *v1.Desktop) bool {
	state := store.State(desktop)
	asleep := state == v1.DesktopState_DESKTOP_STATE_SUSPENDED || state == v1.DesktopState_DESKTOP_STATE_PREPARED
	return desktop.GetClaim() != nil && asleep && desktop.GetIncarnation().GetHost() != "" && isDue(now, desktop)
}

// isSpare: it runs, or is promised to, nobody holds it, and nobody ever did.
func isSpare(desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	return store.State(desktop) <= v1.DesktopState_DESKTOP_STATE_READY && room.PhaseOf(desktop) == room.Runs &&
		inc.GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED && desktop.GetClaim() == nil && inc.GetUsedBy() == "" &&
		desktop.GetSpec().GetDataHost() == "" && desktop.GetMeta().GetDeletion() == nil
}

// isBegun: the life has taken memory of its host, as far as anybody knows.
func isBegun(desktop *v1.Desktop) bool {
	return store.State(desktop) > v1.DesktopState_DESKTOP_STATE_PREPARED
}

// yields are the spares that make room, of whatever pool, on hosts which promised more memory than they have: those that have not begun,
// and, while users wait for it who came back, those that run: theirs sleep there and wake nowhere else, and any host will do for a
// spare. They are the least needed: of the pool that has most of them ready beyond its min_ready. Each pool's round finds the same and
// ends its own.
func yields(now time.Time, rooms []*room.Host, near neighbours) []yield {
	var all []yield
	free := map[string]int{} // by pool: ready spares beyond min_ready
	for _, h := range rooms {
		if promisedTooMuch(h) {
			all = append(all, yieldsOn(now, h, free, near)...)
		}
	}
	return all
}

func yieldsOn(now time.Time, h *room.Host, free map[string]int, near neighbours) (all []yield) {
	var waiting, spares []*v1.Desktop
	lack, waited := -h.FreeMemoryMiB, int64(0)
	for _, desktop := range near.on(h.Name()) {
		memory := int64(desktop.GetIncarnation().GetShape().GetMemoryMib())
		pool, _ := near.pool(desktop.GetSpec().GetPool())
		switch {
		case endsBySelf(now, pool, desktop):
			lack -= memory
		case comesBack(now, desktop):
			waiting = append(waiting, desktop)
			waited += memory
		case isSpare(desktop):
			spares = append(spares, desktop)
		}
	}
	for waited = min(waited, lack); lack > 0 && len(spares) > 0; {
		least := slices.MinFunc(spares, func(a, b *v1.Desktop) int { return lessNeeded(a, b, free, near) })
		spares = slices.DeleteFunc(spares, func(d *v1.Desktop) bool { return d == least })
		y, memory := yield{desktop: least}, int64(least.GetIncarnation().GetShape().GetMemoryMib())
		switch {
		case waited > 0:
			y.waiting = waiting[0]
		case isBegun(least):
			return all
		}
		if store.State(least) == v1.DesktopState_DESKTOP_STATE_READY {
			free[least.GetSpec().GetPool()]--
		}
		lack, waited = lack-memory, waited-memory
		all = append(all, y)
	}
	return all
}

// endsBySelf: what the desktop's life takes comes back soon anyway.
func endsBySelf(now time.Time, pool *v1.Pool, desktop *v1.Desktop) bool {
	return isEnding(now, pool, desktop) && room.PhaseOf(desktop) == room.Runs && store.State(desktop) != v1.DesktopState_DESKTOP_STATE_DELETED
}

// lessNeeded orders spares of a host, those that can be spared first. free is what is known of their pools.
func lessNeeded(a, b *v1.Desktop, free map[string]int, near neighbours) int {
	ready := func(d *v1.Desktop) int { return int(store.State(d)) }
	begun := func(d *v1.Desktop) int { return map[bool]int{true: 1}[isBegun(d)] }
	return cmp.Or(
		cmp.Compare(begun(a), begun(b)),
		cmp.Compare(freeOf(b.GetSpec().GetPool(), free, near), freeOf(a.GetSpec().GetPool(), free, near)),
		cmp.Compare(a.GetSpec().GetPool(), b.GetSpec().GetPool()), cmp.Compare(ready(a), ready(b)), bySeat(b, a))
}

func freeOf(name string, free map[string]int, near neighbours) int {
	if n, known := free[name]; known {
		return n
	}
	pool, desktops := near.pool(name)
	n := -int(pool.GetSpec().GetMinReady())
	for _, desktop := range desktops {
		if isSpare(desktop) && store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY {
			n++
		}
	}
	free[name] = n
	return n
}

// makeRoom ends the pool's desktops among those that make room on their hosts.
func (d *decision) makeRoom(surplus map[string]bool) {
	for _, desktop := range d.rest {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		if surplus[name] || d.stopped[name] || d.targetFor(desktop) == nil {
			continue
		}
		if d.full() {
			return
		}
		why, ok := d.yieldsFor(desktop)
		if !ok {
			continue
		}
		d.stopped[name] = true
		d.uncount(desktop)
		d.countEnding(desktop)
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonMadeElsewhere,
			Message: fmt.Sprintf("generation %d, which nobody used, makes room on host %s, %s", inc.GetGeneration(), inc.GetHost(), why),
		})
	}
}

// yieldsFor says why a desktop makes room, at the end of a sentence; false when it need not, or has nowhere to go and nobody waits for it.
func (d *decision) yieldsFor(desktop *v1.Desktop) (string, bool) {
	i := slices.IndexFunc(d.Yields, func(y yield) bool { return y.desktop.GetMeta().GetName() == desktop.GetMeta().GetName() })
	if i < 0 {
		return "", false
	}
	if waiting := d.Yields[i].waiting; waiting != nil {
		return fmt.Sprintf("where %s waits for the memory of %s", waiting.GetClaim().GetUser(), waiting.GetMeta().GetName()), true
	}
	other := d.roomElsewhere(desktop)
	if other == nil {
		return "", false
	}
	n := need(desktop, room.Runs)
	n.State = v1.DesktopState_DESKTOP_STATE_PLACED
	other.Enter(n)
	return fmt.Sprintf("which promised the same memory twice; host %s has room for it", other.Name()), true
}

// someoneWaits tells whether users came back to any of the hosts of desktops, as far as is seen without an account.
func someoneWaits(now time.Time, desktops []*v1.Desktop, view *store.View) bool {
	hosts := map[string]bool{}
	for _, desktop := range desktops {
		hosts[desktop.GetIncarnation().GetHost()] = true
	}
	return slices.ContainsFunc(store.All[*v1.Desktop](view), func(d *v1.Desktop) bool { // one list for the rounds of all pools
		return comesBack(now, d) && hosts[d.GetIncarnation().GetHost()]
	})
}

// sparesBeside names the pools that have a spare on the host of a desktop for which a user waits.
func sparesBeside(now time.Time, view *store.View, host string) []string {
	desktops := view.DesktopsOnHost(host)
	if host == "" || !slices.ContainsFunc(desktops, func(d *v1.Desktop) bool { return comesBack(now, d) }) {
		return nil
	}
	var pools []string
	for _, desktop := range desktops {
		if name := desktop.GetSpec().GetPool(); isSpare(desktop) && !slices.Contains(pools, name) {
			pools = append(pools, name)
		}
	}
	return pools
}

// makingRoom says what a desktop waits for whose user came back to a host without memory for it; "" when that is not so.
func (d *decision) makingRoom(view *store.View, desktop *v1.Desktop) string {
	inc, h := desktop.GetIncarnation(), d.host(desktop.GetIncarnation().GetHost())
	if h == nil || !promisedTooMuch(h) || !comesBack(d.now, desktop) {
		return ""
	}
	text := fmt.Sprintf("; it waits for memory there: host %s has promised %d MiB more than it has", h.Name(), -h.FreeMemoryMiB)
	var ending []string
	for _, y := range d.Yields {
		if y.desktop.GetIncarnation().GetHost() == h.Name() {
			ending = append(ending, y.desktop.GetMeta().GetName())
		}
	}
	for _, other := range view.DesktopsOnHost(inc.GetHost()) {
		if pool, _ := store.Lookup[*v1.Pool](view, other.GetSpec().GetPool()); endsBySelf(d.now, pool, other) {
			ending = append(ending, other.GetMeta().GetName())
		}
	}
	if len(ending) == 0 {
		return text + ", and no desktop runs there that nobody uses; it goes on when one ends"
	}
	slices.SortFunc(ending, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	more := ""
	if len(ending) > 1 {
		more = fmt.Sprintf(" and %d more", len(ending)-1)
	}
	return text + fmt.Sprintf("; %s%s, which nobody uses, makes room", ending[0], more)
}
