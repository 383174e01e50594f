package show_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// morning is a plan of this morning, of which one start was late, one never came, and two could not be planned.
func morning() *v1.Plan {
	plan := &v1.Plan{
		Meta: meta("counter-2026-11-24", time.Hour), Pool: "counter", Date: "2026-11-24", TimeZone: "Asia/Tokyo", Made: before(5 * time.Hour),
		Targets: []*v1.PlanTarget{
			{From: before(8*time.Hour + 30*time.Minute), Running: 2, Reason: "min_ready"}, {From: before(0), Running: 12, Reason: "opening hours, 100%"},
			{From: before(-9 * time.Hour), Running: 2},
		},
		Hosts: []*v1.PlanHost{
			{Name: "kvm1", Boots: 2, Mean: durationpb.New(60 * time.Second), Quantile: durationpb.New(90 * time.Second), Samples: 128},
			{Name: "kvm2", Boots: 2, Mean: durationpb.New(300 * time.Second), Quantile: durationpb.New(300 * time.Second)},
		},
		Shortfalls: []*v1.Shortfall{{Deadline: before(0), Desktops: 2, Reason: "the hosts of 2 cold desktops have no memory free: one needs 2048 MiB"}},
	}
	for i := range 8 {
		host, lead := uint32(i%2), 90*time.Second+time.Duration(i/4)*time.Minute
		if host == 1 {
			lead = 300 * time.Second * time.Duration(1+i/4)
		}
		s := &v1.PlannedStart{Seat: uint32(i + 3), Host: host, StartAt: before(lead), Deadline: before(0), Ready: before(lead - 65*time.Second)}
		switch i {
		case 2:
			s.Ready = before(-3 * time.Minute)
		case 6:
			s.Ready = nil
		}
		plan.Starts = append(plan.Starts, s)
	}
	slices.SortStableFunc(plan.Starts, func(a, b *v1.PlannedStart) int { return a.GetStartAt().AsTime().Compare(b.GetStartAt().AsTime()) })
	return plan
}

// allDay is a plan of which the same desktops are short at several deadlines.
func allDay() *v1.Plan {
	plan := &v1.Plan{Meta: meta("desk-2026-11-24", time.Hour), Pool: "desk", Date: "2026-11-24", TimeZone: "Asia/Tokyo", Made: before(5 * time.Hour)}
	for hours, short := range []uint32{22, 26, 26} {
		plan.Shortfalls = append(plan.Shortfalls, &v1.Shortfall{Deadline: before(-time.Duration(hours) * time.Hour), Desktops: short, Reason: "no memory is free"})
	}
	return plan
}

func TestPlan(t *testing.T) {
	var got bytes.Buffer
	for _, view := range []struct {
		title string
		now   time.Time
		dry   bool
	}{{"the evening before, a dry run", tokyo().Add(-12 * time.Hour), true}, {"ten minutes after", tokyo().Add(10 * time.Minute), false}} {
		plan := morning()
		answer := &v1.PlanResponse{Plan: plan, DryRun: view.dry, Summary: warmup.Summary(plan, view.now, nil), Points: warmup.Points(plan, view.now)}
		var missed []show.Missed
		more := 0
		if !view.dry {
			missed, more = show.MissedOf(answer, view.now)
			missed[0].Why = "held back: the host's memory is short\x1b[2J"
		}
		fmt.Fprintf(&got, "# %s\n", view.title)
		if err := show.Plan(&got, answer, missed, more, 100, view.now); err != nil {
			t.Fatal(err)
		}
		got.WriteString("\n")
	}
	golden(t, "plan.txt", got.Bytes())
}

// Of a day on which nothing was to start there is no time at which that was planned.
func TestPlanOfNothing(t *testing.T) {
	var got bytes.Buffer
	plan := &v1.Plan{Pool: "counter", Date: "2026-11-22", TimeZone: "Asia/Tokyo"}
	if err := show.Plan(&got, &v1.PlanResponse{Plan: plan, Summary: warmup.Summary(plan, tokyo(), nil)}, nil, 0, 100, tokyo()); err != nil {
		t.Fatal(err)
	}
	if want := "On Sun 2026-11-22 pool counter had nothing to start ahead.\nNo plan was kept of it.\n"; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}

// A chart is never wider than it may be, has few lines, and only ASCII.
func TestChartFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var points []*v1.PlanPoint
		at := tokyo()
		n := rapid.Uint32Range(0, 5000)
		for range rapid.IntRange(0, 50).Draw(t, "points") {
			points = append(points, &v1.PlanPoint{At: timestamppb.New(at), Wanted: n.Draw(t, "wanted"), Planned: n.Draw(t, "planned"), Ready: n.Draw(t, "ready")})
			at = at.Add(time.Duration(rapid.IntRange(1, 3000).Draw(t, "after")) * time.Second)
		}
		width := rapid.IntRange(50, 200).Draw(t, "width")
		lines := show.Chart(points, tokyo(), at, tokyo().Location(), width, rapid.Bool().Draw(t, "known"), tokyo().Add(time.Hour))
		if len(points) == 0 && len(lines) > 0 || len(points) > 0 && len(lines) < 2 || len(lines) > 27 {
			t.Fatalf("%d lines of %d points", len(lines), len(points))
		}
		for _, line := range lines {
			if len(line) > width || strings.ContainsFunc(line, func(r rune) bool { return r > '~' }) {
				t.Fatalf("%d columns of %d: %q", len(line), width, line)
			}
		}
	})
}
