package calendar_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

func window(t testing.TB, from, to, zone string) *calendar.Window {
	t.Helper()
	w, err := calendar.NewWindow(&v1.Window{From: from, To: to, TimeZone: zone}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestWindowIncludes(t *testing.T) {
	spec := everyDay("Asia/Tokyo", "08:30-17:15")
	spec.Blackouts = []*v1.CalendarDay{{Date: "2026-11-24"}, {Date: "2026-11-27"}}
	office, err := calendar.NewWindow(&v1.Window{From: "22:00", To: "05:00"}, resolve(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	noon := window(t, "12:00", "13:00", "Asia/Tokyo")
	berlin := window(t, "01:30", "02:30", "Europe/Berlin")
	gap := window(t, "02:15", "02:45", "Europe/Berlin")
	for _, test := range []struct {
		name   string
		w      *calendar.Window
		at     string
		inside bool
		until  string
	}{
		{"before it", noon, "2026-11-22T11:59:59+09:00", false, "2026-11-22T12:00:00+09:00"},
		{"its first second", noon, "2026-11-22T12:00:00+09:00", true, "2026-11-22T13:00:00+09:00"},
		{"its last second", noon, "2026-11-22T12:59:59+09:00", true, "2026-11-22T13:00:00+09:00"},
		{"after it", noon, "2026-11-22T13:00:00+09:00", false, "2026-11-23T12:00:00+09:00"},
		{"over midnight", office, "2026-11-22T22:30:00+09:00", true, "2026-11-23T05:00:00+09:00"},
		{"after midnight", office, "2026-11-23T04:30:00+09:00", true, "2026-11-23T05:00:00+09:00"},
		{"into a blackout day", office, "2026-11-23T23:30:00+09:00", true, "2026-11-24T00:00:00+09:00"},
		{"on a blackout day, from the day before", office, "2026-11-24T03:00:00+09:00", false, "2026-11-25T22:00:00+09:00"},
		{"on a blackout day", office, "2026-11-24T23:00:00+09:00", false, "2026-11-25T22:00:00+09:00"},
		{"the morning after a blackout day", office, "2026-11-25T03:00:00+09:00", false, "2026-11-25T22:00:00+09:00"},
		{"cut short by the second blackout day", office, "2026-11-26T23:00:00+09:00", true, "2026-11-27T00:00:00+09:00"},
		{"ends in a gap", berlin, "2026-03-29T01:45:00+01:00", true, "2026-03-29T03:00:00+02:00"},
		{"lies in a gap", gap, "2026-03-29T01:45:00+01:00", false, "2026-03-30T02:15:00+02:00"},
		{"happens once where clocks are set back", gap, "2026-10-25T02:30:00+02:00", true, "2026-10-25T02:45:00+02:00"},
		{"and not the second time", gap, "2026-10-25T02:30:00+01:00", false, "2026-10-26T02:15:00+01:00"},
	} {
		at, err := time.Parse(time.RFC3339, test.at)
		if err != nil {
			t.Fatal(err)
		}
		inside, until := test.w.Includes(at.UTC())
		if want, _ := time.Parse(time.RFC3339, test.until); inside != test.inside || !until.Equal(want) {
			t.Errorf("%s: %v until %v, want %v until %v", test.name, inside, until, test.inside, want)
		}
	}
}

func TestWindowRefuses(t *testing.T) {
	for _, spec := range []*v1.Window{
		{From: "22:00", To: "05:00"}, {From: "22:00", To: "05:00", TimeZone: "Local"}, {From: "22:00", To: "05:00", TimeZone: "Asia/Edo"},
		{From: "22:00", To: "22:00", TimeZone: "UTC"}, {From: "late", To: "early", TimeZone: "UTC"},
	} {
		if w, err := calendar.NewWindow(spec, nil); err == nil {
			t.Errorf("%v: %v", spec, w)
		}
	}
}

// A calendar whose days are all blackouts has no window.
func TestWindowNever(t *testing.T) {
	spec := everyDay("Asia/Tokyo", "08:30-17:15")
	for day := (calendar.Date{Year: 2026, Month: 11, Day: 1}); day.Year < 2029; day = day.Add(1) {
		spec.Blackouts = append(spec.Blackouts, &v1.CalendarDay{Date: day.String()})
	}
	w, err := calendar.NewWindow(&v1.Window{From: "22:00", To: "05:00"}, resolve(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	if inside, until := w.Includes(at); inside || !until.IsZero() {
		t.Errorf("%v until %v", inside, until)
	}
	if end, ok := w.After(at, time.Minute); ok {
		t.Errorf("a minute of it ends at %v", end)
	}
}

// However clocks are set, windows do not overlap, who is in one is told its end, and time in windows adds up.
func TestWindowProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clock := func(label string) string {
			return fmt.Sprintf("%02d:%02d", rapid.IntRange(0, 23).Draw(t, label), rapid.SampledFrom([]int{0, 15, 30, 59}).Draw(t, label))
		}
		spec := &v1.Window{From: clock("from"), To: clock("to"),
			TimeZone: rapid.SampledFrom([]string{"Asia/Tokyo", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Africa/Cairo"}).Draw(t, "zone")}
		if spec.GetFrom() == spec.GetTo() {
			return
		}
		w, err := calendar.NewWindow(spec, nil)
		if err != nil {
			t.Fatal(err)
		}
		at := time.Date(2026, time.Month(rapid.IntRange(1, 12).Draw(t, "month")), rapid.IntRange(1, 31).Draw(t, "day"),
			rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute"), 0, 0, time.UTC)
		// A window may be a minute long, and what does not fit into Horizon of them is out of sight.
		length := time.Duration(rapid.IntRange(0, min(3000, calendar.Horizon/2*spanOf(spec))).Draw(t, "length")) * time.Minute
		end, ok := w.After(at, length)
		if !ok {
			t.Fatalf("%v of it from %v on: never", length, at)
		}
		var sum time.Duration
		for step := at; step.Before(end); {
			inside, until := w.Includes(step)
			if !until.After(step) {
				t.Fatalf("at %v: until %v", step, until)
			}
			if later, _ := w.Includes(until.Add(-1)); later != inside {
				t.Fatalf("at %v inside is %v, and not so just before %v", step, inside, until)
			}
			if until.After(end) {
				until = end
			}
			if inside {
				sum += until.Sub(step)
			}
			step = until
		}
		if sum != length {
			t.Fatalf("from %v to %v there are %v in it, want %v", at, end, sum, length)
		}
	})
}

// spanOf is how many minutes a window has by the clock.
func spanOf(spec *v1.Window) int {
	var from, fromMinute, to, toMinute int
	fmt.Sscanf(spec.GetFrom(), "%d:%d", &from, &fromMinute)
	fmt.Sscanf(spec.GetTo(), "%d:%d", &to, &toMinute)
	return (to*60 + toMinute - from*60 - fromMinute + 24*60) % (24 * 60)
}
