package api

import (
	"math"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A schedule that is not right is refused with the field and the reason, and nothing is stored.
func TestScheduleRefused(t *testing.T) {
	r := newRig(t)
	r.ground()
	r.put(store.WriterAPI, &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo"}})
	pool := func(s *v1.Schedule) *v1.Pool {
		p := newPool("counter")
		p.Spec.Desktops, p.Spec.Calendar, p.Spec.Schedule = 20, "office", s
		return p
	}
	span := func(from, to, target string) *v1.TargetSpan {
		return &v1.TargetSpan{From: from, To: to, Target: target}
	}
	extra := func(from, until time.Time) *v1.Schedule {
		return &v1.Schedule{Extra: []*v1.ExtraTarget{{From: timestamppb.New(from), Until: timestamppb.New(until), Target: 5}}}
	}
	now := time.Now()
	noCalendar := pool(&v1.Schedule{})
	noCalendar.Spec.Calendar = ""
	for _, row := range []struct {
		name  string
		pool  *v1.Pool
		words []string
	}{
		{"no calendar", noCalendar, []string{"spec.calendar: a schedule follows a calendar; name one"}},
		{"overlap", pool(&v1.Schedule{Spans: []*v1.TargetSpan{span("08:00", "10:00", "5"), span("09:00", "11:00", "6")}}),
			[]string{"spec.schedule.spans[1]: 09:00 to 11:00 overlaps spans[0], 08:00 to 10:00, on Monday"}},
		{"backwards", pool(&v1.Schedule{Spans: []*v1.TargetSpan{span("10:00", "08:00", "5")}}), []string{`spec.schedule.spans[0].to: "08:00" is not after from, 10:00`}},
		{"no such time", pool(&v1.Schedule{Spans: []*v1.TargetSpan{span("25:00", "26:00", "5")}}), []string{"spec.schedule.spans[0].from"}},
		{"above the seats", pool(&v1.Schedule{Open: "21"}), []string{"spec.schedule.open: 21 is more than spec.desktops, 20"}},
		{"no target", pool(&v1.Schedule{Open: "lots"}), []string{"spec.schedule.open"}},
		{"a share above all", pool(&v1.Schedule{SpareBuffer: "110%"}), []string{"spec.schedule.spareBuffer"}},
		{"costs without learning", pool(&v1.Schedule{SpareBuffer: "1", WaitCost: 5}), []string{"spec.schedule.waitCost: has no effect"}},
		{"costs that are no number", pool(&v1.Schedule{WaitCost: math.NaN()}), []string{"spec.schedule.waitCost"}},
		{"infinite costs", pool(&v1.Schedule{IdleCost: math.Inf(1)}), []string{"spec.schedule.idleCost"}},
		{"in the past", pool(extra(now.Add(-2*time.Hour), now.Add(-time.Hour))), []string{"spec.schedule.extra[0].until", "is in the past"}},
		{"until before from", pool(extra(now.Add(2*time.Hour), now.Add(time.Hour))), []string{"spec.schedule.extra[0].until", "is not after from"}},
		{"min_ready above", func() *v1.Pool { p := pool(&v1.Schedule{}); p.Spec.MinReady = 20; return p }(), []string{"spec.minReady", "not less than"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := r.everything()
			_, err := r.apply(row.pool)
			wantCode(t, err, codes.InvalidArgument, row.words...)
			wantSame(t, r.everything(), before)
		})
	}
	good := pool(extra(now.Add(time.Hour), now.Add(2*time.Hour)))
	if _, err := r.apply(good); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
