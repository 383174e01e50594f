package sim

import (
	"fmt"
	"testing"
	"time"
)

// settled is how many days a site needs before its plans are held against what is possible: until then they allow for other days.
const settled = 14

// makespan is how long the starts of openings take, from the first one to the last that is ready.
type makespan struct {
	openings, starts int
	// planned is by what the plan expects of a start: the margin that it keeps before the deadline comes after it.
	planned time.Duration
	// fluid is the lower bound: the starts of the host that has most to do, divided by its places for boots, of the mean length that all had
	// in truth. whole is the same with starts that cannot be cut into pieces.
	fluid, whole time.Duration
}

// makespanOf takes together what the plans of all pools start for a deadline; false when that is nothing, or some were never ready.
func (h *history) makespanOf(deadline time.Time) (m makespan, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var work time.Duration
	var first, last time.Time
	count, boots := map[string]int{}, map[string]int{}
	for _, plan := range h.plans {
		for _, s := range plan.GetStarts() {
			if !s.GetDeadline().AsTime().Equal(deadline) {
				continue
			}
			took := h.desktops[fmt.Sprintf("%s-%d", plan.GetPool(), s.GetSeat())].GetStatus().GetBoot().GetTook().AsDuration()
			if took == 0 {
				return m, false
			}
			host, at := plan.GetHosts()[s.GetHost()], s.GetStartAt().AsTime()
			if first.IsZero() || at.Before(first) {
				first = at
			}
			if expected := at.Add(host.GetMean().AsDuration()); expected.After(last) {
				last = expected
			}
			m.starts++
			work += took
			count[host.GetName()]++
			boots[host.GetName()] = int(host.GetBoots())
		}
	}
	if m.starts == 0 {
		return m, false
	}
	m.openings = 1
	mean := work / time.Duration(m.starts)
	for name, n := range count {
		m.fluid = max(m.fluid, mean*time.Duration(n)/time.Duration(boots[name]))
		m.whole = max(m.whole, mean*time.Duration((n+boots[name]-1)/boots[name]))
	}
	m.planned = last.Sub(first)
	return m, true
}

func (m *makespan) add(other makespan) {
	m.openings += other.openings
	m.starts += other.starts
	m.planned += other.planned
	m.fluid += other.fluid
	m.whole += other.whole
}

// check: plans take no more than a tenth longer than whole starts can.
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
