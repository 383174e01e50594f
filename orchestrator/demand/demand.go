// Package demand says how many desktops of a pool should run, and when: it reads a pool's schedule with its calendar and its
// own history into a curve of steps.
//
// Here: targets and spare buffers over time, what is learned from history, the plain words behind each number, the fold that
// turns claims into history, and what is wrong with a schedule. Not here: who starts when (warmup), and what is done about
// desktops that are too few or too many (pool). It is pure: no clock, no I/O, and nothing is remembered between calls. pool and
// warmup ask it, api checks with it.
//
// Civil dates and wall clocks become instants by the rule of package calendar, so that each step comes exactly once on its
// date, also when clocks are set forward or back.
package demand

import (
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// Pool is all that a curve is made of.
type Pool struct {
	Spec *v1.PoolSpec
	// Calendar is the one that the spec names, resolved. Without it a schedule cannot be followed: then all seats are wanted.
	Calendar *calendar.Resolved
	// History of the pool; nil while there is none.
	History *v1.History
	// TimeToReady is how long a start takes, as "nearly always" goes: the buffer covers the arrivals within it. 0 means 5 minutes.
	TimeToReady time.Duration
}

// Step is what holds from a time on, until the next step.
type Step struct {
	From time.Time
	// Target is how many desktops should run, those that users hold among them. At least min_ready, at most the seats.
	Target int
	// Buffer is how many should be ready beside those that users hold or wait for. At least min_ready, at most the seats.
	Buffer int
	// Reason of the target, and BufferReason of the buffer as the step begins, for people. Each at most 256 characters.
	Reason, BufferReason string
}

// Wanted is how many of so many seats should run when users hold, or wait for, so many.
func (s Step) Wanted(held, seats int) int {
	return min(seats, max(s.Target, held+s.Buffer))
}

// Why says why so many are wanted when users hold, or wait for, so many, and so many others run that one user alone can have.
func (s Step) Why(held, kept, seats int) string {
	if s.Wanted(held+kept, seats) <= s.Target {
		return s.Reason
	}
	text := fmt.Sprintf("%s; %d held or waited for", s.Reason, held)
	if kept > 0 {
		text += fmt.Sprintf(", %d kept for one user each", kept)
	}
	return text + fmt.Sprintf(", and %d spare (%s)", s.Buffer, s.BufferReason)
}

// Curve is what the pool asks for from one time until before another: at least one step, the first at from, in order, each
// different from the one before.
func Curve(p Pool, from, to time.Time) []Step {
	seats, floor := int(p.Spec.GetDesktops()), floorOf(p.Spec)
	all := Step{From: from, Target: seats, Buffer: floor, Reason: "no schedule: all desktops, always", BufferReason: "minReady"}
	if p.Spec.GetSchedule() == nil {
		return []Step{all}
	}
	if p.Calendar == nil {
		all.Reason = "all desktops, since the calendar that the schedule follows cannot be read"
		return []Step{all}
	}
	a := newAgenda(p, from, to)
	var steps []Step
	for _, t := range a.cuts(from, to) {
		next := a.step(t)
		if len(steps) > 0 && same(steps[len(steps)-1], next) {
			continue
		}
		steps = append(steps, next)
	}
	return steps
}

// same says whether two steps ask for the same for the same reason. Why the buffer is what it is makes no step.
func same(a, b Step) bool {
	return a.Target == b.Target && a.Buffer == b.Buffer && a.Reason == b.Reason
}

// At is the step of a curve that holds at t; the first one when t is before it.
func At(curve []Step, t time.Time) Step {
	if len(curve) == 0 {
		return Step{}
	}
	after, _ := slices.BinarySearchFunc(curve, t, func(s Step, t time.Time) int {
		if s.From.After(t) {
			return 1
		}
		return -1
	})
	return curve[max(after-1, 0)]
}

// Peak is the step with the highest target that holds at from or begins before to; the earliest of equals.
func Peak(curve []Step, from, to time.Time) Step {
	peak := At(curve, from)
	for _, s := range curve {
		if s.From.After(from) && s.From.Before(to) && s.Target > peak.Target {
			peak = s
		}
	}
	return peak
}

// floorOf is min_ready, which cannot be more than there are seats.
func floorOf(spec *v1.PoolSpec) int { return int(min(spec.GetMinReady(), spec.GetDesktops())) }

// readyIn is the time to ready that the buffer covers.
func (p Pool) readyIn() time.Duration {
	if p.TimeToReady <= 0 {
		return bin
	}
	return p.TimeToReady.Round(time.Second)
}
