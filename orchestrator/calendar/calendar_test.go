package calendar_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// everyDay opens a zone at the same hours every day: "08:30-12:00 13:00-17:15".
func everyDay(zone, hours string) *v1.CalendarSpec {
	spec := &v1.CalendarSpec{TimeZone: zone}
	for _, each := range strings.Fields(hours) {
		open, end, _ := strings.Cut(each, "-")
		spec.Hours = append(spec.Hours, &v1.OfficeHours{Days: []v1.Weekday{1, 2, 3, 4, 5, 6, 7}, Open: open, Close: end})
	}
	return spec
}

func named(name string, spec *v1.CalendarSpec) *v1.Calendar {
	return &v1.Calendar{Meta: &v1.Meta{Name: name}, Spec: spec}
}

// among looks calendars up.
func among(all ...*v1.Calendar) calendar.Lookup {
	return func(name string) (*v1.Calendar, error) {
		for _, c := range all {
			if c.GetMeta().GetName() == name {
				return c, nil
			}
		}
		return nil, calendar.ErrNoParent
	}
}

func resolve(t testing.TB, spec *v1.CalendarSpec, ancestors ...*v1.Calendar) *calendar.Resolved {
	t.Helper()
	r, err := calendar.Resolve(named("it", spec), among(ancestors...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func date(t testing.TB, text string) calendar.Date {
	t.Helper()
	d, err := calendar.ParseDate(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// openings are the openings from one date to another as "2026-11-23T08:30:00+09:00 8h45m0s".
func openings(t testing.TB, r *calendar.Resolved, from, to string) (list []string) {
	t.Helper()
	for o := range r.Openings(date(t, from), date(t, to)) {
		list = append(list, o.Open.Format(time.RFC3339)+" "+o.Close.Sub(o.Open).String())
	}
	return list
}

// The Cabinet Office's list, substitute days and days between holidays too.
func TestJapan(t *testing.T) {
	for year, want := range map[int]string{
		2024: "01-01 01-08 02-11 02-12 02-23 03-20 04-29 05-03 05-04 05-05 05-06 07-15 08-11 08-12 09-16 09-22 09-23 10-14 11-03 11-04 11-23",
		2025: "01-01 01-13 02-11 02-23 02-24 03-20 04-29 05-03 05-04 05-05 05-06 07-21 08-11 09-15 09-23 10-13 11-03 11-23 11-24",
		2026: "01-01 01-12 02-11 02-23 03-20 04-29 05-03 05-04 05-05 05-06 07-20 08-11 09-21 09-22 09-23 10-12 11-03 11-23",
		2027: "01-01 01-11 02-11 02-23 03-21 03-22 04-29 05-03 05-04 05-05 07-19 08-11 09-20 09-23 10-11 11-03 11-23",
	} {
		if diff := cmp.Diff(strings.Fields(want), holidays(t, "jp", year)); diff != "" {
			t.Errorf("%d (-want +got):\n%s", year, diff)
		}
	}
	if got := holidays(t, "jp", 2037); !slices.Contains(got, "09-22") {
		t.Errorf("2037-09-22 stands between two holidays: %v", got)
	}
}

// Other countries, where rules differ most: observed days, Easter, a year's end.
func TestOtherSets(t *testing.T) {
	for _, row := range []struct {
		set  string
		year int
		want string
	}{
		{"us", 2026, "01-01 01-19 02-16 05-25 06-19 07-03 07-04 09-07 10-12 11-11 11-26 12-25"},
		{"us", 2021, "01-01 01-18 02-15 05-31 06-18 06-19 07-04 07-05 09-06 10-11 11-11 11-25 12-24 12-25 12-31"},
		{"gb", 2027, "01-01 03-26 03-29 05-03 05-31 08-30 12-25 12-26 12-27 12-28"},
		{"de", 2026, "01-01 04-03 04-06 05-01 05-14 05-25 10-03 12-25 12-26"},
		{"fr", 2026, "01-01 04-06 05-01 05-08 05-14 05-25 07-14 08-15 11-01 11-11 12-25"},
	} {
		if diff := cmp.Diff(strings.Fields(row.want), holidays(t, row.set, row.year)); diff != "" {
			t.Errorf("%s %d (-want +got):\n%s", row.set, row.year, diff)
		}
	}
	for _, set := range calendar.HolidaySets() {
		if len(holidays(t, set, 2026)) < 8 {
			t.Errorf("set %s has too few holidays", set)
		}
	}
}

func holidays(t *testing.T, set string, year int) (list []string) {
	t.Helper()
	spec := everyDay("Asia/Tokyo", "08:30-17:15")
	spec.HolidaySets = []string{set}
	for day := range resolve(t, spec).Days(date(t, fmt.Sprintf("%d-01-01", year)), date(t, fmt.Sprintf("%d-12-31", year))) {
		if day.Holiday != (len(day.Openings) == 0) || day.Holiday != (day.HolidayName != "") {
			t.Errorf("%v: holiday %v %q with openings %v", day.Date, day.Holiday, day.HolidayName, day.Openings)
		}
		if day.Holiday {
			list = append(list, day.Date.String()[5:])
		}
	}
	return list
}

func TestDaylightSaving(t *testing.T) {
	for _, row := range []struct {
		name, zone, hours, from, to string
		want                        []string
	}{
		{"gap, opening in it", "America/New_York", "02:30-09:00", "2027-03-13", "2027-03-15",
			[]string{"2027-03-13T02:30:00-05:00 6h30m0s", "2027-03-14T03:00:00-04:00 6h0m0s", "2027-03-15T02:30:00-04:00 6h30m0s"}},
		{"gap, close in it", "America/New_York", "01:00-02:30", "2027-03-14", "2027-03-14", []string{"2027-03-14T01:00:00-05:00 1h0m0s"}},
		{"gap, all in it", "America/New_York", "02:15-02:45", "2027-03-14", "2027-03-14", []string{"2027-03-14T03:00:00-04:00 30m0s"}},
		{"gap, all in it, then another", "America/New_York", "02:15-02:45 03:10-04:00", "2027-03-14", "2027-03-14",
			[]string{"2027-03-14T03:00:00-04:00 10m0s", "2027-03-14T03:10:00-04:00 50m0s"}},
		{"gap, two fuse", "America/New_York", "02:15-02:45 02:50-04:00", "2027-03-14", "2027-03-14", []string{"2027-03-14T03:00:00-04:00 1h0m0s"}},
		{"gap, around it", "America/New_York", "00:00-24:00", "2027-03-14", "2027-03-14", []string{"2027-03-14T00:00:00-05:00 23h0m0s"}},
		{"overlap, opening in it", "America/New_York", "01:30-09:00", "2026-10-31", "2026-11-02",
			[]string{"2026-10-31T01:30:00-04:00 7h30m0s", "2026-11-01T01:30:00-04:00 8h30m0s", "2026-11-02T01:30:00-05:00 7h30m0s"}},
		{"overlap, all in it", "America/New_York", "01:15-01:45", "2026-11-01", "2026-11-01", []string{"2026-11-01T01:15:00-04:00 30m0s"}},
		{"overlap, touching", "America/New_York", "00:30-01:30 01:30-03:00", "2026-11-01", "2026-11-01",
			[]string{"2026-11-01T00:30:00-04:00 1h0m0s", "2026-11-01T01:30:00-04:00 2h30m0s"}},
		{"overlap, around it", "America/New_York", "00:00-24:00", "2026-11-01", "2026-11-01", []string{"2026-11-01T00:00:00-04:00 25h0m0s"}},
		// East of Greenwich, Go takes the other occurrence than west of it.
		{"overlap in the east", "Europe/Berlin", "02:30-04:00", "2026-10-25", "2026-10-25", []string{"2026-10-25T02:30:00+02:00 2h30m0s"}},
		{"gap in the east", "Europe/Berlin", "02:30-04:00", "2027-03-28", "2027-03-28", []string{"2027-03-28T03:00:00+02:00 1h0m0s"}},
		{"the offices' usual morning", "America/New_York", "08:30-17:15", "2027-03-14", "2027-03-14", []string{"2027-03-14T08:30:00-04:00 8h45m0s"}},
		{"gap at midnight", "America/Santiago", "00:00-01:30", "2026-09-06", "2026-09-06", []string{"2026-09-06T01:00:00-03:00 30m0s"}},
		{"overlap up to midnight", "America/Santiago", "23:00-24:00", "2027-04-03", "2027-04-03", []string{"2027-04-03T23:00:00-03:00 2h0m0s"}},
		{"half an hour of gap", "Australia/Lord_Howe", "02:10-03:00", "2026-10-04", "2026-10-04", []string{"2026-10-04T02:30:00+11:00 30m0s"}},
		{"a date that was skipped", "Pacific/Apia", "08:00-09:00 23:00-24:00", "2011-12-29", "2011-12-31", []string{
			"2011-12-29T08:00:00-10:00 1h0m0s", "2011-12-29T23:00:00-10:00 1h0m0s", "2011-12-31T08:00:00+14:00 1h0m0s", "2011-12-31T23:00:00+14:00 1h0m0s"}},
		{"leap day", "Asia/Tokyo", "08:30-17:15", "2028-02-28", "2028-03-01",
			[]string{"2028-02-28T08:30:00+09:00 8h45m0s", "2028-02-29T08:30:00+09:00 8h45m0s", "2028-03-01T08:30:00+09:00 8h45m0s"}},
		{"no leap day", "Asia/Tokyo", "22:00-24:00", "2027-02-28", "2027-03-01", []string{"2027-02-28T22:00:00+09:00 2h0m0s", "2027-03-01T22:00:00+09:00 2h0m0s"}},
		{"year's end", "Asia/Tokyo", "00:00-24:00", "2026-12-31", "2027-01-01", []string{"2026-12-31T00:00:00+09:00 24h0m0s", "2027-01-01T00:00:00+09:00 24h0m0s"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, openings(t, resolve(t, everyDay(row.zone, row.hours)), row.from, row.to)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A town hall that follows Japan's holidays, and a branch that adds to it.
func TestInheritance(t *testing.T) {
	town := named("town", &v1.CalendarSpec{TimeZone: "Asia/Tokyo", HolidaySets: []string{"jp"},
		Hours:     []*v1.OfficeHours{{Days: []v1.Weekday{1, 2, 3, 4, 5}, Open: "08:30", Close: "17:15"}},
		Holidays:  []*v1.CalendarDay{{Date: "2026-12-29", Name: "year end"}},
		Blackouts: []*v1.CalendarDay{{Date: "2026-11-30", Name: "closing"}},
		Openings: []*v1.CalendarOpening{{Date: "2026-11-29", Open: "07:00", Close: "20:00", Name: "election"},
			{Date: "2026-11-23", Open: "09:00", Close: "12:00"}, {Date: "2026-11-22", Open: "09:00", Close: "12:00"}}})
	branch := &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Parent: "town",
		Holidays:  []*v1.CalendarDay{{Date: "2026-11-22", Name: "no voting here"}, {Date: "2026-11-24", Name: "works"}, {Date: "2026-11-26", Name: "both"}},
		Blackouts: []*v1.CalendarDay{{Date: "2026-11-25"}},
		Openings: []*v1.CalendarOpening{{Date: "2026-11-26", Open: "13:00", Close: "24:00"}, {Date: "2026-11-26", Open: "08:00", Close: "12:00"},
			{Date: "2026-11-29", Open: "08:00", Close: "20:00"}}}
	r := resolve(t, branch, town)
	want := []string{
		"2026-11-23T09:00:00+09:00 3h0m0s",                                      // the town opens on a holiday
		"2026-11-25T08:30:00+09:00 8h45m0s",                                     // the town's hours
		"2026-11-26T08:00:00+09:00 4h0m0s", "2026-11-26T13:00:00+09:00 11h0m0s", // opens on its own holiday
		"2026-11-27T08:30:00+09:00 8h45m0s",
		"2026-11-29T08:00:00+09:00 12h0m0s", // the branch's hours for the town's election
	}
	if diff := cmp.Diff(want, openings(t, r, "2026-11-22", "2026-11-29")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string(nil), openings(t, r, "2026-12-29", "2026-12-29")); diff != "" {
		t.Errorf("on the town's own holiday (-want +got):\n%s", diff)
	}
	for _, day := range []string{"2026-11-25", "2026-11-30"} {
		if !r.IsBlackout(date(t, day)) {
			t.Errorf("%s is no blackout", day)
		}
	}
	if r.IsBlackout(date(t, "2026-11-26")) {
		t.Error("2026-11-26 is a blackout")
	}
	branch.Hours = []*v1.OfficeHours{{Days: []v1.Weekday{7}, Open: "10:00", Close: "12:00"}}
	if diff := cmp.Diff([]string{"2026-12-06T10:00:00+09:00 2h0m0s"}, openings(t, resolve(t, branch, town), "2026-11-30", "2026-12-06")); diff != "" {
		t.Errorf("with hours of its own (-want +got):\n%s", diff)
	}
}

// A calendar that opens on a holiday that it inherits does so although that is a holiday, like one that opens on its own.
func TestOpeningOnInheritedHoliday(t *testing.T) {
	town := named("town", &v1.CalendarSpec{TimeZone: "Asia/Tokyo", HolidaySets: []string{"jp"}, Openings: []*v1.CalendarOpening{{Date: "2026-11-24", Open: "09:00", Close: "12:00"}}})
	r := resolve(t, &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Parent: "town",
		Holidays: []*v1.CalendarDay{{Date: "2026-11-24", Name: "works"}},
		Openings: []*v1.CalendarOpening{{Date: "2026-11-23", Open: "08:00", Close: "10:00", Name: "臨時"}}}, town)
	for day := range r.Days(date(t, "2026-11-23"), date(t, "2026-11-23")) {
		if !day.Special || len(day.Openings) != 1 || !day.Holiday || day.HolidayName != "Labor Thanksgiving Day" {
			t.Errorf("open on the town's holiday: %+v", day)
		}
	}
	for day := range r.Days(date(t, "2026-11-24"), date(t, "2026-11-24")) {
		if day.Special || len(day.Openings) != 0 || day.HolidayName != "works" {
			t.Errorf("closed on the town's opening: %+v", day)
		}
	}
}

func TestLine(t *testing.T) {
	chain := func(length int) (all []*v1.Calendar) {
		for i := range length {
			spec := everyDay("UTC", "08:00-09:00")
			if i+1 < length {
				spec.Parent = fmt.Sprintf("c%d", i+2)
			}
			all = append(all, named(fmt.Sprintf("c%d", i+1), spec))
		}
		return all
	}
	deep := chain(calendar.MaxDepth)
	if _, err := calendar.Resolve(deep[0], among(deep...)); err != nil {
		t.Errorf("%d deep: %v", calendar.MaxDepth, err)
	}
	deep = chain(calendar.MaxDepth + 1)
	_, err := calendar.Resolve(deep[0], among(deep...))
	wantMistake(t, err, "spec.parent", "c1 → c2 → c3 → c4 → c5 → c6 → c7 → c8 → c9 is 9 calendars deep; at most 8")
	self := named("self", &v1.CalendarSpec{TimeZone: "UTC", Parent: "self"})
	_, err = calendar.Resolve(self, among(self))
	wantMistake(t, err, "spec.parent", "cannot inherit from itself: self → self")
	ring := chain(3)
	ring[2].Spec.Parent = "c1"
	_, err = calendar.Resolve(ring[1], among(ring...))
	wantMistake(t, err, "spec.parent", "c2 → c3 → c1 → c2")
	if _, err = calendar.Resolve(chain(2)[0], among()); !errors.Is(err, calendar.ErrNoParent) || !strings.Contains(err.Error(), `"c2", the parent of "c1"`) {
		t.Errorf("no parent: %v", err)
	}
	bad := chain(2)
	bad[1].Spec.TimeZone = "Mars/Olympus"
	_, err = calendar.Resolve(bad[0], among(bad...))
	wantMistake(t, err, "spec.timeZone", "Mars/Olympus")
	if !strings.Contains(err.Error(), `calendar "c2"`) {
		t.Errorf("the calendar with the mistake is not named: %v", err)
	}
}

func wantMistake(t *testing.T, err error, field, words string) {
	t.Helper()
	var mistakes calendar.Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) != 1 || mistakes[0].Field != field || !strings.Contains(mistakes[0].Reason, words) {
		t.Errorf("error %v: want one mistake in %s with %q", err, field, words)
	}
}

func TestCheck(t *testing.T) {
	opening := func(date, open, end string) *v1.CalendarOpening {
		return &v1.CalendarOpening{Date: date, Open: open, Close: end}
	}
	for _, row := range []struct {
		field, words string
		spec         *v1.CalendarSpec
	}{
		{"spec.timeZone", `"Local" is no time zone`, &v1.CalendarSpec{TimeZone: "Local"}},
		{"spec.timeZone", `"" is no time zone`, &v1.CalendarSpec{}},
		{"spec.holidaySets[1]", `no built-in set "xx" of holidays; there are "jp"`, &v1.CalendarSpec{TimeZone: "UTC", HolidaySets: []string{"jp", "xx"}}},
		{"spec.openings[0].date", "2027-02-29", &v1.CalendarSpec{TimeZone: "UTC", Openings: []*v1.CalendarOpening{opening("2027-02-29", "08:00", "09:00")}}},
		{"spec.openings[0].close", "08:00 is not after open 09:00", &v1.CalendarSpec{TimeZone: "UTC", Openings: []*v1.CalendarOpening{opening("2027-02-28", "09:00", "08:00")}}},
		{"spec.openings[0]", "11:59-13:00 overlaps spec.openings[2], 08:00-12:00", &v1.CalendarSpec{TimeZone: "UTC", Openings: []*v1.CalendarOpening{
			opening("2027-02-28", "11:59", "13:00"), opening("2027-03-01", "08:00", "12:00"), opening("2027-02-28", "08:00", "12:00")}}},
		{"spec.hours[0].close", "25:00", everyDay("UTC", "08:00-25:00")},
		{"spec.hours[0].close", "open x", everyDay("UTC", "x-08:00")},
		{"spec.hours[1]", "overlaps", everyDay("UTC", "08:00-12:00 11:00-13:00")},
	} {
		_, err := calendar.Resolve(named("it", row.spec), among())
		wantMistake(t, err, row.field, row.words)
	}
	if found := calendar.Check(everyDay("Asia/Tokyo", "08:30-12:00 12:00-24:00")); found != nil {
		t.Error(found)
	}
}

func TestNext(t *testing.T) {
	spec := everyDay("Asia/Tokyo", "08:30-17:15")
	spec.Holidays = []*v1.CalendarDay{{Date: "2026-11-23"}}
	r := resolve(t, spec)
	at := func(text string) time.Time {
		instant, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return instant
	}
	for from, want := range map[string]string{
		"2026-11-21T23:29:59Z": "2026-11-21T23:30:00Z", "2026-11-21T23:30:00Z": "2026-11-21T23:30:00Z", "2026-11-21T23:30:01Z": "2026-11-23T23:30:00Z",
	} {
		if next, ok := r.NextOpening(at(from)); !ok || !next.Open.Equal(at(want)) {
			t.Errorf("from %s: %v %v, want %s", from, next, ok, want)
		}
	}
	for instant, want := range map[string]bool{
		"2026-11-22T08:29:59+09:00": false, "2026-11-22T08:30:00+09:00": true, "2026-11-22T17:14:59+09:00": true,
		"2026-11-22T17:15:00+09:00": false, "2026-11-23T10:00:00+09:00": false,
	} {
		if r.IsOpen(at(instant)) != want {
			t.Errorf("open at %s: want %v", instant, want)
		}
	}
	if next, ok := resolve(t, &v1.CalendarSpec{TimeZone: "UTC"}).NextOpening(at("2026-11-22T08:29:59Z")); ok {
		t.Errorf("a calendar without hours opens: %v", next)
	}
}

// Many may ask one calendar at once; some of the library's rules write into what they are asked about.
func TestManyAsk(t *testing.T) {
	spec := everyDay("Asia/Tokyo", "08:30-17:15")
	spec.HolidaySets = calendar.HolidaySets()
	r := resolve(t, spec)
	var asking errgroup.Group
	counts := make([]int, 8)
	for i := range counts {
		asking.Go(func() error {
			for range r.Openings(calendar.Date{Year: 2020 + i%2, Month: 1, Day: 1}, calendar.Date{Year: 2027 + i%2, Month: 12, Day: 31}) {
				counts[i]++
			}
			return nil
		})
	}
	if err := asking.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, n := range counts {
		if n != counts[i%2] || n < 2000 {
			t.Errorf("%v openings: the same question has different answers", counts)
		}
	}
}
