package hostagent_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

func TestFromAssignmentToReadyToDeleted(t *testing.T) {
	story(t, fakehost.Config{Fetch: 10 * time.Second}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		got := r.plane.status(a)
		if got.GetOrphan() || got.GetStatus().GetMessage() != "" {
			t.Errorf("reported as %v", got)
		}
		var reached []v1.DesktopState
		for _, at := range got.GetStatus().GetTimes() {
			reached = append(reached, at.GetState())
		}
		if len(reached) != 5 || reached[0] != placed || reached[4] != ready {
			t.Errorf("times of %v", reached)
		}
		r.await("described", 20*time.Second, func() bool { return r.plane.status(a).GetStatus().GetGuest().GetHostname() == "office-1" })
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, time.Minute)
		if r.runs(a) || r.starts(a) != 1 || r.host.Tally().Destroys[lifeOf(a)] != 0 {
			t.Errorf("after a graceful end: %+v", r.host.Tally())
		}
		r.plane.drop("office-1")
		r.plane.cut()
		r.await("forgotten", time.Minute, func() bool { return r.plane.lastReport().GetFull() && r.plane.status(a) == nil })
	})
}

func TestMetrics(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		registry := prometheus.NewPedanticRegistry()
		r.configure = func(cfg *hostagent.Config) { cfg.Registerer = registry }
		r.restart()
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		want := map[string]float64{
			"daybreak_agent_session_up": 1, "daybreak_agent_sessions_total": 1, "daybreak_agent_boots_in_flight": 0,
			"daybreak_agent_incarnations state=ready": 1, "daybreak_agent_incarnations state=failed": 0,
			"daybreak_agent_step_seconds outcome=done step=start": 1, "daybreak_agent_refused_assignments_total": 0,
		}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				name := family.GetName()
				for _, label := range metric.GetLabel() {
					name += " " + label.GetName() + "=" + label.GetValue()
				}
				got[name] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			}
		}
		for name, value := range want {
			if have, ok := got[name]; !ok || have != value {
				t.Errorf("%s = %v, %v; want %v", name, have, ok, value)
			}
		}
		if got["daybreak_agent_fetched_bytes_total"] == 0 {
			t.Error("no fetched bytes were counted")
		}
	})
}

func TestOneFetchForAllAndBootsInTurn(t *testing.T) {
	story(t, fakehost.Config{Fetch: 5 * time.Second}, func(r *rig) {
		var all []*v1.Assignment
		for i := range 8 {
			all = append(all, r.desktop(fmt.Sprintf("office-%d", i), 7))
		}
		r.configure = func(cfg *hostagent.Config) { cfg.MaxBoots = 3 }
		r.restart()
		r.plane.assign(all...)
		most, queued := 0, false
		r.await("all ready", 2*time.Minute, func() bool {
			most = max(most, r.host.Booting())
			done := true
			for _, a := range all {
				got := r.plane.status(a).GetStatus()
				queued = queued || got.GetState() == prepared && got.GetMessage() == "waits for a boot slot"
				done = done && got.GetState() == ready
			}
			return done
		})
		if most != 3 || !queued || r.host.Tally().Fetches != 1 {
			t.Errorf("at most %d booted at once, queued %v, %d fetches; want 3, true, 1", most, queued, r.host.Tally().Fetches)
		}
		if usage := r.plane.lastReport(); len(usage.GetImages()) != 1 {
			t.Errorf("images on the host: %v", usage.GetImages())
		}
	})
}

func TestWantedImagesAreFetchedAheadOfTheirUse(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		digest := r.plane.manifest.Digest().String()
		r.plane.set(func() { r.plane.wanted = &v1.WantedImages{Images: []*v1.WantedImage{{Image: "i", Digest: digest}}} })
		r.plane.cut()
		r.await("fetched", time.Minute, func() bool {
			images := r.plane.lastReport().GetImages()
			return len(images) == 1 && images[0] == digest
		})
	})
}

func TestSpoiltChunksAreFetchedAgain(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		r.plane.set(func() { r.plane.spoil = func(b []byte) []byte { b[len(b)/2] ^= 1; return b } })
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.await("said", time.Minute, func() bool {
			return strings.Contains(r.plane.status(a).GetStatus().GetMessage(), hostagent.ErrCorrupt.Error())
		})
		r.plane.set(func() { r.plane.spoil = nil })
		r.awaitState(a, ready, 2*time.Minute)
	})
}

