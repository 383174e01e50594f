package pool

import (
	"strings"
	"testing"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// doom lets every desktop that starts fail after a minute, for so many minutes, and returns when holds began and how
// many lives were made.
func doom(w *world, minutes int) (holds []time.Duration, lives int) {
	start := w.now
	for range minutes * 6 {
		actions := w.round()
		lives += len(actions.Create) + len(actions.Renew)
		if len(actions.HeldBack) != 0 {
			holds = append(holds, w.now.Sub(start).Round(time.Minute))
		}
		for _, name := range w.names() {
			d := w.desktops[name]
			if store.State(d) != v1.DesktopState_DESKTOP_STATE_STARTING {
				w.advance(name, "h1")
			} else if w.now.Sub(d.Incarnation.Created.AsTime()) >= time.Minute {
				w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "kernel panic")
			}
		}
		w.now = w.now.Add(10 * time.Second)
	}
	return holds, lives
}

func TestCreateLoopIsHeldBack(t *testing.T) {
	for _, seats := range []uint32{1, 6} {
		w := newWorld(seats)
		holds, lives := doom(w, 4*60)
		if len(holds) < 8 || len(holds) > 14 {
			t.Errorf("%d seats: %d holds in 4 hours: %v", seats, len(holds), holds)
		}
		if lives > int(seats)*3+len(holds) {
			t.Errorf("%d seats: %d lives were thrown away with %d holds", seats, lives, len(holds))
		}
		var gaps []time.Duration
		for i := 1; i < len(holds); i++ {
			gaps = append(gaps, holds[i]-holds[i-1])
			if i > 1 && gaps[i-1] < gaps[i-2]-time.Minute {
				t.Errorf("%d seats: holds get shorter: %v", seats, gaps)
			}
		}
		if last := gaps[len(gaps)-1]; last < 30*time.Minute || last > 35*time.Minute {
			t.Errorf("%d seats: the longest hold is about %v", seats, last)
		}
		status := w.pool.Status
		if status.HeldUntil == nil || !strings.Contains(status.Message, "too many failed in a row") || !strings.Contains(status.Message, "kernel panic") {
			t.Errorf("%d seats: status %v", seats, status)
		}
	}
}

// After a hold one desktop is tried, however many may be taken out at once and are missing.
func TestOneIsTriedAfterAHold(t *testing.T) {
	w := newWorld(9)
	w.pool.Spec.MaxUnavailable = 9
	for _, name := range []string{"", "sales-1", "sales-2", "sales-3"} {
		w.round()
		if name != "" {
			w.place(name, "h1")
			w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "no")
		}
	}
	if a := w.round(); len(a.HeldBack) == 0 && w.pool.Status.HeldUntil == nil {
		t.Fatalf("not held: %v", a.Status)
	}
	w.advance("sales-1", "")
	w.advance("sales-2", "")
	w.pool.Spec.Desktops = 12
	w.now = w.now.Add(2 * time.Minute)
	tried := 0
	for range 10 {
		a := w.round()
		tried += len(a.Create) + len(a.Renew) + len(a.Retire)
	}
	if tried != 1 {
		t.Errorf("%d were tried at once after the hold", tried)
	}
}

func TestHoldEndsWithSuccess(t *testing.T) {
	w := newWorld(6)
	if holds, _ := doom(w, 60); len(holds) < 3 {
		t.Fatalf("holds: %v", holds)
	}
	if n := w.settle(200); n < 0 || len(w.ready()) != 6 {
		t.Fatalf("does not recover when the fault is mended: %v", w.pool.Status)
	}
	if w.pool.Status.HeldUntil != nil || w.pool.Status.Message != "" {
		t.Errorf("status after recovery: %v", w.pool.Status)
	}
	for _, name := range []string{"sales-1", "sales-2", "sales-3"} { // the record is clean: the next hold is a short one
		w.change(name, func(d *v1.Desktop) { d.Status.Times = nil })
		w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "no")
	}
	for _, name := range w.names()[3:] { // no success between: the others got ready before
		w.change(name, func(d *v1.Desktop) { d.Status.Times = d.Status.Times[:0] })
		w.report(name, v1.DesktopState_DESKTOP_STATE_READY, "")
		w.now = w.now.Add(time.Second)
	}
	for _, name := range []string{"sales-1", "sales-2", "sales-3"} {
		w.change(name, func(d *v1.Desktop) { d.Status.Times = nil })
		w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "no")
	}
	if a := w.round(); len(a.HeldBack) == 0 || a.Again != time.Minute {
		t.Errorf("hold %v for %v, want one of a minute", a.HeldBack, a.Again)
	}
}

