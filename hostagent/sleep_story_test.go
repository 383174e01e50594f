package hostagent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	suspended     = v1.DesktopState_DESKTOP_STATE_SUSPENDED
	wantReady     = v1.DesiredState_DESIRED_STATE_READY
	wantSuspended = v1.DesiredState_DESIRED_STATE_SUSPENDED
)

// asleep brings a desktop to SUSPENDED, and returns its boot's nonce.
func (r *rig) asleep(a *v1.Assignment) (nonce string) {
	r.t.Helper()
	r.plane.assign(a)
	r.awaitState(a, ready, time.Minute)
	r.await("described", 20*time.Second, func() bool { return r.plane.status(a).GetStatus().GetGuest() != nil })
	r.plane.assign(desired(a, wantSuspended))
	r.awaitState(a, suspended, time.Minute)
	if r.runs(a) {
		r.t.Error("it is suspended and runs")
	}
	return r.plane.status(a).GetStatus().GetGuest().GetBootNonce()
}

func TestSuspendAndResume(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		nonce := r.asleep(a)
		time.Sleep(3 * time.Hour)
		if r.plane.state(a) != suspended || r.plane.status(a).GetOrphan() {
			t.Errorf("hours later: %v", r.plane.status(a))
		}
		r.plane.assign(a)
		r.awaitState(a, ready, 10*time.Second)
		if behind := r.host.ClockBehind(lifeOf(a)); behind != 0 {
			t.Errorf("the guest's clock is %v behind", behind)
		}
		time.Sleep(20 * time.Minute)
		if got := r.plane.status(a).GetStatus().GetGuest().GetBootNonce(); got != nonce || r.starts(a) != 1 || r.host.Tally().Wakes[lifeOf(a)] != 1 {
			t.Errorf("nonce %q, was %q; %d starts, %d wakes", got, nonce, r.starts(a), r.host.Tally().Wakes[lifeOf(a)])
		}
		// And once more, to the end.
		r.plane.assign(desired(a, wantSuspended))
		r.awaitState(a, suspended, time.Minute)
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, time.Minute)
		if _, kept, err := r.host.Memory(t.Context(), lifeOf(a)); err != nil || kept != hostagent.KeptNone {
			t.Errorf("its memory outlived it: %d, %v", kept, err)
		}
	})
}

// A state that a life comes to again is told with its new time, and with the first one as before; a restart changes neither.
func TestSinceIsOfThePresentState(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.asleep(a)
		first := r.plane.status(a).GetStatus()
		last := first.GetTimes()[len(first.GetTimes())-1]
		if last.GetState() != suspended || !last.GetAt().AsTime().Equal(first.GetSince().AsTime()) {
			t.Errorf("suspended for the first time: %v", first)
		}
		time.Sleep(time.Hour)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		if up := time.Since(r.plane.status(a).GetStatus().GetSince().AsTime()); up > time.Second {
			t.Errorf("ready again since %s", up)
		}
		time.Sleep(time.Hour)
		r.plane.assign(desired(a, wantSuspended))
		r.awaitState(a, suspended, time.Minute)
		again := r.plane.status(a).GetStatus()
		if asleep := time.Since(again.GetSince().AsTime()); asleep > time.Second || len(again.GetTimes()) != len(first.GetTimes()) {
			t.Errorf("suspended again since %s, times %v", asleep, again.GetTimes())
		}
		r.restart()
		time.Sleep(time.Minute)
		if got := r.plane.status(a).GetStatus(); !got.GetSince().AsTime().Equal(again.GetSince().AsTime()) {
			t.Errorf("after a restart since %v, was %v", got.GetSince().AsTime(), again.GetSince().AsTime())
		}
	})
}

func TestSleepOutlastsTheHostsRestart(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.asleep(a)
		r.crash()
		r.host.PowerLoss()
		r.plane.set(func() { r.plane.refuse = errors.New("not the leader") })
		r.start()
		time.Sleep(time.Hour)
		r.plane.set(func() { r.plane.refuse = nil })
		r.await("reported", 2*time.Minute, func() bool { return r.plane.state(a) == suspended })
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		// A QEMU that dies after that is the end, as any other.
		r.host.Kill(lifeOf(a))
		r.awaitState(a, failed, time.Minute)
		if got := r.plane.status(a).GetStatus().GetMessage(); got != "QEMU ended: the guest powered off or crashed" {
			t.Errorf("failed because %q", got)
		}
	})
}

// TestKilledAnywhereWhileSuspending kills the agent at every call of a suspend and of a wake in turn, before or after it was
// done; the host itself finds what breaks the rules of memory.
func TestKilledAnywhereWhileSuspending(t *testing.T) {
	ops := []fakehost.Op{fakehost.OpKeepMemory, fakehost.OpSuspend, fakehost.OpMemory, fakehost.OpCreateOverlay, fakehost.OpRestore, fakehost.OpDropMemory,
		fakehost.OpWake, fakehost.OpPing, fakehost.OpSetClock}
	broken := errors.New("killed")
	for _, op := range ops {
		for what, fault := range map[string]fakehost.Fault{"before": {Refuse: broken}, "after": {Lie: broken}} {
			t.Run(string(op)+" "+what, func(t *testing.T) {
				var r *rig
				armed := false
				cfg := fakehost.Config{Fault: func(now fakehost.Op, _ hostagent.Life) fakehost.Fault {
					if !armed || now != op {
						return fakehost.Fault{}
					}
					armed = false
					r.kill()
					return fault
				}}
				story(t, cfg, func(made *rig) {
					r = made
					a := r.desktop("office-1", 7)
					r.plane.assign(a)
					r.awaitState(a, ready, time.Minute)
					for range 2 {
						for _, want := range []v1.DesiredState{wantSuspended, wantReady} {
							armed = true
							r.plane.assign(desired(a, want))
							time.Sleep(20 * time.Second)
							armed = false
							r.restart()
							state := map[v1.DesiredState]v1.DesktopState{wantSuspended: suspended, wantReady: ready}[want]
							r.awaitState(a, state, 2*time.Minute)
						}
					}
					if r.starts(a) != 1 {
						t.Errorf("%d starts", r.starts(a))
					}
				})
			})
		}
	}
}

