package rollout_test

import (
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// asleep returns a pool whose desktops all wait cold.
func asleep(t *testing.T, seats int, policy *v1.RolloutPolicy) *world {
	w := newWorld(seats, policy)
	w.real, w.night = true, true
	w.pool.Spec.Schedule = &v1.Schedule{}
	w.settle(2 * hour)
	if cold, run := w.waiting(); cold != seats || run != 0 {
		t.Fatalf("at night %d of %d wait cold and %d run", cold, seats, run)
	}
	return w
}

func (w *world) waiting() (cold, run int) {
	for _, d := range w.desktops {
		switch state(d) {
		case prepared:
			cold++
		case ready:
			run++
		}
	}
	return cold, run
}

// At night the desktops of each wave run until it is proven, and no longer.
func TestRolloutAtNight(t *testing.T) {
	w := asleep(t, 12, quick("1", "50%"))
	w.publish(healthy)
	most := 0
	for range 120 {
		w.settle(time.Minute)
		_, run := w.waiting()
		most = max(most, run)
	}
	w.check(t, 2, phaseDone)
	if cold, run := w.waiting(); cold != 12 || run != 0 {
		t.Errorf("afterwards %d wait cold and %d run", cold, run)
	}
	// One of the canary, three (max_unavailable) of each of the two waves after it.
	if most != 7 {
		t.Errorf("%d ran at once, want 7", most)
	}
}

// A version that does not get ready is found by its canary, at night as by day, and nothing is left with it.
func TestBrokenRolloutAtNight(t *testing.T) {
	for name, bad := range map[string]health{"never ready": neverReady, "dies soon": diesSoon} {
		t.Run(name, func(t *testing.T) {
			w := asleep(t, 12, quick("1", "50%"))
			w.publish(bad)
			w.settle(2 * hour)
			w.checkPhase(t, phaseHalted)
			w.expect(t, "halted", map[uint32]int{1: 12, 2: 0})
			w.ask("roll back")
			w.settle(hour)
			w.check(t, 1, phaseDone)
		})
	}
}
