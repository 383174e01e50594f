package pool

import (
	"fmt"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// clockWatch notices when the clock by which plans are made goes on by more than the time that passed: somebody set it forward, or
// the machine slept. It knows only of its own term; a control plane that was down cannot tell the one from the other.
type clockWatch struct {
	read    time.Time
	skipped skip // the last
}

// skip is time by the clock that never passed. The zero value is none.
type skip struct{ from, to time.Time }

// look reads the clock; ran is how long ago it was read before, by a clock that nobody sets.
func (c *clockWatch) look(now time.Time, ran time.Duration) {
	now = now.Round(0)
	expected := c.read.Add(ran)
	switch {
	case c.read.IsZero():
	case now.Sub(expected) >= missGrace: // less is no reason to be late for
		c.skipped = skip{expected, now}
	case now.Before(c.skipped.to): // set back: what comes now does pass
		c.skipped.to = now
	}
	c.read = now
}

// tookFrom tells whether desktops had less time than the plan gave them to be ready at a deadline.
func (s skip) tookFrom(plan *v1.Plan, deadline time.Time) bool {
	first := deadline
	for _, start := range plan.GetStarts() {
		if at := start.GetStartAt().AsTime(); start.GetDeadline().AsTime().Equal(deadline) && at.Before(first) {
			first = at
		}
	}
	return s.from.Before(deadline) && s.to.After(first)
}

// text says in a clause what happened to the clock.
func (s skip) text(zone *time.Location) string {
	return fmt.Sprintf("the control plane's clock went from %s to %s at once, and desktops had less time than was planned", s.from.In(zone).Format("15:04:05"),
		s.to.In(zone).Format("15:04:05 MST"))
}
