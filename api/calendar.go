package api

import (
	"fmt"
	"sort"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// checkCalendar finds what the rules in the .proto cannot: zones that do not exist, dates that are none, hours that end
// before they begin or overlap.
func checkCalendar(spec *v1.CalendarSpec) error {
	var mistakes []mistake
	// LoadLocation takes "" and "Local" too, which would mean another zone on each machine.
	if zone := spec.GetTimeZone(); zone == "Local" || !loads(zone) {
		mistakes = append(mistakes, mistake{"spec.time_zone", fmt.Sprintf("%q is no time zone; write an IANA name such as \"Asia/Tokyo\"", zone)})
	}
	mistakes = append(mistakes, checkHours(spec.GetHours())...)
	mistakes = append(mistakes, checkDays("spec.holidays", spec.GetHolidays())...)
	mistakes = append(mistakes, checkDays("spec.blackouts", spec.GetBlackouts())...)
	if len(mistakes) > 0 {
		return invalid(mistakes...)
	}
	return nil
}

func loads(zone string) bool {
	_, err := time.LoadLocation(zone)
	return err == nil
}

// span is an opening on one weekday. Times are "15:04" texts, whose order is that of the clock; "24:00" is the last.
type span struct {
	index       int
	open, close string
}

func checkHours(hours []*v1.OfficeHours) []mistake {
	var mistakes []mistake
	days := map[v1.Weekday][]span{}
	for i, h := range hours {
		if h.GetClose() <= h.GetOpen() {
			mistakes = append(mistakes, mistake{fmt.Sprintf("spec.hours[%d].close", i),
				fmt.Sprintf("%s is not after open %s; hours over midnight are two spans, one to 24:00 and one from 00:00 on the next day", h.GetClose(), h.GetOpen())})
			continue
		}
		for _, day := range h.GetDays() {
			days[day] = append(days[day], span{i, h.GetOpen(), h.GetClose()})
		}
	}
	reported := map[[2]int]bool{}
	for day := v1.Weekday_WEEKDAY_MONDAY; day <= v1.Weekday_WEEKDAY_SUNDAY; day++ {
		spans := days[day]
		sort.SliceStable(spans, func(i, j int) bool { return spans[i].open < spans[j].open })
		for i := 1; i < len(spans); i++ {
			before, after := spans[i-1], spans[i]
			if after.open >= before.close || reported[[2]int{before.index, after.index}] {
				continue
			}
			reported[[2]int{before.index, after.index}] = true
			mistakes = append(mistakes, mistake{fmt.Sprintf("spec.hours[%d]", after.index),
				fmt.Sprintf("%s-%s overlaps spec.hours[%d], %s-%s", after.open, after.close, before.index, before.open, before.close)})
		}
	}
	return mistakes
}

func checkDays(field string, days []*v1.CalendarDay) []mistake {
	var mistakes []mistake
	seen := map[string]int{}
	for i, day := range days {
		date := day.GetDate()
		path := fmt.Sprintf("%s[%d].date", field, i)
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			mistakes = append(mistakes, mistake{path, fmt.Sprintf("%q is not a date of the calendar", date)})
			continue
		}
		if first, twice := seen[date]; twice {
			mistakes = append(mistakes, mistake{path, fmt.Sprintf("%s stands twice; it is already in %s[%d]", date, field, first)})
			continue
		}
		seen[date] = i
	}
	return mistakes
}
