package warmup

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// turn lets a moment come: pools whose target fell cool what is too many, those whose target rose wish for more.
func (p *planner) turn(at time.Time) {
	for _, o := range p.pools {
		i := slices.IndexFunc(o.targets, func(t Target) bool { return later(p.now, t.From).Equal(at) })
		if i < 0 {
			continue
		}
		target := o.targets[i].Running
		o.cool(at, o.most(i, at.Add(p.keep)))
		o.forget(at, max(0, target-o.running))
		if miss := target - o.running - o.open; miss > 0 {
			o.wishes = append(o.wishes, &wish{Target: o.targets[i], want: miss, missing: miss})
			o.open += miss
		}
	}
}

// most is the highest target from the i-th on until then.
func (o *pool) most(i int, until time.Time) int {
	most := o.targets[i].Running
	for _, t := range o.targets[i+1:] {
		if t.From.After(until) {
			break
		}
		most = max(most, t.Running)
	}
	return most
}

// cool ends the lives of desktops that are more than so many; their next ones are cold.
func (o *pool) cool(at time.Time, most int) {
	if o.running <= most || len(o.warm) == 0 {
		return
	}
	for i := len(o.warm) - 1; i >= 0 && o.running > most; i-- {
		s := o.warm[i]
		if s.For.After(at) {
			continue
		}
		o.warm = slices.Delete(o.warm, i, i+1)
		o.running--
		o.ready = append(o.ready, change{later(at, s.readyAt()), -1})
		s.Phase, s.cooled, s.earliest, s.Digest = Cold, true, at.Add(renew), ""
		s.StartAt, s.For = time.Time{}, time.Time{}
		if s.host != nil {
			s.host.total(at.Add(settle), o.MemoryMiB, o.VCPUs)
		}
		o.chill(s)
	}
	for h, seats := range o.cold {
		slices.SortStableFunc(seats, inTurn)
		o.cold[h] = seats
	}
}

// readyAt is when the seat's newest start is ready.
func (s *seat) readyAt() time.Time {
	if s.job == nil {
		return time.Time{}
	}
	return s.job.at.Add(s.job.Mean)
}

// forget drops wishes beyond so many, the newest first: the target fell before they were met.
func (o *pool) forget(at time.Time, most int) {
	for _, w := range slices.Backward(o.wishes) {
		if w.dropped {
			continue
		}
		n := min(w.missing, o.open-most)
		if n <= 0 {
			return
		}
		o.open -= n
		if n == w.missing {
			w.dropped, w.until = true, at
			continue
		}
		// The one part is missed for good; the other goes on waiting.
		w.missing -= n
		w.want -= n
		o.wishes = append(o.wishes, &wish{Target: w.Target, want: n, missing: n, dropped: true, until: at, why: w.why})
	}
}

// assign gives starts to pools that wish for some, one after another, so that each has the same share of what it wants.
func (p *planner) assign() {
	if p.keeping {
		for _, o := range p.pools {
			p.keepStarts(o)
		}
	}
	var round []*draw
	for _, o := range p.pools {
		if o.open > 0 {
			round = append(round, p.newDraw(o))
		}
	}
	for len(round) > 0 {
		next := slices.MinFunc(round, func(a, b *draw) int {
			return cmp.Or(cmp.Compare(a.given*b.wanted, b.given*a.wanted), cmp.Compare(a.pool.Name, b.pool.Name))
		})
		if !p.give(next) {
			round = slices.DeleteFunc(round, func(d *draw) bool { return d == next })
		}
	}
}

// draw is a pool's part in one round of assign: its hosts, the best first. Offers only get worse in a round, so that one
// that is still as good as it was is the best.
type draw struct {
	pool          *pool
	offers        offers
	given, wanted int
}

// stick is by how much later another seat would have to start to take the place of one that the plan before started.
const stick = 30 * time.Second

