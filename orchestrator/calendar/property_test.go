package calendar_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// clocks draws sorted spans of a day that do not overlap, as pairs of minutes.
func clocks(t *rapid.T, label string) (spans [][2]int) {
	marks := rapid.SliceOfNDistinct(rapid.OneOf(rapid.IntRange(0, 24*60), rapid.IntRange(0, 4*60)), 0, 8, rapid.ID[int]).Draw(t, label)
	slices.Sort(marks)
	for i := 0; i+1 < len(marks); i += 2 {
		spans = append(spans, [2]int{marks[i], marks[i+1]})
		if i+2 < len(marks) && rapid.Bool().Draw(t, "touching") {
			marks[i+2] = marks[i+1]
		}
	}
	return slices.DeleteFunc(spans, func(s [2]int) bool { return s[0] >= s[1] })
}

func clock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

// anything draws a calendar, and a date near something that clocks do in its zone.
func anything(t *rapid.T) (*v1.CalendarSpec, calendar.Date) {
	at := rapid.SampledFrom([]struct {
		zone string
		near calendar.Date
	}{
		{"America/New_York", calendar.Date{Year: 2027, Month: 3, Day: 14}}, {"America/New_York", calendar.Date{Year: 2026, Month: 11, Day: 1}},
		{"America/Santiago", calendar.Date{Year: 2026, Month: 9, Day: 6}}, {"America/Santiago", calendar.Date{Year: 2027, Month: 4, Day: 3}},
		{"America/Havana", calendar.Date{Year: 2026, Month: 11, Day: 1}}, {"Australia/Lord_Howe", calendar.Date{Year: 2026, Month: 10, Day: 4}},
		{"America/St_Johns", calendar.Date{Year: 2009, Month: 11, Day: 1}}, {"Pacific/Apia", calendar.Date{Year: 2011, Month: 12, Day: 30}},
		{"Europe/Berlin", calendar.Date{Year: 2026, Month: 10, Day: 25}}, {"Europe/Berlin", calendar.Date{Year: 2027, Month: 3, Day: 28}},
		{"Australia/Lord_Howe", calendar.Date{Year: 2027, Month: 4, Day: 4}},
		{"Asia/Tokyo", calendar.Date{Year: 2028, Month: 2, Day: 29}}, {"Europe/Berlin", calendar.Date{Year: 2026, Month: 12, Day: 31}},
	}).Draw(t, "zone")
	spec := &v1.CalendarSpec{TimeZone: at.zone, HolidaySets: rapid.SliceOfDistinct(rapid.SampledFrom(calendar.HolidaySets()), rapid.ID[string]).Draw(t, "sets")}
	for day := v1.Weekday_WEEKDAY_MONDAY; day <= v1.Weekday_WEEKDAY_SUNDAY; day++ {
		for _, s := range clocks(t, "hours") {
			spec.Hours = append(spec.Hours, &v1.OfficeHours{Days: []v1.Weekday{day}, Open: clock(s[0]), Close: clock(s[1])})
		}
	}
	for i := range 3 {
		on := at.near.Add(i - 1).String()
		switch rapid.IntRange(0, 5).Draw(t, "special") {
		case 0:
			spec.Holidays = append(spec.Holidays, &v1.CalendarDay{Date: on})
		case 1:
			for _, s := range clocks(t, "opening") {
				spec.Openings = append(spec.Openings, &v1.CalendarOpening{Date: on, Open: clock(s[0]), Close: clock(s[1])})
			}
		}
	}
	return spec, at.near
}

// onTheWall is what the calendar says of a date in words, without any zone: the spans of the day.
func onTheWall(spec *v1.CalendarSpec, day calendar.Day) (spans [][2]int) {
	add := func(open, end string) {
		var h1, m1, h2, m2 int
		fmt.Sscanf(open+" "+end, "%d:%d %d:%d", &h1, &m1, &h2, &m2)
		spans = append(spans, [2]int{h1*60 + m1, h2*60 + m2})
	}
	for _, o := range spec.GetOpenings() {
		if o.GetDate() == day.Date.String() {
			add(o.GetOpen(), o.GetClose())
		}
	}
	if len(spans) > 0 || day.Holiday {
		return spans
	}
	for _, h := range spec.GetHours() {
		if int(h.GetDays()[0])%7 == int(day.Date.Weekday()) {
			add(h.GetOpen(), h.GetClose())
		}
	}
	return spans
}

