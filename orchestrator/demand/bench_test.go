package demand_test

import (
	"testing"
	"time"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

func BenchmarkRecord(b *testing.B) {
	cal := office(b, "Asia/Tokyo", "08:30-17:15", japan)
	var days []*v1.DayHistory
	now := at(b, "2026-09-01T00:00:30+09:00")
	began := make([]time.Time, 40)
	for b.Loop() {
		now = now.Add(time.Minute)
		days, _ = demand.Record(days, cal, now, began)
	}
}

func BenchmarkCurve(b *testing.B) {
	cal := office(b, "Asia/Tokyo", "08:30-17:15", japan)
	h := past(cal, calendar.Date{Year: 2026, Month: 11, Day: 22}, 70, func(day calendar.Day, bin int) int { return noon(day, bin, 30) })
	p := demand.Pool{Spec: &v1.PoolSpec{Desktops: 40, Schedule: &v1.Schedule{Open: "learned"}}, Calendar: cal, History: h, TimeToReady: 2 * time.Minute}
	from := at(b, "2026-11-24T00:00:00+09:00")
	for b.Loop() {
		demand.Curve(p, from, from.Add(36*time.Hour))
	}
}
