package hostagent

import (
	"fmt"
	"sync"
	"time"
)

// overtake is how long those that fit may start before one that was due earlier and does not: what lacks for a large
// desktop is kept free by nobody at first. After that nothing starts before it, so that none waits for ever behind later ones.
const overtake = 2 * time.Minute

// governor says when VMs of the host may begin to boot: when there is room for them, and not so many at once that the host
// has none ready for long.
type governor struct {
	// room says what there is for VMs, those that hold a slot counted; nil where only the number is limited.
	room func(held map[lifeKey]uint64) room

	mu      sync.Mutex
	control control
	bearing bearing
	held    map[lifeKey]uint64 // and the memory that each takes, MiB
	waiting map[lifeKey]slotWaiter
}

type slotWaiter struct {
	due time.Time
	mib uint64
	// lacks is why there is no room for it, empty when there is; since when there was none.
	lacks string
	since time.Time
	// never: it would not fit on this host if nothing else ran.
	never bool
	poke  func()
}

// newGovernor makes one whose limit begins with and never exceeds most, on a host of so many CPUs.
func newGovernor(most, cpus int) *governor {
	return &governor{control: newControl(most, cpus), held: map[lifeKey]uint64{}, waiting: map[lifeKey]slotWaiter{}}
}

// need is what a life that asks for a slot is due when, and takes.
type need struct {
	due time.Time
	mib uint64
}

// ask takes a slot for a life, or queues it and says why: poke is called when it should ask again. Who was due earlier goes
// first.
func (g *governor) ask(now time.Time, key lifeKey, n need, poke func()) (ok bool, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, held := g.held[key]; held {
		return true, ""
	}
	me := g.queue(now, key, n, poke)
	if me.lacks != "" {
		return false, me.lacks
	}
	free := g.control.limit - len(g.held)
	for other, waiter := range g.waiting {
		switch {
		case !waiter.due.Before(me.due) && (!waiter.due.Equal(me.due) || other.generation >= key.generation):
		case waiter.never, waiter.lacks != "" && now.Sub(waiter.since) < overtake:
		case waiter.lacks != "":
			return false, "waits until one that was due earlier has found room"
		default:
			free--
		}
	}
	if free <= 0 {
		g.control = g.control.boots(now, len(g.held), true)
		// Without how many boot now, or may: each change would change the words of every desktop that waits.
		return false, "waits for a boot slot"
	}
	delete(g.waiting, key)
	g.held[key] = n.mib
	return true, ""
}

// queue notes that a life waits, and whether there is room for it. The caller holds mu.
func (g *governor) queue(now time.Time, key lifeKey, n need, poke func()) slotWaiter {
	me := slotWaiter{due: n.due, mib: n.mib, poke: poke, since: now}
	if g.room != nil {
		me.lacks, me.never = g.room(g.held).lacks(n.mib)
	}
	if before, ok := g.waiting[key]; ok && before.lacks != "" && me.lacks != "" {
		me.since = before.since
	}
	g.waiting[key] = me
	return me
}

// lacks says why there is no room now for a VM with so much memory that takes no slot; empty when there is.
func (g *governor) lacks(mib uint64) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	why, _ := g.room(g.held).lacks(mib)
	return why
}

// hold takes a slot for a VM that boots already, even beyond the limit.
func (g *governor) hold(key lifeKey, mib uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, key)
	g.held[key] = mib
}

// release gives a life's slot, or its place in the queue, back; ready says that its guest is.
func (g *governor) release(now time.Time, key lifeKey, ready bool) {
	g.mu.Lock()
	_, held := g.held[key]
	_, queued := g.waiting[key]
	if !held && !queued {
		g.mu.Unlock()
		return
	}
	if held && ready {
		g.control = g.control.ready(now, g.bearing)
	}
	delete(g.held, key)
	delete(g.waiting, key)
	g.control = g.control.boots(now, len(g.held), g.wanted())
	g.mu.Unlock()
	g.nudge()
}

// wanted reports whether somebody waits for nothing but a slot. The caller holds mu.
func (g *governor) wanted() bool {
	for _, waiter := range g.waiting {
		if waiter.lacks == "" {
			return true
		}
	}
	return false
}

// nudge makes all who wait ask again.
func (g *governor) nudge() {
	g.mu.Lock()
	pokes := make([]func(), 0, len(g.waiting))
	for _, waiter := range g.waiting {
		pokes = append(pokes, waiter.poke)
	}
	g.mu.Unlock()
	for _, poke := range pokes {
		poke()
	}
}

// bear takes in how the host bears what it does.
func (g *governor) bear(now time.Time, b bearing) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bearing = b
	g.control = g.control.press(now, b)
}

// has reports whether a life holds a slot.
func (g *governor) has(key lifeKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, held := g.held[key]
	return held
}

// counts are the slots that are held, and that may be.
func (g *governor) counts() (inFlight, limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held), g.control.limit
}

// heldBack says why desktops wait whose time has come; empty when none does.
func (g *governor) heldBack() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var first slotWaiter
	lacking, slots := 0, 0
	for _, waiter := range g.waiting {
		if waiter.lacks == "" {
			slots++
			continue
		}
		if lacking == 0 || waiter.due.Before(first.due) {
			first = waiter
		}
		lacking++
	}
	switch {
	case lacking > 0:
		return fmt.Sprintf("%s: %s", counted(lacking), first.lacks)
	case slots > 0 && g.control.limit < g.control.most:
		return fmt.Sprintf("%s: %d of at most %d boot at once, as many as the host bears now", counted(slots), g.control.limit, g.control.most)
	case slots > 0:
		return fmt.Sprintf("%s: at most %d boot at once", counted(slots), g.control.limit)
	}
	return ""
}

func counted(n int) string {
	if n == 1 {
		return "1 desktop waits"
	}
	return fmt.Sprintf("%d desktops wait", n)
}
