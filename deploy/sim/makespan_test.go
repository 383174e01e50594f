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
	// fluid is the least that they can take, of the mean length that all had in truth, could they be cut into pieces; whole is what they can
	// take as they are.
	fluid, whole time.Duration
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
	var work time.Duration
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
			work += took
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
	mean := work / time.Duration(m.starts)
	for _, r := range rows {
		m.planned = max(m.planned, r.last.Sub(r.first))
		m.fluid = max(m.fluid, mean*time.Duration(r.starts)/time.Duration(r.boots))
		m.whole = max(m.whole, mean*time.Duration((r.starts+r.boots-1)/r.boots))
	}
	return m
}

func (m *makespan) add(other makespan) {
	m.openings += other.openings
	m.starts += other.starts
	m.planned += other.planned
	m.fluid += other.fluid
	m.whole += other.whole
}

// check: plans take no more than a tenth longer than starts, which cannot be cut into pieces, can.
func (m *makespan) check(t *testing.T) {
	if m.openings == 0 {
		return
	}
	t.Logf("the %d starts of %d openings from day %d on were planned to take %.3f times what whole starts take, and %.3f times the fluid bound",
		m.starts, m.openings, settled, m.planned.Seconds()/m.whole.Seconds(), m.planned.Seconds()/m.fluid.Seconds())
	if m.planned > m.whole*11/10 {
		t.Errorf("plans take %v, whole starts %v", m.planned, m.whole)
	}
}
