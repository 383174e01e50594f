package pool

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Which changes make for another plan, and how soon.
func TestUrgency(t *testing.T) {
	rows := []struct {
		name   string
		change func(*v1.Pool, *v1.Host, *v1.Desktop)
		want   urgency
	}{
		{"a pool's seats", func(p *v1.Pool, _ *v1.Host, _ *v1.Desktop) { p.Spec.Desktops++ }, atOnce},
		{"a pool's release", func(p *v1.Pool, _ *v1.Host, _ *v1.Desktop) { p.Release = &v1.Release{Version: 2} }, atOnce},
		{"a pool's counts", func(p *v1.Pool, _ *v1.Host, _ *v1.Desktop) { p.Status = &v1.PoolStatus{Ready: 3} }, never},
		{"a pool's hold", func(p *v1.Pool, _ *v1.Host, _ *v1.Desktop) {
			p.Status = &v1.PoolStatus{HeldUntil: timestamppb.New(time.Unix(1e9, 0))}
		}, inTime},
		{"a host falls silent", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN }, atOnce},
		{"a host takes no desktops", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Spec = &v1.HostSpec{Unschedulable: true} }, atOnce},
		{"a host has an image", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Status.Images = []string{digestOne} }, atOnce},
		{"a host bears fewer boots", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Status.Usage.BootLimit = 1 }, atOnce},
		{"a host reads slower", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Status.Usage.StoreReadRate = 1 << 20 }, inTime},
		{"a host's store is full", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Status.Usage.StoreAvailableBytes = 0 }, atOnce},
		{"a host's store fills", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) { h.Status.Usage.StoreAvailableBytes = 1 << 39 }, never},
		{"a host is in use", func(_ *v1.Pool, h *v1.Host, _ *v1.Desktop) {
			h.Status.Usage.MemoryAvailableMib, h.Status.Usage.PsiCpu = 5, 50
		}, never},
		{"a desktop is ready", func(_ *v1.Pool, _ *v1.Host, d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_READY }, inTime},
		{"a desktop gets a host", func(_ *v1.Pool, _ *v1.Host, d *v1.Desktop) { d.Incarnation.Host = "h1" }, inTime},
		{"somebody comes", func(_ *v1.Pool, _ *v1.Host, d *v1.Desktop) { d.Claim = &v1.DesktopClaim{User: "u"} }, inTime},
		{"a guest speaks", func(_ *v1.Pool, _ *v1.Host, d *v1.Desktop) { d.Status.Guest = &v1.GuestReport{Hostname: "x"} }, never},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := store.NewMemory()
				mirror, ctx := storetest.Mirror(t, memory), t.Context()
				var got []urgency
				mirror.Subscribe(func(before, after *store.View, refs []store.Ref) { got = append(got, urgencyOf(before, after, refs)) })
				p := &v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Desktops: 3}}
				h := &v1.Host{Meta: &v1.Meta{Name: "h1"}, Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Usage: &v1.HostUsage{BootLimit: 4, StoreAvailableBytes: 1 << 40},
					Capacity: &v1.HostCapacity{StoreBytes: 1 << 40}}}
				d := &v1.Desktop{Meta: &v1.Meta{Name: "sales-1"}, Spec: &v1.DesktopSpec{Pool: "sales"}, Incarnation: &v1.Incarnation{Generation: 1},
					Status: &v1.DesktopStatus{Generation: 1, State: v1.DesktopState_DESKTOP_STATE_STARTING}}
				change := func(ops ...store.Op) {
					if _, err := memory.Commit(ctx, store.Guard{}, ops); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				change(store.Create(p), store.Create(h), store.Create(d))
				created := len(got)
				p, _ = store.Lookup[*v1.Pool](mirror.View(), "sales")
				h, _ = store.Lookup[*v1.Host](mirror.View(), "h1")
				d, _ = store.Lookup[*v1.Desktop](mirror.View(), "sales-1")
				p, h, d = proto.CloneOf(p), proto.CloneOf(h), proto.CloneOf(d)
				row.change(p, h, d)
				change(store.Update(p), store.Update(h), store.Update(d))
				if created == 0 || got[created-1] != atOnce {
					t.Errorf("what comes is of urgency %v", got[:created])
				}
				if got[len(got)-1] != row.want || len(got) == created {
					t.Errorf("urgency %v, want %v", got[created:], row.want)
				}
			})
		})
	}
}

func TestPace(t *testing.T) {
	now := time.Unix(1e9, 0)
	var p pace
	wait := func(after, want time.Duration, what string) {
		t.Helper()
		if got := p.wait(now.Add(after)); got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	wait(0, 0, "at the beginning")
	p.begin(now)
	p.foresee(false, time.Time{})
	wait(time.Minute, planStale-time.Minute, "when nothing changes")
	if !p.ask(inTime) || p.ask(inTime) {
		t.Error("the first change makes the next plan sooner, and another as small does not")
	}
	wait(time.Second, planRest-time.Second, "when users come")
	p.foresee(true, time.Time{})
	wait(time.Second, planPause-time.Second, "when users come and starts are near")
	p.foresee(false, now.Add(20*time.Second))
	wait(0, 20*time.Second, "before a deadline")
	if !p.ask(atOnce) || p.ask(inTime) {
		t.Error("what people ask for makes the next plan sooner, and users do not any more")
	}
	wait(time.Second, planPause-time.Second, "when people ask for something")
	wait(planPause, 0, "in time")
	wait(-time.Hour, 0, "when the clock was set back")
}

func TestNear(t *testing.T) {
	now := time.Unix(1e9, 0)
	rows := []struct {
		name string
		plan warmup.PoolPlan
		want bool
	}{
		{"nothing", warmup.PoolPlan{}, false},
		{"a start soon", warmup.PoolPlan{Starts: []warmup.Start{{At: now.Add(time.Hour)}, {At: now.Add(2 * time.Minute)}}}, true},
		{"a start that is late", warmup.PoolPlan{Starts: []warmup.Start{{At: now}}}, true},
		{"a start tomorrow", warmup.PoolPlan{Starts: []warmup.Start{{At: now.Add(24 * time.Hour)}}}, false},
		{"something will be missing soon", warmup.PoolPlan{Shortfalls: []warmup.Shortfall{{Deadline: now.Add(10 * time.Minute)}}}, true},
		{"something was missing", warmup.PoolPlan{Shortfalls: []warmup.Shortfall{{Deadline: now}}}, false},
	}
	for _, row := range rows {
		if got := isNear(now, row.plan); got != row.want {
			t.Errorf("%s: %t", row.name, got)
		}
	}
}

// What the first starts of a new pool took is in its plan soon, and what nothing is known of is not started minutes too early.
func TestFirstStartsAreLearnedFrom(t *testing.T) {
	story(t, func(h *house) {
		h.at(8, 18, 0)
		h.open(20, 10, &v1.Schedule{SpareBuffer: "0"})
		if _, err := store.Modify(h.t.Context(), h.api, "sales", func(p *v1.Pool) error {
			p.Spec.MinReady = 2
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		h.at(8, 19, 50)
		plan, _ := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-01")
		if ready, cold := h.count(); ready != 2 || cold != 8 || len(plan.GetStarts()) == 0 {
			t.Fatalf("%d are ready, %d cold, the plan %v", ready, cold, plan)
		}
		for _, start := range plan.GetStarts() {
			if early := start.GetDeadline().AsTime().Sub(start.GetStartAt().AsTime()); early > 5*time.Minute {
				t.Errorf("seat %d is to start %v before its deadline; starts took 40s", start.GetSeat(), early)
			}
		}
	})
}
