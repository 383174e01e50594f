package rollout_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

// on counts the desktops whose life runs a version.
func (w *world) on(version uint32) int {
	n := 0
	for _, d := range w.desktops {
		if w.isOn(d, version) {
			n++
		}
	}
	return n
}

// expect compares how many desktops run each version.
func (w *world) expect(t *testing.T, when string, counts map[uint32]int) {
	t.Helper()
	for version, want := range counts {
		if got := w.on(version); got != want {
			t.Errorf("%s: %d desktops run version %d, want %d (%s)", when, got, version, want, w.newest().GetStatus().GetMessage())
		}
	}
}

func (w *world) says(t *testing.T, words ...string) {
	t.Helper()
	message := w.newest().GetStatus().GetMessage()
	for _, word := range words {
		if !strings.Contains(message, word) {
			t.Errorf("message %q lacks %q", message, word)
		}
	}
}

func (w *world) pause(paused bool) { w.active().Spec.Paused = paused }

func TestBadVersionsHaltAtTheCanary(t *testing.T) {
	for name, h := range map[string]health{"never ready": neverReady, "dies soon": diesSoon} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(12, quick("1", "50%"))
			w.publish(h)
			w.settle(2 * time.Hour)
			w.checkPhase(t, phaseHalted)
			w.expect(t, "halted", map[uint32]int{1: 12})
			s := w.newest().GetStatus()
			if s.GetFailed() != 1 || len(s.GetFailures()) != 1 || w.pool.GetRelease().GetAdmitted() != 0 || w.pool.GetRelease().GetMoving() {
				t.Errorf("status %v, release %v", s, w.pool.GetRelease())
			}
			w.says(t, "1 failure with version 2", s.GetFailures()[0].GetMessage(), "resume it")
			for _, line := range w.wrong {
				t.Error(line)
			}
		})
	}
}

func TestSomeMayFail(t *testing.T) {
	policy := quick("1", "50%")
	policy.MaxFailures = 2
	w := newWorld(12, policy)
	w.publish(neverReady)
	w.settle(2 * time.Hour)
	w.checkPhase(t, phaseHalted)
	if s := w.newest().GetStatus(); s.GetFailed() != 3 {
		t.Errorf("%d failures, want 3: %v", s.GetFailed(), s)
	}
	w.expect(t, "halted", map[uint32]int{1: 12})
}

func TestGoesBackByItself(t *testing.T) {
	policy := quick("1", "50%")
	policy.OnFailure = v1.OnFailure_ON_FAILURE_ROLL_BACK
	w := newWorld(12, policy)
	w.publish(healthy)
	w.settle(4 * time.Minute) // into the second wave
	w.health[2] = diesSoon
	w.settle(time.Hour)
	w.check(t, 1, phaseDone)
	if first := w.rollouts[0]; first.GetStatus().GetPhase() != phaseRolledBack || len(w.rollouts) != 2 || !w.newest().GetSpec().GetRollback() {
		t.Errorf("%d rollouts, the first %v", len(w.rollouts), first)
	}
	if r := w.pool.GetRelease(); r.GetRefused() != 2 || r.GetNext() != 0 || r.GetMoving() {
		t.Errorf("release %v", r)
	}
	// A better version is rolled out, and the verdict on the former is forgotten.
	w.publish(healthy)
	w.settle(time.Hour)
	w.check(t, 3, phaseDone)
	if r := w.pool.GetRelease(); r.GetRefused() != 0 || r.GetPrevious() != 1 {
		t.Errorf("release %v", r)
	}
}

func TestRollbackThatFailsHalts(t *testing.T) {
	policy := quick("1", "50%")
	policy.OnFailure = v1.OnFailure_ON_FAILURE_ROLL_BACK
	w := newWorld(12, policy)
	w.publish(healthy)
	w.settle(4 * time.Minute)
	w.health[1], w.health[2] = neverReady, diesSoon
	w.settle(time.Hour)
	w.checkPhase(t, phaseHalted)
	if len(w.rollouts) != 2 || w.pool.GetRelease().GetMoving() {
		t.Errorf("%d rollouts, release %v", len(w.rollouts), w.pool.GetRelease())
	}
	w.says(t, "halted", "publish a better version")
}

func TestNewerSupersedes(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.publish(healthy)
	w.settle(4 * time.Minute)
	w.publish(healthy)
	w.decide()
	if before := w.rollouts[0].GetStatus(); before.GetPhase() != phaseSuperseded || !strings.Contains(before.GetMessage(), "version 3") {
		t.Errorf("the older: %v", before)
	}
	w.settle(time.Hour)
	w.check(t, 3, phaseDone)
	if r := w.pool.GetRelease(); r.GetPrevious() != 1 {
		t.Errorf("release %v", r)
	}
}

