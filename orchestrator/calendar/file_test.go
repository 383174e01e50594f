package calendar_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/japanese"

	"daybreak/orchestrator/calendar"
)

const cabinet = "国民の祝日・休日月日,国民の祝日・休日名称\r\n2027/1/1,元日\r\n2027/3/22,休日\r\n2027/3/21,春分の日\r\n"

func lines(days []calendar.FileDay) (list []string) {
	for _, day := range days {
		list = append(list, strings.TrimSpace(day.Date.String()+" "+day.Name))
	}
	return list
}

func TestReadCSV(t *testing.T) {
	sjis, err := japanese.ShiftJIS.NewEncoder().String(cabinet)
	if err != nil {
		t.Fatal(err)
	}
	official := []string{"2027-01-01 元日", "2027-03-21 春分の日", "2027-03-22 休日"}
	for _, row := range []struct {
		name, text string
		want       []string
	}{
		{"Cabinet Office", sjis, official},
		{"in UTF-8", cabinet, official},
		{"with a byte order mark", "\ufeff" + cabinet, official},
		{"plain dates", "2026-12-29\n\n2026-12-30\n", []string{"2026-12-29", "2026-12-30"}},
		{"twice, spaces, quotes, empty cells", "2026-12-30,\n2026-12-30, \"year,\tend\"\n2026-12-30,again\n,\n", []string{"2026-12-30 year, end"}},
		{"leap day", "2028/2/29,x", []string{"2028-02-29 x"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			days, err := calendar.ReadCSV([]byte(row.text))
			if diff := cmp.Diff(row.want, lines(days)); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestReadCSVRefuses(t *testing.T) {
	for _, row := range []struct{ name, text, words string }{
		{"nothing", "", "no days"},
		{"a heading only", "date,name\n", "no days"},
		{"29 February", "date,name\n2027/2/29,x\n", `line 2: "2027-02-29" is not a date`},
		{"words", "date,name\n2027/2/28,x\ntomorrow,y\n", `line 3: "tomorrow" is not a date`},
		{"American", "12/29/2026,x\n", `line 1: "12/29/2026" is not a date`},
		{"full-width digits", "２０２６/１/１,x\n", `line 1: "２０２６/１/１" (in full-width characters: write half-width ones) is not a date`},
		{"huge number", "2027/99999999999999999999/1,x\n", "is not a date"},
		{"open quote", "2027/2/28,\"x\n", "line"},
		{"binary", "\xff\xfe\x00\x80", "neither UTF-8 nor Shift_JIS"},
		{"too big", strings.Repeat("2027-01-01\n", calendar.MaxFileBytes/11+1), "MiB"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := calendar.ReadCSV([]byte(row.text)); !errors.Is(err, calendar.ErrFile) || !strings.Contains(err.Error(), row.words) {
				t.Errorf("%v: want %q", err, row.words)
			}
		})
	}
}

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
			days, timed, err := calendar.ReadICS([]byte(row.text))
			if diff := cmp.Diff(row.want, lines(days)); err != nil || diff != "" || timed != row.timed {
				t.Errorf("%v, %d timed (-want +got):\n%s", err, timed, diff)
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
		{"repeats", ics(event("DTSTART;VALUE=DATE:20270101|RRULE:FREQ=YEARLY|SUMMARY:New Year")), `"New Year" repeats`},
		{"29 February", ics(event("DTSTART;VALUE=DATE:20270229|SUMMARY:x")), `"x": its DTSTART "20270229" is not a date that exists`},
		{"hours", ics(event("DTSTART;VALUE=DATE:20270102|DURATION:PT8H|SUMMARY:x")), `has the DURATION "PT8H"`},
		{"a long duration", ics(event("DTSTART;VALUE=DATE:20270102|DURATION:P9999W|SUMMARY:x")), "at most 366"},
		{"backwards", ics(event("DTSTART;VALUE=DATE:20270102|DTEND;VALUE=DATE:20270101|SUMMARY:x")), "ends before it begins"},
		{"for ever", ics(event("DTSTART;VALUE=DATE:20270102|DTEND;VALUE=DATE:99991231|SUMMARY:x")), "at most 366"},
		{"not UTF-8", ics(event("DTSTART;VALUE=DATE:20270102|SUMMARY:\x8c\xb3")), "UTF-8"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, _, err := calendar.ReadICS([]byte(row.text)); !errors.Is(err, calendar.ErrFile) || !strings.Contains(err.Error(), row.words) {
				t.Errorf("%v: want %q", err, row.words)
			}
		})
	}
}

// wantDays holds for whatever a file was: days that a calendar takes.
func wantDays(t *testing.T, days []calendar.FileDay, err error) {
	t.Helper()
	if err != nil && (!errors.Is(err, calendar.ErrFile) || days != nil) {
		t.Fatalf("days %v with error %v", days, err)
	}
	if err == nil && len(days) == 0 {
		t.Fatal("neither days nor an error")
	}
	for i, day := range days {
		if i > 0 && days[i-1].Date.Compare(day.Date) >= 0 {
			t.Fatalf("%v stands after %v", day.Date, days[i-1].Date)
		}
		if read, err := calendar.ParseDate(day.Date.String()); err != nil || read != day.Date {
			t.Fatalf("%v is no date: %v", day.Date, err)
		}
		if !utf8.ValidString(day.Name) || utf8.RuneCountInString(day.Name) > 128 || strings.ContainsFunc(day.Name, unicode.IsControl) {
			t.Fatalf("name %q", day.Name)
		}
	}
}

func FuzzReadCSV(f *testing.F) {
	f.Add([]byte(cabinet))
	f.Add([]byte("2026-12-29\n2027/1/1,\"a\"\n"))
	f.Add([]byte("\x8d\x91,\x96\xaf\n2027/1/1,\x8c\xb3\x93\xfa"))
	f.Fuzz(func(t *testing.T, text []byte) {
		days, err := calendar.ReadCSV(text)
		wantDays(t, days, err)
	})
}

func FuzzReadICS(f *testing.F) {
	f.Add([]byte(ics(event("DTSTART;VALUE=DATE:20261229|DTEND;VALUE=DATE:20270101|SUMMARY:year\r\n  end"))))
	f.Add([]byte(ics(event("DTSTART:20270102T083000Z|RRULE:FREQ=DAILY"), event("DTSTART:20280229"))))
	f.Fuzz(func(t *testing.T, text []byte) {
		days, _, err := calendar.ReadICS(text)
		wantDays(t, days, err)
	})
}
