package demand_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

// watching looks at claims at times, as the pool's loop does. Each look is "08:01 3": on the wall of the date that was named
// last, so many claims, all of which began a minute before.
func watching(t *testing.T, cal *calendar.Resolved, looks ...string) (days []*v1.DayHistory) {
	t.Helper()
	var date string
	for _, look := range looks {
		clock, count, timed := strings.Cut(look, " ")
		if !timed {
			date = look
			continue
		}
		now, err := time.ParseInLocation("2006-01-02 15:04", date+" "+clock, cal.Zone())
		if err != nil {
			t.Fatal(err)
		}
		var n int
		fmt.Sscan(count, &n)
		began := make([]time.Time, n)
		for i := range began {
			began[i] = now.Add(-time.Minute)
		}
		days, _ = demand.Record(days, cal, now, began)
	}
	return days
}

// sketch is what days have, short: "2026-11-24 0:2/2 1:3/3 of 2, unwatched [], open [102 207]", empty bins left out.
func sketch(days []*v1.DayHistory) (lines []string) {
	for _, d := range days {
		line := d.GetDate()
		for i, n := range d.GetClaimed() {
			if n+d.GetArrivals()[i] > 0 {
				line += fmt.Sprintf(" %02d:%02d=%d/%d", i/12, i%12*5, n, d.GetArrivals()[i])
			}
		}
		line += fmt.Sprintf(", %d watched", d.GetWatched())
		if len(d.GetUnwatched()) > 0 {
			line += fmt.Sprintf(", not %v", d.GetUnwatched())
		}
		lines = append(lines, line)
	}
	return lines
}

