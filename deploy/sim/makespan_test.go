package sim

import (
	"fmt"
	"testing"
	"time"
)

// settled is how many days a site needs before its plans are held against what is possible: until then they allow for other days.
const settled = 14

// makespan is how long the starts of openings take on the hosts that take longest.
type makespan struct {
	openings, starts int
	// planned is from a host's first start until its last is expected to be ready: the margin that is kept before the deadline comes after it.
	planned time.Duration
	// work is what all starts took in truth.
	work time.Duration
	// fluid is how many starts are done one after another in each place at least, could they be cut into pieces; whole is how many as they are.
	fluid float64
	whole int
}

// row is one host's starts.
type row struct {
	starts, boots int
	first, last   time.Time
}

// makespanOf takes together what the plans of all pools start for a deadline; nothing when some of it was never ready.
func (h *history) makespanOf(deadline time.Time) makespan {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := makespan{openings: 1}
	rows := map[string]*row{}
	for _, plan := range h.plans {
		for _, s := range plan.GetStarts() {
			if !s.GetDeadline().AsTime().Equal(deadline) {
				continue
			}
			took := h.desktops[fmt.Sprintf("%s-%d", plan.GetPool(), s.GetSeat())].GetStatus().GetBoot().GetTook().AsDuration()
			if took == 0 {
				return makespan{}
			}
			m.starts++
			m.work += took
			host, at := plan.GetHosts()[s.GetHost()], s.GetStartAt().AsTime()
			r := rows[host.GetName()]
			if r == nil {
				r = &row{first: at}
				rows[host.GetName()] = r
			}
			r.starts, r.boots = r.starts+1, int(host.GetBoots())
			if at.Before(r.first) {
				r.first = at
			}
			if expected := at.Add(host.GetMean().AsDuration()); expected.After(r.last) {
				r.last = expected
			}
		}
	}
	if m.starts == 0 {
		return makespan{}
	}
	for _, r := range rows {
		m.planned = max(m.planned, r.last.Sub(r.first))
		m.fluid = max(m.fluid, float64(r.starts)/float64(r.boots))
		m.whole = max(m.whole, (r.starts+r.boots-1)/r.boots)
	}
	return m
}

func (m *makespan) add(other makespan) {
	m.openings += other.openings
	m.starts += other.starts
	m.planned += other.planned
	m.work += other.work
	m.fluid += other.fluid
	m.whole += other.whole
}

// check: plans take no more than a tenth longer than starts can take that cannot be cut into pieces; and no more than a tenth longer than
// the fluid bound, where hosts have so many starts that the last wave, full or not, makes little of the difference, and openings are so many
// that it makes little of it either how long their starts happened to take.
func (m *makespan) check(t *testing.T) {
	if m.openings == 0 {
		return
	}
	planned := m.planned.Seconds() / (m.work.Seconds() / float64(m.starts))
	t.Logf("the %d starts of %d openings from day %d on were planned to take %.3f times what whole starts take, and %.3f times the fluid bound",
		m.starts, m.openings, settled, planned/float64(m.whole), planned/m.fluid)
	if planned > 1.1*float64(m.whole) {
		t.Errorf("plans take as long as %.1f starts, whole starts %d", planned, m.whole)
	}
	if m.openings >= 10 && float64(m.whole) < 1.06*m.fluid && planned > 1.1*m.fluid {
		t.Errorf("plans take as long as %.1f starts, the fluid bound is %.1f", planned, m.fluid)
	}
}
