package show

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// shownOpenings is how many days with openings a description has.
	shownOpenings = 5
	// shownDays is how many days ahead it looks for holidays and blackouts.
	shownDays = 30
	// lastYear is the last that dates have.
	lastYear = 9999
)

// Calendar describes the first calendar of a line of inheritance: its week, and what comes next. resolved is that calendar.
func Calendar(out io.Writer, line []*v1.Calendar, resolved *calendar.Resolved, events []*v1.Event, now time.Time) error {
	spec, local := line[0].GetSpec(), now.In(resolved.Zone())
	p := &page{now: local}
	today := calendar.DateOf(local)
	p.head(line[0].GetMeta())
	p.line("Time zone", spec.GetTimeZone()+local.Format(", where it is Mon 2006-01-02 15:04 MST"))
	p.line("Now", nowWord(resolved, local))
	var parents []string
	for _, parent := range line[1:] {
		parents = append(parents, name(parent))
	}
	p.line("Inherits from", strings.Join(parents, ", which inherits from "))
	p.line("Own lists", listsWord(spec))
	if ends := ListEnds(line, lastYear); len(ends) > 0 {
		p.line("Listed", strings.Join(ends, "; ")+": list later ones by then ('daybreak calendar import')")
	}
	giver := slices.IndexFunc(line, func(c *v1.Calendar) bool { return len(c.GetSpec().GetHours()) > 0 })
	title := "Hours"
	if giver > 0 {
		title = "Hours, those of " + Clean(name(line[giver]))
	}
	holidays, blackouts := comingDays(resolved, today)
	if len(holidays.Rows) == 0 {
		p.line("Holidays", fmt.Sprintf("none in the next %d days", shownDays))
	}
	p.section(title, weekTable(line[max(giver, 0)].GetSpec().GetHours()))
	p.section("Next openings", nextOpenings(resolved, today, now))
	p.section(fmt.Sprintf("Holidays in the next %d days", shownDays), holidays)
	p.section(fmt.Sprintf("Blackout days in the next %d days (nothing is changed on them)", shownDays), blackouts)
	p.events(events)
	return p.writeTo(out)
}

// nowWord says whether it is open, and until when.
func nowWord(resolved *calendar.Resolved, local time.Time) string {
	today := calendar.DateOf(local)
	for o := range resolved.Openings(today.Add(-1), today.Add(1)) {
		if !local.Before(o.Open) && local.Before(o.Close) {
			return "open until " + o.Close.Format("15:04")
		}
	}
	next, ok := resolved.NextOpening(local)
	if !ok {
		return fmt.Sprintf("closed, and does not open in the next %d days", calendar.Horizon)
	}
	return "closed until " + next.Open.Format("Mon 2006-01-02 15:04")
}

// listsWord counts what a calendar says without its ancestors.
func listsWord(spec *v1.CalendarSpec) string {
	var parts []string
	if sets := spec.GetHolidaySets(); len(sets) > 0 {
		parts = append(parts, "the public holidays of "+strings.Join(sets, ", "))
	}
	for _, each := range []struct {
		n    int
		one  string
		more string
	}{
		{len(spec.GetHolidays()), "holiday", "holidays"}, {len(spec.GetOpenings()), "one-off opening", "one-off openings"},
		{len(spec.GetBlackouts()), "blackout day", "blackout days"},
	} {
		switch {
		case each.n == 1:
			parts = append(parts, "1 "+each.one)
		case each.n > 1:
			parts = append(parts, count(each.n)+" "+each.more)
		}
	}
	return strings.Join(parts, "; ")
}

// ListEnds says which lists of days of a line of calendars end before a year, and when. Built-in sets do not end.
func ListEnds(line []*v1.Calendar, year int) (ends []string) {
	for _, c := range line {
		for _, list := range []struct {
			what string
			days []*v1.CalendarDay
		}{{"holidays", c.GetSpec().GetHolidays()}, {"blackout days", c.GetSpec().GetBlackouts()}} {
			if last, ok := calendar.ListedUntil(list.days); ok && last < year {
				ends = append(ends, fmt.Sprintf("the %s of %s until the end of %d", list.what, Clean(name(c)), last))
			}
		}
	}
	return ends
}

