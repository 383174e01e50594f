package warmup_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// dayPlan is the plan of a day: 2 always, 20 from 08:30 on, 2 from 17:15 on.
func dayPlan() *v1.Plan {
	in := site(2, 4, 10, 20)
	in.Pools[0].Seats[0].Phase, in.Pools[0].Seats[1].Phase = warmup.Ready, warmup.Ready
	in.Pools[0].Targets[0].Running = 2
	in.Pools[0].Targets = append(in.Pools[0].Targets, warmup.Target{From: at("17:15:00"), Running: 2})
	return warmup.Plan(at("06:00:00"), in).Pools[0].OnDate("2026-11-24", open.Location(), at("06:00:00"))
}

func TestPoints(t *testing.T) {
	plan := dayPlan()
	for _, s := range plan.GetStarts()[:5] { // so many were ready by 08:32, 10 s late each
		s.Ready = timestamppb.New(s.GetStartAt().AsTime().Add(30 * time.Second))
	}
	points := warmup.Points(plan, at("08:32:00"))
	want := map[string][3]uint32{ // wanted, planned, ready
		"08:00:00": {2, 2, 2}, "08:29:20": {2, 4, 2}, "08:30:00": {20, 20, 7}, "08:32:00": {20, 20, 7}, "17:15:00": {2, 2, 0},
	}
	for clock, counts := range want {
		var p *v1.PlanPoint
		for _, each := range points {
			if !each.GetAt().AsTime().After(at(clock)) {
				p = each
			}
		}
		if p == nil {
			p = points[0]
		}
		if got := [3]uint32{p.GetWanted(), p.GetPlanned(), p.GetReady()}; got != counts {
			t.Errorf("%s: got %v, want %v", clock, got, counts)
		}
	}
}

// A seat that starts again on a day is counted once, also when it stood as the day began.
func TestPointsCountASeatOnce(t *testing.T) {
	plan := &v1.Plan{Pool: "counter", Date: "2026-11-24", TimeZone: "Asia/Tokyo", Standing: proto.Uint32(1), Hosts: []*v1.PlanHost{{Name: "h1"}},
		Targets: []*v1.PlanTarget{{From: timestamppb.New(at("00:00:00")), Running: 1}, {From: timestamppb.New(open), Running: 3}}}
	start := func(seat uint32, clock string) {
		plan.Starts = append(plan.Starts, &v1.PlannedStart{Seat: seat, StartAt: timestamppb.New(at(clock)), Deadline: timestamppb.New(at(clock)), Ready: timestamppb.New(at(clock))})
	}
	start(7, "03:00:00") // the one that stood was made anew
	for _, clock := range []string{"08:29:00", "09:00:00", "10:00:00"} {
		start(1, clock)
		start(2, clock)
	}
	for _, p := range warmup.Points(plan, at("12:00:00")) {
		want := uint32(1)
		if !p.GetAt().AsTime().Before(at("08:29:00")) {
			want = 3
		}
		if p.GetPlanned() != want || p.GetReady() != want {
			t.Errorf("%v, want %d", p, want)
		}
	}
}

func TestSummary(t *testing.T) {
	ready := func(plan *v1.Plan, late time.Duration) *v1.Plan {
		for _, s := range plan.GetStarts() {
			s.Ready = timestamppb.New(s.GetDeadline().AsTime().Add(late))
		}
		return plan
	}
	sudden := &v1.Plan{Pool: "counter", Date: "2026-11-24", Starts: []*v1.PlannedStart{{StartAt: timestamppb.New(open), Deadline: timestamppb.New(open)}}}
	missing := dayPlan()
	missing.Shortfalls = []*v1.Shortfall{{Deadline: timestamppb.New(open), Desktops: 3, Ready: timestamppb.New(open.Add(90 * time.Second)), Reason: "1m0s are left"}}
	unheard := ready(dayPlan(), 0)
	unheard.Starts[3].Ready, unheard.Starts[4].Ready = nil, nil
	silent := map[uint32]string{unheard.Starts[3].Seat: "h2", unheard.Starts[4].Seat: "h1"}
	for _, row := range []struct {
		plan *v1.Plan
		now  time.Time
		want string
	}{
		{dayPlan(), at("06:00:00"), "On Tue 2026-11-24 pool counter will make it: 18 desktops start on 2 hosts, the first at 08:29, and are ready by 08:30."},
		{dayPlan(), time.Time{}, "will make it"},
		{ready(dayPlan(), 0), at("09:00:00"), "made it: all 18 desktops that were to start were ready in time."},
		{ready(dayPlan(), time.Minute), at("09:00:00"), "did not make it: of 18 desktops that were to start, 0 were ready in time, 18 late (the last at 08:31)."},
		{dayPlan(), at("09:00:00"), "18 never"},
		{unheard, at("09:00:00"), "may have made it, which is not known yet: of 18 desktops that were to start, 16 were ready in time, " +
			"and of 2 nothing was heard since the control plane came back (hosts h1, h2)."},
		{dayPlan(), at("09:00:00"), "did not make it: of 18 desktops that were to start, 0 were ready in time, 16 never, and of 2 nothing was heard since"},
		{sudden, at("09:00:00"), "had nothing to start ahead. 1 desktop was woken at once, when nobody could plan ahead any more."},
		{missing, at("06:00:00"), "will be short: 3 desktops will not be ready by 08:30, the last of them at 08:31:30, 1m30s later: 1m0s are left."},
		{&v1.Plan{Pool: "counter", Date: "2026-11-28"}, at("06:00:00"), "On Sat 2026-11-28 pool counter has nothing to start: no desktops are to run."},
		{&v1.Plan{Pool: "counter", Date: "2026-11-24"}, at("23:59:59"), "On Tue 2026-11-24 pool counter has nothing to start: no desktops are to run."},
		{&v1.Plan{Pool: "counter", Date: "2026-11-23"}, at("00:00:00"), "On Mon 2026-11-23 pool counter had nothing to start ahead."},
		{&v1.Plan{Pool: "counter", Date: "2026-11-23", Shortfalls: []*v1.Shortfall{{Deadline: timestamppb.New(open.AddDate(0, 0, -1)), Desktops: 2, Reason: "all 3 desktops are taken"}}},
			at("06:00:00"), "had nothing to start ahead. 2 desktops could not be planned: all 3 desktops are taken."},
		{&v1.Plan{}, at("06:00:00"), "nothing to start"},
	} {
		row.plan.TimeZone = "Asia/Tokyo"
		hosts := map[uint32]string(nil)
		if strings.Contains(row.want, "heard") {
			hosts = silent
		}
		if got := warmup.Summary(row.plan, row.now, hosts); !strings.Contains(got, row.want) {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

func TestManyShortfallsFit(t *testing.T) {
	plan := warmup.PoolPlan{Name: "counter"}
	for i := range 200 {
		plan.Shortfalls = append(plan.Shortfalls, warmup.Shortfall{Deadline: open.Add(time.Duration(i) * time.Minute), Desktops: 1 + i%9, Reason: strings.Repeat("な", 600)})
	}
	got := plan.OnDate("2026-11-24", open.Location(), open)
	most, _ := warmup.MostShort(got, time.Time{})
	if len(got.GetShortfalls()) != 64 || most != 9 || len([]rune(got.GetShortfalls()[63].GetReason())) > 512 {
		t.Error(len(got.GetShortfalls()), most)
	}
}