// shown finds, minute by minute, the first instant at which clocks show that time of a date or a later one: another way to
// say what an opening's instant is.
func shown(zone *time.Location, on calendar.Date, minute int) time.Time {
	want := time.Date(on.Year, on.Month, on.Day, 0, minute, 0, 0, time.UTC)
	for t := want.Add(-30 * time.Hour); ; t = t.Add(time.Minute) {
		local := t.In(zone)
		year, month, day := local.Date()
		if !time.Date(year, month, day, local.Hour(), local.Minute(), 0, 0, time.UTC).Before(want) {
			return t
		}
	}
}

// Openings are sorted, do not overlap, lie in their civil day, and each span on the wall happens once.
func TestOpeningsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec, near := anything(t)
		r, err := calendar.Resolve(named("it", spec), among())
		if err != nil {
			t.Fatal(err)
		}
		last := time.Time{}
		for day := range r.Days(near.Add(-1), near.Add(1)) {
			begins, ends := shown(r.Zone(), day.Date, 0), shown(r.Zone(), day.Date.Add(1), 0)
			opens := map[int64]int{}
			for _, o := range day.Openings {
				if o.Date != day.Date || o.Open.Before(begins) || o.Close.After(ends) {
					t.Fatalf("%v: %v-%v lies outside of %v-%v", day.Date, o.Open, o.Close, begins, ends)
				}
				if !o.Close.After(o.Open) || o.Open.Before(last) {
					t.Fatalf("%v: %v-%v is empty or overlaps the one before, which ends %v", day.Date, o.Open, o.Close, last)
				}
				last = o.Close
				opens[o.Open.Unix()]++
			}
			for _, s := range onTheWall(spec, day) {
				want := shown(r.Zone(), day.Date, s[0])
				if want.Equal(ends) {
					continue // clocks never showed this time of this date
				}
				if opens[want.Unix()] != 1 {
					t.Fatalf("%v: %s happens %d times at %v; openings %v", day.Date, clock(s[0]), opens[want.Unix()], want, day.Openings)
				}
			}
			if len(day.Openings) > len(onTheWall(spec, day)) {
				t.Fatalf("%v: more openings than on the wall: %v", day.Date, day.Openings)
			}
		}
	})
}

// A caller whose clock is set forwards and backwards while it waits for the next opening, and who remembers the last it
// acted upon, acts upon each opening exactly once.
func TestClockStepsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec, near := anything(t)
		r, err := calendar.Resolve(named("it", spec), among())
		if err != nil {
			t.Fatal(err)
		}
		start := shown(r.Zone(), near.Add(-1), 0)
		end := start.Add(72 * time.Hour)
		acted := map[int64]int{}
		now, done := start, start.Add(-1)
		for now.Before(end) {
			// Due is whatever has begun since the last one it acted upon.
			for next, ok := r.NextOpening(done.Add(1)); ok && !next.Open.After(now); next, ok = r.NextOpening(done.Add(1)) {
				acted[next.Open.Unix()]++
				done = next.Open
			}
			now = now.Add(time.Duration(rapid.IntRange(1, 300).Draw(t, "minutes")) * time.Minute)
			if rapid.IntRange(0, 3).Draw(t, "stepped") == 0 {
				now = now.Add(time.Duration(rapid.IntRange(-120, 120).Draw(t, "step")) * time.Minute)
			}
		}
		for o := range r.Openings(near.Add(-2), near.Add(3)) {
			if o.Open.Before(start) || o.Open.After(done) {
				continue
			}
			if acted[o.Open.Unix()] != 1 {
				t.Fatalf("%v was acted upon %d times", o.Open, acted[o.Open.Unix()])
			}
			if !r.IsOpen(o.Open) || !r.IsOpen(o.Close.Add(-1)) {
				t.Fatalf("not open in %v-%v", o.Open, o.Close)
			}
		}
	})
}
