package warmup

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxSummary is the proto's bound of PlanResponse.summary.
const maxSummary = 1024

// maxNamed is how many hosts a summary names.
const maxNamed = 5

// Summary says in one sentence whether a plan will do, or did, as of now (zero: nothing of it has come). Times are the plan's zone's.
// unheard are the hosts of seats of which it is not known yet whether they were ready.
func Summary(plan *v1.Plan, now time.Time, unheard map[uint32]string) string {
	zone, err := time.LoadLocation(plan.GetTimeZone())
	if err != nil {
		zone = time.UTC
	}
	s := summary{plan: plan, zone: zone, now: now, day: plan.GetDate(), unheard: unheard}
	if date, err := time.Parse(time.DateOnly, plan.GetDate()); err == nil {
		s.day = date.Format("Mon 2006-01-02")
	}
	text := s.future()
	if over := last(plan, zone); !over.IsZero() && !over.After(now) {
		text = s.past()
	}
	return store.Cut(text, maxSummary)
}

// last is the last deadline of a plan, or the end of its day when nothing starts on it; zero when its date cannot be read.
func last(plan *v1.Plan, zone *time.Location) time.Time {
	var at time.Time
	if date, err := time.ParseInLocation(time.DateOnly, plan.GetDate(), zone); err == nil && len(plan.GetStarts()) == 0 {
		at = date.AddDate(0, 0, 1)
	}
	for _, s := range plan.GetStarts() {
		at = later(at, s.GetDeadline().AsTime())
	}
	return at
}

type summary struct {
	plan *v1.Plan
	zone *time.Location
	now  time.Time
	day  string
	// unheard as in Summary
	unheard map[uint32]string
}

func (s summary) clock(t time.Time) string {
	t = t.In(s.zone)
	switch {
	case t.Format(time.DateOnly) != s.plan.GetDate():
		return t.Format("Mon 2006-01-02 15:04")
	case t.Second() != 0:
		return t.Format("15:04:05")
	}
	return t.Format("15:04")
}

// future says what will be.
func (s summary) future() string {
	starts, shortfalls := s.plan.GetStarts(), s.plan.GetShortfalls()
	head := fmt.Sprintf("On %s pool %s", s.day, s.plan.GetPool())
	if len(starts) == 0 && len(shortfalls) == 0 {
		return head + " has nothing to start: " + s.unchanged()
	}
	if len(shortfalls) > 0 {
		return head + " will be short: " + s.short()
	}
	hosts := map[uint32]bool{}
	for _, each := range starts {
		hosts[each.GetHost()] = true
	}
	by := "in time"
	if deadline := starts[0].GetDeadline().AsTime(); deadline.Equal(last(s.plan, s.zone)) {
		by = "by " + s.clock(deadline)
	}
	verb, them := "start", "are ready"
	if len(starts) == 1 {
		verb, them = "starts", "is ready"
	}
	return fmt.Sprintf("%s will make it: %s %s on %s, the first at %s, and %s %s.", head, count(len(starts), "desktop"), verb,
		count(len(hosts), "host"), s.clock(starts[0].GetStartAt().AsTime()), them, by)
}

// unchanged says what runs on a day without starts.
func (s summary) unchanged() string {
	most := uint32(0)
	for _, t := range s.plan.GetTargets() {
		most = max(most, t.GetRunning())
	}
	if most == 0 {
		return "no desktops are to run."
	}
	return fmt.Sprintf("the %s that are to run do so already.", count(int(most), "desktop"))
}

// MostShort is how many desktops a plan lacks at once at most, of its deadlines after a time, and the first deadline at which it does. The
// same desktops may be short at several deadlines of a day.
func MostShort(plan *v1.Plan, after time.Time) (most int, at time.Time) {
	for _, s := range plan.GetShortfalls() {
		deadline, n := s.GetDeadline().AsTime(), 0
		for _, each := range plan.GetShortfalls() {
			began := each.GetDeadline().AsTime()
			if began.Equal(deadline) || began.Before(deadline) && each.GetReady().AsTime().After(deadline) {
				n += int(each.GetDesktops())
			}
		}
		if deadline.After(after) && n > most {
			most, at = n, deadline
		}
	}
	return most, at
}

