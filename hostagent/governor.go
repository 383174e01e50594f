package hostagent

import (
	"fmt"
	"sync"
	"time"
)

// governor limits how many VMs of the host boot at once: a host that starts all of them together has none ready for long.
type governor struct {
	limit int

	mu      sync.Mutex
	held    map[lifeKey]bool
	waiting map[lifeKey]slotWaiter
}

type slotWaiter struct {
	due  time.Time
	poke func()
}

func newGovernor(limit int) *governor {
	return &governor{limit: limit, held: map[lifeKey]bool{}, waiting: map[lifeKey]slotWaiter{}}
}

// ask takes a slot for a life, or queues it and says why: poke is called when it should ask again. Who was due earlier goes
// first.
func (g *governor) ask(key lifeKey, due time.Time, poke func()) (ok bool, why string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held[key] {
		return true, ""
	}
	g.waiting[key] = slotWaiter{due: due, poke: poke}
	free := g.limit - len(g.held)
	for other, waiter := range g.waiting {
		if waiter.due.Before(due) || waiter.due.Equal(due) && other.generation < key.generation {
			free--
		}
	}
	if free <= 0 {
		// Without how many boot now: each boot that ends would change the words of every desktop that waits.
		return false, fmt.Sprintf("waits for a boot slot: at most %d desktops boot at once", g.limit)
	}
	delete(g.waiting, key)
	g.held[key] = true
	return true, ""
}

// hold takes a slot for a VM that boots already, even beyond the limit.
func (g *governor) hold(key lifeKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.waiting, key)
	g.held[key] = true
}

// release gives a life's slot, or its place in the queue, back.
func (g *governor) release(key lifeKey) {
	g.mu.Lock()
	_, queued := g.waiting[key]
	if !g.held[key] && !queued {
		g.mu.Unlock()
		return
	}
	delete(g.held, key)
	delete(g.waiting, key)
	pokes := make([]func(), 0, len(g.waiting))
	for _, waiter := range g.waiting {
		pokes = append(pokes, waiter.poke)
	}
	g.mu.Unlock()
	for _, poke := range pokes {
		poke()
	}
}

// has reports whether a life holds a slot.
func (g *governor) has(key lifeKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held[key]
}

// inFlight is how many slots are held.
func (g *governor) inFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.held)
}
