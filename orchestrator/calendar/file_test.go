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
		{"Japanese", "年月日,名称\n2027年1月1日,元日\n令和9年1月2日,a\nR9.1.3,b\nR9/1/4,c\nR9-01-05,d\n2027.1.6,e\n", []string{
			"2027-01-01 元日", "2027-01-02 a", "2027-01-03 b", "2027-01-04 c", "2027-01-05 d", "2027-01-06 e"}},
		{"padded", "令和 9年 1月 1日\nR 9. 1. 2\n", []string{"2027-01-01", "2027-01-02"}},
		{"full-width", "２０２６/１/１,x\n２０２７年１月２日,ｙ\nＲ９．１．３\n㋿10年1月4日\n", []string{"2026-01-01 x", "2027-01-02 ｙ", "2027-01-03", "2028-01-04"}},
		{"the era's first year", "R1.5.1\n令和元年12月29日\n", []string{"2019-05-01", "2019-12-29"}},
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
		{"the name first", "元日,2027/1/1\n", `line 1: "元日" is not a date`},
		{"words", "date,name\n2027/2/28,x\ntomorrow,y\n", `line 3: "tomorrow" is not a date`},
		{"American", "12/29/2026,x\n", `line 1: "12/29/2026" is not a date`},
		{"29 February of an era", "令和9年2月29日,x\n", `line 1: "2027-02-29" is not a date`},
		{"before the era", "令和8年1月1日\nR1.4.30,x\n", `line 2: "R1.4.30" is not a date: 令和 began on 2019-05-01`},
		{"year 0", "R0.5.1\n", `"R0.5.1" is not a date: 令和 began on 2019-05-01`},
		{"an era that is over", "平成31年4月30日\n", `"平成31年4月30日" is not a date; write one as 2026-11-23, 2026/11/23, 2026年11月23日, 令和8年11月23日 or R8.11.23`},
		{"a year of no era", "9年1月1日\n", `"9年1月1日" is not a date`},
		{"the first year of no era", "元年1月1日\n", `line 1: "元年1月1日" is not a date`},
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
	f.Add([]byte("令和9年1月1日,元日\nＲ９．１．２\n"))
	f.Add([]byte("\x8d\x91,\x96\xaf\n2027/1/1,\x8c\xb3\x93\xfa"))
	f.Fuzz(func(t *testing.T, text []byte) {
		days, err := calendar.ReadCSV(text)
		wantDays(t, days, err)
	})
}
