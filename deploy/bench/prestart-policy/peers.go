package main

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"daybreak/orchestrator/demand"
)

type peer struct {
	name   string
	policy policy
}

// peers are the rules of others. Under all of them a user who finds nothing ready has a desktop started for them.
func peers(w *world) []peer {
	return []peer{
		{"avd", &avd{world: w}},
		{"buffer_300s", &forecast{ours: newOurs(w, learnedSchedule()), lead: 5 * minute}},
		{"ovirt", &spares{perTick: 5}},
		{"horizon", &spares{most: 50}},
	}
}

// static keeps so many running: always, or from a quarter of an hour before an opening until its end.
type static struct {
	count int
	hours hours
}

// hours are when a static pool runs; nil is always.
type hours func(w *world, now second) bool

func around(*world, second) bool { return true }

func whileOpen(w *world, now second) bool {
	return w.isOpen(now) || w.isOpen(now+15*minute)
}

// isOpen says whether the office is.
func (w *world) isOpen(now second) bool {
	i, _ := slices.BinarySearchFunc(w.openings, now, func(o claim, t second) int { return cmp.Compare(o.ends, t+1) })
	return i < len(w.openings) && now >= w.openings[i].begins
}

func (s *static) limit() int { return 0 }

func (s *static) prepare(*engine, second) {}

func (s *static) react(p *pool, now second, ticked bool) {
	wanted := p.inUse()
	if s.hours(p.engine.world, now) {
		wanted = s.count
	}
	follow(p, wanted)
}

// follow starts or cools until as many run as are wanted.
func follow(p *pool, wanted int) {
	switch warm := p.warm(); {
	case warm < wanted:
		p.wake(wanted - warm)
	case warm > wanted:
		p.cool(warm - wanted)
	}
}

// sized finds for each pool the smallest static count that hits as often as learned did there, or 99 of 100 times where that is
// less. The pools do not share hosts then, which can only help them.
func sized(w *world, learned []outcome, h hours) []outcome {
	var outcomes []outcome
	for i, each := range w.pools {
		want := min(0.99, learned[i].rate())
		try := func(n int) outcome {
			return newEngine(w, []*house{each}, &static{n, h}, func(*house) int { return n }).run()[0]
		}
		n := 1 + sort.Search(each.seats-1, func(n int) bool { return try(n+1).rate() >= want })
		outcomes = append(outcomes, try(n))
	}
	return outcomes
}

// avd is the autoscale of Azure Virtual Desktop, with one user to a machine: from an hour before the usual opening on at least
// 20 % run and at most 60 % of what runs may be in use, after the usual end 10 % and 90 %. Looked at every five minutes; it
// knows weekdays, no holidays. Who finds none has one started ("start VM on connect").
type avd struct{ world *world }

func (a *avd) limit() int { return 0 }

func (a *avd) prepare(*engine, second) {}

func (a *avd) react(p *pool, now second, ticked bool) {
	if !ticked {
		p.wake(len(p.queue) - p.counts[waiting] - p.counts[booting])
		return
	}
	least, threshold := 0.1, 0.9
	weekday := now/day%7 < 5
	if t := now % day; weekday && t >= opens-hour && t < closes {
		least, threshold = 0.2, 0.6
	}
	wanted := max(least*float64(len(p.seats)), float64(p.inUse())/threshold)
	follow(p, min(len(p.seats), int(math.Ceil(wanted))))
}

// forecast starts what our own forecast asks for a fixed time ahead, whatever starts take, as EC2's predictive scaling does
// (SchedulingBufferTime, 300 s), and keeps no spares.
type forecast struct {
	*ours
	lead second
}

func (f *forecast) prepare(e *engine, now second) {
	if now%day != 0 {
		return
	}
	f.learn(e)
	for _, p := range e.pools {
		f.curves[p] = f.curve(p, now)
	}
}

func (f *forecast) react(p *pool, now second, _ bool) {
	at := f.world.at(now)
	follow(p, max(p.inUse(), demand.Peak(f.curves[p], at, f.world.at(now+f.lead+1)).Target))
}

// spares keeps a number of ready desktops beside those in use, at all times: as many as come in the busiest five minutes of nine
// days of ten. oVirt looks every five minutes and then starts at most five of a pool (VmPoolMonitorIntervalInMinutes and
// VmPoolMonitorBatchSize); Horizon at once, but at most 50 on all hosts together.
type spares struct {
	perTick, most int
	count         map[*pool]int
}

func (s *spares) limit() int { return s.most }

func (s *spares) prepare(e *engine, _ second) {
	if s.count != nil {
		return
	}
	s.count = map[*pool]int{}
	for _, p := range e.pools {
		s.count[p] = busiest(p.house)
	}
}

// busiest is how many come within five minutes at most, on nine of ten days on which any come.
func busiest(h *house) int {
	var days []int
	for _, d := range h.days {
		if n := int(slices.Max(append([]uint32{0}, d.GetArrivals()...))); n > 0 {
			days = append(days, n)
		}
	}
	if len(days) == 0 {
		return 1
	}
	slices.Sort(days)
	return days[len(days)*9/10]
}

func (s *spares) react(p *pool, _ second, ticked bool) {
	onTheWay := p.counts[waiting] + p.counts[booting]
	missing := s.count[p] + len(p.queue) - p.counts[ready] - onTheWay
	switch {
	case s.perTick == 0:
		p.wake(missing)
	case ticked:
		p.wake(min(s.perTick, missing))
	default:
		p.wake(len(p.queue) - onTheWay)
	}
}
