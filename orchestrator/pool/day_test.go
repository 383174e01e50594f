package pool

import (
	"strings"
	"testing"
	"time"
	_ "time/tzdata"

	v1 "daybreak/proto/daybreak/v1"
)

func office() *v1.Schedule { return &v1.Schedule{SpareBuffer: "0"} }

// A day of a pool that follows office hours: cold at night, warm by day, and quiet in between.
func TestDay(t *testing.T) {
	w := newWorld(12)
	withSchedule("UTC", office(), 0)(w)
	w.pool.Spec.MinReady = 1
	w.until(t, "2027-04-05 08:15")
	if ready, cold, _ := w.standing(); ready != 1 || cold != 11 {
		t.Fatalf("in the morning %d are ready and %d cold, want min_ready 1: %v", ready, cold, w.pool.Status)
	}
	if s := w.pool.Status; s.Wanted != 1 || s.Cold != 11 || s.NextTarget != 12 || s.NextDeadline.AsTime().Hour() != 8 || s.Message != "" {
		t.Errorf("status %v", s)
	}
	if n := w.until(t, "2027-04-05 08:29"); n != 0 {
		t.Errorf("%d changes before the doors open", n)
	}
	w.until(t, "2027-04-05 08:35")
	if ready, cold, _ := w.standing(); ready != 12 || cold != 0 {
		t.Fatalf("after the opening %d are ready and %d cold: %v", ready, cold, w.pool.Status)
	}
	if n := w.until(t, "2027-04-05 17:14"); n != 0 {
		t.Errorf("%d changes in the day", n)
	}
	w.claim("sales-7", "taro")
	w.until(t, "2027-04-05 17:30")
	if ready, cold, _ := w.standing(); ready != 2 || cold != 10 || w.desktops["sales-7"].Claim == nil {
		t.Errorf("in the evening %d are ready and %d cold, want the user's and one spare", ready, cold)
	}
	if n := w.until(t, "2027-04-06 08:20"); n != 0 {
		t.Errorf("%d changes in the night", n)
	}
	w.release("sales-7")
	w.until(t, "2027-04-06 08:28")
	if ready, cold, _ := w.standing(); ready != 1 || cold != 11 {
		t.Errorf("after the user left %d are ready and %d cold, want one spare", ready, cold)
	}
}

// What falls and rises again within half an hour stays warm.
func TestLunchIsShort(t *testing.T) {
	w := newWorld(8)
	withSchedule("UTC", &v1.Schedule{SpareBuffer: "0", Spans: []*v1.TargetSpan{{From: "12:00", To: "12:25", Target: "2"}, {From: "15:00", To: "15:45", Target: "2"}}}, 0)(w)
	w.until(t, "2027-04-05 09:00")
	if n := w.until(t, "2027-04-05 14:59"); n != 0 {
		t.Errorf("%d changes for a fall of 25 minutes", n)
	}
	w.until(t, "2027-04-05 15:05")
	if ready, _, _ := w.standing(); ready != 2 {
		t.Errorf("%d run in a fall of 45 minutes, want 2", ready)
	}
}

// Two hosts have memory for 4 each, and all 12 seats lie on one as the doors open: what is wanted and crowded is made anew
// on the other.
func TestCrowdedHost(t *testing.T) {
	w := newWorld(12)
	withSchedule("UTC", &v1.Schedule{Open: "8", SpareBuffer: "0"}, 4)(w)
	w.now = w.now.Truncate(24 * 3600e9)
	w.hosts = map[string]bool{"h1": true}
	for range 3 {
		w.round()
		for _, name := range w.names() {
			w.advance(name, "h1")
		}
	}
	if n := len(w.room("h1").OfPool); n != 1 || w.room("h1").OfPool["sales"] != 12 {
		t.Fatalf("h1 has %v", w.room("h1").OfPool)
	}
	w.until(t, "2027-04-05 08:30")
	w.hosts["h2"] = true
	w.until(t, "2027-04-05 08:40")
	if ready, cold, _ := w.standing(); ready != 8 || cold != 4 {
		t.Errorf("%d ready and %d cold, want 8 on two hosts with room for 4 each: %v", ready, cold, w.pool.Status)
	}
	for _, h := range w.rooms() {
		if h.FreeMemoryMiB < 0 {
			t.Errorf("%s has promised too much: %d", h.Name(), h.FreeMemoryMiB)
		}
	}
	if n := w.until(t, "2027-04-05 12:00"); n != 0 {
		t.Errorf("%d changes afterwards", n)
	}
}