func TestAGapEndsTheSessionAndNothingElse(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.plane.set(func() { r.plane.sequence++ })
		r.plane.assign(b)
		r.awaitState(b, ready, time.Minute)
		if hellos := r.plane.greeted(); len(hellos) != 2 || hellos[0].GetSessionId() == hellos[1].GetSessionId() {
			t.Errorf("%d sessions, want another one with another id", len(hellos))
		}
		if r.starts(a) != 1 || !r.runs(a) {
			t.Error("the gap was not survived")
		}
	})
}

func TestFirstMessageMustBeComplete(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.set(func() { r.plane.mangle = func(m *v1.Assignments) { m.Complete = false } })
		r.restart()
		r.plane.assign(a)
		time.Sleep(time.Minute)
		if r.plane.status(a) != nil || len(r.plane.greeted()) < 3 {
			t.Errorf("%d sessions; want them to end at once", len(r.plane.greeted()))
		}
		r.plane.set(func() { r.plane.mangle = nil })
		r.awaitState(a, ready, 2*time.Minute)
	})
}

func TestACompleteSetThatLacksDesktopsEndsNone(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a, later := r.desktop("office-1", 7), r.desktop("office-2", 8)
		later.Incarnation.StartAt = timestamppb.New(time.Now().Add(time.Hour))
		r.plane.assign(a, later)
		r.awaitState(a, ready, time.Minute)
		r.awaitState(later, prepared, time.Minute)
		r.plane.forget("office-1")
		r.plane.forget("office-2")
		r.plane.cut()
		r.await("orphans", time.Minute, func() bool { return r.plane.status(a).GetOrphan() && r.plane.status(later).GetOrphan() })
		time.Sleep(3 * time.Hour)
		r.restart()
		time.Sleep(time.Hour)
		if !r.runs(a) || r.plane.state(a) != ready || r.starts(later) != 0 || !r.plane.status(a).GetOrphan() {
			t.Errorf("orphans: %v, %v", r.plane.status(a), r.plane.status(later))
		}
		// Named again, both go on where they were.
		r.plane.assign(a, later)
		r.awaitState(later, ready, time.Minute)
		r.await("no orphan", time.Minute, func() bool { return !r.plane.status(a).GetOrphan() })
		if r.starts(a) != 1 {
			t.Error("an orphan was started again")
		}
	})
}

func TestRestartAdoptsWhatRuns(t *testing.T) {
	story(t, fakehost.Config{Boot: func(hostagent.Life) fakehost.Boot { return fakehost.Boot{After: 20 * time.Second} }}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, starting, time.Minute)
		r.restart()
		time.Sleep(5 * time.Second)
		if r.plane.state(a) != starting {
			t.Errorf("after a restart: %v", r.plane.status(a))
		}
		r.awaitState(a, ready, time.Minute)
		first := r.plane.status(a).GetStatus().GetTimes()
		r.await("described", time.Minute, func() bool { return r.plane.status(a).GetStatus().GetGuest() != nil })
		r.restart()
		time.Sleep(5 * time.Second)
		if got := r.plane.status(a).GetStatus(); got.GetState() != ready || len(got.GetTimes()) != len(first) || got.GetGuest() == nil || r.starts(a) != 1 {
			t.Errorf("after a restart: %v, started %d times", got, r.starts(a))
		}
	})
}

func TestThePlanIsOnTheHostAheadOfTime(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		opening := time.Now().Add(2 * time.Hour)
		a.Incarnation.StartAt = timestamppb.New(opening)
		r.plane.assign(a)
		r.awaitState(a, prepared, time.Minute)
		r.plane.set(func() { r.plane.refuse = errors.New("down for the night") })
		r.plane.cut()
		r.restart()
		time.Sleep(time.Until(opening.Add(-time.Second)))
		if r.starts(a) != 0 {
			t.Error("started before its time")
		}
		time.Sleep(10 * time.Second)
		if r.starts(a) != 1 {
			t.Error("not started at its time")
		}
		r.plane.set(func() { r.plane.refuse = nil })
		r.awaitState(a, ready, time.Minute)
	})
}

func TestQEMUThatEnded(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.EmptyLists(1)
		time.Sleep(time.Minute)
		if r.plane.state(a) != ready {
			t.Errorf("one empty list was believed: %v", r.plane.status(a))
		}
		r.host.EmptyLists(50)
		time.Sleep(2 * time.Minute)
		if r.plane.state(a) != ready {
			t.Errorf("empty lists were believed against the VM's own word: %v", r.plane.status(a))
		}
		r.host.Kill(lifeOf(a))
		r.awaitState(a, failed, 15*time.Second)
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, 15*time.Second)
		b := r.desktop("office-2", 8)
		r.plane.assign(b)
		r.awaitState(b, ready, time.Minute)
		r.host.SetState(lifeOf(b), hostagent.DomainGone)
		r.awaitState(b, failed, 30*time.Second)
	})
}

