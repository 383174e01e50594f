package pool

import (
	"fmt"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A desktop that fails again and again while others of its version get ready says nothing about the version: it alone is
// held back, by the rule and for the times of the whole pool (see findHold), until one of its lives gets ready. It stays
// failed meanwhile, and is not counted as out of service for being made anew.

// recorded tells whether an event is part of the record of attempts. That a life got ready counts after a failure only.
func recorded(event *v1.Event, afterFailure bool) bool {
	if event.GetMeta().GetLabels()[attemptLabel] == "" {
		return false
	}
	switch event.GetReason() {
	case ReasonReplaced, ReasonHeldBack, ReasonSeatHeldBack:
		return true
	case ReasonRenewed:
		return afterFailure
	}
	return false
}

// sortEvents finds the events of each desktop.
func (d *decision) sortEvents() {
	d.ofSeat = map[string][]*v1.Event{}
	for _, event := range d.Events {
		if event.GetSubjectKind() == store.KindName(v1.Kind_KIND_DESKTOP) {
			d.ofSeat[event.GetSubject()] = append(d.ofSeat[event.GetSubject()], event)
		}
	}
}

// holdSeat reads the record of one desktop: whether its next life, with a target, waits although others may begin.
func (d *decision) holdSeat(desktop *v1.Desktop, t *target) hold {
	var h hold
	if t == nil || !store.Broken(store.State(desktop)) || !neverReady(desktop) {
		return h
	}
	inc, attempt, failures := desktop.GetIncarnation(), store.Attempt(d.following(desktop, t, "")), 1
	total := 1
	for _, event := range d.ofSeat[desktop.GetMeta().GetName()] {
		at := event.GetAt().AsTime()
		old := at.Before(d.now.Add(-holdMemory)) || at.Before(desktop.GetMeta().GetCreated().AsTime())
		wrong := at.After(d.now.Add(longestHold)) // some leader's clock was: nobody shall wait until then
		if old || wrong || event.GetMeta().GetLabels()[attemptLabel] != attempt {
			continue
		}
		switch event.GetReason() {
		case ReasonRenewed: // the life before was ready
			h, failures, total = hold{}, 1, 1
		case ReasonReplaced:
			total++
			if at.After(d.now.Add(-failureWindow)) {
				failures++
			}
		case ReasonSeatHeldBack:
			h.until = at.Add(holdFor(h.level))
			h.level++
		}
	}
	// What began before a hold was over, its own or the version's, has waited for that already.
	waited := begun(inc).Before(later(h.until, t.hold.until))
	if h.active(d.now) || waited || store.Attempt(inc) != attempt || failures < failuresToHold && h.level == 0 {
		return h
	}
	length := holdFor(h.level)
	often := plural(failures, "time") + " in " + spell(failureWindow)
	if h.level > 0 {
		often = fmt.Sprintf("again, %s by now", plural(total, "time"))
	}
	h.until = d.now.Add(length)
	h.announce = fmt.Sprintf("%s failed to get ready %s, while the pool has others: it alone is not made anew for %s, until %s. Last failure: %s",
		desktop.GetMeta().GetName(), often, spell(length), clock(d.Clock, h.until), failure(desktop))
	return h
}

// heldAlone tells whether a desktop's next life, with a target, waits for the desktop's own failures, and notes it.
func (d *decision) heldAlone(desktop *v1.Desktop, t *target) bool {
	h := d.holdSeat(desktop, t)
	if !h.active(d.now) {
		return false
	}
	if h.announce != "" {
		d.actions.HeldBack = append(d.actions.HeldBack, HeldBack{Desktop: desktop, Attempt: store.Attempt(desktop.GetIncarnation()), Text: h.announce})
	}
	d.again(h.until)
	return true
}

// alone is until when a desktop that failed is held back by itself; zero when it is not.
func (d *decision) alone(desktop *v1.Desktop) time.Time {
	if h := d.holdSeat(desktop, d.targetFor(desktop)); h.active(d.now) {
		return h.until
	}
	return time.Time{}
}

// failureOf says in one line why a desktop failed, and how long its next life waits if it failed too often.
func (d *decision) failureOf(desktop *v1.Desktop) string {
	if until := d.alone(desktop); !until.IsZero() {
		return failure(desktop) + " (it failed too often, and is not made anew before " + clock(d.Clock, until) + ")"
	}
	return failure(desktop)
}