func TestSuspendThatCannotBe(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.SetFull(true)
		r.plane.assign(desired(a, wantSuspended))
		r.await("said", time.Minute, func() bool {
			return strings.Contains(r.plane.status(a).GetStatus().GetMessage(), "suspending will be tried again: keep memory: "+hostagent.ErrNoSpace.Error())
		})
		time.Sleep(time.Hour)
		if r.plane.state(a) != ready || !r.runs(a) {
			t.Errorf("without room: %v", r.plane.status(a))
		}
		r.host.SetFull(false)
		r.awaitState(a, suspended, 2*time.Minute)
	})
}

func TestMemoryThatFitsNoMore(t *testing.T) {
	broken := false
	cfg := fakehost.Config{Fault: func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
		if broken && op == fakehost.OpRestore {
			return fakehost.Fault{Refuse: errors.Join(errors.New("the CPU is another"), hostagent.ErrPermanent)}
		}
		return fakehost.Fault{}
	}}
	story(t, cfg, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.asleep(a)
		broken = true
		r.plane.assign(a)
		r.awaitState(a, failed, time.Minute)
		if got := r.plane.status(a).GetStatus().GetMessage(); !strings.Contains(got, "cannot be woken") || !strings.Contains(got, "the CPU is another") {
			t.Errorf("failed because %q", got)
		}
		if r.starts(a) != 1 || r.runs(a) {
			t.Error("its disk was booted")
		}
	})
}

func TestManyAreSuspendedTwoAtATime(t *testing.T) {
	most, now := 0, 0
	var r *rig
	cfg := fakehost.Config{Fault: func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
		if op == fakehost.OpSuspend {
			return fakehost.Fault{Delay: 5 * time.Second}
		}
		return fakehost.Fault{}
	}}
	story(t, cfg, func(made *rig) {
		r = made
		var all []*v1.Assignment
		for i := range 8 {
			all = append(all, r.desktop("office-"+string(rune('a'+i)), int64(7+i)))
		}
		r.plane.assign(all...)
		for _, a := range all {
			r.awaitState(a, ready, 5*time.Minute)
		}
		begun := time.Now()
		for _, a := range all {
			r.plane.assign(desired(a, wantSuspended))
		}
		for done := 0; done < len(all); time.Sleep(time.Second) {
			done, now = 0, 0
			for _, a := range all {
				switch status := r.plane.status(a).GetStatus(); {
				case status.GetState() == suspended:
					done++
				case status.GetMessage() == "its memory is being saved":
					now++
				}
			}
			most = max(most, now)
		}
		if took := time.Since(begun); most > 2 || took < 20*time.Second || took > 40*time.Second {
			t.Errorf("%d at once, all after %v", most, took)
		}
	})
}

func TestWhoUsesIt(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		r.plane.assign(a, b)
		r.awaitState(a, ready, time.Minute)
		r.awaitState(b, ready, time.Minute)
		time.Sleep(10 * time.Minute)
		if r.host.Tally().Asked[lifeOf(a)] != 0 || r.plane.status(a).GetStatus().GetSession() != nil {
			t.Error("a guest without a user was asked for one")
		}
		used := with(a, func(a *v1.Assignment) { a.Used = true })
		r.host.SetSession(lifeOf(a), hostagent.Session{UsersKnown: true, Users: 1, InputKnown: true})
		r.plane.assign(used)
		session := func() *v1.GuestSession { return r.plane.status(a).GetStatus().GetSession() }
		r.await("asked", 2*time.Minute, func() bool { return session().GetUsers() == 1 && session().GetInputIdleSince() != nil })
		first := session()
		time.Sleep(4 * time.Minute)
		if session().GetAsked().AsTime() != first.GetAsked().AsTime() {
			t.Error("the same is told again and again")
		}
		time.Sleep(3 * time.Minute)
		if !session().GetAsked().AsTime().After(first.GetAsked().AsTime()) || session().GetInputIdleSince().AsTime().Sub(first.GetInputIdleSince().AsTime()).Abs() > time.Second {
			t.Errorf("after a while: %v, before %v", session(), first)
		}
		// Whoever wants to know is told at once.
		wanted := time.Now()
		r.plane.assign(with(used, func(a *v1.Assignment) { a.Incarnation.LookAt = timestamppb.New(wanted) }))
		r.await("looked", 5*time.Second, func() bool { return !session().GetAsked().AsTime().Before(wanted) })
		asked := r.host.Tally().Asked[lifeOf(a)]
		time.Sleep(30 * time.Second)
		if again := r.host.Tally().Asked[lifeOf(a)]; again > asked+1 {
			t.Errorf("asked %d times for one look", again-asked)
		}
		// What the guest does not say any more is not known, and an answer that does not come leaves the last one to grow old.
		r.host.SetSession(lifeOf(a), hostagent.Session{})
		r.await("unknown", 2*time.Minute, func() bool { return !session().GetUsersKnown() && session().GetInputIdleSince() == nil })
		r.host.SetState(lifeOf(a), hostagent.DomainPaused)
		last := session().GetAsked().AsTime()
		time.Sleep(20 * time.Minute)
		if session().GetAsked().AsTime().After(last.Add(time.Minute)) {
			t.Error("a guest that stands still answered")
		}
	})
}
