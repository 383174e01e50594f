package calendar_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"daybreak/orchestrator/calendar"
)

// within is the range of the tests, in the zone where most of the calendars are.
var within = calendar.Within{From: calendar.Date{Year: 2025, Month: 1, Day: 1}, To: calendar.Date{Year: 2031, Month: 12, Day: 31}, Zone: tokyo()}

func tokyo() *time.Location { return time.FixedZone("Asia/Tokyo", 9*3600) }

func event(properties string) string {
	return "BEGIN:VEVENT\r\nUID:1\r\n" + strings.ReplaceAll(properties, "|", "\r\n") + "\r\nEND:VEVENT\r\n"
}

func ics(events ...string) string {
	return "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n" + strings.Join(events, "") + "END:VCALENDAR\r\n"
}

func TestReadICS(t *testing.T) {
	for _, row := range []struct {
		name, text string
		timed      int
		want       []string
	}{
		{"a day", ics(event("DTSTART;VALUE=DATE:20270101|DTEND;VALUE=DATE:20270102|SUMMARY:元日")), 0, []string{"2027-01-01 元日"}},
		{"no end, no parameter", ics(event("DTSTART:20280229|SUMMARY:leap\\, day")), 0, []string{"2028-02-29 leap, day"}},
		{"several", ics(event("DTSTART;VALUE=DATE:20261229|DTEND;VALUE=DATE:20270101|SUMMARY:year\r\n  end")), 0,
			[]string{"2026-12-29 year end", "2026-12-30 year end", "2026-12-31 year end"}},
		{"durations", ics(event("DTSTART;VALUE=DATE:20270101|DURATION:P1D"), event("DTSTART;VALUE=DATE:20270104|DURATION:P2D")), 0,
			[]string{"2027-01-01", "2027-01-04", "2027-01-05"}},
		{"cancelled and timed", "\ufeff" + ics(event("DTSTART;VALUE=DATE:20270101|STATUS:CANCELLED"), event("DTSTART:20270102T083000Z|DTEND:20270102T093000Z"),
			event("DTSTART;VALUE=DATE:20270104|DTEND;VALUE=DATE:20270104")), 1, []string{"2027-01-04"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			found, err := calendar.ReadICS([]byte(row.text), within)
			if diff := cmp.Diff(row.want, lines(found.Days)); err != nil || diff != "" || found.Timed != row.timed {
				t.Errorf("%v, %d timed (-want +got):\n%s", err, found.Timed, diff)
			}
		})
	}
}

func TestReadICSRefuses(t *testing.T) {
	for _, row := range []struct{ name, text, words string }{
		{"nothing", "", ""},
		{"no events", ics(), "no days"},
		{"a web page", "<html></html>", ""},
		{"timed only", ics(event("DTSTART:20270102T083000Z")), "none of its events is for whole days"},
		{"29 February", ics(event("DTSTART;VALUE=DATE:20270229|SUMMARY:x")), `"x": its DTSTART "20270229" is not a date that exists`},
		{"hours", ics(event("DTSTART;VALUE=DATE:20270102|DURATION:PT8H|SUMMARY:x")), `its DURATION "PT8H"`},
		{"a long duration", ics(event("DTSTART;VALUE=DATE:20270102|DURATION:P9999W|SUMMARY:x")), "at most 366"},
		{"backwards", ics(event("DTSTART;VALUE=DATE:20270102|DTEND;VALUE=DATE:20270101|SUMMARY:x")), "ends before it begins"},
		{"for ever", ics(event("DTSTART;VALUE=DATE:20270102|DTEND;VALUE=DATE:99991231|SUMMARY:x")), "at most 366"},
		{"an end with a time", ics(event("DTSTART;VALUE=DATE:20270102|DTEND:20270102T093000Z|SUMMARY:x")), `"x": it begins with a date, and its DTEND`},
		{"without a summary", ics(event("DTSTART;VALUE=DATE:20270102|DURATION:PT8H")), `event "1": its DURATION`},
		{"parameters without end", ics(event("DTSTART" + strings.Repeat(";X=y", 40000) + ":20270102")), "too many parameters"},
		{"values without end, folded", ics(event("DTSTART;X=y" + strings.Repeat(",\r\n y", 40000) + ":20270102")), "too many parameters"},
		{"not UTF-8", ics(event("DTSTART;VALUE=DATE:20270102|SUMMARY:\x8c\xb3")), "UTF-8"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := calendar.ReadICS([]byte(row.text), within); !errors.Is(err, calendar.ErrFile) || !strings.Contains(err.Error(), row.words) {
				t.Errorf("%v: want %q", err, row.words)
			}
		})
	}
}

func FuzzReadICS(f *testing.F) {
	f.Add([]byte(ics(event("DTSTART;VALUE=DATE:20261229|DTEND;VALUE=DATE:20270101|SUMMARY:year\r\n  end"))))
	f.Add([]byte(ics(event("DTSTART:20270102T083000Z|RRULE:FREQ=DAILY"), event("DTSTART:20280229"))))
	for _, rule := range []string{"FREQ=MONTHLY;BYDAY=53MO", "FREQ=DAILY;INTERVAL=999;COUNT=2147483647", "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
		"FREQ=YEARLY;BYWEEKNO=53,1;WKST=SU;BYSETPOS=-1", "FREQ=WEEKLY;BYDAY=SU,SA;BYSETPOS=366;UNTIL=20271231T150000Z"} {
		f.Add([]byte(ics(event("DTSTART:20270102|RRULE:"+rule+"|EXDATE:20280102,20290102T000000|RDATE:20270505"),
			event("DTSTART:20280103|RECURRENCE-ID:20280102|STATUS:CANCELLED"))))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := calendar.ReadICS(text, within)
		wantDays(t, found.Days, err)
	})
}
