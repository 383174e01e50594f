package pool

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// TestDayProperties lets days go by over a pool with any schedule, while everything happens to it in any order, clocks are set
// by hours, and versions come and go. Every round is checked; in the end, with all well and the schedule at rest, the pool
// must come to what is wanted, and stay.
func TestDayProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(uint32(rapid.IntRange(0, 10).Draw(t, "seats")))
		zone := rapid.SampledFrom([]string{"Asia/Tokyo", "America/New_York"}).Draw(t, "zone")
		withSchedule(zone, drawSchedule(t), int64(rapid.SampledFrom([]int{0, 2, 4, 8}).Draw(t, "per host")))(w)
		w.now = time.Date(2027, 3, 13, 20, 0, 0, 0, time.UTC) // the night before New York sets its clocks
		w.pool.Spec.MinReady = uint32(rapid.IntRange(0, 3).Draw(t, "min_ready"))
		w.pool.Spec.MaxUnavailable = uint32(rapid.IntRange(0, 3).Draw(t, "max_unavailable"))
		w.pool.Spec.Refresh = rapid.SampledFrom([]*v1.RefreshPolicy{
			nil, {Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 1}, {Mode: v1.RefreshMode_REFRESH_MODE_NEVER},
		}).Draw(t, "refresh")
		if rapid.Bool().Draw(t, "release") {
			published(w)
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0:
				w.happen(t)
			case 1:
				w.now = w.now.Add(time.Duration(rapid.IntRange(-120, 300).Draw(t, "minutes")) * time.Minute)
			case 2:
				w.queue = rapid.IntRange(0, 3).Draw(t, "queue")
			case 3:
				w.plan(t)
			default:
				w.checkedDay(t)
			}
		}
		w.restDay(t)
	})
}

func drawSchedule(t *rapid.T) *v1.Schedule {
	target := rapid.SampledFrom([]string{"", "0", "2", "5", "50%", "100%"})
	s := &v1.Schedule{Open: target.Draw(t, "open"), Closed: target.Draw(t, "closed"), SpareBuffer: rapid.SampledFrom([]string{"0", "1", "20%"}).Draw(t, "buffer")}
	if rapid.Bool().Draw(t, "span") {
		s.Spans = []*v1.TargetSpan{{From: "02:15", To: "02:45", Target: "4"}, {From: "12:00", To: "12:40", Target: "1"}}
	}
	return s
}

// plan does what the plan's loop may do: gives cold desktops a time to start, or takes it back.
func (w *world) plan(t *rapid.T) {
	for _, name := range w.names() {
		d := w.desktops[name]
		if !isCold(w.now, d) || d.Claim != nil || d.Meta.Deletion != nil {
			continue
		}
		at := time.Time{}
		if rapid.Bool().Draw(t, name) {
			at = w.now.Add(time.Duration(rapid.IntRange(-10, 300).Draw(t, "at")) * time.Minute)
			if w.memory != 0 && w.hosts[d.Incarnation.Host] && d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_PREPARED &&
				!w.room(d.Incarnation.Host).Holds(need(d, room.Runs)) {
				at = time.Time{}
			}
		}
		w.revision++
		w.put(toStart(d, at))
	}
}