func TestNamingTheFormerVersionGoesBack(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.publish(healthy)
	w.settle(4 * time.Minute)
	w.pool.Spec.Version = 1
	w.settle(10 * time.Minute)
	w.check(t, 1, phaseDone)
	if !w.newest().GetSpec().GetRollback() || w.pool.GetRelease().GetRefused() != 0 {
		t.Errorf("%v, release %v", w.newest().GetSpec(), w.pool.GetRelease())
	}
	w.pool.Spec.Version = 0
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestPauseHoldsEverything(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.publish(healthy)
	w.settle(4 * time.Minute)
	w.pause(true)
	before := w.on(2)
	w.decide()
	w.settle(time.Hour)
	w.expect(t, "paused", map[uint32]int{2: before})
	w.says(t, "paused")
	w.pause(false)
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestWindow(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	// It is noon in UTC: 21:00 in Tokyo.
	window, err := calendar.NewWindow(&v1.Window{From: "22:00", To: "22:04", TimeZone: "Asia/Tokyo"}, nil)
	must(t, err)
	w.window = window
	w.publish(healthy)
	w.settle(time.Hour - 6*time.Minute)
	w.expect(t, "before the window", map[uint32]int{1: 12})
	w.says(t, "waits for its window", "2026-11-24 22:00 JST")
	if w.again == 0 || w.again > time.Hour {
		t.Errorf("looks again in %v", w.again)
	}
	w.settle(10 * time.Minute)
	if n := w.on(2); n == 0 || n == 12 {
		t.Errorf("%d desktops moved in the window", n)
	}
	before := w.on(2)
	w.settle(20 * time.Hour)
	w.expect(t, "after the window", map[uint32]int{2: before})
	w.says(t, "waits for its window", "2026-11-25 22:00 JST")
	w.settle(100 * time.Hour)
	w.check(t, 2, phaseDone)
	want := []string{
		rollout.ReasonStarted, rollout.ReasonStaged, rollout.ReasonOpened, rollout.ReasonWave, rollout.ReasonHealthy,
		rollout.ReasonWave, rollout.ReasonClosed, rollout.ReasonOpened, rollout.ReasonHealthy, rollout.ReasonWave, rollout.ReasonDone,
	}
	same(t, "events", want, w.reasons())
}

func TestDesktopsInUseMoveLast(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	for i := range 3 {
		w.claim(i)
	}
	w.publish(healthy)
	w.settle(time.Hour)
	w.checkPhase(t, phaseRunning)
	w.expect(t, "in use", map[uint32]int{1: 3, 2: 9})
	w.says(t, "3 desktops in use", "sales-1, sales-2, sales-3")
	if s := w.newest().GetStatus(); s.GetInUse() != 3 || s.GetEstimatedEnd() != nil {
		t.Errorf("status %v", s)
	}
	told := w.now.Add(time.Hour)
	w.pool.Release.ForceFrom = timestamppb.New(w.now.Add(24 * time.Hour))
	for i := range 3 {
		w.desktops[i].Claim.RestartAt = timestamppb.New(told)
	}
	w.pool.Spec.Rollout.InUse = &v1.InUse{Mode: v1.InUseMode_IN_USE_MODE_REMIND, Deadline: durationpb.New(48 * time.Hour)}
	w.settle(time.Minute)
	w.says(t, "sales-1 restarts at", "until their users release them")
	if end := w.newest().GetStatus().GetEstimatedEnd().AsTime(); end.Before(told) || end.After(told.Add(30*time.Minute)) {
		t.Errorf("estimated end %v, though all restart at %v", end, told)
	}
	for i := range 3 {
		w.release(i)
		w.settle(5 * time.Minute)
	}
	w.check(t, 2, phaseDone)
}

// With every desktop in use there is no canary: the first one that is released is.
func TestAllInUse(t *testing.T) {
	w := newWorld(6, quick("1", "50%"))
	for i := range 6 {
		w.claim(i)
	}
	w.publish(healthy)
	w.settle(time.Hour)
	w.expect(t, "in use", map[uint32]int{1: 6})
	if n := w.pool.GetRelease().GetAdmitted(); n != 1 {
		t.Errorf("%d admitted", n)
	}
	w.says(t, "6 desktops in use")
	for i := range 6 {
		w.release(i)
	}
	w.settle(time.Minute)
	w.expect(t, "released", map[uint32]int{2: 1})
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestDeadlineForUsers(t *testing.T) {
	policy := quick("1", "50%")
	policy.InUse = &v1.InUse{Deadline: durationpb.New(2 * time.Hour)}
	w := newWorld(6, policy)
	w.claim(0)
	w.publish(healthy)
	w.settle(time.Hour)
	w.expect(t, "before", map[uint32]int{1: 1, 2: 5})
	w.says(t, "or until")
	w.settle(2 * time.Hour)
	w.check(t, 2, phaseDone)
}

func TestOtherImage(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	former := w.image
	w.image = image("fedora", 1, v1.VersionState_VERSION_STATE_READY)
	w.pool.Spec.Image = "fedora"
	w.settle(3 * time.Minute)
	w.checkPhase(t, phaseRunning)
	if spec := w.newest().GetSpec(); spec.GetImage() != "fedora" || spec.GetFromVersion() != 0 || w.on(1) == 12 {
		t.Errorf("%v, %d moved", spec, w.on(1))
	}
	w.settle(time.Hour)
	w.check(t, 1, phaseDone)
	if w.on(1) != 12 {
		t.Errorf("%d run version 1 of fedora", w.on(1))
	}
	// An image without a version changes nothing.
	w.image = image("empty", 0)
	w.pool.Spec.Image = "empty"
	w.decide()
	if w.active() != nil || w.pool.GetRelease().GetImage() != "fedora" {
		t.Errorf("release %v, rollout %v", w.pool.GetRelease(), w.active())
	}
	w.image, w.pool.Spec.Image = former, "debian"
	w.settle(time.Hour)
	w.check(t, 1, phaseDone)
}

func TestSilentHost(t *testing.T) {
	w := newWorld(12, quick("1", "50%"))
	w.setHost(1, v1.HostPhase_HOST_PHASE_DOWN)
	w.publish(healthy)
	w.settle(2 * time.Hour)
	w.checkPhase(t, phaseRunning)
	w.expect(t, "silent", map[uint32]int{1: 4, 2: 8})
	w.says(t, "4 desktops on a host that is not heard from")
	w.setHost(1, v1.HostPhase_HOST_PHASE_UP)
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestStagingWaitsForHosts(t *testing.T) {
	w := newWorld(12, quick("1"))
	number := w.publish(healthy)
	w.decide()
	w.checkPhase(t, phaseStaging)
	w.says(t, "0 of 3 hosts fetched version 2", "kvm1, kvm2, kvm3")
	w.hosts[0].Status.Images = append(w.hosts[0].Status.Images, digest(fmt.Sprintf("debian-%d", number)))
	w.hosts[1].Status.Phase = v1.HostPhase_HOST_PHASE_DEGRADED
	w.decide()
	w.says(t, "1 of 2 hosts fetched version 2", "kvm3")
	// Whoever has a host that cannot fetch takes it out of the way.
	w.hosts[2].Spec = &v1.HostSpec{Unschedulable: true}
	if w.round(); w.newest().GetStatus().GetPhase() == phaseStaging {
		t.Errorf("waits for a host that takes no new desktops: %s", w.newest().GetStatus().GetMessage())
	}
	w.setHost(1, v1.HostPhase_HOST_PHASE_UP)
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestStagingWaitsForOneHostAtLeast(t *testing.T) {
	w := newWorld(12, quick("1"))
	w.publish(healthy)
	for _, h := range w.hosts {
		h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN
	}
	w.decide()
	w.says(t, "waits for a host of zone lgwan")
	for _, h := range w.hosts {
		h.Status.Phase = v1.HostPhase_HOST_PHASE_UP
	}
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}

func TestSmallPools(t *testing.T) {
	for _, seats := range []int{1, 2, 3} {
		w := newWorld(seats, nil)
		w.publish(healthy)
		w.settle(2 * time.Hour)
		w.check(t, 2, phaseDone)
		if waves := int(w.newest().GetStatus().GetWaves()); waves != min(seats, 3) {
			t.Errorf("%d desktops: %d waves", seats, waves)
		}
	}
	w := newWorld(0, nil)
	w.publish(healthy)
	w.settle(time.Minute)
	w.check(t, 2, phaseDone)
}

func TestMinReadyHolds(t *testing.T) {
	w := newWorld(4, quick("1"))
	w.pool.Spec.MinReady = 3
	w.claim(0)
	w.publish(healthy)
	w.settle(time.Hour)
	w.expect(t, "at the floor", map[uint32]int{1: 4})
	w.says(t, "minReady=3")
	w.release(0)
	w.settle(time.Hour)
	w.check(t, 2, phaseDone)
}
