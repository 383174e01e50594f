package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// busy is a pool whose users come and go while some desktops never get ready.
type busy struct {
	*world
	cursed map[string]bool
	// failures are the times at which a failed life was told to end, and told the events of holds, both by desktop.
	failures, told map[string][]time.Time
	successes      int
	frozen         bool // the whole pool was held back
}

func newBusy(w *world, cursed ...string) *busy {
	b := &busy{world: w, cursed: map[string]bool{}, failures: map[string][]time.Time{}, told: map[string][]time.Time{}}
	for _, name := range cursed {
		b.cursed[name] = true
	}
	return b
}

// turn is a round, after which each desktop goes one step and ready ones get a user, if leave says so, who goes at once.
func (b *busy) turn(leave func(name string) bool) Actions {
	actions := b.round()
	for _, change := range actions.Retire {
		if change.Attempt != "" {
			name := change.Desktop.Meta.Name
			b.failures[name] = append(b.failures[name], b.now)
		}
	}
	for _, held := range actions.HeldBack {
		if held.Desktop != nil {
			b.told[held.Desktop.Meta.Name] = append(b.told[held.Desktop.Meta.Name], b.now)
		}
	}
	b.frozen = b.frozen || b.pool.Status.HeldUntil != nil
	for _, name := range b.names() {
		d := b.desktops[name]
		switch state := store.State(d); {
		case state == v1.DesktopState_DESKTOP_STATE_STARTING && b.cursed[name] && d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_DELETED:
			b.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "its data disk is broken")
		case state == v1.DesktopState_DESKTOP_STATE_READY && d.Incarnation.UsedBy == "" && leave(name):
			b.claim(name, "hanako")
			b.release(name)
		case state == v1.DesktopState_DESKTOP_STATE_STARTING:
			b.successes++
			fallthrough
		default:
			b.advance(name, "h1")
		}
	}
	b.now = b.now.Add(5 * time.Second)
	return actions
}

// most is how many of the times lie in one window at most.
func most(times []time.Time, window time.Duration) (n int) {
	for i, from := range times {
		in := 0
		for _, at := range times[i:] {
			if at.Sub(from) < window {
				in++
			}
		}
		n = max(n, in)
	}
	return n
}

// A desktop that never gets ready is held back although others get ready all the time, and they are not.
func TestOneBadSeatIsHeldBackAlone(t *testing.T) {
	b := newBusy(settled(t, 12), "sales-7")
	b.claim("sales-7", "taro")
	b.release("sales-7")
	turns := 0
	everybody := func(name string) bool { turns++; return turns%4 == 0 }
	for range 4 * 60 * 12 {
		b.turn(everybody)
	}
	failures, told := b.failures["sales-7"], b.told["sales-7"]
	if n := most(failures, failureWindow); n > 5 {
		t.Errorf("%d failures in ten minutes: %v", n, failures)
	}
	if len(told) < 3 {
		t.Fatalf("failures at %v, held back at %v", failures, told)
	}
	if len(told) < 8 || len(told) > 14 || len(failures) > 3+len(told) {
		t.Errorf("%d failures and %d events in 4 hours", len(failures), len(told))
	}
	for i := 2; i < len(told); i++ {
		if told[i].Sub(told[i-1]) < told[i-1].Sub(told[i-2])-time.Minute {
			t.Errorf("waits get shorter: %v", told)
		}
	}
	if last := told[len(told)-1].Sub(told[len(told)-2]); last < 30*time.Minute || last > 35*time.Minute {
		t.Errorf("the longest wait is about %v", last)
	}
	if b.frozen || b.successes < 4*60 {
		t.Errorf("the pool was held back: %v; %d others got ready", b.frozen, b.successes)
	}
	if message := b.pool.Status.Message; !strings.Contains(message, "sales-7: its data disk is broken (it failed too often, and is not made anew before 2027-04-05 1") {
		t.Errorf("the pool says %q", message)
	}
}

// In a pool where nothing else happens, too, and the schedule of the others goes on.
func TestOneBadSeatDoesNotFreezeAQuietPool(t *testing.T) {
	b := newBusy(settled(t, 24), "sales-7")
	b.claim("sales-7", "taro")
	b.release("sales-7")
	for range 60 * 12 {
		b.turn(func(string) bool { return false })
	}
	if b.frozen || len(b.told["sales-7"]) < 4 {
		t.Errorf("held back: the pool %v, the desktop at %v", b.frozen, b.told["sales-7"])
	}
}

// Three bad desktops hold a quiet pool back, since that is all that is known of the version. What is tried then is one that was
// well, as soon as there is one.
func TestFrozenPoolTriesWhatWasWell(t *testing.T) {
	b := newBusy(settled(t, 24), "sales-6", "sales-7", "sales-8")
	for _, name := range []string{"sales-6", "sales-7", "sales-8"} {
		b.claim(name, "taro")
		b.release(name)
	}
	for range 3 * 60 * 12 {
		b.turn(func(string) bool { return false })
	}
	if b.pool.Status.HeldUntil == nil {
		t.Fatal("not held back")
	}
	b.claim("sales-9", "hanako")
	b.release("sales-9")
	for range 45 * 12 {
		b.turn(func(string) bool { return false })
	}
	if d := b.desktops["sales-9"]; store.State(d) != v1.DesktopState_DESKTOP_STATE_READY || d.Incarnation.UsedBy != "" {
		t.Errorf("after 45 minutes: %v, %v", d.Incarnation, b.pool.Status)
	}
}

