package warmup

import (
	"cmp"
	"slices"
	"time"
)

const (
	// little is how much earlier than in a new plan the starts of the plan before may be on the average, and be kept all the same; littleBegun is
	// the same of a row of which some are under way, since nobody is served by one that is dealt anew half way.
	little, littleBegun = 10 * time.Second, 30 * time.Second
	// tight is how much later than it should any of them may be, beyond what it would be in a new plan.
	tight = 2 * time.Second
)

// reserve holds the places of all starts that the plan before had.
func (p *planner) reserve() {
	var all []*seat
	of := map[*seat]*pool{}
	for _, o := range p.pools {
		for _, seats := range o.cold {
			for _, s := range seats {
				if s.had.After(p.now) {
					all, of[s] = append(all, s), o
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b *seat) int {
		return cmp.Or(a.had.Compare(b.had), cmp.Compare(of[a].Name, of[b].Name), cmp.Compare(a.Number, b.Number))
	})
	for _, s := range all {
		// Start times are whole seconds: what fits may overlap by one.
		length := max(shortest, p.estimate(of[s], s.host, s.Digest).Mean-time.Second)
		slot, at := s.host.latest(s.had, s.had, length)
		if slot == nil {
			continue
		}
		slot.fill(span{at, at.Add(length)})
		if !slices.Contains(s.host.slots, slot) {
			s.host.slots = append(s.host.slots, slot)
		}
		s.slot = slot
		of[s].planned = append(of[s].planned, s)
	}
	for _, o := range p.pools {
		slices.Reverse(o.planned)
	}
}

func (p *planner) hasPlanned() bool {
	return slices.ContainsFunc(p.pools, func(o *pool) bool { return len(o.planned) > 0 })
}

// keepStarts gives a pool's wishes the starts of the plan before that were for the same deadline, and then the latest others that meet them.
func (p *planner) keepStarts(o *pool) {
	for _, same := range []bool{true, false} {
		for _, w := range o.wishes {
			for w.missing > 0 && !w.dropped && p.keepStart(o, w, same) {
			}
		}
	}
}

func (p *planner) keepStart(o *pool, w *wish, same bool) bool {
	i := slices.IndexFunc(o.planned, func(s *seat) bool { return (!same || s.For.Equal(w.From)) && p.keeps(o, s, w) })
	if i < 0 {
		return false
	}
	s := o.planned[i]
	o.planned = slices.Delete(o.planned, i, i+1)
	o.cold[s.host] = slices.DeleteFunc(o.cold[s.host], func(other *seat) bool { return other == s })
	p.enlist(o, w, s, offer{host: s.host, slot: s.slot, at: s.had, earliest: s.earliest, Estimate: p.estimate(o, s.host, s.Digest)})
	return true
}

// keeps: the seat's start in the plan before meets the wish.
func (p *planner) keeps(o *pool, s *seat, w *wish) bool {
	e := p.estimate(o, s.host, s.Digest)
	if s.had.Add(e.Quantile).After(w.From) || s.had.Before(imageAt(o, s, s.host)) {
		return false
	}
	room, ok := s.host.roomFrom(p.now, o.MemoryMiB, o.VCPUs)
	return ok && !room.After(s.had)
}

// imageAt is when a host has what the seat runs.
func imageAt(o *pool, s *seat, h *host) time.Time {
	return later(s.earliest, h.Images[cmp.Or(s.Digest, o.Digest)])
}

// closeUp gives the earliest starts the places after them that nobody has any more: where some are no longer wanted, a row is as short as a new
// one would be, and few starts move.
func (h *host) closeUp() {
	var jobs []*job
	for _, s := range h.slots {
		s.refill()
		jobs = append(jobs, s.jobs...)
	}
	slices.SortStableFunc(jobs, func(a, b *job) int { return a.at.Compare(b.at) })
	for _, j := range jobs {
		to, at := h.latest(j.earliest, j.best(), j.Mean)
		if to == nil || at.Sub(j.at) <= little {
			continue
		}
		for _, s := range h.slots {
			if i := slices.Index(s.jobs, j); i >= 0 {
				s.jobs = slices.Delete(s.jobs, i, i+1)
				s.refill()
			}
		}
		h.move(j, at)
		h.put(to, j)
	}
}

// refill enters the spans of its jobs, and no others.
func (s *slot) refill() {
	s.busy = s.busy[:0]
	for _, j := range s.jobs {
		s.fill(span{j.at, j.at.Add(j.Mean)})
	}
}

// cost is what is bad about a plan.
type cost struct {
	missing, late int
	early         time.Duration // before the best times, in all
	mayBe         time.Duration // by how much more that is not worth a new plan
	tight         time.Duration // after its best time, the one that is most
}

func (p *planner) cost() (c cost) {
	for _, o := range p.pools {
		for _, w := range o.wishes {
			c.missing += w.missing
		}
		for _, j := range o.jobs {
			if !j.fixed {
				c.add(j)
			}
		}
	}
	return c
}

func (c *cost) add(j *job) {
	if j.at.After(j.last()) {
		c.late++
	}
	c.early += max(0, j.best().Sub(j.at))
	c.tight = max(c.tight, j.at.Sub(j.best()))
	c.mayBe += little
	if j.host.begun[j.deadline.UTC()] > 0 {
		c.mayBe += littleBegun - little
	}
}

// near: a plan with this cost is as good as one with the other, or nearly.
func (c cost) near(other cost) bool {
	if c.missing != other.missing || c.late != other.late {
		return c.missing+c.late < other.missing+other.late
	}
	return c.early <= other.early+c.mayBe && c.tight <= other.tight+tight
}
