package demand

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// learned is the word for what the history says.
const learned = "learned"

// maxReason is how long a reason may be, in characters, and maxNote how much of a text that people wrote is quoted in it.
const (
	maxReason = 256
	maxNote   = 80
)

// bufferWord is the spare buffer as written, or the default.
func bufferWord(s *v1.Schedule) string { return or(s.GetSpareBuffer(), learned) }

func or(word, absent string) string {
	if word == "" {
		return absent
	}
	return word
}

// count reads "40" or "75%" of so many seats; a share of a desktop is a whole one. false for anything else.
func count(word string, seats int) (int, bool) {
	digits, percent := strings.CutSuffix(word, "%")
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || len(digits) > 4 || percent && n > 100 {
		return 0, false
	}
	if percent {
		return (int(n)*seats + 99) / 100, true
	}
	return int(n), true
}

// minutes reads "08:30", or "24:00", as minutes since midnight; -1 when it is none.
func minutes(clock string) int {
	if clock == "24:00" {
		return 24 * 60
	}
	t, err := time.Parse("15:04", clock)
	if err != nil || len(clock) != len("15:04") {
		return -1
	}
	return t.Hour()*60 + t.Minute()
}

// step is what holds at t.
func (a *agenda) step(t time.Time) Step {
	seats, floor := int(a.pool.Spec.GetDesktops()), floorOf(a.pool.Spec)
	s := Step{From: t}
	s.Target, s.Reason = a.target(t)
	s.Target, s.Reason = a.extra(t, s.Target, s.Reason)
	if s.Target < floor {
		s.Target, s.Reason = floor, fmt.Sprintf("%s, but minReady is %d", s.Reason, floor)
	}
	if s.Target > seats {
		s.Target, s.Reason = seats, fmt.Sprintf("%s, but there are %d seats", s.Reason, seats)
	}
	s.Buffer, s.BufferReason = a.buffer(t)
	if s.Buffer < floor {
		s.Buffer, s.BufferReason = floor, fmt.Sprintf("%s, but minReady is %d", s.BufferReason, floor)
	}
	s.Buffer = min(s.Buffer, seats)
	s.Reason, s.BufferReason = store.Cut(s.Reason, maxReason), store.Cut(s.BufferReason, maxReason)
	return s
}

// target is what the spans and the hours ask for at t.
func (a *agenda) target(t time.Time) (int, string) {
	word, what := a.word(t)
	return a.value(word, what, t)
}

// word is the target at t as written, and what it holds for.
func (a *agenda) word(t time.Time) (word, what string) {
	s := a.pool.Spec.GetSchedule()
	if p, ok := a.spanAt(t); ok {
		return p.span.GetTarget(), p.span.GetFrom() + " to " + p.span.GetTo()
	}
	open, is := a.openAt(t)
	switch day := a.dayOf(t); {
	case is && open.Name != "":
		return or(s.GetOpen(), openDefault), "open for " + store.Cut(open.Name, maxNote)
	case is:
		return or(s.GetOpen(), openDefault), "opening hours"
	case day.Holiday && len(day.Openings) == 0 && day.HolidayName != "":
		return or(s.GetClosed(), closedDefault), "closed for " + store.Cut(day.HolidayName, maxNote)
	}
	return or(s.GetClosed(), closedDefault), "closed"
}

// What a schedule says where it says nothing, and where there is nothing to learn from.
const (
	openDefault   = "100%"
	closedDefault = "0"
	bufferDefault = "10%"
)

// value turns a target as written into a number with its reason.
func (a *agenda) value(word, what string, t time.Time) (int, string) {
	seats := int(a.pool.Spec.GetDesktops())
	if word != learned {
		n, _ := count(word, seats)
		return n, what + ", " + word
	}
	plain := closedDefault
	if _, open := a.openAt(t); open {
		plain = openDefault
	}
	found, ok := a.learn(t, claimedAt)
	if !ok {
		n, _ := count(plain, seats)
		return n, fmt.Sprintf("%s, %s, since there is nothing to learn from yet", what, plain)
	}
	return found.need, fmt.Sprintf("%s, %s: %d of %d", what, found.from(), found.need, seats)
}

// extra raises the target to the highest of the passing wishes.
func (a *agenda) extra(t time.Time, target int, reason string) (int, string) {
	for _, e := range a.pool.Spec.GetSchedule().GetExtra() {
		until := e.GetUntil().AsTime()
		if t.Before(e.GetFrom().AsTime()) || !t.Before(until) || int(e.GetTarget()) <= target {
			continue
		}
		target = int(e.GetTarget())
		reason = fmt.Sprintf("%d until %s", target, until.In(a.pool.Calendar.Zone()).Format("2006-01-02 15:04 MST"))
		if note := store.Cut(e.GetNote(), maxNote); note != "" {
			reason += " for " + note
		}
	}
	return target, reason
}

// buffer is how many should be ready beside those in use at t: none but min_ready while the calendar is closed.
func (a *agenda) buffer(t time.Time) (int, string) {
	if _, open := a.openAt(t); !open {
		return 0, "closed"
	}
	word, seats := bufferWord(a.pool.Spec.GetSchedule()), int(a.pool.Spec.GetDesktops())
	if word != learned {
		n, _ := count(word, seats)
		return n, "spareBuffer, " + word
	}
	n, _ := count(bufferDefault, seats)
	if found, ok := a.learn(t, arrivalsWithin(a.pool.readyIn())); ok && !(found.young && found.need < n) {
		return found.need, fmt.Sprintf("spares, %s: %d arrive within %v", found.from(), found.need, a.pool.readyIn())
	}
	return n, "spares, " + bufferDefault + ", since there is little to learn from yet"
}