// A desktop that got ready begins with a clean record, also when that life is over, and so does one that tries something else.
func TestSeatRecordEnds(t *testing.T) {
	start := func() *busy {
		b := newBusy(settled(t, 24), "sales-7")
		b.claim("sales-7", "taro")
		b.release("sales-7")
		for range 12 * 12 {
			b.turn(func(string) bool { return false })
		}
		if len(b.told["sales-7"]) < 2 || store.State(b.desktops["sales-7"]) != v1.DesktopState_DESKTOP_STATE_FAILED {
			t.Fatalf("held back at %v", b.told)
		}
		return b
	}
	t.Run("success", func(t *testing.T) {
		b := start()
		delete(b.cursed, "sales-7")
		for range 40 * 12 {
			b.turn(func(name string) bool { return name == "sales-7" })
		}
		holds, failures := len(b.told["sales-7"]), len(b.failures["sales-7"])
		b.cursed["sales-7"] = true
		for range 60 {
			a := b.turn(func(name string) bool { return name == "sales-7" })
			if len(a.HeldBack) == 0 {
				continue
			}
			if n := len(b.failures["sales-7"]) - failures; n != 2 || a.Again != time.Minute {
				t.Errorf("after a success it is held back at failure %d, for %v", n+1, a.Again)
			}
			break
		}
		if len(b.told["sales-7"]) != holds+1 {
			t.Errorf("after a success: failures at %v, held back at %v", b.failures, b.told)
		}
	})
	t.Run("another version", func(t *testing.T) {
		b := start()
		b.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_READY
		b.image.Status.Current = 2
		if a := b.turn(func(string) bool { return false }); !slices.Contains(changedNames(a.Retire), "sales-7") {
			t.Errorf("version 2 is not tried: %v", changedNames(a.Retire))
		}
	})
}

// The loop tells of it, remembers it, and says it to whoever asks.
func TestStoryOfABadSeat(t *testing.T) {
	story(t, func(h *house) {
		h.cursed = "sales-3"
		h.create(&v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "office", Zone: "lgwan", Desktops: 6}}, store.WriterAPI)
		time.Sleep(45 * time.Minute)
		if n := h.told(ReasonSeatHeldBack); n < 4 || n > 6 || h.told(ReasonReplaced) > n+2 {
			t.Errorf("held back %d times in 45 minutes, replaced %d times", n, h.told(ReasonReplaced))
		}
		if s := h.pool().GetStatus(); h.told(ReasonHeldBack) != 0 || s.GetHeldUntil() != nil || s.GetReady() != 5 {
			t.Errorf("the pool: %v", s)
		}
		answer, err := Explain(h.mirror.View(), time.Now(), "sales-3")
		if err != nil || !strings.Contains(answer.GetSummary(), "kernel panic; it is made anew after 2000-01-01 ") {
			t.Errorf("explained: %v, %v", answer, err)
		}
		if all := strings.Join(answer.GetDetails(), "\n"); !strings.Contains(all, "DesktopHeldBack: sales-3 failed to get ready again, 8 times by now, while the pool has others: it alone is not made anew for 30 minutes, until 2000-01-01 01:0") {
			t.Errorf("told: %s", all)
		}
	})
}

// What holds a desktop back, or no longer does, is not swept for want of space.
func TestRecordIsNotSwept(t *testing.T) {
	now := time.Date(2027, 4, 5, 8, 0, 0, 0, time.UTC)
	var events []*v1.Event
	add := func(ago time.Duration, name, reason string) {
		event := store.NewEvent(now.Add(-ago), &v1.Desktop{Meta: &v1.Meta{Name: name}}, reason, "", true)
		event.Meta.Labels[attemptLabel] = "a"
		events = append(events, event)
	}
	add(holdMemory+time.Minute, "sales-1", ReasonReplaced)
	add(time.Hour, "sales-1", ReasonReplaced)
	add(time.Hour, "sales-1", ReasonSeatHeldBack)
	add(time.Hour, "sales-1", ReasonRenewed)
	add(time.Hour, "sales-2", ReasonRenewed) // which never failed
	for range maxEvents {
		add(time.Minute, "sales-3", "Test")
	}
	if old := expired(now, events); len(old) != 2 || old[0] != events[0] || old[1] != events[4] {
		t.Errorf("%d are swept", len(old))
	}
}

// TestSeatFailuresProperties: whichever desktops never get ready, however often the others are made anew and whenever
// leaders change (each round is decided anew from what is stored), no desktop fails more often than three times in ten
// minutes and what the waits allow, each wait is told once, and all are well soon after the fault is mended.
func TestSeatFailuresProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seats := rapid.IntRange(2, 12).Draw(t, "seats")
		w := newWorld(uint32(seats))
		w.pool.Spec.MaxUnavailable = uint32(rapid.IntRange(0, 4).Draw(t, "max_unavailable"))
		b := newBusy(w)
		for n := range seats {
			if rapid.IntRange(0, 3).Draw(t, "cursed") == 0 {
				b.cursed[fmt.Sprintf("sales-%d", n+1)] = true
			}
		}
		often := rapid.IntRange(1, 200).Draw(t, "often")
		asked := 0
		leave := func(string) bool { asked++; return asked%often == 0 }
		for range rapid.IntRange(60, 500).Draw(t, "turns") {
			b.turn(leave)
		}
		for name, times := range b.failures {
			// Two lives, those after waits of none, 1, 2 and 4 minutes: five begin to end within ten.
			if n := most(times, failureWindow); n > 5 {
				t.Fatalf("%s failed %d times in ten minutes: %v", name, n, times)
			}
			if len(b.told[name]) > len(times)+1 {
				t.Fatalf("%s: %d waits are told for %d failures", name, len(b.told[name]), len(times))
			}
		}
		b.cursed = nil
		if w.settle(300) < 0 || len(w.ready()) != seats {
			t.Fatalf("not well after the fault is mended: %v", w.pool.Status)
		}
	})
}
