package main

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
)

// What the machinery costs, the same for every policy.
const (
	bootsAtOnce = 8  // of a host
	remaking    = 20 // seconds in which a used or cooled desktop is made anew, cold
	tick        = 5 * minute
)

// policy keeps desktops ready: it is asked at every tick for all, and after whatever happened to a pool.
type policy interface {
	// prepare is called at each tick, before the pools are looked at.
	prepare(e *engine, now second)
	// react starts and cools desktops of a pool. ticked: nothing happened, it is only time.
	react(p *pool, now second, ticked bool)
	// limit of starts at once on all hosts together; 0 for none but the hosts' own.
	limit() int
}

type eventKind int

const (
	arrives eventKind = iota
	leaves
	booted
	remade
	planned
	ticks
)

type event struct {
	at    second
	order int // of entry: equal times happen in it
	kind  eventKind
	pool  *pool
	seat  *seat
	life  int
	claim int
}

type events []event

func (q events) Len() int { return len(q) }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *events) Push(x any)   { *q = append(*q, x.(event)) }
func (q *events) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// host starts so many at once; the others wait their turn.
type host struct {
	booting int
	queue   []*seat
}

// engine is one run of one policy.
type engine struct {
	world   *world
	policy  policy
	pools   []*pool
	hosts   []*host
	booting int
	queue   []*seat // for the policy's own limit
	events  events
	order   int
	now     second
}

func newEngine(w *world, houses []*house, p policy, seats func(*house) int) *engine {
	e := &engine{world: w, policy: p}
	for range w.hosts {
		e.hosts = append(e.hosts, &host{})
	}
	for i, h := range houses {
		o := &pool{engine: e, house: h, random: rand.New(rand.NewPCG(w.seed, uint64(i)+1<<32)), mu: math.Log(h.median)}
		for n := range seats(h) {
			o.seats = append(o.seats, &seat{pool: o, number: n, host: e.hosts[(i*7+n)%len(e.hosts)], hostNumber: (i*7 + n) % len(e.hosts)})
		}
		o.counts[cold] = len(o.seats)
		for n, c := range h.claims {
			e.enter(event{at: c.begins, kind: arrives, pool: o, claim: n})
		}
		e.pools = append(e.pools, o)
	}
	return e
}

func (e *engine) enter(v event) {
	e.order++
	v.order = e.order
	heap.Push(&e.events, v)
}

// run plays all logons under one policy, with all seats.
func run(w *world, p policy) []outcome {
	return newEngine(w, w.pools, p, func(h *house) int { return h.seats }).run()
}

func (e *engine) run() []outcome {
	for t := second(0); t < e.world.end(); t += tick {
		e.enter(event{at: t, kind: ticks})
	}
	for e.events.Len() > 0 {
		v := heap.Pop(&e.events).(event)
		if v.at >= e.world.end() {
			break
		}
		e.now = v.at
		e.happen(v)
	}
	var outcomes []outcome
	for _, p := range e.pools {
		p.account(e.world.end())
		p.outcome.claims = len(p.house.claims)
		outcomes = append(outcomes, p.outcome)
	}
	return outcomes
}

func (e *engine) happen(v event) {
	if v.kind == ticks {
		e.policy.prepare(e, v.at)
		for _, p := range e.pools {
			p.account(v.at)
			e.policy.react(p, v.at, true)
			p.check()
		}
		return
	}
	v.pool.account(v.at)
	if v.seat != nil && v.seat.life != v.life {
		return // of a life that ended
	}
	switch v.kind {
	case arrives:
		v.pool.arrive(v.claim, v.at)
	case leaves:
		v.pool.remake(v.seat)
	case booted:
		v.pool.booted(v.seat, v.at)
	case remade:
		v.pool.set(v.seat, cold)
	case planned:
		if v.seat.state == cold && v.seat.startAt == v.at {
			v.pool.start(v.seat)
		}
	}
	e.policy.react(v.pool, v.at, false)
	v.pool.check()
}

// admit starts a seat when its host, and the policy, have a place for it.
func (e *engine) admit(s *seat) {
	most := e.policy.limit()
	switch {
	case s.host.booting >= bootsAtOnce:
		s.host.queue = append(s.host.queue, s)
	case most > 0 && e.booting >= most:
		e.queue = append(e.queue, s)
	default:
		s.host.booting++
		e.booting++
		s.pool.boot(s)
	}
}

// over gives the place of a start that is over to who waits for it.
func (e *engine) over(h *host) {
	h.booting--
	e.booting--
	if next := first(&h.queue); next != nil {
		e.admit(next)
	}
	if most := e.policy.limit(); most == 0 || e.booting < most {
		if next := first(&e.queue); next != nil {
			e.admit(next)
		}
	}
}

// first takes the first seat of a queue that still waits; nil when none does.
func first(queue *[]*seat) *seat {
	for len(*queue) > 0 {
		next := (*queue)[0]
		*queue = (*queue)[1:]
		if next.state == waiting {
			return next
		}
	}
	return nil
}

// check ends the run when the machinery does not add up: then no number of it means anything.
func (p *pool) check() {
	all := 0
	for _, n := range p.counts {
		all += n
		if n < 0 {
			all = -1
			break
		}
	}
	if all != len(p.seats) || p.counts[ready] > 0 && len(p.queue) > 0 {
		panic(fmt.Sprintf("%s: counts %v of %d seats, %d wait", p.house.name, p.counts, len(p.seats), len(p.queue)))
	}
}