// weekTable has the hours of each weekday.
func weekTable(hours []*v1.OfficeHours) Table {
	t := Table{Header: []string{"DAY", "HOURS"}}
	for day := v1.Weekday_WEEKDAY_MONDAY; day <= v1.Weekday_WEEKDAY_SUNDAY; day++ {
		var spans []string
		for _, h := range hours {
			if slices.Contains(h.GetDays(), day) {
				spans = append(spans, h.GetOpen()+"-"+h.GetClose())
			}
		}
		slices.Sort(spans) // times of day are written so that texts have their order
		if len(spans) == 0 {
			spans = []string{"closed"}
		}
		t.Rows = append(t.Rows, []string{days([]v1.Weekday{day}), strings.Join(spans, ", ")})
	}
	return t
}

// nextOpenings are the next days with openings that are not over.
func nextOpenings(resolved *calendar.Resolved, today calendar.Date, now time.Time) Table {
	t := Table{Header: []string{"DATE", "DAY", "HOURS", "WHY"}}
	for day := range resolved.Days(today, today.Add(calendar.Horizon)) {
		if n := len(day.Openings); n == 0 || !day.Openings[n-1].Close.After(now) {
			continue
		}
		if t.Rows = append(t.Rows, Day(day)); len(t.Rows) == shownOpenings {
			break
		}
	}
	return t
}

// comingDays are the holidays and the blackout days from today on.
func comingDays(resolved *calendar.Resolved, today calendar.Date) (holidays, blackouts Table) {
	holidays, blackouts = Table{Header: []string{"DATE", "DAY", "HOURS", "WHY"}}, Table{Header: []string{"DATE", "DAY", "HOURS", "WHY"}}
	for day := range resolved.Days(today, today.Add(shownDays-1)) {
		if day.Holiday {
			holidays.Rows = append(holidays.Rows, Day(day))
		}
		if day.Blackout {
			blackouts.Rows = append(blackouts.Rows, Day(day))
		}
	}
	return holidays, blackouts
}

// Day is a date with its hours and why they are so, as tables have it.
func Day(day calendar.Day) []string {
	return []string{day.Date.String(), day.Date.Weekday().String()[:3], hoursOf(day), why(day)}
}

// ClosedBecause says why a day has no openings.
func ClosedBecause(day calendar.Day) string {
	if day.Holiday && !day.Special {
		return labelled("holiday", day.HolidayName)
	}
	return "no office hours"
}

// hoursOf is "08:30-12:00, 13:00-24:00" or "closed".
func hoursOf(day calendar.Day) string {
	var parts []string
	for _, o := range day.Openings {
		end := o.Close.Format("15:04")
		if calendar.DateOf(o.Close) != day.Date {
			end = "24:00"
		}
		parts = append(parts, o.Open.Format("15:04")+"-"+end)
	}
	if len(parts) == 0 {
		return "closed"
	}
	return strings.Join(parts, ", ")
}

// why is what is special about a day.
func why(day calendar.Day) string {
	var parts []string
	switch {
	case len(day.Openings) == 0:
		parts = append(parts, ClosedBecause(day))
	case day.Special:
		named := ""
		for _, o := range day.Openings {
			if named == "" {
				named = o.Name
			}
		}
		parts = append(parts, labelled("one-off opening", named))
		if day.Holiday {
			parts = append(parts, labelled("although a holiday", day.HolidayName))
		}
	}
	if day.Blackout {
		parts = append(parts, labelled("blackout", day.BlackoutName))
	}
	if n := len(day.Openings); n > 0 {
		parts = append(parts, clocksSet(day.Date, day.Openings[n-1].Open.Location())...)
	}
	return strings.Join(parts, "; ")
}

// clocksSet tells of a date on which clocks are set, where hours are not those that the calendar has.
func clocksSet(date calendar.Date, zone *time.Location) []string {
	_, before := date.At(0, zone).Zone()
	_, after := date.Add(1).At(0, zone).Zone()
	switch change := time.Duration(after-before) * time.Second; {
	case change > 0:
		return []string{"clocks are set forward by " + Span(change)}
	case change < 0:
		return []string{"clocks are set back by " + Span(-change)}
	}
	return nil
}

func labelled(label, name string) string {
	if name == "" {
		return label
	}
	return label + ": " + name
}
