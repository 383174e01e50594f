package calendar

import (
	"cmp"
	"fmt"
	"time"

	"daybreak/proto/rules"
)

// Date is a civil date: a square on the wall calendar, in no time zone.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf is the civil date of t in t's own location.
func DateOf(t time.Time) Date {
	year, month, day := t.Date()
	return Date{year, month, day}
}

// ParseDate reads "2026-11-23". Dates that do not exist are an error.
func ParseDate(text string) (Date, error) {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return Date{}, fmt.Errorf("%s is not a date of the calendar; write one as 2026-11-23", rules.Found(text))
	}
	return DateOf(t), nil
}

// String is "2026-11-23".
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// Add is the date so many days later.
func (d Date) Add(days int) Date {
	return DateOf(time.Date(d.Year, d.Month, d.Day+days, 12, 0, 0, 0, time.UTC))
}

// Compare is negative when d is before other, positive when it is after, 0 when they are the same.
func (d Date) Compare(other Date) int {
	return cmp.Or(cmp.Compare(d.Year, other.Year), cmp.Compare(d.Month, other.Month), cmp.Compare(d.Day, other.Day))
}

// Weekday is the day of the week.
func (d Date) Weekday() time.Weekday {
	return time.Date(d.Year, d.Month, d.Day, 12, 0, 0, 0, time.UTC).Weekday()
}

// At is the first instant at which the wall clocks of zone show so many minutes after midnight of d, or have just jumped
// over that. The end of the day, minute 1440, is the beginning of the next.
func (d Date) At(minute int, zone *time.Location) time.Time {
	wall := func(t time.Time) time.Time {
		_, offset := t.Zone()
		return t.Add(time.Duration(offset) * time.Second).UTC()
	}
	want := time.Date(d.Year, d.Month, d.Day, 0, minute, 0, 0, time.UTC)
	t := time.Date(d.Year, d.Month, d.Day, 0, minute, 0, 0, zone)
	start, end := t.ZoneBounds()
	switch wall(t).Compare(want) {
	case 1: // in a gap, and t was put after it
		return start
	case -1: // in a gap, and t was put before it
		return end
	}
	if start.IsZero() {
		return t
	}
	// Go does not say which of two occurrences it takes.
	_, before := start.Add(-1).Zone()
	_, now := t.Zone()
	if earlier := t.Add(time.Duration(now-before) * time.Second); earlier.Before(start) {
		return earlier
	}
	return t
}
