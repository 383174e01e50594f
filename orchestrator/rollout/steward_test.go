package rollout_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// desk is a Steward on a store that holds what a world holds.
type desk struct {
	*rollout.Steward
	*testing.T
	objects *store.Store
	now     time.Time
}

// newDesk copies a world into a store.
func newDesk(t *testing.T, w *world) desk {
	t.Helper()
	backend := store.NewMemory()
	api, mine := store.Open(backend, store.WriterAPI), store.Open(backend, store.WriterRollout)
	put := func(o store.Object, fill func()) {
		_, err := api.Commit(t.Context(), store.Create(o))
		must(t, err)
		fill()
	}
	spec := &v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: w.pool.GetSpec()}
	put(spec, func() {
		_, err := store.Modify(t.Context(), mine, "sales", func(p *v1.Pool) error { p.Release = w.pool.GetRelease(); return nil })
		must(t, err)
	})
	_, err := mine.Commit(t.Context(), store.Create(w.image))
	must(t, err)
	for _, r := range w.rollouts {
		_, err := mine.Commit(t.Context(), store.Create(r))
		must(t, err)
	}
	return desk{Steward: rollout.NewSteward(mine, api), T: t, objects: mine, now: w.now}
}

// pool returns the pool's release and the newest rollout as they are stored.
func (d desk) stored(name string) (*v1.Release, *v1.Rollout) {
	d.Helper()
	pool, err := store.Get[*v1.Pool](d.Context(), d.objects, "sales")
	must(d.T, err)
	r, err := store.Get[*v1.Rollout](d.Context(), d.objects, name)
	must(d.T, err)
	return pool.GetRelease(), r
}

// refuses checks that a call was refused, and with which words.
func refuses(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, rollout.ErrRefused) {
		t.Errorf("%s: %v, want it refused", what, err)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %q lacks %q", what, err, word)
		}
	}
}

func TestStewardWithoutRollout(t *testing.T) {
	d := newDesk(t, newWorld(6, quick("1")))
	_, err := d.RollBack(t.Context(), d.now, "sales", "hanako", "")
	refuses(t, "RollBack", err, "nothing was ever rolled out")
	_, err = d.Start(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Start", err, "nothing to move", "version 1")
	_, err = d.Pause(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Pause", err, "no rollout of it runs")
	_, err = d.Resume(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Resume", err, "no rollout of it runs")
	if _, err = d.RollBack(t.Context(), d.now, "marketing", "hanako", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("RollBack of no pool: %v", err)
	}
}

func TestStewardPausesAndResumes(t *testing.T) {
	w := newWorld(6, quick("1"))
	w.publish(healthy)
	w.settle(time.Minute)
	d := newDesk(t, w)
	r, err := d.Pause(t.Context(), d.now, "sales", "hanako")
	must(t, err)
	if !r.GetSpec().GetPaused() {
		t.Errorf("paused: %v", r)
	}
	_, err = d.Pause(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Pause again", err, "paused already")
	_, err = d.Start(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Start", err, "goes on already")
	r, err = d.Resume(t.Context(), d.now.Add(time.Second), "sales", "hanako")
	must(t, err)
	if r.GetSpec().GetPaused() {
		t.Errorf("resumed: %v", r)
	}
	_, err = d.Resume(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Resume again", err, "neither paused nor halted")
	events, _, err := store.List[*v1.Event](t.Context(), d.objects)
	must(t, err)
	var reasons []string
	for _, e := range events {
		if e.GetSubject() != "sales" || e.GetMeta().GetLabels()["rollout"] != "sales-1" {
			t.Errorf("event %v", e)
		}
		reasons = append(reasons, e.GetReason())
	}
	same(t, "events", []string{rollout.ReasonPaused, rollout.ReasonResumed}, reasons)
}

func TestStewardResumesHalted(t *testing.T) {
	w := newWorld(6, quick("1"))
	w.publish(neverReady)
	w.settle(5 * time.Minute)
	w.checkPhase(t, phaseHalted)
	d := newDesk(t, w)
	_, err := d.Start(t.Context(), d.now, "sales", "hanako")
	refuses(t, "Start", err, "halted", "rollout resume sales")
	r, err := d.Resume(t.Context(), d.now, "sales", "hanako")
	must(t, err)
	release, stored := d.stored("sales-1")
	if r.GetStatus().GetPhase() != phaseRunning || r.GetStatus().GetAccepted() != r.GetStatus().GetFailed() || release.GetAdmitted() != 1 {
		t.Errorf("resumed: %v, release %v", r, release)
	}
	same(t, "stored", stored.GetStatus(), r.GetStatus())
}

func TestStewardRollsBack(t *testing.T) {
	for name, settled := range map[string]time.Duration{"running": 3 * time.Minute, "done": time.Hour} {
		w := newWorld(6, quick("1"))
		w.publish(healthy)
		w.settle(settled)
		d := newDesk(t, w)
		r, err := d.RollBack(t.Context(), d.now, "sales", "hanako", "the printer is gone")
		must(t, err)
		same(t, name, &v1.RolloutSpec{
			Pool: "sales", Image: "debian", FromVersion: 2, ToVersion: 1, Rollback: true, By: "hanako", Reason: "the printer is gone",
		}, r.GetSpec())
		release, _ := d.stored("sales-2")
		if release.GetVersion() != 1 || release.GetNext() != 0 || !release.GetMoving() || !release.GetRollback() || release.GetRefused() != 2 {
			t.Errorf("%s: release %v", name, release)
		}
		if _, before := d.stored("sales-1"); before.GetStatus().GetPhase() != phaseRolledBack || before.GetStatus().GetEnded() == nil {
			t.Errorf("%s: what was taken back is %v", name, before.GetStatus())
		}
		_, err = d.RollBack(t.Context(), d.now, "sales", "hanako", "")
		refuses(t, name+": RollBack again", err, "a rollback is not rolled back", "rollout start sales")
		// Whoever asks for it gets the version that was given up.
		r, err = d.Start(t.Context(), d.now, "sales", "taro")
		must(t, err)
		release, _ = d.stored("sales-3")
		if r.GetSpec().GetToVersion() != 2 || r.GetSpec().GetRollback() || release.GetRefused() != 0 || release.GetNext() != 2 || release.GetMoving() {
			t.Errorf("%s: started %v, release %v", name, r, release)
		}
		if _, before := d.stored("sales-2"); before.GetStatus().GetPhase() != phaseSuperseded {
			t.Errorf("%s: the rollback is %v", name, before.GetStatus())
		}
	}
}

func TestStewardRollsNothingUnfitBack(t *testing.T) {
	w := newWorld(6, quick("1"))
	w.publish(healthy)
	w.settle(time.Hour)
	w.image.Status.Versions[0].State = v1.VersionState_VERSION_STATE_WITHDRAWN
	d := newDesk(t, w)
	_, err := d.RollBack(t.Context(), d.now, "sales", "hanako", "")
	refuses(t, "RollBack to a withdrawn version", err, "version 1", "may not be run")

	w.image.Status.Versions[0].State = v1.VersionState_VERSION_STATE_READY
	w.pool.Spec.Image = "windows"
	d = newDesk(t, w)
	_, err = d.RollBack(t.Context(), d.now, "sales", "hanako", "")
	refuses(t, "RollBack to another image", err, "spec.image")
}
