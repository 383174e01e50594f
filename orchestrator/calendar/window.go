package calendar

import (
	"fmt"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// Window is a span of every day in which things may be changed. It does not change, and may be used by many at once.
type Window struct {
	span     span
	zone     *time.Location
	blackout func(Date) bool
}

// NewWindow reads a window. calendar gives the time zone and the blackout days; nil when there is none, and then the
// window names its zone.
func NewWindow(spec *v1.Window, calendar *Resolved) (*Window, error) {
	w := &Window{span: span{open: minutes(spec.GetFrom()), close: minutes(spec.GetTo())}, blackout: func(Date) bool { return false }}
	if w.span.open < 0 || w.span.close < 0 || w.span.open == w.span.close {
		return nil, fmt.Errorf("read window: %q to %q is no span of a day", spec.GetFrom(), spec.GetTo())
	}
	if calendar != nil {
		w.zone, w.blackout = calendar.zone, calendar.IsBlackout
		return w, nil
	}
	zone := spec.GetTimeZone()
	if !IsZone(zone) {
		return nil, fmt.Errorf("read window: %q is no time zone", zone)
	}
	var err error
	if w.zone, err = time.LoadLocation(zone); err != nil {
		return nil, fmt.Errorf("read window: %w", err)
	}
	return w, nil
}

// IsZone says whether a text is an IANA name of a time zone. "" and "Local" are not: they would mean another zone on each
// machine.
func IsZone(name string) bool {
	return name != "" && name != "Local" && loads(name)
}

// At is the window that t lies in, or else the next one: the first that ends after t. false when there is none within the
// Horizon. It begins by the rule of the room sign, so that each window happens once, whatever the clocks do.
func (w *Window) At(t time.Time) (Opening, bool) {
	// Yesterday's may run until now, and where clocks are set back over midnight, the date of t may be the one after.
	first := DateOf(t.In(w.zone)).Add(-2)
	for days := range Horizon + 3 {
		if o, ok := w.of(first.Add(days)); ok && o.Close.After(t) {
			return o, true
		}
	}
	return Opening{}, false
}

// of is the window that begins on a date.
func (w *Window) of(date Date) (Opening, bool) {
	if w.blackout(date) {
		return Opening{}, false
	}
	o := Opening{Date: date, Open: date.At(w.span.open, w.zone)}
	switch next := date.Add(1); {
	case w.span.close > w.span.open:
		o.Close = date.At(w.span.close, w.zone)
	case w.blackout(next):
		o.Close = next.At(0, w.zone)
	default:
		o.Close = next.At(w.span.close, w.zone)
	}
	return o, o.Close.After(o.Open)
}

// Includes says whether t lies in a window, and until when that lasts, or when the next one begins. The time is zero
// when there is none within the Horizon.
func (w *Window) Includes(t time.Time) (inside bool, until time.Time) {
	o, ok := w.At(t)
	if !ok {
		return false, time.Time{}
	}
	if o.Open.After(t) {
		return false, o.Open
	}
	return true, o.Close
}

// After is the instant at which so much time within windows has passed since t. false when that lies beyond the Horizon.
func (w *Window) After(t time.Time, length time.Duration) (time.Time, bool) {
	for range Horizon {
		o, ok := w.At(t)
		if !ok {
			return time.Time{}, false
		}
		if o.Open.After(t) {
			t = o.Open
		}
		left := o.Close.Sub(t)
		if length < left {
			return t.Add(length), true
		}
		length -= left
		t = o.Close
	}
	return time.Time{}, false
}

// ClockOf returns the time zone of the people who use a pool: its calendar's, or that of its rollouts' window when it has none.
func ClockOf(pool *v1.Pool, followed *v1.Calendar) *time.Location {
	name := pool.GetSpec().GetRollout().GetWindow().GetTimeZone()
	if followed != nil {
		name = followed.GetSpec().GetTimeZone()
	}
	zone, err := time.LoadLocation(name) // "" is UTC
	if err != nil {
		return time.UTC // the zone is checked where people write it; at worst a notice has a time that says UTC
	}
	return zone
}
