package rollout_test

import (
	"testing"
	"time"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

func TestWithdrawnVersionHalts(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.publish(healthy)
	w.pool.Spec.Version = 2
	w.settle(4 * time.Minute)
	w.withdraw(2)
	w.settle(time.Minute)
	w.checkPhase(t, phaseHalted)
	w.says(t, "version 2 of image debian may not be run any more")
	w.pool.Spec.Version = w.publish(healthy)
	w.settle(time.Hour)
	w.check(t, 3, phaseDone)
}

// When the current version is withdrawn, the image points to the one before it: pools go back, whether or not they were done,
// and wait for no window.
func TestWithdrawnCurrentVersionGoesBack(t *testing.T) {
	for name, settled := range map[string]time.Duration{"running": 4 * time.Minute, "done": time.Hour} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(12, quick("1", "50%"))
			w.publish(healthy)
			w.settle(settled)
			never, err := calendar.NewWindow(&v1.Window{From: "03:00", To: "03:01", TimeZone: "UTC"}, nil)
			must(t, err)
			w.window = never
			w.withdraw(2)
			w.settle(20 * time.Minute)
			w.check(t, 1, phaseDone)
			if !w.newest().GetSpec().GetRollback() || w.rollouts[0].GetStatus().GetPhase() != phaseRolledBack {
				t.Errorf("rollouts %v", w.rollouts)
			}
		})
	}
}

// Nothing may begin with a withdrawn version, not even while the next one's canary is watched: lives that begin get the next.
func TestWithdrawnBase(t *testing.T) {
	w := newWorld(6, quick("1", "50%"))
	for i := range 6 {
		w.claim(i)
	}
	w.publish(healthy)
	w.settle(2 * time.Minute)
	w.withdraw(1)
	for i := range 6 {
		w.release(i)
	}
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestPoolThatGoes(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.publish(healthy)
	w.settle(4 * time.Minute)
	w.pool.Meta.Deletion = &v1.Deletion{}
	w.decide()
	w.checkPhase(t, phaseSuperseded)
	if w.pool.GetRelease().GetRollout() != "" || w.pool.GetRelease().GetMoving() {
		t.Errorf("release %v", w.pool.GetRelease())
	}
}

func TestOldRolloutsGo(t *testing.T) {
	w := newWorld(2, quick("1"))
	for range 14 {
		w.publish(healthy)
		w.settle(20 * time.Minute)
	}
	w.check(t, 15, phaseDone)
	if len(w.rollouts) != 10 || w.newest().GetMeta().GetName() != "sales-14" || w.rollouts[0].GetMeta().GetName() != "sales-5" {
		t.Errorf("%d rollouts, from %s to %s", len(w.rollouts), w.rollouts[0].GetMeta().GetName(), w.newest().GetMeta().GetName())
	}
}

// A pool made before releases were runs what most of its desktops do, and moves from there.
func TestPoolWithoutRelease(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.pool.Release = nil
	w.desktops[3].Incarnation.Version = 7
	w.publish(healthy)
	w.decide()
	if r := w.pool.GetRelease(); r.GetVersion() != 1 || r.GetNext() != 2 {
		t.Errorf("release %v", r)
	}
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

// A life whose failure was seen only by its event counts, and one seen twice counts once.
func TestFailuresAreCountedOnce(t *testing.T) {
	policy := quick("1", "50%")
	policy.MaxFailures = 5
	w := newWorld(12, policy)
	w.publish(healthy)
	w.settle(time.Minute)
	w.health[2] = diesSoon
	w.poolRound()
	w.hostRound()
	for _, d := range w.desktops { // what the desktop shows is lost before the loop looks
		if d.GetIncarnation().GetVersion() == 2 {
			d.Status = nil
			d.Incarnation.Generation += 1000
		}
	}
	w.health[2] = healthy
	for range 3 {
		w.decide()
	}
	s := w.newest().GetStatus()
	if s.GetFailed() != 1 || len(s.GetFailures()) != 1 || s.GetFailures()[0].GetMessage() != "the VM died" {
		t.Errorf("status %v", s)
	}
}