// checkedDay is a round with the rules of schedules checked.
func (w *world) checkedDay(t *rapid.T) {
	snapshot := w.snapshot()
	before := newDecision(w.now, w.snapshot())
	before.weigh(nil)
	promised := w.promisedMemory()
	actions := Decide(w.now, snapshot)
	snapshot.Rooms = sync.OnceValue(w.rooms) // it books in them
	if again := Decide(w.now, snapshot); !slices.Equal(allNames(actions), allNames(again)) || !proto.Equal(actions.Status, again.Status) {
		t.Fatal("Decide is not deterministic")
	}
	checkActions(t, w, actions)
	for _, change := range slices.Concat(actions.Wake, actions.Cool) {
		was := w.desktops[change.Desktop.Meta.Name]
		if was.Claim != nil || was.Meta.Deletion != nil {
			t.Fatalf("woke or cooled %v", was)
		}
		ends := change.Desktop.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED
		if ends && was.Incarnation.UsedBy != "" {
			t.Fatalf("%s is cooled, and %s's things are lost", was.Meta.Name, was.Incarnation.UsedBy)
		}
	}
	cooled := w.told(t, actions)
	w.commit(actions)
	after := newDecision(w.now, w.snapshot())
	after.weigh(nil)
	if cooled > 0 && after.warm < min(before.warm, after.soon) {
		t.Fatalf("%d are cooled, %d ran, and %d run now, wanted %d now and %d soon", cooled, before.warm, after.warm, after.want, after.soon)
	}
	if len(actions.Wake) > 0 && after.trials() >= 0 && after.next == nil && after.warm > max(before.warm, after.want) {
		t.Fatalf("%d are woken, and %d run where %d are wanted", len(actions.Wake), after.warm, after.want)
	}
	for name, memory := range w.promisedMemory() {
		if w.memory > 0 && memory > w.memory && memory > promised[name] {
			t.Fatalf("%s: %d MiB are promised after %d, it has %d", name, memory, promised[name], w.memory)
		}
	}
}

// told counts the desktops that are cooled.
func (w *world) told(t *rapid.T, a Actions) (cooled int) {
	for _, change := range a.Cool {
		if was := w.desktops[change.Desktop.Meta.Name]; isDue(w.now, was) {
			cooled++
		} else if !isStray(w.now, was) {
			t.Fatalf("%s is cooled, and did not run: %v", was.Meta.Name, was)
		}
	}
	return cooled
}

func (w *world) promisedMemory() map[string]int64 {
	promised := map[string]int64{}
	for _, d := range w.desktops {
		over := store.State(d) == v1.DesktopState_DESKTOP_STATE_DELETED
		if d.Incarnation.Host != "" && !over && room.PhaseOf(d) == room.Runs {
			promised[d.Incarnation.Host] += mebi
		}
	}
	return promised
}

// restDay makes the world well and the schedule the same at all times, and wants the pool to come to it, and to stay there.
func (w *world) restDay(t *rapid.T) {
	target := rapid.SampledFrom([]string{"0", "3", "100%"}).Draw(t, "in the end")
	w.mend()
	w.queue = 0
	w.now = w.now.Add(48 * time.Hour) // what is refreshed after a day is due now, and not in the hours that are watched
	for _, name := range w.names() {  // nothing is planned any more
		if d := w.desktops[name]; isCold(w.now, d) && d.Incarnation.StartAt != nil {
			w.revision++
			w.put(toStart(d, time.Time{}))
		}
	}
	w.pool = proto.CloneOf(w.pool)
	w.pool.Spec.Schedule = &v1.Schedule{Open: target, Closed: target, SpareBuffer: "0"}
	if w.settle(400) < 0 {
		t.Fatalf("never settles: %v", w.pool.Status)
	}
	s := w.pool.Status
	ready, room := 0, 1000
	if w.memory > 0 {
		room = 2 * int(w.memory/mebi)
	}
	kept := 0
	for _, d := range w.desktops {
		if store.State(d) == v1.DesktopState_DESKTOP_STATE_READY && isDue(w.now, d) {
			ready++
		}
		if d.Claim != nil || d.Incarnation.UsedBy != "" {
			kept++ // some are another's, or lie where there is no room for them
		}
	}
	if want := min(int(s.Wanted), room, len(w.desktops)); ready < want-kept || ready > max(int(s.Wanted), kept) {
		t.Fatalf("in the end %d of %d are ready, %d wanted, room for %d, %d used: %v", ready, len(w.desktops), s.Wanted, room, kept, s)
	}
	before := fmt.Sprint(w.standing())
	for range 40 {
		a := w.round()
		if changed(a) > 0 {
			t.Fatalf("does not stay: %v", allNames(a))
		}
		w.now = w.now.Add(7 * time.Minute)
	}
	if after := fmt.Sprint(w.standing()); after != before {
		t.Fatalf("went from %s to %s", before, after)
	}
}