func TestAGuestThatDoesNotPowerOff(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.SetState(lifeOf(a), hostagent.DomainPaused)
		r.plane.assign(desired(a, v1.DesiredState_DESIRED_STATE_STOPPED))
		r.awaitState(a, stopping, 10*time.Second)
		time.Sleep(25 * time.Second)
		if !r.runs(a) {
			t.Error("ended before its grace was over")
		}
		r.awaitState(a, stopped, 20*time.Second)
		if overlays, _ := r.host.Overlays(t.Context()); len(overlays) != 1 {
			t.Error("a stopped desktop lost its overlay")
		}
	})
}

func TestWhyItIsNotReady(t *testing.T) {
	boots := map[string]fakehost.Boot{
		"silent-1": {Hangs: true},
		"broken-1": {After: time.Second, Probe: 3, Output: "no\x1b[31m display\n"},
	}
	cfg := fakehost.Config{Boot: func(life hostagent.Life) fakehost.Boot { return boots[life.Desktop] }}
	story(t, cfg, func(r *rig) {
		silent, broken := r.desktop("silent-1", 7), r.desktop("broken-1", 8)
		broken.Incarnation.Readiness = &v1.Readiness{Probe: []string{"/bin/check"}, Deadline: durationpb.New(time.Minute)}
		r.plane.assign(silent, broken)
		r.await("said why", 30*time.Second, func() bool {
			return r.plane.status(silent).GetStatus().GetMessage() == "the guest agent does not answer" &&
				r.plane.status(broken).GetStatus().GetMessage() == "the probe exited with 3: no [31m display"
		})
		r.awaitState(broken, failed, 2*time.Minute)
		if got := r.plane.status(broken).GetStatus().GetMessage(); got != "not ready within 1m0s: the probe exited with 3: no [31m display" {
			t.Errorf("failed because %q", got)
		}
		r.awaitState(silent, failed, 6*time.Minute)
		if !r.runs(silent) || !r.runs(broken) {
			t.Error("a VM was ended without being told")
		}
	})
}

func TestPausedByAFullStore(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.SetState(lifeOf(a), hostagent.DomainPausedIO)
		r.await("paused", 20*time.Second, func() bool {
			got := r.plane.status(a).GetStatus()
			return got.GetPausedIo() && got.GetState() == ready && strings.Contains(got.GetMessage(), "stands still")
		})
		r.host.SetState(lifeOf(a), hostagent.DomainRunning)
		r.await("going on", 20*time.Second, func() bool {
			got := r.plane.status(a).GetStatus()
			return !got.GetPausedIo() && got.GetMessage() == ""
		})
	})
}

func TestAFullStore(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		r.host.SetFull(true)
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		r.plane.assign(a)
		r.await("said", time.Minute, func() bool {
			return strings.Contains(r.plane.status(a).GetStatus().GetMessage(), hostagent.ErrNoSpace.Error())
		})
		r.awaitState(a, failed, 15*time.Minute)
		r.plane.assign(b)
		time.Sleep(time.Minute)
		r.host.SetFull(false)
		r.awaitState(b, ready, 3*time.Minute)
	})
}

func TestFaultsOfThePlatformAreSaid(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.configure = func(cfg *hostagent.Config) { cfg.Platform.Faults = []string{"this host cannot run guests under KVM"} }
		r.restart()
		r.await("said", time.Minute, func() bool { return strings.Contains(r.plane.lastReport().GetUnwell(), "under KVM") })
		if r.agent.Unwell() == "" || r.plane.state(a) != ready || !r.runs(a) {
			t.Errorf("unwell %q, %v", r.agent.Unwell(), r.plane.status(a))
		}
	})
}

func TestADamagedJournal(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.crash()
		if err := os.WriteFile(r.path, []byte(strings.Repeat("garbage", 10000)), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.plane.assign(toBeDeleted(a), r.desktop("office-2", 8))
		r.await("orphan", time.Minute, func() bool { return r.plane.status(a).GetOrphan() })
		time.Sleep(time.Hour)
		if !r.runs(a) || len(r.host.Running()) != 1 {
			t.Errorf("runs: %v", r.host.Running())
		}
		if unwell := r.plane.lastReport().GetUnwell(); !strings.Contains(unwell, "the journal is damaged") {
			t.Errorf("unwell: %q", unwell)
		}
		r.crash()
		if err := os.Rename(r.path, r.path+".damaged"); err != nil {
			t.Fatal(err)
		}
		r.start()
		r.awaitState(a, deleted, time.Minute)
	})
}
