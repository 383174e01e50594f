// Package calendar says when offices are open: it turns calendars (hours per weekday, holidays, one-off openings, blackout
// days, a parent to inherit from) into openings at instants.
//
// Here: what a calendar means, what is wrong with one, the built-in sets of holidays, and reading lists of days from
// files (.ics, .csv). Not here: storing calendars, and what to do at an opening. It is pure: no clock, no I/O, and nothing
// is remembered between calls. api checks with it, pool and warmup ask it, cmd shows what it says.
//
// Civil dates and wall clocks become instants by one rule that never goes backwards: a wall-clock time that happens twice
// (clocks set back) is its first occurrence, one that does not happen (clocks set forward) is the end of the gap. So each
// opening happens exactly once on its civil date, and openings that touch on the wall go on touching. An opening that lies
// wholly in a gap has its usual length from the gap's end on.
package calendar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// MaxDepth is how many calendars may stand in one line of inheritance.
const MaxDepth = 8

// ErrNoParent: a calendar inherits from one that does not exist.
var ErrNoParent = errors.New("the parent does not exist")

// Lookup finds a calendar by name; ErrNoParent when there is none.
type Lookup func(name string) (*v1.Calendar, error)

// Resolved is a calendar with all that it inherits. It does not change, and may be used by many at once.
type Resolved struct {
	zone   *time.Location
	hours  [7][]span // by time.Weekday, sorted
	levels []level   // the calendar itself first, its ancestors after it
}

// level is what one calendar of the line says of single dates.
type level struct {
	openings  map[Date][]span // sorted
	holidays  map[Date]string
	sets      []string
	blackouts map[Date]string
}

// span is an opening on the wall, in minutes since midnight; 1440 is the end of the day.
type span struct {
	open, close int
	name        string
}

// Resolve reads a calendar and its ancestors. The error is Mistakes when a calendar is not right (with the ancestor's name
// around it, if it is an ancestor), or what lookup returned.
func Resolve(c *v1.Calendar, lookup Lookup) (*Resolved, error) {
	line, err := Line(c, lookup)
	if err != nil {
		return nil, err
	}
	r := &Resolved{}
	for i, each := range line {
		if mistakes := Check(each.GetSpec()); len(mistakes) > 0 {
			if i > 0 {
				return nil, fmt.Errorf("inherit from calendar %q: %w", each.GetMeta().GetName(), mistakes)
			}
			return nil, mistakes
		}
		r.levels = append(r.levels, read(each.GetSpec()))
	}
	if r.zone, err = time.LoadLocation(c.GetSpec().GetTimeZone()); err != nil {
		return nil, fmt.Errorf("load time zone: %w", err)
	}
	for _, each := range line {
		if hours := each.GetSpec().GetHours(); len(hours) > 0 {
			r.hours = week(hours)
			break
		}
	}
	return r, nil
}

// Line is a calendar and its ancestors, nearest first. The error is Mistakes when they form a ring or are too many.
func Line(c *v1.Calendar, lookup Lookup) ([]*v1.Calendar, error) {
	line, names := []*v1.Calendar{c}, []string{c.GetMeta().GetName()}
	for {
		last := line[len(line)-1]
		name := last.GetSpec().GetParent()
		if name == "" {
			return line, nil
		}
		ring := slices.Contains(names, name)
		names = append(names, name)
		path := strings.Join(names, " → ")
		if ring {
			return nil, Mistakes{{"spec.parent", "a calendar cannot inherit from itself: " + path}}
		}
		if len(names) > MaxDepth {
			return nil, Mistakes{{"spec.parent", fmt.Sprintf("%s is %d calendars deep; at most %d", path, len(names), MaxDepth)}}
		}
		parent, err := lookup(name)
		if err != nil {
			return nil, fmt.Errorf("inherit from calendar %q, the parent of %q: %w", name, last.GetMeta().GetName(), err)
		}
		line = append(line, parent)
	}
}

func read(spec *v1.CalendarSpec) level {
	l := level{
		openings: map[Date][]span{}, holidays: named(spec.GetHolidays()), sets: spec.GetHolidaySets(), blackouts: named(spec.GetBlackouts()),
	}
	for _, o := range spec.GetOpenings() {
		if date, err := ParseDate(o.GetDate()); err == nil {
			l.openings[date] = append(l.openings[date], span{minutes(o.GetOpen()), minutes(o.GetClose()), o.GetName()})
		}
	}
	for _, spans := range l.openings {
		slices.SortFunc(spans, byOpen)
	}
	return l
}

func named(days []*v1.CalendarDay) map[Date]string {
	names := make(map[Date]string, len(days))
	for _, day := range days {
		if date, err := ParseDate(day.GetDate()); err == nil {
			names[date] = day.GetName()
		}
	}
	return names
}

func week(hours []*v1.OfficeHours) (days [7][]span) {
	for _, h := range hours {
		for _, day := range h.GetDays() {
			// Sunday is the last of our days and the first of Go's.
			at := int(day) % len(days)
			days[at] = append(days[at], span{open: minutes(h.GetOpen()), close: minutes(h.GetClose())})
		}
	}
	for _, spans := range days {
		slices.SortFunc(spans, byOpen)
	}
	return days
}

func byOpen(a, b span) int { return a.open - b.open }

// minutes reads "08:30", whose form Check has seen to.
func minutes(clock string) int {
	var hour, minute int
	if _, err := fmt.Sscanf(clock, "%d:%d", &hour, &minute); err != nil {
		return -1
	}
	return hour*60 + minute
}