func TestRecord(t *testing.T) {
	tokyo := office(t, "Asia/Tokyo", "08:30-12:00 13:00-17:15", japan)
	for _, row := range []struct {
		name  string
		cal   *calendar.Resolved
		looks []string
		want  []string
	}{
		{"the most of a bin", tokyo, []string{"2026-11-24", "00:01 1", "00:04 5", "00:04 2", "00:06 2"}, []string{"2026-11-24 00:00=5/5 00:05=2/2, 2 watched"}},
		{"a restart leaves a gap", tokyo, []string{"2026-11-24", "00:01 1", "00:21 2"}, []string{"2026-11-24 00:00=1/1 00:20=2/2, 2 watched, not [1 4]"}},
		{"it begins within a day", tokyo, []string{"2026-11-24", "00:13 1"}, []string{"2026-11-24 00:10=1/1, 1 watched, not [0 2]"}},
		{"the clock goes two hours forward and back", tokyo, []string{"2026-11-24", "00:01 1", "02:01 2", "00:07 9", "02:02 3", "02:06 4"},
			[]string{"2026-11-24 00:00=1/1 02:00=3/3 02:05=4/4, 3 watched, not [1 24]"}},
		{"the clock goes back for two hours", tokyo, []string{"2026-11-24", "02:01 2", "00:02 7", "00:06 8", "02:08 3"},
			[]string{"2026-11-24 02:00=2/2 02:05=3/3, 2 watched, not [0 24]"}},
		{"the clock goes over midnight and back", tokyo, []string{"2026-11-24", "00:01 1", "2026-11-25", "00:11 1", "2026-11-24", "00:06 2", "2026-11-25", "00:16 4"},
			[]string{"2026-11-24 00:00=1/1 00:05=2/2, 2 watched", "2026-11-25 00:10=1/1 00:15=4/4, 2 watched, not [0 2]"}},
		{"clocks set forward", office(t, "America/New_York", "08:30-17:15"), []string{"2027-03-14", "01:56 1", "03:01 2"},
			[]string{"2027-03-14 01:55=1/1 03:00=2/2, 2 watched, not [0 23 24 36]"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, sketch(watching(t, row.cal, row.looks...))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// The hour that comes twice has the higher count of both.
func TestRecordOverlap(t *testing.T) {
	cal := office(t, "America/New_York", "08:30-17:15")
	first := at(t, "2026-11-01T01:30:00-04:00")
	var days []*v1.DayHistory
	for i, n := range []int{3, 5, 1} {
		days, _ = demand.Record(days, cal, first.Add(time.Duration(i)*time.Hour), make([]time.Time, n))
	}
	if diff := cmp.Diff([]string{"2026-11-01 01:30=5/0 02:30=1/0, 2 watched, not [0 18 19 30]"}, sketch(days)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRecordDescribes(t *testing.T) {
	cal := office(t, "Asia/Tokyo", "08:30-12:00 12:03-17:17", japan, election)
	for date, want := range map[string]*v1.DayHistory{
		"2026-11-24": {Open: []uint32{102, 208}, AfterClosed: true}, // a Tuesday after a holiday
		"2026-11-25": {Open: []uint32{102, 208}},
		"2026-11-28": {}, // Saturday
		"2026-11-29": {Open: []uint32{84, 240}, Special: true, AfterClosed: true},
	} {
		got := watching(t, cal, date, "12:01 0")[0]
		if diff := cmp.Diff(want, &v1.DayHistory{Open: got.Open, Special: got.Special, AfterClosed: got.AfterClosed}, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", date, diff)
		}
	}
	days, changed := demand.Record(nil, nil, at(t, "2026-11-24T23:58:00Z"), nil)
	if !changed || len(days) != 1 || days[0].Open[1] != 288 || len(days[0].Claimed) != 288 {
		t.Errorf("without a calendar: %v", days)
	}
}

// Whatever clocks do: days stay sorted, few and within their bounds, what is given is not changed, and to look twice is to look once.
func TestRecordProperty(t *testing.T) {
	tokyo, york := office(t, "Asia/Tokyo", "08:30-17:15", japan), office(t, "America/New_York", "01:00-02:30")
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2027, 3, 12, 0, 0, 0, 0, time.UTC)
		var days []*v1.DayHistory
		for range rapid.IntRange(1, 60).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.OneOf(rapid.IntRange(1, 30), rapid.IntRange(-120, 120), rapid.IntRange(-3000, 6000)).Draw(t, "minutes")) * time.Minute)
			cal := rapid.SampledFrom([]*calendar.Resolved{tokyo, york}).Draw(t, "calendar")
			began := make([]time.Time, rapid.IntRange(0, 5).Draw(t, "claims"))
			for i := range began {
				began[i] = now.Add(-time.Duration(rapid.IntRange(0, 500).Draw(t, "ago")) * time.Minute)
			}
			before := &v1.History{Days: days}
			copied := proto.CloneOf(before)
			after, changed := demand.Record(days, cal, now, began)
			if !proto.Equal(before, copied) {
				t.Fatal("it changed what it was given")
			}
			if changed == proto.Equal(before, &v1.History{Days: after}) {
				t.Fatalf("changed: %v, before %v, after %v", changed, before, after)
			}
			if again, twice := demand.Record(after, cal, now, began); twice {
				t.Fatalf("a second look changed it to %v", again)
			}
			days = after
			checkDays(t, days)
		}
	})
}

func checkDays(t *rapid.T, days []*v1.DayHistory) {
	if len(days) > 70 {
		t.Fatalf("%d days", len(days))
	}
	for i, d := range days {
		if i > 0 && days[i-1].Date >= d.Date {
			t.Fatalf("%s follows %s", d.Date, days[i-1].Date)
		}
		gaps := 0
		for j := 0; j < len(d.Unwatched); j += 2 {
			gaps += int(d.Unwatched[j+1] - d.Unwatched[j])
		}
		if len(d.Claimed) > 288 || len(d.Claimed) != len(d.Arrivals) || int(d.Watched)+gaps != len(d.Claimed) {
			t.Fatalf("%s: %d bins, %d watched, %v not", d.Date, len(d.Claimed), d.Watched, d.Unwatched)
		}
	}
}

// Seventy days stay; what a wrong clock left goes first.
func TestRecordKeeps(t *testing.T) {
	cal := office(t, "Asia/Tokyo", "08:30-17:15")
	first := at(t, "2026-09-01T12:00:00+09:00")
	days, _ := demand.Record(nil, cal, first.AddDate(20, 0, 0), nil)
	for i := range 80 {
		days, _ = demand.Record(days, cal, first.AddDate(0, 0, i), nil)
	}
	if len(days) != 70 || days[0].Date != "2026-09-11" || days[69].Date != "2026-11-19" {
		t.Errorf("%d days from %s to %s", len(days), days[0].Date, days[len(days)-1].Date)
	}
}