// short tells of the worst shortfall of the deadline at which most desktops are short.
func (s summary) short() string {
	most, deadline := MostShort(s.plan, time.Time{})
	var worst *v1.Shortfall
	for _, each := range s.plan.GetShortfalls() {
		if each.GetDeadline().AsTime().Equal(deadline) && each.GetDesktops() > worst.GetDesktops() {
			worst = each
		}
	}
	text := fmt.Sprintf("%s will not be ready by %s", count(int(worst.GetDesktops()), "desktop"), s.clock(deadline))
	if ready := worst.GetReady(); ready != nil {
		text += fmt.Sprintf(", the last of them at %s, %s later", s.clock(ready.AsTime()), short(ready.AsTime().Sub(deadline)))
	} else {
		text += ", nor later"
	}
	text += ": " + strings.TrimSuffix(worst.GetReason(), ".") + "."
	if most > int(worst.GetDesktops()) {
		text += fmt.Sprintf(" In all %d are short then.", most)
	}
	return text
}

// past says what became of it.
func (s summary) past() string {
	starts := slices.DeleteFunc(slices.Clone(s.plan.GetStarts()), AtOnce)
	atOnce := len(s.plan.GetStarts()) - len(starts)
	inTime, late, never, coming, unknown := 0, 0, 0, 0, 0
	var latest time.Time
	for _, each := range starts {
		switch ready := each.GetReady(); {
		case ready == nil && s.unheard[each.GetSeat()] != "":
			unknown++
		case ready == nil && s.now.Before(each.GetStartAt().AsTime().Add(hostOf(s.plan, each).GetQuantile().AsDuration())):
			coming++
		case ready == nil:
			never++
		case ready.AsTime().After(each.GetDeadline().AsTime()):
			late++
			latest = later(latest, ready.AsTime())
		default:
			inTime++
		}
	}
	head := fmt.Sprintf("On %s pool %s", s.day, s.plan.GetPool())
	var text string
	switch {
	case len(starts) == 0:
		text = fmt.Sprintf("%s had nothing to start ahead.", head)
	case inTime == len(starts):
		text = fmt.Sprintf("%s made it: all %s that were to start were ready in time.", head, count(len(starts), "desktop"))
		if len(starts) == 1 {
			text = head + " made it: the 1 desktop that was to start was ready in time."
		}
	default:
		verdict := "did not make it"
		if unknown > 0 && late+never+coming == 0 {
			verdict = "may have made it, which is not known yet"
		}
		text = fmt.Sprintf("%s %s: of %s that were to start, %d were ready in time", head, verdict, count(len(starts), "desktop"), inTime)
		if late > 0 {
			text += fmt.Sprintf(", %d late (the last at %s)", late, s.clock(latest))
		}
		if coming > 0 {
			text += fmt.Sprintf(", %d on the way", coming)
		}
		if never > 0 {
			text += fmt.Sprintf(", %d never", never)
		}
		if unknown > 0 {
			text += fmt.Sprintf(", and of %d nothing was heard since the control plane came back (%s)", unknown, s.silent())
		}
		text += "."
	}
	if i := slices.IndexFunc(s.plan.GetShortfalls(), func(f *v1.Shortfall) bool { return f.GetReady() != nil }); i >= 0 && late+never > 0 {
		text += fmt.Sprintf(" It was known of %s: %s.", count(int(s.plan.GetShortfalls()[i].GetDesktops()), "desktop"), strings.TrimSuffix(s.plan.GetShortfalls()[i].GetReason(), "."))
	}
	if atOnce > 0 {
		text += fmt.Sprintf(" %s woken at once, when nobody could plan ahead any more.", countWas(atOnce, "desktop"))
	}
	return text + s.unplanned()
}

// silent names the hosts that are unheard.
func (s summary) silent() string {
	names := slices.Compact(slices.Sorted(maps.Values(s.unheard)))
	if len(names) > maxNamed {
		return fmt.Sprintf("hosts %s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	if len(names) == 1 {
		return "host " + names[0]
	}
	return "hosts " + strings.Join(names, ", ")
}

// unplanned says what could not even be planned.
func (s summary) unplanned() string {
	var most *v1.Shortfall // the same desktops may be missing at several deadlines
	for _, each := range s.plan.GetShortfalls() {
		if each.GetReady() == nil && each.GetDesktops() > most.GetDesktops() {
			most = each
		}
	}
	if most == nil {
		return ""
	}
	text := fmt.Sprintf("%s could not be planned: %s.", count(int(most.GetDesktops()), "desktop"), strings.TrimSuffix(most.GetReason(), "."))
	if len(s.plan.GetStarts()) > 0 {
		text = "Beyond those, " + text
	}
	return " " + text
}

func countWas(n int, what string) string {
	if n == 1 {
		return "1 " + what + " was"
	}
	return count(n, what) + " were"
}
