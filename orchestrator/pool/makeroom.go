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

// yield is a desktop that is to make room on its host for one whose user came back.
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

// isSpare: it runs, or is about to, nobody holds it, and nobody ever did.
func isSpare(desktop *v1.Desktop) bool {
	state, inc := store.State(desktop), desktop.GetIncarnation()
	runs := state == v1.DesktopState_DESKTOP_STATE_STARTING || state == v1.DesktopState_DESKTOP_STATE_READY
	return runs && inc.GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED && desktop.GetClaim() == nil && inc.GetUsedBy() == "" &&
		desktop.GetSpec().GetDataHost() == "" && desktop.GetMeta().GetDeletion() == nil
}

// yields are the spares that make room, of whatever pool, on hosts which promised more memory than they have while users wait for it
// who came back: theirs sleep there and wake nowhere else, and any host will do for a spare. They are the least needed: of the pool
// that has most of them ready beyond its min_ready. Each pool's round finds the same and ends its own.
func yields(now time.Time, rooms []*room.Host, near neighbours) []yield {
	var all []yield
	free := map[string]int{} // by pool: ready spares beyond min_ready
	for _, h := range rooms {
		if !promisedTooMuch(h) {
			continue
		}
		desktops := near.on(h.Name())
		var waiting, spares []*v1.Desktop
		lack := int64(0)
		for _, desktop := range desktops {
			switch {
			case comesBack(now, desktop):
				waiting = append(waiting, desktop)
				lack += int64(desktop.GetIncarnation().GetShape().GetMemoryMib())
			case isSpare(desktop):
				spares = append(spares, desktop)
			}
		}
		if len(waiting) == 0 {
			continue
		}
		lack = min(lack, -h.FreeMemoryMiB)
		for _, desktop := range desktops {
			if pool, _ := near.pool(desktop.GetSpec().GetPool()); endsBySelf(now, pool, desktop) {
				lack -= int64(desktop.GetIncarnation().GetShape().GetMemoryMib())
			}
		}
		for lack > 0 && len(spares) > 0 {
			least := slices.MinFunc(spares, func(a, b *v1.Desktop) int { return lessNeeded(a, b, free, near) })
			spares = slices.DeleteFunc(spares, func(d *v1.Desktop) bool { return d == least })
			lack -= int64(least.GetIncarnation().GetShape().GetMemoryMib())
			if store.State(least) == v1.DesktopState_DESKTOP_STATE_READY {
				free[least.GetSpec().GetPool()]--
			}
			all = append(all, yield{least, waiting[0]})
		}
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
	return cmp.Or(
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

// makeRoom ends the pool's desktops among those that make room for users who came back.
func (d *decision) makeRoom(surplus map[string]bool) {
	for _, desktop := range d.rest {
		name, inc := desktop.GetMeta().GetName(), desktop.GetIncarnation()
		waiting := d.yieldsFor(desktop)
		if waiting == nil || surplus[name] || d.stopped[name] || d.targetFor(desktop) == nil {
			continue
		}
		if d.full() {
			return
		}
		d.stopped[name] = true
		d.uncount(desktop)
		d.countEnding(desktop)
		d.actions.Retire = append(d.actions.Retire, Change{
			Desktop: retired(desktop, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED), Reason: ReasonMadeElsewhere,
			Message: fmt.Sprintf("generation %d, which nobody used, makes room on host %s, where %s waits for the memory of %s",
				inc.GetGeneration(), inc.GetHost(), waiting.GetClaim().GetUser(), waiting.GetMeta().GetName()),
		})
	}
}

// yieldsFor is the desktop that another makes room for; nil when it need not.
func (d *decision) yieldsFor(desktop *v1.Desktop) *v1.Desktop {
	for _, y := range d.Yields {
		if y.desktop.GetMeta().GetName() == desktop.GetMeta().GetName() {
			return y.waiting
		}
	}
	return nil
}

// someoneWaits tells whether users came back to any of the hosts of desktops, as far as is seen without an account.
func someoneWaits(now time.Time, desktops []*v1.Desktop, view *store.View) bool {
	seen := map[string]bool{"": true}
	for _, desktop := range desktops {
		host := desktop.GetIncarnation().GetHost()
		if !seen[host] && slices.ContainsFunc(view.DesktopsOnHost(host), func(d *v1.Desktop) bool { return comesBack(now, d) }) {
			return true
		}
		seen[host] = true
	}
	return false
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
