package calendar_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// Rules as files of holidays have them; expected are the dates from 2025 to 2031, as calendars on the wall have them.
func TestRepeats(t *testing.T) {
	for _, row := range []struct{ name, start, rule, want string }{
		{"every year", "20000101", "FREQ=YEARLY", "2025-01-01 2026-01-01 2027-01-01 2028-01-01 2029-01-01 2030-01-01 2031-01-01"},
		{"second Monday of January", "20000110", "FREQ=YEARLY;BYMONTH=1;BYDAY=2MO", "2025-01-13 2026-01-12 2027-01-11 2028-01-10 2029-01-08 2030-01-14 2031-01-13"},
		{"the same, otherwise", "20000110", "freq=monthly;interval=12;byday=mo;bysetpos=2;", "2025-01-13 2026-01-12 2027-01-11 2028-01-10 2029-01-08 2030-01-14 2031-01-13"},
		{"last Monday of May", "19710531", "FREQ=YEARLY;BYDAY=-1MO;BYMONTH=5", "2025-05-26 2026-05-25 2027-05-31 2028-05-29 2029-05-28 2030-05-27 2031-05-26"},
		{"Election Day", "19961105", "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8", "2028-11-07"},
		{"leap day", "20240229", "FREQ=YEARLY", "2028-02-29"},
		{"the 31st", "20310131", "FREQ=MONTHLY", "2031-01-31 2031-03-31 2031-05-31 2031-07-31 2031-08-31 2031-10-31 2031-12-31"},
		{"last of the month", "20310930", "FREQ=MONTHLY;BYMONTHDAY=-1", "2031-09-30 2031-10-31 2031-11-30 2031-12-31"},
		{"until", "20000429", "FREQ=YEARLY;UNTIL=20260429", "2025-04-29 2026-04-29"},
		{"until midnight in UTC", "20000429", "FREQ=YEARLY;UNTIL=20260429T000000Z", "2025-04-29 2026-04-29"},
		{"until the zone's midnight, in UTC", "20000429", "FREQ=YEARLY;UNTIL=20260428T150000Z", "2025-04-29 2026-04-29"},
		{"until the end of a day", "20000101", "FREQ=YEARLY;UNTIL=20261231T235959Z", "2025-01-01 2026-01-01"},
		{"count", "20240504", "FREQ=YEARLY;COUNT=3", "2025-05-04 2026-05-04"},
		{"days with and without a number", "20311001", "FREQ=MONTHLY;BYDAY=FR,1MO,-1MO;BYMONTH=10", "2031-10-01 2031-10-03 2031-10-06 2031-10-10 2031-10-17 2031-10-24 2031-10-27 2031-10-31"},
		{"a first day that its rule does not know counts", "20250505", "FREQ=YEARLY;BYMONTH=1;BYMONTHDAY=1;COUNT=3", "2025-05-05 2026-01-01 2027-01-01"},
		{"other weeks", "20311127", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,TH", "2031-11-27 2031-12-08 2031-12-11 2031-12-22 2031-12-25"},
		{"one day of the week with that number", "20250513", "FREQ=YEARLY;BYWEEKNO=20;COUNT=2", "2025-05-13 2026-05-12"},
		{"a first week is whole", "20311217", "FREQ=WEEKLY;BYDAY=MO,TH;BYSETPOS=2", "2031-12-17 2031-12-18 2031-12-25"},
		{"day of the year", "20250101", "FREQ=YEARLY;BYYEARDAY=-1;COUNT=2", "2025-01-01 2025-12-31"},
		{"hours of a whole day do not count", "20311230", "FREQ=DAILY;BYHOUR=9;BYMINUTE=0", "2031-12-30 2031-12-31"},
		{"a huge count", "20311230", "FREQ=DAILY;COUNT=2147483647", "2031-12-30 2031-12-31"},
		{"a date that never comes again", "20310228", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", "2031-02-28"},
		{"without dates", "20300101", "FREQ=YEARLY|EXDATE;VALUE=DATE:20300101", "2031-01-01"},
		{"exceptions in all forms", "20260101", "FREQ=YEARLY|EXDATE:20270101,20280101T000000|EXDATE;TZID=Asia/Tokyo:20281231T150000Z", "2026-01-01 2030-01-01 2031-01-01"},
		{"further dates", "20300101", "FREQ=YEARLY;COUNT=1|RDATE;VALUE=DATE:20300303,20310404|RDATE:20400505|EXDATE:20310404", "2030-01-01 2030-03-03 2040-05-05"},
		{"several days, the first before the range", "20201231", "FREQ=YEARLY;INTERVAL=4;COUNT=2|DURATION:P3D", "2024-12-31 2025-01-01 2025-01-02"},
		{"several days, the last after the range", "20211230", "FREQ=YEARLY;INTERVAL=10|DTEND:20220103", "2031-12-30 2031-12-31 2032-01-01 2032-01-02"},
	} {
		t.Run(row.name, func(t *testing.T) {
			found, err := calendar.ReadICS([]byte(ics(event("DTSTART;VALUE=DATE:"+row.start+"|RRULE:"+row.rule))), within)
			if diff := cmp.Diff(strings.Fields(row.want), lines(found.Days)); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A rule that goes on is told of, one that ends within the range is not.
func TestRepeatsGoOn(t *testing.T) {
	for _, row := range []struct {
		events string
		want   bool
	}{
		{"DTSTART:20270101|RRULE:FREQ=YEARLY", true},
		{"DTSTART:20270101|RRULE:FREQ=YEARLY;UNTIL=20320101", true},
		{"DTSTART:20270101|RRULE:FREQ=YEARLY;COUNT=6", true},
		{"DTSTART:20270101|RRULE:FREQ=YEARLY;COUNT=5", false},
		{"DTSTART:20270101|RRULE:FREQ=YEARLY;UNTIL=20311231", false},
		{"DTSTART:20270101|RDATE:20400101", false},
		{"DTSTART:20270101", false},
	} {
		if found, err := calendar.ReadICS([]byte(ics(event(row.events))), within); err != nil || found.GoesOn != row.want {
			t.Errorf("%s: goes on %v, %v", row.events, found.GoesOn, err)
		}
	}
	// One that begins after the range gives no days, but is told of.
	found, err := calendar.ReadICS([]byte(ics(event("DTSTART:20350101|RRULE:FREQ=YEARLY"), event("DTSTART:20270505"))), within)
	if diff := cmp.Diff([]string{"2027-05-05"}, lines(found.Days)); err != nil || !found.GoesOn || diff != "" {
		t.Errorf("%v, goes on %v (-want +got):\n%s", err, found.GoesOn, diff)
	}
}

// Single dates of a repetition are moved, renamed and cancelled by events of the same UID.
func TestReplacedDates(t *testing.T) {
	series := event("DTSTART;VALUE=DATE:20260720|RRULE:FREQ=YEARLY;COUNT=5|SUMMARY:sea")
	for _, row := range []struct {
		name, event string
		want        []string
	}{
		{"moved", "RECURRENCE-ID;VALUE=DATE:20270720|DTSTART;VALUE=DATE:20270722|SUMMARY:Games",
			[]string{"2026-07-20 sea", "2027-07-22 Games", "2028-07-20 sea", "2029-07-20 sea", "2030-07-20 sea"}},
		{"renamed", "RECURRENCE-ID:20270720T000000|DTSTART;VALUE=DATE:20270720|SUMMARY:Games",
			[]string{"2026-07-20 sea", "2027-07-20 Games", "2028-07-20 sea", "2029-07-20 sea", "2030-07-20 sea"}},
		{"cancelled, in small letters", "recurrence-id:20260719T150000Z|dtstart:20260720|status:cancelled",
			[]string{"2027-07-20 sea", "2028-07-20 sea", "2029-07-20 sea", "2030-07-20 sea"}},
		{"of another series", "UID:2|RECURRENCE-ID:20270720|DTSTART:20270722|SUMMARY:x",
			[]string{"2026-07-20 sea", "2027-07-20 sea", "2027-07-22 x", "2028-07-20 sea", "2029-07-20 sea", "2030-07-20 sea"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			other := strings.Replace(event(row.event), "UID:1\r\nUID", "UID", 1)
			for _, text := range []string{ics(series, other), ics(other, series)} {
				found, err := calendar.ReadICS([]byte(text), within)
				if diff := cmp.Diff(row.want, lines(found.Days)); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			}
		})
	}
	// What a meeting's dates are is no matter.
	meeting := ics(event("DTSTART:20270102T083000Z|RRULE:FREQ=SECONDLY"), event("RECURRENCE-ID;RANGE=THISANDFUTURE:20270103T083000Z|DTSTART:20270103T093000Z"), event("DTSTART:20270505"))
	if found, err := calendar.ReadICS([]byte(meeting), within); err != nil || found.Timed != 2 {
		t.Errorf("%v, %d timed", err, found.Timed)
	}
}

func TestRepeatsRefused(t *testing.T) {
	for rule, words := range map[string]string{
		"FREQ=SECONDLY":           "FREQ=SECONDLY, which for whole days must be DAILY, WEEKLY, MONTHLY or YEARLY; give each of its dates an event of its own",
		"FREQ=HOURLY;INTERVAL=24": "FREQ=HOURLY",
		"INTERVAL=2":              `RRULE property FREQ is required`,
		"":                        `has "", which is not known`,
		"FREQ=YEARLY;INTERVAL=0":  "INTERVAL=0, which for whole days must be 1 to 999",
		"FREQ=YEARLY;INTERVAL=9223372036854775807":               "INTERVAL=92233",
		"FREQ=YEARLY;COUNT=0":                                    "COUNT=0",
		"FREQ=YEARLY;COUNT=-1":                                   "COUNT=-1",
		"FREQ=YEARLY;COUNT=99999999999999999999":                 "COUNT=999",
		"FREQ=YEARLY;UNTIL=20270230":                             "UNTIL=20270230, which for whole days must be a date such as 20271231",
		"FREQ=YEARLY;UNTIL=tomorrow":                             "UNTIL=TOMORROW",
		"FREQ=YEARLY;BYMONTH=13":                                 "BYMONTH=13",
		"FREQ=MONTHLY;BYMONTHDAY=0":                              "BYMONTHDAY=0",
		"FREQ=YEARLY;BYWEEKNO=-1":                                "BYWEEKNO=-1, which for whole days must be 1 to 51",
		"FREQ=YEARLY;BYWEEKNO=53":                                "BYWEEKNO=53",
		"FREQ=MONTHLY;BYDAY=53MO":                                "BYDAY=+53MO with FREQ=MONTHLY, which has no such day",
		"FREQ=MONTHLY;BYDAY=-6MO":                                "BYDAY=-6MO with",
		"FREQ=YEARLY;BYMONTH=12;BYDAY=53MO":                      "BYDAY=+53MO with",
		"FREQ=WEEKLY;BYDAY=2MO":                                  "BYDAY=+2MO with FREQ=WEEKLY",
		"FREQ=YEARLY;BYDAY=0MO":                                  "BYDAY=0MO",
		"FREQ=YEARLY;BYEASTER=1":                                 `"BYEASTER", which is not known`,
		"FREQ=YEARLY;DTSTART=20270101":                           `"DTSTART", which is not known`,
		"RSCALE=HEBREW;FREQ=YEARLY":                              `"RSCALE", which is not known here; give each of its dates`,
		"FREQ=YEARLY;FREQ=DAILY":                                 "has FREQ twice",
		"FREQ=YEARLY;BYMONTHDAY=1" + strings.Repeat(",1", 300):   "longer than 500 bytes",
		"FREQ=YEARLY|RRULE:FREQ=DAILY":                           "more than one RRULE",
		"FREQ=YEARLY|EXRULE:FREQ=DAILY":                          "EXRULE",
		"FREQ=YEARLY|EXDATE:20270230":                            `EXDATE "20270230" is not a date that exists`,
		"FREQ=YEARLY|RDATE;VALUE=PERIOD:20270101T000000Z/P1D":    `RDATE "20270101T000000Z/P1D" is not a date`,
		"FREQ=YEARLY|RECURRENCE-ID:20270101":                     "cannot repeat itself",
		"FREQ=YEARLY|RECURRENCE-ID;RANGE=THISANDFUTURE:20270101": "has a RANGE",
		"FREQ=DAILY;COUNT=2|DURATION:P366D|RDATE" + years(300):   "there are more than 10000 days; divide",
	} {
		_, err := calendar.ReadICS([]byte(ics(event("DTSTART;VALUE=DATE:20270101|SUMMARY:x|RRULE:"+rule))), within)
		if !errors.Is(err, calendar.ErrFile) || !strings.Contains(err.Error(), words) || !strings.Contains(err.Error(), `event "x": `) {
			t.Errorf("%s: %v: want %q", rule, err, words)
		}
	}
	for _, row := range []struct{ words, text string }{
		{"since the year 1; let it begin in 1600 or later", ics(event("DTSTART:00010101|RRULE:FREQ=DAILY"))},
		{"none of its events has a whole day from 2025-01-01 to 2031-12-31", ics(event("DTSTART:19990101|RRULE:FREQ=YEARLY;COUNT=5"))},
		{`says "20270101T083000Z" of which`, ics(event("DTSTART:20270101|RRULE:FREQ=YEARLY"), event("RECURRENCE-ID:20270101T083000Z|STATUS:CANCELLED"))},
		{"has no UID that says which", ics("BEGIN:VEVENT\r\nRECURRENCE-ID:20270101\r\nEND:VEVENT\r\n")},
	} {
		if _, err := calendar.ReadICS([]byte(row.text), within); !errors.Is(err, calendar.ErrFile) || !strings.Contains(err.Error(), row.words) {
			t.Errorf("%v: want %q", err, row.words)
		}
	}
}

// years lists so many dates for an RDATE.
func years(n int) string {
	text := ":20300101"
	for i := range n {
		text += fmt.Sprintf(",%d0101", 2031+i)
	}
	return text
}

// Files that are made to keep the reader busy end soon, by a limit that names an event or because their rules are dull.
func TestHostileRules(t *testing.T) {
	for name, rule := range map[string]string{
		"never":         "DTSTART:19000101|RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
		"each day":      "DTSTART:16000101|RRULE:FREQ=DAILY",
		"days on end":   "DTSTART:20250101|DURATION:P366D|RRULE:FREQ=DAILY",
		"without rules": "DTSTART:20250101|DURATION:P366D",
		"listed":        "DTSTART:20250101|EXDATE:20270101,20270101,20270101,20270101,20270101,20270101,20270101",
	} {
		t.Run(name, func(t *testing.T) {
			one := event(rule)
			start := time.Now()
			_, err := calendar.ReadICS([]byte(ics(strings.Repeat(one, calendar.MaxFileBytes/len(one)-1))), within)
			if !errors.Is(err, calendar.ErrFile) || !strings.Contains(err.Error(), `event "1": `) {
				t.Error(err)
			}
			t.Log(time.Since(start), err)
		})
	}
}

// wanted says what a rule means in another way than the library: it looks at every date, and asks whether it belongs.
type wanted struct {
	freq                                     string
	interval, wkst                           int
	months, monthDays, yearDays, weeks, poss []int
	days                                     [][2]int // n and weekday (Monday is 0)
}

func monday(d calendar.Date) int { return (int(d.Weekday()) + 6) % 7 }

func (w wanted) weekStart(d calendar.Date) calendar.Date {
	return d.Add(-((monday(d) - w.wkst + 7) % 7))
}

func days(from, to calendar.Date) int {
	at := func(d calendar.Date) time.Time { return time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }
	return int(at(to).Sub(at(from)) / (24 * time.Hour))
}

// period numbers the years, months, weeks or days.
func (w wanted) period(d calendar.Date) int {
	epoch := calendar.Date{Year: 1900, Month: 1, Day: 1}
	switch w.freq {
	case "YEARLY":
		return d.Year
	case "MONTHLY":
		return d.Year*12 + int(d.Month)
	case "WEEKLY":
		return days(w.weekStart(epoch), w.weekStart(d)) / 7
	}
	return days(epoch, d)
}

// place is whether a value, or its distance from the end, is listed; everything is when nothing is.
func place(list []int, value, last int) bool {
	return len(list) == 0 || slices.Contains(list, value) || slices.Contains(list, value-last-1)
}

// matches leaves BYSETPOS and INTERVAL out.
func (w wanted) matches(d calendar.Date) bool {
	january, december := calendar.Date{Year: d.Year, Month: 1, Day: 1}, calendar.Date{Year: d.Year, Month: 12, Day: 31}
	first := calendar.Date{Year: d.Year, Month: d.Month, Day: 1}
	last := calendar.DateOf(time.Date(d.Year, d.Month+1, 0, 0, 0, 0, 0, time.UTC))
	if !place(w.months, int(d.Month), 99) || !place(w.monthDays, d.Day, last.Day) || !place(w.yearDays, days(january, d)+1, days(january, december)+1) {
		return false
	}
	if len(w.weeks) > 0 && !w.week(d) {
		return false
	}
	from, to := january, december
	if w.freq == "MONTHLY" || len(w.months) > 0 {
		from, to = first, last
	}
	return len(w.days) == 0 || slices.ContainsFunc(w.days, func(each [2]int) bool {
		return each[1] == monday(d) && (each[0] == 0 || each[0] == days(from, d)/7+1 || each[0] == -days(d, to)/7-1)
	})
}

// week is whether the week of a date, the one that has most of its days in a year, has a number that is wanted.
func (w wanted) week(d calendar.Date) bool {
	one := func(year int) calendar.Date { return w.weekStart(calendar.Date{Year: year, Month: 1, Day: 4}) }
	year := w.weekStart(d).Add(3).Year
	return place(w.weeks, days(one(year), w.weekStart(d))/7+1, days(one(year), one(year+1))/7)
}

func (w wanted) dates(first, to calendar.Date) (list []calendar.Date) {
	from := w.weekStart(calendar.Date{Year: first.Year, Month: 1, Day: 1})
	var set []calendar.Date
	flush := func() {
		for i, date := range set {
			if place(w.poss, i+1, len(set)) && date.Compare(first) > 0 && date.Compare(to) <= 0 {
				list = append(list, date)
			}
		}
		set = nil
	}
	end := calendar.Date{Year: to.Year + 1, Month: 1, Day: 31}
	for date := from; date.Compare(end) <= 0; date = date.Add(1) {
		if len(set) > 0 && w.period(set[0]) != w.period(date) {
			flush()
		}
		if (w.period(date)-w.period(first))%w.interval == 0 && w.matches(date) {
			set = append(set, date)
		}
	}
	return list
}

func TestRepeatsProperty(t *testing.T) {
	names := []string{"MO", "TU", "WE", "TH", "FR", "SA", "SU"}
	rapid.Check(t, func(t *rapid.T) {
		w := wanted{freq: rapid.SampledFrom([]string{"YEARLY", "MONTHLY", "WEEKLY", "DAILY"}).Draw(t, "freq"),
			interval: rapid.SampledFrom([]int{1, 1, 2, 3, 12}).Draw(t, "interval"), wkst: rapid.SampledFrom([]int{0, 6, 2}).Draw(t, "wkst")}
		first := calendar.Date{Year: 2024, Month: 12, Day: 29}.Add(rapid.IntRange(0, 800).Draw(t, "first"))
		text := fmt.Sprintf("FREQ=%s;INTERVAL=%d;WKST=%s", w.freq, w.interval, names[w.wkst])
		some := func(key string, least, most int) (list []int) {
			if rapid.IntRange(0, 2).Draw(t, key) > 0 {
				return nil
			}
			list = rapid.SliceOfNDistinct(rapid.IntRange(least, most).Filter(func(n int) bool { return n != 0 }), 1, 6, rapid.ID[int]).Draw(t, key+" list")
			text += ";" + key + "=" + strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
			return list
		}
		w.months, w.monthDays = some("BYMONTH", 1, 12), some("BYMONTHDAY", -31, 31)
		if w.freq == "YEARLY" {
			w.yearDays, w.weeks = some("BYYEARDAY", -366, 366), some("BYWEEKNO", 1, 51)
		}
		most := 0
		switch {
		case len(w.weeks) > 0:
		case w.freq == "MONTHLY", w.freq == "YEARLY" && len(w.months) > 0:
			most = 5
		case w.freq == "YEARLY":
			most = 53
		}
		if rapid.Bool().Draw(t, "BYDAY") {
			var list []string
			for range rapid.IntRange(1, 3).Draw(t, "days") {
				n, day := rapid.IntRange(-most, most).Draw(t, "n"), rapid.IntRange(0, 6).Draw(t, "day")
				w.days = append(w.days, [2]int{n, day})
				list = append(list, strings.TrimPrefix(fmt.Sprintf("%+d%s", n, names[day]), "+0"))
			}
			text += ";BYDAY=" + strings.Join(list, ",")
		}
		w.poss = some("BYSETPOS", -5, 5)
		found, err := calendar.ReadICS([]byte(ics(event("DTSTART:"+strings.ReplaceAll(first.String(), "-", "")+"|RRULE:"+text))), within)
		if err != nil && !strings.Contains(err.Error(), "none of its events") {
			t.Fatalf("%s: %v", text, err)
		}
		var want []string
		for _, date := range append([]calendar.Date{first}, w.byDefault(first).dates(first, within.To)...) {
			if date.Compare(within.From) >= 0 {
				want = append(want, date.String())
			}
		}
		if diff := cmp.Diff(want, lines(found.Days)); diff != "" {
			t.Fatalf("%v %s (-want +got):\n%s", first, text, diff)
		}
	})
}

// byDefault takes from the first date what a rule leaves open.
func (w wanted) byDefault(first calendar.Date) wanted {
	if len(w.days)+len(w.monthDays)+len(w.yearDays) > 0 {
		return w
	}
	switch {
	case w.freq == "WEEKLY", len(w.weeks) > 0:
		w.days = [][2]int{{0, monday(first)}}
	case w.freq == "MONTHLY":
		w.monthDays = []int{first.Day}
	case w.freq == "YEARLY":
		w.monthDays = []int{first.Day}
		if len(w.months) == 0 {
			w.months = []int{int(first.Month)}
		}
	}
	return w
}

func TestListedUntil(t *testing.T) {
	day := func(date, name string) *v1.CalendarDay { return &v1.CalendarDay{Date: date, Name: name} }
	for _, row := range []struct {
		days []*v1.CalendarDay
		want int
	}{
		{nil, 0},
		{[]*v1.CalendarDay{day("2026-12-29", "moving"), day("2027-12-29", "closing"), day("2028-12-29", ""), day("2029-12-29", "")}, 0},
		{[]*v1.CalendarDay{day("2026-12-30", "closing"), day("2026-12-31", "closing")}, 0},
		{[]*v1.CalendarDay{day("2031-01-01", "元日"), day("2030-01-01", "元日"), day("2032-12-29", "moving")}, 2031},
	} {
		if year, ok := calendar.ListedUntil(row.days); year != row.want || ok != (row.want > 0) {
			t.Errorf("%v: %d %v", row.days, year, ok)
		}
	}
}
