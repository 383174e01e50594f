package demand_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

// office resolves a calendar that is open on working days at some hours: "08:30-12:00 13:00-17:15".
func office(t testing.TB, zone, hours string, more ...func(*v1.CalendarSpec)) *calendar.Resolved {
	t.Helper()
	spec := &v1.CalendarSpec{TimeZone: zone}
	for _, each := range strings.Fields(hours) {
		open, end, _ := strings.Cut(each, "-")
		spec.Hours = append(spec.Hours, &v1.OfficeHours{Days: []v1.Weekday{1, 2, 3, 4, 5}, Open: open, Close: end})
	}
	for _, change := range more {
		change(spec)
	}
	r, err := calendar.Resolve(&v1.Calendar{Meta: &v1.Meta{Name: "it"}, Spec: spec}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func everyDay(spec *v1.CalendarSpec) {
	for _, h := range spec.Hours {
		h.Days = []v1.Weekday{1, 2, 3, 4, 5, 6, 7}
	}
}

func japan(spec *v1.CalendarSpec) { spec.HolidaySets = []string{"jp"} }

func election(spec *v1.CalendarSpec) {
	spec.Openings = append(spec.Openings, &v1.CalendarOpening{Date: "2026-11-29", Open: "07:00", Close: "20:00", Name: "the election"})
}

// spans reads "08:00-09:00 75%, 12:00-13:00 5".
func spans(text string) (list []*v1.TargetSpan) {
	for each := range strings.SplitSeq(text, ", ") {
		hours, target, _ := strings.Cut(each, " ")
		from, to, _ := strings.Cut(hours, "-")
		list = append(list, &v1.TargetSpan{From: from, To: to, Target: target})
	}
	return list
}

func on(day v1.Weekday, list []*v1.TargetSpan) []*v1.TargetSpan {
	for _, s := range list {
		s.Days = []v1.Weekday{day}
	}
	return list
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	when, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return when
}

// show is a curve in lines: "2026-11-24T08:30 20+2 opening hours, 100%".
func show(curve []demand.Step, zone *time.Location) (lines []string) {
	for _, s := range curve {
		lines = append(lines, fmt.Sprintf("%s %d+%d %s", s.From.In(zone).Format("2006-01-02T15:04Z07"), s.Target, s.Buffer, s.Reason))
	}
	return lines
}

func TestCurve(t *testing.T) {
	extra := func(from, until string, target uint32, note string) *v1.ExtraTarget {
		return &v1.ExtraTarget{From: timestamppb.New(at(t, from)), Until: timestamppb.New(at(t, until)), Target: target, Note: note}
	}
	for _, row := range []struct {
		name     string
		spec     *v1.PoolSpec
		calendar *calendar.Resolved
		from, to string
		want     []string
	}{
		{"no schedule", &v1.PoolSpec{Desktops: 7, MinReady: 2}, nil, "2026-11-24T00:00:00+09:00", "2026-11-25T00:00:00+09:00",
			[]string{"2026-11-24T00:00+09 7+2 no schedule: all desktops, always"}},
		{"a calendar that cannot be read", &v1.PoolSpec{Desktops: 7, Schedule: &v1.Schedule{}}, nil, "2026-11-24T00:00:00+09:00", "2026-11-25T00:00:00+09:00",
			[]string{"2026-11-24T00:00+09 7+0 all desktops, since the calendar that the schedule follows cannot be read"}},
		{"defaults", &v1.PoolSpec{Desktops: 20, MinReady: 1, Schedule: &v1.Schedule{SpareBuffer: "2"}}, office(t, "Asia/Tokyo", "08:30-17:15", japan),
			"2026-11-22T12:00:00+09:00", "2026-11-24T23:00:00+09:00", []string{
				"2026-11-22T12:00+09 1+1 closed, 0, but minReady is 1",
				"2026-11-23T00:00+09 1+1 closed for Labor Thanksgiving Day, 0, but minReady is 1",
				"2026-11-24T00:00+09 1+1 closed, 0, but minReady is 1",
				"2026-11-24T08:30+09 20+2 opening hours, 100%",
				"2026-11-24T17:15+09 1+1 closed, 0, but minReady is 1"}},
		{"from within a step", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{SpareBuffer: "0"}}, office(t, "Asia/Tokyo", "08:30-17:15"),
			"2026-11-24T12:00:00+09:00", "2026-11-24T17:15:00+09:00", []string{"2026-11-24T12:00+09 20+0 opening hours, 100%"}},
		{"shares of the seats are whole desktops", &v1.PoolSpec{Desktops: 7, Schedule: &v1.Schedule{Open: "50%", Closed: "1%", SpareBuffer: "15%"}},
			office(t, "Asia/Tokyo", "08:30-17:15"), "2026-11-24T08:00:00+09:00", "2026-11-24T12:00:00+09:00", []string{
				"2026-11-24T08:00+09 1+0 closed, 1%",
				"2026-11-24T08:30+09 4+2 opening hours, 50%"}},
		{"spans", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{Open: "50%", Closed: "2", SpareBuffer: "0", Spans: spans("08:00-09:30 16, 16:00-24:00 25%")}},
			office(t, "Asia/Tokyo", "08:30-17:15", japan), "2026-11-23T00:00:00+09:00", "2026-11-25T01:00:00+09:00", []string{
				"2026-11-23T00:00+09 2+0 closed for Labor Thanksgiving Day, 2",
				"2026-11-24T00:00+09 2+0 closed, 2",
				"2026-11-24T08:00+09 16+0 08:00 to 09:30, 16",
				"2026-11-24T09:30+09 10+0 opening hours, 50%",
				"2026-11-24T16:00+09 5+0 16:00 to 24:00, 25%",
				"2026-11-25T00:00+09 2+0 closed, 2"}},
		{"spans of weekdays", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{SpareBuffer: "0", Spans: on(v1.Weekday_WEEKDAY_SUNDAY, spans("06:00-07:00 5"))}},
			office(t, "Asia/Tokyo", "08:30-17:15", election), "2026-11-27T17:15:00+09:00", "2026-11-30T08:30:00+09:00", []string{
				"2026-11-27T17:15+09 0+0 closed, 0",
				"2026-11-29T06:00+09 5+0 06:00 to 07:00, 5",
				"2026-11-29T07:00+09 20+0 open for the election, 100%",
				"2026-11-29T20:00+09 0+0 closed, 0"}},
		{"more than the seats", &v1.PoolSpec{Desktops: 3, MinReady: 2, Schedule: &v1.Schedule{Open: "8", SpareBuffer: "9"}}, office(t, "Asia/Tokyo", "08:30-17:15"),
			"2026-11-24T09:00:00+09:00", "2026-11-24T10:00:00+09:00", []string{"2026-11-24T09:00+09 3+3 opening hours, 8, but there are 3 seats"}},
		{"extra", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{Open: "5", SpareBuffer: "0", Extra: []*v1.ExtraTarget{
			extra("2026-11-24T16:00:00+09:00", "2026-11-24T21:00:00+09:00", 8, "the council"), extra("2026-11-24T18:00:00+09:00", "2026-11-24T19:00:00+09:00", 12, ""),
			extra("2026-11-24T09:00:00+09:00", "2026-11-24T10:00:00+09:00", 4, "less")}}},
			office(t, "Asia/Tokyo", "08:30-17:15"), "2026-11-24T08:30:00+09:00", "2026-11-25T00:00:00+09:00", []string{
				"2026-11-24T08:30+09 5+0 opening hours, 5",
				"2026-11-24T16:00+09 8+0 8 until 2026-11-24 21:00 JST for the council",
				"2026-11-24T18:00+09 12+0 12 until 2026-11-24 19:00 JST",
				"2026-11-24T19:00+09 8+0 8 until 2026-11-24 21:00 JST for the council",
				"2026-11-24T21:00+09 0+0 closed, 0"}},
		{"clocks set forward: a span in the gap, one around it", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{Open: "9", SpareBuffer: "0", Spans: spans("00:30-01:30 1, 02:15-02:45 2, 04:00-05:00 4")}},
			office(t, "America/New_York", "01:00-06:00", everyDay), "2027-03-14T00:00:00-05:00", "2027-03-14T06:00:00-04:00", []string{
				"2027-03-14T00:00-05 0+0 closed, 0",
				"2027-03-14T00:30-05 1+0 00:30 to 01:30, 1",
				"2027-03-14T01:30-05 9+0 opening hours, 9",
				"2027-03-14T03:00-04 2+0 02:15 to 02:45, 2",
				"2027-03-14T03:30-04 9+0 opening hours, 9",
				"2027-03-14T04:00-04 4+0 04:00 to 05:00, 4",
				"2027-03-14T05:00-04 9+0 opening hours, 9"}},
		{"clocks set forward: the gap's end is another span's beginning", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{SpareBuffer: "0", Spans: spans("02:15-02:45 2, 03:00-04:00 4")}},
			office(t, "America/New_York", "08:30-17:15", everyDay), "2027-03-14T01:00:00-05:00", "2027-03-14T06:00:00-04:00", []string{
				"2027-03-14T01:00-05 0+0 closed, 0",
				"2027-03-14T03:00-04 4+0 03:00 to 04:00, 4",
				"2027-03-14T04:00-04 0+0 closed, 0"}},
		{"clocks set back: touching spans go on touching, and come once", &v1.PoolSpec{Desktops: 20, Schedule: &v1.Schedule{SpareBuffer: "0", Spans: spans("00:30-01:30 1, 01:30-03:00 2")}},
			office(t, "America/New_York", "08:30-17:15", everyDay), "2026-11-01T00:00:00-04:00", "2026-11-01T06:00:00-05:00", []string{
				"2026-11-01T00:00-04 0+0 closed, 0",
				"2026-11-01T00:30-04 1+0 00:30 to 01:30, 1",
				"2026-11-01T01:30-04 2+0 01:30 to 03:00, 2",
				"2026-11-01T03:00-05 0+0 closed, 0"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			from, to := at(t, row.from), at(t, row.to)
			zone := from.Location()
			if row.calendar != nil {
				zone = row.calendar.Zone()
			}
			curve := demand.Curve(demand.Pool{Spec: row.spec, Calendar: row.calendar}, from, to)
			if diff := cmp.Diff(row.want, show(curve, zone)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAt(t *testing.T) {
	when := at(t, "2026-11-24T08:00:00+09:00")
	curve := []demand.Step{{From: when, Target: 1}, {From: when.Add(time.Hour), Target: 5, Buffer: 2}, {From: when.Add(2 * time.Hour), Target: 3}}
	for after, want := range map[time.Duration]int{-time.Hour: 1, 0: 1, time.Hour - 1: 1, time.Hour: 5, 90 * time.Minute: 5, 2 * time.Hour: 3, 9 * time.Hour: 3} {
		if got := demand.At(curve, when.Add(after)).Target; got != want {
			t.Errorf("after %v: %d, want %d", after, got, want)
		}
	}
	if got := demand.At(nil, when); got != (demand.Step{}) {
		t.Errorf("of no curve: %v", got)
	}
	for _, row := range []struct {
		from, to time.Duration
		want     int
	}{{0, time.Hour, 1}, {0, time.Hour + 1, 5}, {90 * time.Minute, 3 * time.Hour, 5}, {2 * time.Hour, 3 * time.Hour, 3}} {
		if got := demand.Peak(curve, when.Add(row.from), when.Add(row.to)).Target; got != row.want {
			t.Errorf("peak from %v to %v: %d, want %d", row.from, row.to, got, row.want)
		}
	}
	for held, want := range map[int]int{0: 5, 3: 5, 4: 6, 8: 8} {
		if got := curve[1].Wanted(held, 8); got != want {
			t.Errorf("wanted with %d held: %d, want %d", held, got, want)
		}
	}
}
