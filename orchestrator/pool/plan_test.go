package pool

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// live takes a desktop one step on the way that a host goes which knows cold desktops and start times.
func (h *house) live(ctx context.Context, d *v1.Desktop) error {
	state, name := store.State(d), d.GetMeta().GetName()
	begun := reached(d, v1.DesktopState_DESKTOP_STATE_STARTING, time.Now())
	took := time.Duration(h.boot.Load())
	switch {
	case d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED:
		state = v1.DesktopState_DESKTOP_STATE_DELETED
	case state == v1.DesktopState_DESKTOP_STATE_PLACED:
		state = v1.DesktopState_DESKTOP_STATE_PREPARED
	case state == v1.DesktopState_DESKTOP_STATE_PREPARED && isDue(time.Now(), d):
		state = v1.DesktopState_DESKTOP_STATE_STARTING
	case state == v1.DesktopState_DESKTOP_STATE_SUSPENDED && isDue(time.Now(), d):
		state = v1.DesktopState_DESKTOP_STATE_READY
	case state == v1.DesktopState_DESKTOP_STATE_STARTING && time.Since(begun) >= took:
		state = v1.DesktopState_DESKTOP_STATE_READY
	}
	if state == store.State(d) {
		return nil
	}
	if err := h.report(ctx, name, state, ""); err != nil || state != v1.DesktopState_DESKTOP_STATE_READY {
		return err
	}
	_, err := store.Modify(ctx, store.Open(h.memory, store.WriterDispatch), name, func(d *v1.Desktop) error {
		d.Status.Boot = &v1.BootReport{Took: durationpb.New(took), AtOnce: 2}
		return nil
	})
	return err
}

// open makes a host with memory for so many desktops, an office that opens at 08:30 every day, and a pool that follows it.
func (h *house) open(room, seats uint32, schedule *v1.Schedule) {
	h.boot.Store(int64(40 * time.Second))
	_, err := store.Modify(h.t.Context(), store.Open(h.memory, store.WriterDispatch), "h1", func(host *v1.Host) error {
		host.Status = &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"}, Images: []string{digestOne},
			Capacity: &v1.HostCapacity{Cpus: 64, MemoryMib: uint64(room)*mebi*16/15 + 16, StoreBytes: 1 << 40, MaxBoots: 4, Kvm: true, CpuModel: "fast"},
			Usage:    &v1.HostUsage{StoreAvailableBytes: 1 << 40},
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.create(&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "UTC", Hours: []*v1.OfficeHours{
		{Days: []v1.Weekday{1, 2, 3, 4, 5, 6, 7}, Open: "08:30", Close: "17:15"},
	}}}, store.WriterAPI)
	w := newWorld(seats)
	w.pool.Meta = &v1.Meta{Name: "sales"}
	w.pool.Spec.Calendar, w.pool.Spec.Schedule = "office", schedule
	h.create(w.pool, store.WriterAPI)
}

func (h *house) at(hour, minute, second int) {
	now := time.Now().UTC()
	next := time.Date(now.Year(), now.Month(), now.Day(), hour, minute, second, 0, time.UTC)
	if next.Before(now) {
		next = next.Add(24 * time.Hour)
	}
	time.Sleep(next.Sub(now))
}

func (h *house) count() (ready, cold int) {
	for _, d := range h.mirror.View().DesktopsOfPool("sales") {
		switch {
		case store.State(d) == v1.DesktopState_DESKTOP_STATE_READY && isDue(time.Now(), d):
			ready++
		case isCold(time.Now(), d):
			cold++
		}
	}
	return ready, cold
}

