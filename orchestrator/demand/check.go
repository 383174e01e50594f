package demand

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Mistake is a field of a pool's schedule that is not right, and why. Field is the path as people write it:
// "spec.schedule.spans[0].to".
type Mistake struct{ Field, Reason string }

// Check finds what the rules in the .proto cannot: spans that end before they begin or overlap, targets above the seats, costs
// that nothing is learned with, wishes that are over. before is the pool as it was, nil for a new one: a wish that was there
// already may lie in the past. A span on weekdays on which the calendar never opens is no mistake, since a one-off opening
// may fall on them.
func Check(spec, before *v1.PoolSpec, now time.Time) []Mistake {
	s := spec.GetSchedule()
	if s == nil {
		return nil
	}
	return slices.Concat(checkTargets(s, int(spec.GetDesktops())), checkSpans(s.GetSpans()), checkCosts(s),
		checkExtra(s.GetExtra(), before.GetSchedule().GetExtra(), now))
}

// checkTargets looks at every number that is written as a target.
func checkTargets(s *v1.Schedule, seats int) (mistakes []Mistake) {
	look := func(field, word string) {
		if word == "" || word == learned {
			return
		}
		switch n, ok := count(word, seats); {
		case !ok:
			mistakes = append(mistakes, Mistake{field, fmt.Sprintf("%q is no target: write a count such as 40, a share of the seats such as 75%%, or learned", store.Cut(word, maxNote))})
		case n > seats:
			mistakes = append(mistakes, Mistake{field, fmt.Sprintf("%d is more than spec.desktops, %d: no more can run", n, seats)})
		}
	}
	look("spec.schedule.open", s.GetOpen())
	look("spec.schedule.closed", s.GetClosed())
	look("spec.schedule.spareBuffer", s.GetSpareBuffer())
	for i, span := range s.GetSpans() {
		look(fmt.Sprintf("spec.schedule.spans[%d].target", i), span.GetTarget())
	}
	for i, extra := range s.GetExtra() {
		if n := int(extra.GetTarget()); n > seats {
			mistakes = append(mistakes, Mistake{fmt.Sprintf("spec.schedule.extra[%d].target", i), fmt.Sprintf("%d is more than spec.desktops, %d: no more can run", n, seats)})
		}
	}
	return mistakes
}

// checkSpans looks at each span, and at each pair of them once.
func checkSpans(spans []*v1.TargetSpan) (mistakes []Mistake) {
	for i, span := range spans {
		from, to := minutes(span.GetFrom()), minutes(span.GetTo())
		switch {
		case from < 0 || from == 24*60:
			mistakes = append(mistakes, Mistake{fmt.Sprintf("spec.schedule.spans[%d].from", i), fmt.Sprintf("%q is no time of the day; write one as 08:30", store.Cut(span.GetFrom(), maxNote))})
			continue
		case to <= from:
			mistakes = append(mistakes, Mistake{fmt.Sprintf("spec.schedule.spans[%d].to", i), fmt.Sprintf(
				"%q is not after from, %s; a span over midnight is two, one to 24:00 and one from 00:00 on the next day", store.Cut(span.GetTo(), maxNote), span.GetFrom())})
			continue
		}
		for j, other := range spans[:i] {
			if minutes(other.GetFrom()) >= to || minutes(other.GetTo()) <= from {
				continue
			}
			if day, both := sharedDay(span, other); both {
				mistakes = append(mistakes, Mistake{fmt.Sprintf("spec.schedule.spans[%d]", i), fmt.Sprintf(
					"%s to %s overlaps spans[%d], %s to %s, on %s", span.GetFrom(), span.GetTo(), j, other.GetFrom(), other.GetTo(), day)})
			}
		}
	}
	return mistakes
}

// sharedDay names the first weekday on which both hold.
func sharedDay(a, b *v1.TargetSpan) (string, bool) {
	for day := v1.Weekday_WEEKDAY_MONDAY; day <= v1.Weekday_WEEKDAY_SUNDAY; day++ {
		if on := time.Weekday(int(day) % 7); holdsOn(a, on) && holdsOn(b, on) {
			return on.String(), true
		}
	}
	return "", false
}

// checkCosts: costs set the level of what is learned, and mean nothing without.
func checkCosts(s *v1.Schedule) []Mistake {
	if learns(s) {
		return nil
	}
	for _, cost := range []struct {
		name  string
		value float64
	}{{"waitCost", s.GetWaitCost()}, {"idleCost", s.GetIdleCost()}} {
		if cost.value != 0 {
			return []Mistake{{"spec.schedule." + cost.name, "has no effect, since no target and no spareBuffer is \"learned\": leave it out"}}
		}
	}
	return nil
}

// checkExtra looks at the passing wishes, of which some were there before.
func checkExtra(extra, before []*v1.ExtraTarget, now time.Time) (mistakes []Mistake) {
	for i, e := range extra {
		field := fmt.Sprintf("spec.schedule.extra[%d].until", i)
		from, until := e.GetFrom().AsTime(), e.GetUntil().AsTime()
		old := slices.ContainsFunc(before, func(b *v1.ExtraTarget) bool { return proto.Equal(b, e) })
		switch {
		case !until.After(from):
			mistakes = append(mistakes, Mistake{field, fmt.Sprintf("%s is not after from, %s", until.Format(time.RFC3339), from.Format(time.RFC3339))})
		case !until.After(now) && !old:
			mistakes = append(mistakes, Mistake{field, fmt.Sprintf("%s is in the past; it is now %s", until.Format(time.RFC3339), now.UTC().Format(time.RFC3339))})
		}
	}
	return mistakes
}
