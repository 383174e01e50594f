package rollout_test

import (
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

func TestWithdrawnVersionHalts(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.publish(healthy)
	w.settle(4 * time.Minute)
	w.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_WITHDRAWN
	w.settle(time.Minute)
	w.checkPhase(t, phaseHalted)
	w.says(t, "version 2 of image debian may not be run any more")
	w.publish(healthy)
	w.settle(time.Hour)
	w.check(t, 3, phaseDone)
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
