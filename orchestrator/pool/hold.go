package pool

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Restraint on create loops: so many failures within the window hold creation back, first for firstHold, then twice as long
// each time until a desktop gets ready: those of as many desktops, with no success between, for the pool, and those of one
// for that one (see holdSeat).
const (
	failuresToHold = 3
	failureWindow  = 10 * time.Minute
	firstHold      = time.Minute
	longestHold    = 30 * time.Minute
	// holdMemory is how long a hold without a success after it counts. Longer than the longest hold and boot together.
	holdMemory = 6 * time.Hour
)

// attemptLabel marks events with what was tried (see store.Attempt): another version or shape starts with a clean record.
const attemptLabel = store.LabelAttempt

// hold is what the record of failures says about making desktops now. It is computed from stored events and desktops
// alone, so that a new leader knows what the old one knew.
type hold struct {
	level    int       // holds since the last success
	until    time.Time // end of the present or the last hold
	announce string    // a hold begins now: what to say
}

func (h hold) active(now time.Time) bool { return now.Before(h.until) }

// trial: after a hold one desktop is tried before the others.
func (h hold) trial() bool { return h.level > 0 }

// holdFor returns how long the hold at a level lasts; level counts from 0.
func holdFor(level int) time.Duration {
	if level > 5 {
		return longestHold
	}
	return min(firstHold<<level, longestHold)
}

// attempt names what a new life with the target would try.
func (d *decision) attempt(t *target) string { return store.Attempt(d.following(nil, t, "")) }

// findHold reads the record of one version: what became of another says nothing about it.
func (d *decision) findHold(t *target) hold {
	attempt := d.attempt(t)
	success := d.lastSuccess(t, attempt)
	var h hold
	failures, seats := 0, map[string]bool{}
	for _, event := range d.Events {
		at := event.GetAt().AsTime()
		if event.GetMeta().GetLabels()[attemptLabel] != attempt || !at.After(success) {
			continue
		}
		switch event.GetReason() {
		case ReasonReplaced:
			if at.After(d.now.Add(-failureWindow)) {
				failures++
				seats[event.GetSubject()] = true
			}
		case ReasonHeldBack:
			if at.After(d.now.Add(-holdMemory)) && !d.succeededSince(t, attempt, at) {
				h.until = at.Add(holdFor(h.level))
				h.level++
			}
		}
	}
	if h.active(d.now) {
		return h
	}
	var last *v1.Desktop
	for _, desktop := range d.failed {
		inc := desktop.GetIncarnation()
		if !neverReady(desktop) || !tries(desktop, t, attempt) {
			continue
		}
		// After a hold only what was made after it counts, by our own clock: the old ruins must not prolong it.
		counts := !begun(inc).Before(h.until)
		if h.level == 0 {
			counts = reached(desktop, v1.DesktopState_DESKTOP_STATE_FAILED, d.now).After(success)
		}
		if counts {
			failures++
			seats[desktop.GetMeta().GetName()] = true
			last = desktop
		}
	}
	several := failures >= failuresToHold && len(seats) >= min(failuresToHold, len(d.Desktops))
	if last != nil && (several || h.level > 0) {
		length := holdFor(h.level)
		h.until = d.now.Add(length)
		h.announce = fmt.Sprintf("%s failed to get ready, as others before it: no desktop is made with version %d for %v. Last failure: %s",
			last.GetMeta().GetName(), t.version.GetNumber(), length, failure(last))
	}
	return h
}

// lastSuccess returns when a desktop that is ready now, and tried the same, got ready, the newest.
func (d *decision) lastSuccess(t *target, attempt string) time.Time {
	var newest time.Time
	for _, desktop := range d.Desktops {
		if store.State(desktop) != v1.DesktopState_DESKTOP_STATE_READY {
			continue
		}
		at := reached(desktop, v1.DesktopState_DESKTOP_STATE_READY, d.now)
		if at.After(newest) && tries(desktop, t, attempt) {
			newest = at
		}
	}
	return newest
}

// tries: the present life is an attempt at the target. Most are of another version, which shows at once.
func tries(desktop *v1.Desktop, t *target, attempt string) bool {
	inc := desktop.GetIncarnation()
	return inc.GetDigest() == t.version.GetDigest() && store.Attempt(inc) == attempt
}

// succeededSince: a life that began after a time, and tried the same, is ready.
func (d *decision) succeededSince(t *target, attempt string, since time.Time) bool {
	for _, desktop := range d.Desktops {
		if store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY && !begun(desktop.GetIncarnation()).Before(since) && tries(desktop, t, attempt) {
			return true
		}
	}
	return false
}

// trialInFlight: what a trial of the target after a hold has set going is not decided yet.
func (d *decision) trialInFlight(t *target) bool {
	for _, desktop := range d.retiring { // whatever follows it may be the trial
		if store.State(desktop) != v1.DesktopState_DESKTOP_STATE_LOST {
			return true
		}
	}
	for _, desktop := range d.rest {
		inc := desktop.GetIncarnation()
		trial := isStarting(store.State(desktop)) && isDue(d.now, desktop) && !begun(inc).Before(t.hold.until)
		if trial && inc.GetDigest() == t.version.GetDigest() {
			return true
		}
	}
	return false
}

// reached returns when the present life came to a state by its host's clock, never later than now; now if unknown.
func reached(d *v1.Desktop, state v1.DesktopState, now time.Time) time.Time {
	if at, ok := store.Reached(d, state); ok && at.Before(now) {
		return at
	}
	return now
}

func heldUntil(h hold, now time.Time) *timestamppb.Timestamp {
	if !h.active(now) {
		return nil
	}
	return timestamppb.New(h.until)
}
