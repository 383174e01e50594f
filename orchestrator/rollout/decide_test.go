package rollout_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	phaseRunning    = v1.RolloutPhase_ROLLOUT_PHASE_RUNNING
	phaseHalted     = v1.RolloutPhase_ROLLOUT_PHASE_HALTED
	phaseDone       = v1.RolloutPhase_ROLLOUT_PHASE_DONE
	phaseRolledBack = v1.RolloutPhase_ROLLOUT_PHASE_ROLLED_BACK
	phaseSuperseded = v1.RolloutPhase_ROLLOUT_PHASE_SUPERSEDED
	phaseStaging    = v1.RolloutPhase_ROLLOUT_PHASE_STAGING
)

func quick(waves ...string) *v1.RolloutPolicy {
	return &v1.RolloutPolicy{Waves: waves, Monitor: durationpb.New(time.Minute)}
}

// check tells what a world should be: all desktops of one version, and the newest rollout in a phase.
func (w *world) check(t *testing.T, version uint32, phase v1.RolloutPhase) {
	t.Helper()
	for _, line := range w.wrong {
		t.Error(line)
	}
	want := ready
	if w.night {
		want = prepared
	}
	for _, d := range w.desktops {
		if d.GetIncarnation().GetVersion() != version || state(d) != want {
			t.Errorf("%s runs version %d and is %v, want %d", d.GetMeta().GetName(), d.GetIncarnation().GetVersion(), state(d), version)
		}
	}
	w.checkPhase(t, phase)
}

func (w *world) checkPhase(t *testing.T, phase v1.RolloutPhase) {
	t.Helper()
	if got := w.newest().GetStatus().GetPhase(); got != phase {
		t.Errorf("%s is %v, want %v: %s", w.newest().GetMeta().GetName(), got, phase, w.newest().GetStatus().GetMessage())
	}
}

func (w *world) reasons() (list []string) {
	for _, note := range w.notes {
		list = append(list, note.Reason)
	}
	return list
}

func TestRollout(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	if w.active() != nil || w.pool.GetRelease().GetVersion() != 1 {
		t.Fatalf("a new pool: %v, %v", w.pool.GetRelease(), w.active())
	}
	w.publish(healthy)
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
	want := []string{
		rollout.ReasonStarted, rollout.ReasonStaged, rollout.ReasonWave, rollout.ReasonHealthy, rollout.ReasonWave,
		rollout.ReasonHealthy, rollout.ReasonWave, rollout.ReasonDone,
	}
	same(t, "events", want, w.reasons())
	for _, n := range w.notes {
		t.Log(n.Reason, n.Message)
	}
	r := w.pool.GetRelease()
	if r.GetVersion() != 2 || r.GetPrevious() != 1 || r.GetNext() != 0 || r.GetMoving() || r.GetRollout() != "" {
		t.Errorf("release %v", r)
	}
}

func same[T any](t *testing.T, what string, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
