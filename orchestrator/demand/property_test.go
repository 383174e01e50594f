package demand_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

func clock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

// clocks draws sorted spans of a day that do not overlap, often in the small hours, when clocks are set.
func clocks(t *rapid.T, label string) (pairs [][2]int) {
	marks := rapid.SliceOfNDistinct(rapid.OneOf(rapid.IntRange(0, 24*60), rapid.IntRange(0, 4*60)), 0, 6, rapid.ID[int]).Draw(t, label)
	slices.Sort(marks)
	for i := 0; i+1 < len(marks); i += 2 {
		pairs = append(pairs, [2]int{marks[i], marks[i+1]})
	}
	return pairs
}

func target(t *rapid.T, label string) string {
	return rapid.SampledFrom([]string{"", "0", "3", "12", "0%", "1%", "50%", "100%", "learned"}).Draw(t, label)
}

// anyPool draws a pool near something that clocks do, with a calendar and perhaps a history.
func anyPool(t *rapid.T) (demand.Pool, time.Time) {
	at := rapid.SampledFrom([]struct {
		zone string
		near calendar.Date
	}{
		{"America/New_York", calendar.Date{Year: 2027, Month: 3, Day: 14}}, {"America/New_York", calendar.Date{Year: 2026, Month: 11, Day: 1}},
		{"America/Santiago", calendar.Date{Year: 2026, Month: 9, Day: 6}}, {"America/Santiago", calendar.Date{Year: 2027, Month: 4, Day: 3}},
		{"Australia/Lord_Howe", calendar.Date{Year: 2026, Month: 10, Day: 4}}, {"Asia/Tokyo", calendar.Date{Year: 2026, Month: 11, Day: 23}},
		{"Europe/Berlin", calendar.Date{Year: 2026, Month: 12, Day: 31}},
	}).Draw(t, "zone")
	c := &v1.CalendarSpec{TimeZone: at.zone, HolidaySets: []string{"jp"}}
	for _, s := range clocks(t, "hours") {
		c.Hours = append(c.Hours, &v1.OfficeHours{Days: []v1.Weekday{1, 2, 3, 4, 5, 6, 7}, Open: clock(s[0]), Close: clock(s[1])})
	}
	if rapid.Bool().Draw(t, "one-off") {
		c.Openings = []*v1.CalendarOpening{{Date: at.near.String(), Open: "01:00", Close: "05:00"}}
	}
	cal, err := calendar.Resolve(&v1.Calendar{Meta: &v1.Meta{Name: "it"}, Spec: c}, nil)
	if err != nil {
		t.Fatal(err)
	}
	start := at.near.Add(-1).At(0, cal.Zone())
	s := &v1.Schedule{Open: target(t, "open"), Closed: target(t, "closed"), SpareBuffer: target(t, "buffer"),
		WaitCost: rapid.SampledFrom([]float64{0, 1, 1e6}).Draw(t, "wait"), IdleCost: rapid.SampledFrom([]float64{0, 1e6}).Draw(t, "idle")}
	for _, span := range clocks(t, "spans") {
		each := &v1.TargetSpan{From: clock(span[0]), To: clock(span[1]), Target: target(t, "target")}
		if each.Target == "" {
			each.Target = "7"
		}
		if rapid.Bool().Draw(t, "only that day") {
			each.Days = []v1.Weekday{v1.Weekday((int(at.near.Weekday())+6)%7 + 1)}
		}
		s.Spans = append(s.Spans, each)
	}
	if rapid.Bool().Draw(t, "extra") {
		from := start.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "after")) * time.Minute)
		s.Extra = []*v1.ExtraTarget{{From: timestamppb.New(from), Until: timestamppb.New(from.Add(100 * time.Minute)), Target: 9, Note: "a meeting"}}
	}
	p := demand.Pool{Spec: &v1.PoolSpec{Desktops: rapid.Uint32Range(0, 20).Draw(t, "seats"), Schedule: s}, Calendar: cal, TimeToReady: time.Duration(rapid.IntRange(0, 40).Draw(t, "ready")) * time.Minute}
	p.Spec.MinReady = rapid.Uint32Range(0, p.Spec.Desktops).Draw(t, "min_ready")
	if rapid.Bool().Draw(t, "has history") {
		p.History = anyHistory(t, cal, at.near)
	}
	return p, start
}

// anyHistory draws days as a recorder, or anybody, may have left them.
func anyHistory(t *rapid.T, cal *calendar.Resolved, near calendar.Date) *v1.History {
	h := &v1.History{}
	for day := range cal.Days(near.Add(-rapid.IntRange(1, 40).Draw(t, "days")), near.Add(1)) {
		n := rapid.IntRange(0, 288).Draw(t, "bins")
		d := &v1.DayHistory{Date: day.Date.String(), Watched: uint32(n), Special: day.Special, AfterClosed: rapid.Bool().Draw(t, "after closed")}
		d.Claimed = slices.Repeat([]uint32{rapid.Uint32Range(0, 30).Draw(t, "claimed")}, n)
		d.Arrivals = slices.Repeat([]uint32{rapid.Uint32Range(0, 3).Draw(t, "arrivals")}, n)
		d.Open = rapid.SampledFrom([][]uint32{nil, {0, 288}, {10, 60}, {3}}).Draw(t, "open")
		d.Unwatched = rapid.SampledFrom([][]uint32{nil, {0, 20}, {5, 3}, {7}}).Draw(t, "unwatched")
		h.Days = append(h.Days, d)
	}
	return h
}