// A pool that wants more than its hosts can run is short, says so, and does not turn in circles.
func TestNoRoom(t *testing.T) {
	w := newWorld(12)
	withSchedule("UTC", office(), 4)(w)
	w.until(t, "2027-04-05 09:00")
	ready, cold, _ := w.standing()
	if ready != 8 || cold != 4 {
		t.Errorf("%d ready and %d cold, want 8 and 4: %v", ready, cold, w.pool.Status)
	}
	for _, want := range []string{"8 of 12 are ready", "4 of 4 cold desktops cannot start where they lie, for example sales-",
		"waits for memory on host h", "it needs 1024 MiB, and 0 are free; no other host has room"} {
		if !strings.Contains(w.pool.Status.Message, want) {
			t.Errorf("status lacks %q: %s", want, w.pool.Status.Message)
		}
	}
	if n := w.until(t, "2027-04-05 12:00"); n != 0 {
		t.Errorf("%d changes afterwards", n)
	}
}

// All seats lie on the host that was up first. When there is another, they are spread, and stay.
func TestSpread(t *testing.T) {
	w := newWorld(12)
	withSchedule("UTC", office(), 8)(w)
	w.now = w.now.Truncate(24 * 3600e9)
	w.hosts = map[string]bool{"h1": true}
	for range 4 {
		w.round()
		for _, name := range w.names() {
			w.advance(name, "h1")
		}
	}
	if a := w.round(); changed(a) != 0 || w.room("h1").OfPool["sales"] != 12 {
		t.Fatalf("h1 has %v, and %d changes", w.room("h1").OfPool, changed(a))
	}
	w.hosts["h2"] = true
	if a := w.round(); changed(a) != 0 || a.Again <= 0 || a.Again > spreadAfter {
		t.Fatalf("moves at once what was just placed, or does not look again: %v", a.Again)
	}
	w.now = w.now.Add(spreadAfter)
	a := w.round()
	if len(a.Retire) != 4 || a.Retire[0].Reason != ReasonMadeElsewhere {
		t.Fatalf("retired %v", changedNames(a.Retire))
	}
	for range 6 {
		for _, name := range w.names() {
			w.advance(name, "h2")
		}
		w.round()
	}
	if one, two := w.room("h1").OfPool["sales"], w.room("h2").OfPool["sales"]; one != 8 || two != 4 {
		t.Errorf("%d and %d", one, two)
	}
	if n := w.until(t, "2027-04-05 08:20"); n != 0 {
		t.Errorf("%d changes afterwards", n)
	}
}

// While no host takes any desktop, who was told to run goes on waiting: that nobody starts does not make another the one to run,
// again and again within a moment.
func TestNobodyTakesTurnsWithoutHosts(t *testing.T) {
	w := newWorld(3)
	withSchedule("UTC", office(), 4)(w)
	w.pool.Spec.MinReady = 1
	w.now = time.Date(2027, 4, 5, 6, 0, 0, 0, time.UTC)
	w.round()
	for range 3 { // placement finds no host
		for _, name := range w.names() {
			w.change(name, func(d *v1.Desktop) { d.Incarnation.UnplacedReason = "no host fits: 2 hosts are not up" })
		}
		w.round()
	}
	for range 3 {
		if a := w.round(); changed(a) > 0 {
			t.Fatalf("woken %v, cooled %v while no host takes any", changedNames(a.Wake), changedNames(a.Cool))
		}
	}
	// One that lies on a host starts instead of the one that waits.
	w.place("sales-3", "h1")
	w.change("sales-3", func(d *v1.Desktop) { d.Incarnation.UnplacedReason = "" })
	w.until(t, "2027-04-05 06:10")
	if d := w.desktops["sales-3"]; !isDue(w.now, d) {
		t.Errorf("a desktop with a host waits: %v", d)
	}
}