// offer is the best place that a host has for a pool's next start.
type offer struct {
	host     *host
	slot     *slot
	at       time.Time
	late     time.Duration // after the last time at which it surely meets the deadline by itself
	tight    time.Duration // not that, but after the best time
	chosen   int
	earliest time.Time
	value    time.Time // at, or more
	fresh    bool      // the plan before had no such start
	Estimate
}

func (p *planner) newDraw(o *pool) *draw {
	d := &draw{pool: o, wanted: o.open}
	w := o.wish()
	for _, h := range p.hosts {
		if of, ok := p.offer(o, h, w); ok {
			d.offers = append(d.offers, of)
		}
	}
	heap.Init(&d.offers)
	return d
}

// wish is the earliest that is not met.
func (o *pool) wish() *wish {
	for _, w := range o.wishes {
		if w.missing > 0 && !w.dropped {
			return w
		}
	}
	return nil
}

// next is the seat that would start on the host.
func (o *pool) next(h *host) *seat {
	if seats := o.cold[h]; len(seats) > 0 {
		return seats[0]
	}
	if len(o.homeless) > 0 && slices.Contains(o.hosts, h) {
		return o.homeless[0]
	}
	return nil
}

// offer finds the best place on a host: the latest that surely meets the deadline, or else the soonest.
func (p *planner) offer(o *pool, h *host, w *wish) (offer, bool) {
	s := o.next(h)
	if s == nil {
		return offer{}, false
	}
	room, ok := h.roomFrom(p.now, o.MemoryMiB, o.VCPUs)
	if !ok {
		return offer{}, false
	}
	of := offer{host: h, chosen: h.chosen, earliest: imageAt(o, s, h), Estimate: p.estimate(o, h, s.Digest)}
	earliest := later(of.earliest, room)
	last := w.From.Add(-of.Quantile)
	best := last.Add(-h.margin(h.due[w.From.UTC()]+1, of.Deviation))
	if of.slot, of.at = h.latest(earliest, best, of.Mean); of.slot == nil {
		of.slot, of.at = h.soonest(earliest, of.Mean)
		if of.late = max(0, of.at.Sub(last)); of.late == 0 {
			of.tight = of.at.Sub(best)
		}
	}
	of.fresh, of.value = !o.had(h, of.at.Truncate(time.Second)), of.at
	if !s.had.IsZero() {
		of.value = of.at.Add(stick)
	}
	return of, true
}

// had tells whether a seat that could start on the host had that time in the plan before.
func (o *pool) had(h *host, at time.Time) bool {
	seats := o.cold[h]
	if len(seats) == 0 {
		seats = o.homeless
	}
	return slices.ContainsFunc(seats, func(s *seat) bool { return s.had.Equal(at) })
}

// give starts one more desktop of the pool; false when it has what it wants, or cannot have it.
func (p *planner) give(d *draw) bool {
	o := d.pool
	w := o.wish()
	if w == nil {
		return false
	}
	for len(d.offers) > 0 {
		now, ok := p.offer(o, d.offers[0].host, w)
		if !ok {
			heap.Pop(&d.offers)
			continue
		}
		same := now.equal(d.offers[0])
		d.offers[0] = now
		if !same {
			heap.Fix(&d.offers, 0)
			continue
		}
		p.start(o, w, now)
		d.given++
		return true
	}
	why := p.whyNot(o)
	for _, w := range o.wishes {
		if w.missing > 0 && !w.dropped {
			w.why = why
		}
	}
	return false
}

// start enters a job.
func (p *planner) start(o *pool, w *wish, of offer) {
	s := o.next(of.host)
	if seats := o.cold[of.host]; len(seats) > 0 {
		o.cold[of.host] = seats[1:]
	} else {
		o.homeless = o.homeless[1:]
	}
	p.enlist(o, w, s, of)
}