// A pool is warm when the doors open, by a plan that hosts know long before; what it was and how it went is kept.
func TestPlanDay(t *testing.T) {
	story(t, func(h *house) {
		h.open(20, 10, &v1.Schedule{SpareBuffer: "0"})
		h.at(1, 0, 0)
		revision := h.mirror.View().Revision
		planned := 0
		for _, d := range h.mirror.View().DesktopsOfPool("sales") {
			if at := d.GetIncarnation().GetStartAt(); at != nil && at.AsTime().Hour() == 8 && d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY {
				planned++
			}
		}
		if ready, cold := h.count(); planned != 10 || ready != 0 || cold != 10 {
			t.Fatalf("at night %d have a time to start, %d are ready, %d cold", planned, ready, cold)
		}
		plan, ok := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-01")
		if !ok || len(plan.Starts) != 10 || len(plan.Shortfalls) != 0 || plan.Hosts[0].Boots != 4 {
			t.Fatalf("plan %v", plan)
		}
		h.explains("sales-3", "sales-3 is not ready: it waits cold on host h1 and starts at 2000-01-01 08:", "to be ready at 08:30 UTC: 10 are wanted then (opening hours, 100%)")
		h.at(7, 59, 0)
		if ready, _ := h.count(); ready != 0 {
			t.Errorf("%d are ready at 07:59", ready)
		}
		writes := h.mirror.View().Revision - revision
		if writes > 7*12+20 {
			t.Errorf("%d writes in a quiet night", writes)
		}
		h.at(8, 30, 0)
		if ready, cold := h.count(); ready != 10 || cold != 0 {
			t.Errorf("as the doors open %d are ready and %d cold", ready, cold)
		}
		h.at(9, 0, 0)
		view := h.mirror.View()
		plan, _ = store.Lookup[*v1.Plan](view, "sales-2000-01-01")
		for _, start := range plan.Starts {
			if start.Ready == nil || start.Ready.AsTime().After(start.Deadline.AsTime()) {
				t.Errorf("seat %d was ready at %v", start.Seat, start.Ready.AsTime())
			}
		}
		history, _ := store.Lookup[*v1.History](view, "sales")
		if len(history.GetBoots()) != 10 || history.Boots[0].Took.AsDuration() != 40*time.Second || history.Boots[0].HostClass == "" || len(history.Days) != 1 {
			t.Errorf("history %v", history)
		}
		if got := strings.Join(h.words(ReasonPlanned), "\n"); strings.Count(got, "\n") != 1 ||
			!strings.Contains(got, "2000-01-01: 10 desktops start on 1 host, the first to be ready at 08:30 UTC") {
			t.Errorf("told %q", got)
		}
		if got := h.words(ReasonMissed); len(got) != 0 {
			t.Errorf("told %q", got)
		}
		h.at(17, 30, 0)
		if ready, cold := h.count(); ready != 0 || cold != 10 {
			t.Errorf("in the evening %d are ready and %d cold", ready, cold)
		}
		if got := h.words(ReasonCooled); len(got) != 1 || !strings.Contains(got[0], "10 desktops cooled: wanted 0 of 10 now: closed, 0 (seats 1-10)") {
			t.Errorf("told %q", got)
		}
		h.at(18, 0, 0)
		h.explains("sales-3", "starts at 2000-01-02 08:2", "before that it ran, and was cooled at 2000-01-01 17:15:", "wanted 0 of 10 now: closed, 0")
		h.explains("sales", "pool sales is as it should be: 0 of 10 desktops ready, 10 cold", "10 are wanted at 2000-01-02 08:30 UTC")
		// The second day is planned with what was learned of the first: 40 seconds, not 5 minutes.
		h.at(8, 24, 0)
		if ready, _ := h.count(); ready != 0 {
			t.Errorf("%d are ready at 08:24 of the second day: that early", ready)
		}
		h.at(8, 30, 0)
		if ready, _ := h.count(); ready != 10 {
			t.Errorf("%d are ready on the second day", ready)
		}
		h.remove()
	})
}

// remove deletes the pool; what it left goes with it.
func (h *house) remove() {
	_, err := store.Modify(h.t.Context(), h.api, "sales", func(p *v1.Pool) error {
		p.Meta.Deletion = &v1.Deletion{By: "admin"}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	time.Sleep(3 * time.Minute)
	view := h.mirror.View()
	if n := len(store.All[*v1.Pool](view)) + len(store.All[*v1.Plan](view)) + len(store.All[*v1.History](view)); n != 0 {
		h.t.Errorf("%d objects are left of the pool", n)
	}
}

// explains wants all of the words in the explanation of a pool or a desktop.
func (h *house) explains(name string, words ...string) {
	h.t.Helper()
	answer, err := Explain(h.mirror.View(), time.Now(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	text := answer.GetSummary() + "\n" + strings.Join(answer.GetDetails(), "\n")
	for _, word := range words {
		if !strings.Contains(text, word) {
			h.t.Errorf("%s lacks %q:\n%s", name, word, text)
		}
	}
}

func (h *house) words(reason string) (texts []string) {
	for _, e := range store.All[*v1.Event](h.mirror.View()) {
		if e.GetReason() == reason {
			texts = append(texts, e.GetMessage())
		}
	}
	return texts
}

// What cannot be ready in time is said beforehand, and what was not afterwards.
func TestPlanFallsShort(t *testing.T) {
	story(t, func(h *house) {
		h.open(6, 10, &v1.Schedule{SpareBuffer: "0"})
		h.at(7, 0, 0)
		plan, _ := store.Lookup[*v1.Plan](h.mirror.View(), "sales-2000-01-01")
		if len(plan.GetShortfalls()) != 1 || plan.Shortfalls[0].Desktops != 4 {
			t.Fatalf("plan %v", plan.GetShortfalls())
		}
		pool, _ := store.Lookup[*v1.Pool](h.mirror.View(), "sales")
		if s := pool.Status; s.NextShortfall != 4 || s.NextTarget != 10 {
			t.Errorf("status %v", s)
		}
		if got := h.words(ReasonPlanned); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), "4 desktops will not be ready at 08:30 UTC") {
			t.Errorf("told %q", got)
		}
		h.explains("sales", "2000-01-01: 4 desktops will not be ready at 08:30 UTC")
		h.boot.Store(int64(200 * time.Minute)) // and now nothing gets ready
		h.at(8, 40, 0)
		if got := h.words(ReasonMissed); len(got) != 1 || !strings.Contains(got[0], "6 of 6 desktops that were to be ready at 2000-01-01 08:30 UTC were not: 6 still starting") {
			t.Errorf("told %q", got)
		}
	})
}
