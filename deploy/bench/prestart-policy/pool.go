package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

type state int

const (
	cold state = iota
	waiting
	booting
	ready
	held
	making
	states
)

// seat is one desktop.
type seat struct {
	pool       *pool
	number     int
	host       *host
	hostNumber int
	state      state
	life       int
	startAt    second // of a cold one, when it was planned; 0 when not
	begun      second
}

// pool is one pool under one policy.
type pool struct {
	engine  *engine
	house   *house
	random  *rand.Rand
	mu      float64
	seats   []*seat
	counts  [states]int
	queue   []int // claims that wait, in their order
	last    second
	outcome outcome
	boots   []float64 // how long the newest starts took
}

// outcome is what became of a pool.
type outcome struct {
	claims, hits                 int
	openingClaims, openingMisses int
	waits                        []float64 // of those that were no hits
	idleSeconds                  second
	starts                       int
}

func (p *pool) set(s *seat, to state) {
	p.counts[s.state]--
	s.state = to
	p.counts[to]++
	if to == cold {
		s.startAt = 0
	}
}

// account adds what ran for nobody up to now.
func (p *pool) account(now second) {
	p.outcome.idleSeconds += (now - p.last) * second(p.counts[booting]+p.counts[ready])
	p.last = now
}

// warm is how many run or are told to run; inUse how many users hold or wait for one.
func (p *pool) warm() int {
	return p.counts[waiting] + p.counts[booting] + p.counts[ready] + p.counts[held]
}
func (p *pool) inUse() int { return p.counts[held] + len(p.queue) }

func (p *pool) first(of state) *seat {
	if p.counts[of] == 0 {
		return nil
	}
	return p.seats[slices.IndexFunc(p.seats, func(s *seat) bool { return s.state == of })]
}

func (p *pool) arrive(claim int, now second) {
	opening := p.house.claims[claim].begins%day >= opens && p.house.claims[claim].begins%day < opens+hour
	if opening {
		p.outcome.openingClaims++
	}
	if s := p.first(ready); s != nil {
		p.outcome.hits++
		p.hold(s, claim)
		return
	}
	if opening {
		p.outcome.openingMisses++
	}
	p.queue = append(p.queue, claim)
}

func (p *pool) hold(s *seat, claim int) {
	p.set(s, held)
	p.engine.enter(event{at: max(p.house.claims[claim].ends, p.engine.now), kind: leaves, pool: p, seat: s, life: s.life})
}

// remake ends a life: what had a user, or is cooled, begins anew and cold.
func (p *pool) remake(s *seat) {
	s.life++
	p.set(s, making)
	p.engine.enter(event{at: p.engine.now + remaking, kind: remade, pool: p, seat: s, life: s.life})
}

// wake starts so many cold seats now, those first that were planned to start soonest.
func (p *pool) wake(n int) {
	for ; n > 0 && p.counts[cold] > 0; n-- {
		var next *seat
		for _, s := range p.seats {
			if s.state == cold && (next == nil || s.startAt > 0 && (next.startAt == 0 || s.startAt < next.startAt)) {
				next = s
			}
		}
		p.start(next)
	}
}

func (p *pool) start(s *seat) {
	p.set(s, waiting)
	p.engine.admit(s)
}

// boot begins a start that has its place. Times are spread as starts are, and one in two hundred takes three times as long.
func (p *pool) boot(s *seat) {
	p.set(s, booting)
	p.outcome.starts++
	took := math.Exp(p.mu + 0.2*p.random.NormFloat64())
	if p.random.Float64() < 0.005 {
		took *= 3
	}
	s.begun = p.engine.now
	p.engine.enter(event{at: p.engine.now + second(math.Ceil(took)), kind: booted, pool: p, seat: s, life: s.life})
}

func (p *pool) booted(s *seat, now second) {
	p.set(s, ready)
	if p.boots = append(p.boots, float64(now-s.begun)); len(p.boots) > 120 {
		p.boots = p.boots[1:]
	}
	for len(p.queue) > 0 {
		claim := p.house.claims[p.queue[0]]
		given := p.queue[0]
		p.queue = p.queue[1:]
		p.outcome.waits = append(p.outcome.waits, float64(min(now, claim.ends)-claim.begins))
		if claim.ends > now { // who did not give up
			p.hold(s, given)
			break
		}
	}
	p.engine.over(s.host)
}

// cool ends the lives of so many that nobody holds: first of those that did not begin to start.
func (p *pool) cool(n int) {
	for ; n > 0; n-- {
		if s := p.first(waiting); s != nil {
			p.set(s, cold)
			continue
		}
		s := p.first(ready)
		if s == nil {
			return
		}
		p.remake(s)
	}
}

// tell sums up.
func tell(name string, outcomes []outcome) row {
	r := row{Policy: name, WorstPool: 1}
	var waits []float64
	hits := 0
	for _, o := range outcomes {
		r.Claims += o.claims
		hits += o.hits
		r.OpeningClaims += o.openingClaims
		r.OpeningMisses += o.openingMisses
		r.IdleHours += float64(o.idleSeconds) / float64(hour)
		r.Starts += o.starts
		waits = append(waits, o.waits...)
		if o.claims > 0 {
			r.WorstPool = min(r.WorstPool, o.rate())
		}
	}
	r.HitRate = float64(hits) / float64(max(1, r.Claims))
	slices.Sort(waits)
	for _, w := range waits {
		r.WaitMean += w / float64(max(1, r.Claims))
		r.WaitMax = max(r.WaitMax, w)
	}
	// Hits waited for nothing, and are the first of all waits in their order.
	if at := int(math.Ceil(0.99*float64(r.Claims))) - 1 - hits; at >= 0 && at < len(waits) {
		r.WaitP99 = waits[at]
	}
	return r
}

func (o outcome) rate() float64 { return float64(o.hits) / float64(max(1, o.claims)) }