// enlist gives a seat a start that an offer describes.
func (p *planner) enlist(o *pool, w *wish, s *seat, of offer) {
	s.host, s.For = of.host, time.Time{}
	j := &job{Estimate: of.Estimate, pool: o, seat: s, wish: w, deadline: w.From, at: of.at, earliest: of.earliest, first: !s.cooled && s.job == nil}
	of.host.take(of.slot, j)
	o.jobs, w.jobs = append(o.jobs, j), append(w.jobs, j)
	o.used[of.host] = of.Estimate
	s.job = j
	w.missing--
	o.open--
	o.running++
	o.warm = append(o.warm, s)
}

func (a offer) equal(b offer) bool {
	return a.late == b.late && a.tight == b.tight && a.at.Equal(b.at) && a.value.Equal(b.value) && a.fresh == b.fresh && a.chosen == b.chosen
}

// offers is a heap: what is surely in time first, the latest start of that; then what is least tight, or late; on equal terms what
// was planned before, or else the host that was chosen least.
type offers []offer

func (o offers) Len() int      { return len(o) }
func (o offers) Swap(i, j int) { o[i], o[j] = o[j], o[i] }
func (o offers) Less(i, j int) bool {
	a, b := o[i], o[j]
	if a.late == b.late && a.tight == b.tight && a.value.Equal(b.value) && a.fresh != b.fresh {
		return b.fresh
	}
	return cmp.Or(cmp.Compare(a.late, b.late), cmp.Compare(a.tight, b.tight), b.value.Compare(a.value), cmp.Compare(a.chosen, b.chosen), cmp.Compare(a.host.Name, b.host.Name)) < 0
}
func (o *offers) Push(x any) {
	if of, ok := x.(offer); ok {
		*o = append(*o, of)
	}
}
func (o *offers) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}

// whyNot says why the pool gets no more, with numbers.
func (p *planner) whyNot(o *pool) string {
	cold, shut := len(o.homeless), 0
	most := int64(0)
	var roomiest, closed *host
	for _, h := range p.hosts {
		n := len(o.cold[h])
		cold += n
		if n == 0 && (len(o.homeless) == 0 || !slices.Contains(o.hosts, h)) {
			continue
		}
		if h.Closed != "" {
			shut += n
			closed = cmp.Or(closed, h)
			continue
		}
		free := h.memory + h.endMemory
		if roomiest == nil || free > most {
			roomiest, most = h, free
		}
	}
	switch {
	case cold == 0:
		return o.allTaken()
	case closed != nil && (roomiest == nil || 2*shut > cold):
		return fmt.Sprintf("the hosts of %d cold desktops start nothing: %s %s", cold, closed.Name, closed.Closed)
	case roomiest == nil:
		return fmt.Sprintf("there is no host for %d cold desktops", cold)
	case most >= o.MemoryMiB:
		return fmt.Sprintf("the hosts of %d cold desktops have no vCPUs free: one needs %d", cold, o.VCPUs)
	}
	return fmt.Sprintf("the hosts of %d cold desktops have no memory free: one needs %d MiB, and %s, which has most, has %d MiB", cold, o.MemoryMiB,
		roomiest.Name, max(0, most))
}

// allTaken says that there is no seat left to start.
func (o *pool) allTaken() string {
	if o.Lost == 0 {
		if o.running == 1 {
			return "the 1 desktop is taken"
		}
		return fmt.Sprintf("all %d desktops are taken", o.running)
	}
	text := fmt.Sprintf("all %d desktops that can be used are taken, and %d cannot be used", o.running, o.Lost)
	switch o.running {
	case 0:
		text = fmt.Sprintf("%s cannot be used, and there are no others", count(o.Lost, "desktop"))
	case 1:
		text = fmt.Sprintf("the 1 desktop that can be used is taken, and %d cannot be used", o.Lost)
	}
	if o.LostWhy != "" {
		text += fmt.Sprintf(" (%s)", o.LostWhy)
	}
	return text
}
