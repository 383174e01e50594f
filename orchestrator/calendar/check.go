package calendar

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// Mistake is a field of a calendar that is not right, and why. Field is the path as people write it: "spec.hours[0].close".
type Mistake struct{ Field, Reason string }

// Mistakes are all that was found.
type Mistakes []Mistake

func (m Mistakes) Error() string {
	var lines []string
	for _, each := range m {
		lines = append(lines, each.Field+": "+each.Reason)
	}
	return strings.Join(lines, "; ")
}

// Check finds what the rules in the .proto cannot: zones and sets that do not exist, dates that are none, hours that end
// before they begin or overlap. It looks at one calendar alone; Line looks at its parents.
func Check(spec *v1.CalendarSpec) Mistakes {
	var mistakes Mistakes
	if zone := spec.GetTimeZone(); !IsZone(zone) {
		mistakes = append(mistakes, Mistake{"spec.timeZone", fmt.Sprintf("%s is no time zone; write an IANA name such as \"Asia/Tokyo\"", rules.Found(zone))})
	}
	return slices.Concat(mistakes, checkHours(spec.GetHours()), checkDays("spec.holidays", spec.GetHolidays()),
		checkDays("spec.blackouts", spec.GetBlackouts()), checkSets(spec.GetHolidaySets()), checkOpenings(spec.GetOpenings()))
}

func loads(zone string) bool {
	_, err := time.LoadLocation(zone)
	return err == nil
}

// written is a span as it stands in field[index]. Its times are "15:04" texts, whose order is that of the clock; "24:00" is
// the last.
type written struct {
	field       string
	index       int
	open, close string
}

func (w written) path() string { return fmt.Sprintf("%s[%d]", w.field, w.index) }

// backwards finds a span that ends before it begins.
func (w written) backwards() (Mistakes, bool) {
	if minutes(w.open) >= 0 && minutes(w.open) < minutes(w.close) && minutes(w.close) <= 24*60 {
		return nil, false
	}
	return Mistakes{{w.path() + ".close", fmt.Sprintf(
		"%s is not after open %s; hours over midnight are two spans, one to 24:00 and one from 00:00 on the next day", w.close, w.open)}}, true
}

func checkHours(hours []*v1.OfficeHours) Mistakes {
	var mistakes Mistakes
	days := map[v1.Weekday][]written{}
	for i, h := range hours {
		w := written{"spec.hours", i, h.GetOpen(), h.GetClose()}
		if wrong, is := w.backwards(); is {
			mistakes = append(mistakes, wrong...)
			continue
		}
		for _, day := range h.GetDays() {
			days[day] = append(days[day], w)
		}
	}
	reported := map[[2]int]bool{}
	for day := v1.Weekday_WEEKDAY_MONDAY; day <= v1.Weekday_WEEKDAY_SUNDAY; day++ {
		mistakes = append(mistakes, overlaps(days[day], reported)...)
	}
	return mistakes
}

func checkOpenings(openings []*v1.CalendarOpening) Mistakes {
	var mistakes Mistakes
	var order []string
	dates := map[string][]written{}
	for i, o := range openings {
		w := written{"spec.openings", i, o.GetOpen(), o.GetClose()}
		if _, err := ParseDate(o.GetDate()); err != nil {
			mistakes = append(mistakes, Mistake{w.path() + ".date", err.Error()})
			continue
		}
		if wrong, is := w.backwards(); is {
			mistakes = append(mistakes, wrong...)
			continue
		}
		if len(dates[o.GetDate()]) == 0 {
			order = append(order, o.GetDate())
		}
		dates[o.GetDate()] = append(dates[o.GetDate()], w)
	}
	for _, date := range order {
		mistakes = append(mistakes, overlaps(dates[date], map[[2]int]bool{})...)
	}
	return mistakes
}

// overlaps finds spans of one day that overlap, but those only that were not reported for another day.
func overlaps(spans []written, reported map[[2]int]bool) (mistakes Mistakes) {
	slices.SortStableFunc(spans, func(a, b written) int { return strings.Compare(a.open, b.open) })
	for i := 1; i < len(spans); i++ {
		before, after := spans[i-1], spans[i]
		if after.open >= before.close || reported[[2]int{before.index, after.index}] {
			continue
		}
		reported[[2]int{before.index, after.index}] = true
		mistakes = append(mistakes, Mistake{after.path(),
			fmt.Sprintf("%s-%s overlaps %s, %s-%s", after.open, after.close, before.path(), before.open, before.close)})
	}
	return mistakes
}

func checkDays(field string, days []*v1.CalendarDay) (mistakes Mistakes) {
	seen := map[string]int{}
	for i, day := range days {
		date := day.GetDate()
		path := fmt.Sprintf("%s[%d].date", field, i)
		if _, err := ParseDate(date); err != nil {
			mistakes = append(mistakes, Mistake{path, err.Error()})
			continue
		}
		if first, twice := seen[date]; twice {
			mistakes = append(mistakes, Mistake{path, fmt.Sprintf("%s stands twice; it is already in %s[%d]", date, field, first)})
			continue
		}
		seen[date] = i
	}
	return mistakes
}

// quoted lists names for a message.
func quoted(names []string) string {
	var list []string
	for _, name := range names {
		list = append(list, fmt.Sprintf("%q", name))
	}
	return strings.Join(list, ", ")
}