// A curve begins where it was asked to, its steps are in order and each unlike the one before, never above the seats, never below
// min_ready, and what it says of a time does not depend on where it was begun.
func TestCurveProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, start := anyPool(t)
		to := start.Add(72 * time.Hour)
		curve := demand.Curve(p, start, to)
		if len(curve) == 0 || !curve[0].From.Equal(start) {
			t.Fatalf("it does not begin at %v: %v", start, curve)
		}
		for i, s := range curve {
			if s.Target < int(p.Spec.MinReady) || s.Target > int(p.Spec.Desktops) || s.Buffer < int(p.Spec.MinReady) || s.Buffer > int(p.Spec.Desktops) {
				t.Fatalf("%+v with min_ready %d of %d", s, p.Spec.MinReady, p.Spec.Desktops)
			}
			if i > 0 && (!s.From.After(curve[i-1].From) || !s.From.Before(to)) {
				t.Fatalf("%v follows %v", s, curve[i-1])
			}
			if i > 0 && s.Target == curve[i-1].Target && s.Buffer == curve[i-1].Buffer && s.Reason == curve[i-1].Reason {
				t.Fatalf("%v is no step", s)
			}
			if s.Reason == "" || s.BufferReason == "" || len([]rune(s.Reason)) > 256 || len([]rune(s.BufferReason)) > 256 {
				t.Fatalf("reasons of %+v", s)
			}
		}
		later := start.Add(time.Duration(rapid.IntRange(0, 70*60).Draw(t, "later")) * time.Minute)
		got, want := demand.Curve(p, later, later.Add(time.Hour))[0], demand.At(curve, later)
		if got.Target != want.Target || got.Buffer != want.Buffer || got.Reason != want.Reason {
			t.Fatalf("from %v on: %+v\nfrom %v on: %+v", start, want, later, got)
		}
	})
}

// Each span begins once on each date on which it holds, whatever clocks do: it is the wall that says when.
func TestSpansProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, start := anyPool(t)
		p.Spec.Desktops, p.Spec.MinReady, p.History = 5000, 0, nil
		p.Spec.Schedule = &v1.Schedule{Open: "1", Closed: "2", SpareBuffer: "0"}
		from := rapid.IntRange(0, 1439).Draw(t, "from")
		to := rapid.IntRange(from+1, 1440).Draw(t, "to")
		p.Spec.Schedule.Spans = []*v1.TargetSpan{{From: clock(from), To: clock(to), Target: "3000"}}
		zone := p.Calendar.Zone()
		first := calendar.DateOf(start)
		begins := map[calendar.Date]int{}
		curve := demand.Curve(p, start.Add(-24*time.Hour), start.Add(96*time.Hour))
		for i, s := range curve {
			if s.Target == 3000 && (i == 0 || curve[i-1].Target != 3000) {
				begins[calendar.DateOf(s.From.In(zone))]++
			}
		}
		for day := range p.Calendar.Days(first, first.Add(2)) {
			want := 0
			if len(day.Openings) > 0 && day.Date.At(from, zone).Before(day.Date.Add(1).At(0, zone)) {
				want = 1
			}
			// A midnight that clocks skip makes more of them touch than from 00:00 to 24:00.
			touching := day.Date.At(from, zone).Equal(day.Date.Add(-1).At(to, zone))
			if begins[day.Date] != want && !touching {
				t.Fatalf("%v: %s to %s begins %d times, want %d\n%v", day.Date, clock(from), clock(to), begins[day.Date], want, show(curve, zone))
			}
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add("75%", "08:00", "24:00", "learned", uint32(20))
	f.Add("100%", "24:00", "24:00", "-1", uint32(0))
	f.Add("99999999999999999999", "8:00", "٠٨:٠٠", "+5", uint32(5000))
	cal := office(f, "America/New_York", "08:30-17:15", everyDay)
	when := at(f, "2027-03-14T00:00:00-05:00")
	f.Fuzz(func(t *testing.T, open, from, to, word string, seats uint32) {
		spec := &v1.PoolSpec{Desktops: seats % 5001, Schedule: &v1.Schedule{Open: open, Closed: word, SpareBuffer: word,
			Spans: []*v1.TargetSpan{{From: from, To: to, Target: word}}}}
		mistakes := demand.Check(spec, nil, when)
		for _, m := range mistakes {
			if m.Field == "" || m.Reason == "" {
				t.Errorf("%+v", m)
			}
		}
		for _, s := range demand.Curve(demand.Pool{Spec: spec, Calendar: cal}, when, when.Add(24*time.Hour)) {
			if s.Target < 0 || s.Target > int(spec.Desktops) || s.Buffer < 0 || s.Buffer > int(spec.Desktops) {
				t.Errorf("%+v of %d", s, spec.Desktops)
			}
		}
	})
}