// Whoever mends the image must not wait for the hold of the broken one.
func TestAnotherVersionIsTriedAtOnce(t *testing.T) {
	w := newWorld(6)
	doom(w, 60)
	if w.pool.Status.HeldUntil == nil {
		t.Fatal("not held")
	}
	w.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_READY
	w.image.Status.Current = 2
	if a := w.round(); len(a.Retire)+len(a.Renew)+len(a.Create) == 0 {
		t.Errorf("nothing begins: %v", a.Status)
	}
	if w.settle(100) < 0 || len(w.ready()) != 6 {
		t.Errorf("does not recover: %v", w.pool.Status)
	}
}

func TestNoHoldForOtherReasons(t *testing.T) {
	t.Run("users shut their desktops down", func(t *testing.T) {
		w := settled(t, 8)
		for _, name := range w.names() {
			w.claim(name, "u")
			w.report(name, v1.DesktopState_DESKTOP_STATE_STOPPED, "")
			w.release(name)
		}
		if a := w.round(); len(a.HeldBack) != 0 || len(a.Retire) != 2 || a.Retire[0].Reason != "" {
			t.Errorf("hold %v, retired %v", a.HeldBack, a.Retire)
		}
	})
	t.Run("ready ones die", func(t *testing.T) {
		w := settled(t, 8)
		for _, name := range w.names() {
			w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "the host killed it")
		}
		if a := w.round(); len(a.HeldBack) != 0 || len(a.Retire) != 2 {
			t.Errorf("hold %v, retired %v", a.HeldBack, changedNames(a.Retire))
		}
	})
	t.Run("two failures", func(t *testing.T) {
		w := newWorld(2)
		w.round()
		for _, name := range w.names() {
			w.place(name, "h1")
			w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "no")
		}
		if a := w.round(); len(a.HeldBack) != 0 || len(a.Retire) != 1 {
			t.Errorf("hold %v, retired %v", a.HeldBack, changedNames(a.Retire))
		}
	})
}

// A host's clock that runs ahead or behind must not hold a pool back for ever.
func TestHoldBearsWrongClocks(t *testing.T) {
	for _, skew := range []time.Duration{-24 * time.Hour, -20 * time.Minute, 20 * time.Minute, 24 * time.Hour} {
		w := newWorld(4)
		doom(w, 30)
		for range 400 {
			w.round()
			for _, name := range w.names() {
				now := w.now
				w.now = now.Add(skew)
				w.advance(name, "h1")
				w.now = now
			}
			w.now = w.now.Add(10 * time.Second)
		}
		if len(w.ready()) != 4 {
			t.Errorf("skew %v: %v", skew, w.pool.Status)
			continue
		}
		w.claim("sales-1", "u")
		w.release("sales-1")
		for w.round(); store.State(w.desktops["sales-1"]) != v1.DesktopState_DESKTOP_STATE_STARTING; w.round() {
			w.advance("sales-1", "h1")
		}
		w.report("sales-1", v1.DesktopState_DESKTOP_STATE_FAILED, "bad luck")
		if a := w.round(); len(a.HeldBack) != 0 {
			t.Errorf("skew %v: one failure after the recovery is held back as if there had been none", skew)
		}
	}
}
