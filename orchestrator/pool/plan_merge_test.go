package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

func plannedStart(seat uint32, at, deadline time.Time) *v1.PlannedStart {
	return &v1.PlannedStart{Seat: seat, StartAt: timestamppb.New(at), Deadline: timestamppb.New(deadline)}
}

func planOf(starts ...*v1.PlannedStart) *v1.Plan {
	return &v1.Plan{Pool: "sales", Date: "2000-01-03", Hosts: []*v1.PlanHost{{Name: "h1"}}, Starts: starts}
}

// A start that cannot happen, as while failures hold a pool back, is planned anew in each round. The plan has it once.
func TestPlanHasAStartOnce(t *testing.T) {
	deadline := time.Date(2000, 1, 3, 8, 30, 0, 0, time.UTC)
	stored := planOf(plannedStart(1, deadline.Add(-10*time.Minute), deadline))
	for i := range 30 {
		now := deadline.Add(time.Duration(i-10) * time.Minute)
		stored = merged(now, stored, planOf(plannedStart(1, now, deadline)))
	}
	if len(stored.Starts) != 1 || !stored.Starts[0].StartAt.AsTime().Equal(deadline.Add(-time.Minute)) {
		t.Errorf("the plan of one seat has %d starts, %v", len(stored.Starts), stored.Starts)
	}
	if got := missText(deadline.Add(missGrace), shown(t, newWorld(1)), stored, deadline, time.UTC); got == "" {
		t.Error("nobody hears that it was missed")
	}
}

// A demand that nobody expected has no deadline that could be met, and its starts no more than one place.
func TestPlanMissesNothingUnexpected(t *testing.T) {
	noon := time.Date(2000, 1, 3, 12, 0, 0, 0, time.UTC)
	stored := planOf()
	for i := range 30 {
		now := noon.Add(time.Duration(i) * time.Minute)
		since := now.Add(-30 * time.Second) // the step of the curve that holds
		stored = merged(now, stored, planOf(plannedStart(1, now, since)))
		if got := missText(now, shown(t, newWorld(1)), stored, since, time.UTC); got != "" {
			t.Fatalf("told %q", got)
		}
	}
	if len(stored.Starts) != 1 {
		t.Errorf("the plan of one seat has %d starts", len(stored.Starts))
	}
}

// Claims change all day what is wanted. The plan notes it, and has room for the evening too.
func TestPlanNotesWhatIsWantedAllDay(t *testing.T) {
	midnight := time.Date(2000, 1, 3, 0, 0, 0, 0, time.UTC)
	wants := func(at time.Time, running int) *v1.Plan {
		plan := planOf()
		plan.Targets = []*v1.PlanTarget{{From: timestamppb.New(at), Running: uint32(running)}}
		return plan
	}
	stored := wants(midnight, 0)
	for i := 1; i < 24*60; i++ {
		now := midnight.Add(time.Duration(i) * time.Minute)
		stored = merged(now, stored, wants(now.Add(-time.Second), i))
		last := stored.Targets[len(stored.Targets)-1]
		if len(stored.Targets) > maxPlanTargets || now.Sub(last.From.AsTime()) >= targetPace {
			t.Fatalf("at %v it has %d targets, the last one of %v", now, len(stored.Targets), last.From.AsTime())
		}
	}
}

// What happened stays, with what is planned for a later deadline; all in the order of time, in which starts are looked for.
func TestPlanInOrder(t *testing.T) {
	morning := time.Date(2000, 1, 3, 8, 30, 0, 0, time.UTC)
	done := plannedStart(1, morning.Add(-time.Minute), morning)
	done.Ready = timestamppb.New(morning.Add(-10 * time.Second))
	kept := plannedStart(3, morning.Add(4*time.Hour), morning.Add(5*time.Hour)) // keeps its time though 20 s later would do
	next := planOf(plannedStart(2, morning.Add(4*time.Hour+10*time.Second), morning.Add(5*time.Hour)), kept,
		plannedStart(1, morning.Add(4*time.Hour), morning.Add(5*time.Hour)))
	for _, stored := range []*v1.Plan{planOf(done), planOf()} {
		got := ""
		for _, s := range merged(morning.Add(time.Hour), stored, next).Starts {
			got += fmt.Sprint(s.Seat)
		}
		want := "132"
		if len(stored.Starts) > 0 {
			want = "1132"
		}
		if got != want {
			t.Errorf("seats in the order %s, not %s", got, want)
		}
	}
}

// That a plan falls short is told once, and again when twice as many desktops are concerned. Once nothing is short any more, that is told.
func TestPlanTellsOfGrowingShortfall(t *testing.T) {
	w := settled(t, 1)
	var told []store.Object
	var got []int
	for _, short := range []uint32{1, 1, 2, 3, 4, 50, 60, 1, 0, 0, 2, 3, 0, 1} {
		view := shown(t, w, told...)
		plan := planOf()
		if plan.Shortfalls = nil; short > 0 {
			plan.Shortfalls = []*v1.Shortfall{{Deadline: timestamppb.New(w.now.Add(time.Hour)), Desktops: short, Reason: "memory"}}
		}
		w.now = w.now.Add(time.Second)
		var r dayRound
		r.tell(w.now, view, w.pool, time.UTC, nil, plan)
		if len(r.events) > 0 {
			got = append(got, int(short))
			if e := r.events[0].Object.(*v1.Event); e.GetWarning() != (short > 0) || (e.GetReason() == ReasonNoLongerShort) != (short == 0) {
				t.Errorf("%d short: %v", short, e)
			}
		}
		for _, op := range r.events {
			told = append(told, op.Object)
		}
	}
	if want := []int{1, 2, 4, 50, 0, 2, 0, 1}; !slices.Equal(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
}

// The same desktops may be short at several deadlines; those are told of that are short at once.
func TestPlanTellsOfShortAtOnce(t *testing.T) {
	w := settled(t, 1)
	plan := planOf()
	for hours, short := range []uint32{50, 22, 26, 26} { // the first deadline is over
		plan.Shortfalls = append(plan.Shortfalls, &v1.Shortfall{Deadline: timestamppb.New(w.now.Add(time.Duration(hours) * time.Hour)), Desktops: short, Reason: "memory"})
	}
	var r dayRound
	r.tell(w.now, shown(t, w), w.pool, time.UTC, nil, plan)
	if len(r.events) != 1 || r.events[0].Object.GetMeta().GetLabels()[labelShort] != "26" {
		t.Errorf("told of %v", r.events)
	}
}

// While too many failures in a row hold a pool back, its plan starts no more desktops than it told before.
func TestPlanHeldBack(t *testing.T) {
	w := settled(t, 1)
	d := w.desktops["sales-1"]
	d.Status.State, d.Incarnation.Desired = v1.DesktopState_DESKTOP_STATE_PREPARED, v1.DesiredState_DESIRED_STATE_PREPARED
	view := shown(t, w)
	for want, held := range []time.Duration{time.Minute, -time.Minute} {
		pool := &v1.Pool{Meta: w.pool.Meta, Spec: w.pool.Spec, Status: &v1.PoolStatus{HeldUntil: timestamppb.New(w.now.Add(held))}}
		var r dayRound
		plan := &warmup.PoolPlan{Starts: []warmup.Start{{Seat: 1, Host: d.Incarnation.Host, At: w.now, First: true}}}
		rooms := map[string]*room.Host{d.Incarnation.Host: {Host: &v1.Host{}, FreeVCPUs: 8, FreeMemoryMiB: 8192}}
		if r.startDesktops(w.now, view, pool, plan, rooms); len(r.starts) != want {
			t.Errorf("held until %v from now: %d are told to start, want %d", held, len(r.starts), want)
		}
	}
}

// A desktop whose user left is started anew. That the life before was ready a while ago says nothing of that start.
func TestPlanNotesNoEndingLife(t *testing.T) {
	for _, c := range []struct {
		name  string
		end   func(*v1.Desktop)
		noted bool
	}{
		{"goes on", func(*v1.Desktop) {}, true},
		{"was used, and waits to be made anew", func(d *v1.Desktop) { d.Incarnation.UsedBy = "hanako" }, false},
		{"is told to end", func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED }, false},
	} {
		w := settled(t, 1)
		c.end(w.desktops["sales-1"])
		plan := planOf(plannedStart(1, w.now, w.now.Add(-5*time.Second)))
		note(w.now, shown(t, w), w.pool, plan)
		if noted := plan.Starts[0].GetReady() != nil; noted != c.noted {
			t.Errorf("a life that %s: noted is %v", c.name, noted)
		}
	}
}

// A start that was told is told anew when the plan has it much later, and as soon as it is late: its deadline would not be sure.
func TestPlanMovesLateStarts(t *testing.T) {
	for _, c := range []struct {
		late time.Duration
		want int
	}{{-31 * time.Second, 1}, {-30 * time.Second, 0}, {0, 0}, {2 * time.Second, 0}, {3 * time.Second, 1}, {25 * time.Second, 1}} {
		w := settled(t, 1)
		d, at := w.desktops["sales-1"], w.now.Add(time.Hour)
		d.Status.State = v1.DesktopState_DESKTOP_STATE_PREPARED
		d.Incarnation.StartAt = timestamppb.New(at.Add(c.late))
		var r dayRound
		plan := &warmup.PoolPlan{Starts: []warmup.Start{{Seat: 1, Host: d.Incarnation.Host, At: at, First: true}}}
		if r.startDesktops(w.now, shown(t, w), w.pool, plan, nil); len(r.starts) != c.want {
			t.Errorf("told %v late: %d starts are told anew, want %d", c.late, len(r.starts), c.want)
		}
	}
}
