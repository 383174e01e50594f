package hostagent

import (
	"errors"
	"flag"
	"fmt"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	v1 "daybreak/proto/daybreak/v1"
)

const (
	placed    = v1.DesktopState_DESKTOP_STATE_PLACED
	preparing = v1.DesktopState_DESKTOP_STATE_PREPARING
	prepared  = v1.DesktopState_DESKTOP_STATE_PREPARED
	starting  = v1.DesktopState_DESKTOP_STATE_STARTING
	ready     = v1.DesktopState_DESKTOP_STATE_READY
	stopping  = v1.DesktopState_DESKTOP_STATE_STOPPING
	stopped   = v1.DesktopState_DESKTOP_STATE_STOPPED
	deleted   = v1.DesktopState_DESKTOP_STATE_DELETED
	failed    = v1.DesktopState_DESKTOP_STATE_FAILED
	suspended = v1.DesktopState_DESKTOP_STATE_SUSPENDED

	wantPrepared = v1.DesiredState_DESIRED_STATE_PREPARED
	wantReady    = v1.DesiredState_DESIRED_STATE_READY
	wantStopped  = v1.DesiredState_DESIRED_STATE_STOPPED
	wantDeleted  = v1.DesiredState_DESIRED_STATE_DELETED

	wantSuspended = v1.DesiredState_DESIRED_STATE_SUSPENDED
)

var noon = time.Date(2026, 11, 4, 12, 0, 0, 0, time.UTC)

// at is a situation in which a life in state, of which desired is wanted, has met no trouble: change it from there.
func at(state v1.DesktopState, desired v1.DesiredState) situation {
	s := situation{
		assignment: &v1.Assignment{
			Desktop: "d", Spec: &v1.DesktopSpec{Zone: "office"},
			Incarnation: &v1.Incarnation{Generation: 5, Desired: desired, Shape: &v1.Shape{}},
		},
		status: &v1.DesktopStatus{State: state}, bootID: "boot", told: true, hasZone: true, newest: true, keptKnown: true, slotWhy: "waits for a boot slot",
	}
	if rank(state) >= rank(starting) && state != deleted {
		s.start = startMark{phase: startConfirmed, bootID: "boot"}
		s.startedAt, s.domain, s.domainState = noon, presentNow, DomainRunning
	}
	if rank(state) >= rank(prepared) {
		s.base.done, s.overlay = true, true
	}
	return s
}

func TestDecide(t *testing.T) {
	wrong := errors.New("it broke")
	for name, test := range map[string]struct {
		s       situation
		change  func(*situation)
		do      action
		state   v1.DesktopState
		message string
	}{
		"fetch first": {s: at(placed, wantReady), do: fetchBase, state: preparing, message: "fetching the image"},
		"wait for the fetch": {s: at(preparing, wantReady), change: func(s *situation) { s.base.running = true },
			do: wait, state: preparing, message: "fetching the image"},
		"then the overlay": {s: at(preparing, wantReady), change: func(s *situation) { s.base.done = true },
			do: createOverlay, state: preparing, message: "making the disk"},
		"then the data disk": {s: at(preparing, wantReady), change: func(s *situation) {
			s.base.done, s.overlay = true, true
			s.assignment.Incarnation.Shape.DataDiskGib = 1
		}, do: createData, state: preparing, message: "making the data disk"},
		"no zone, no life": {s: at(placed, wantReady), change: func(s *situation) { s.hasZone = false },
			state: failed, message: `this host has no network for zone "office": give the agent --zone office=BRIDGE`},
		"prepared is enough": {s: at(prepared, wantPrepared), state: prepared},
		"before its time": {s: at(prepared, wantReady), change: func(s *situation) {
			s.assignment.Incarnation.StartAt = timestamppb.New(noon.Add(time.Minute))
		}, state: prepared, message: "starts at 2026-11-04 12:01:00 UTC"},
		"at its time": {s: at(prepared, wantReady), change: func(s *situation) {
			s.assignment.Incarnation.StartAt = timestamppb.New(noon)
		}, do: askSlot, state: prepared, message: "waits for a boot slot"},
		"not beside an older life": {s: at(prepared, wantReady), change: func(s *situation) { s.slot, s.rival = true, 4 },
			state: prepared, message: "waiting until generation 4 of this desktop has ended"},
		"with a slot": {s: at(prepared, wantReady), change: func(s *situation) { s.slot = true },
			do: start, state: starting, message: "starting"},
		"not after a restart of the host, before new orders": {s: at(prepared, wantReady), change: func(s *situation) { s.slot, s.told = true, false },
			state: prepared, message: "the host restarted: waiting until the control plane says what it shall run"},
		"disks are found again after a restart": {s: at(prepared, wantReady), change: func(s *situation) { s.overlay = false },
			do: createOverlay, state: prepared, message: "making the disk"},
		"trouble is waited out": {s: at(preparing, wantReady), change: func(s *situation) {
			s.trouble = trouble{err: wrong, since: noon, next: noon.Add(time.Second)}
		}, state: preparing, message: "will be tried again: it broke"},
		"trouble of the source is no reason to give up": {s: at(preparing, wantReady), change: func(s *situation) {
			s.trouble = trouble{err: wrong, since: noon.Add(-time.Hour), next: noon.Add(time.Second)}
		}, state: preparing, message: "will be tried again: it broke"},
		"lasting trouble of the host": {s: at(preparing, wantReady), change: func(s *situation) {
			s.trouble = trouble{err: ErrNoSpace, since: noon.Add(-preparePatience), next: noon.Add(time.Second)}
		}, state: failed, message: "cannot be brought up: not enough space in the host's store"},
		"permanent trouble": {s: at(preparing, wantReady), change: func(s *situation) {
			s.trouble = trouble{err: fmt.Errorf("make it: %w", ErrPermanent), since: noon}
		}, state: failed, message: "cannot be brought up: make it: cannot be done on this host"},
		"found running": {s: at(prepared, wantReady), change: func(s *situation) { s.domain = presentNow },
			state: starting, message: "found running"},
		"ask the guest": {s: at(starting, wantReady), do: ping, state: starting, message: "the guest agent has not answered yet"},
		"ask it again later": {s: at(starting, wantReady), change: func(s *situation) {
			s.doubt, s.nextPing = "silence", noon.Add(time.Second)
		}, state: starting, message: "silence"},
		"answered": {s: at(starting, wantReady), change: func(s *situation) { s.answered = true }, state: ready},
		"answered, to be probed": {s: at(starting, wantReady), change: func(s *situation) {
			s.answered, s.assignment.Incarnation.Readiness = true, &v1.Readiness{Probe: []string{"true"}}
		}, do: probe, state: starting, message: "the guest agent has not answered yet"},
		"probed": {s: at(starting, wantReady), change: func(s *situation) {
			s.answered, s.proven, s.assignment.Incarnation.Readiness = true, true, &v1.Readiness{Probe: []string{"true"}}
		}, state: ready},
		"not ready in time": {s: at(starting, wantReady), change: func(s *situation) {
			s.doubt, s.startedAt = "the probe exited with 1: no display", noon.Add(-time.Minute)
			s.assignment.Incarnation.Readiness = &v1.Readiness{Deadline: durationpb.New(time.Minute)}
		}, state: failed, message: "not ready within 1m0s: the probe exited with 1: no display"},
		"a full store is no failure": {s: at(starting, wantReady), change: func(s *situation) {
			s.domainState, s.startedAt = DomainPausedIO, noon.Add(-time.Hour)
		}, state: starting, message: "the VM stands still: the host's store is full or failing; it goes on when that is mended"},
		"QEMU ended while booting": {s: at(starting, wantReady), change: func(s *situation) { s.domain = presenceAbsent },
			state: failed, message: "QEMU ended before the guest was ready"},
		"QEMU ended": {s: at(ready, wantReady), change: func(s *situation) { s.domain = presenceAbsent },
			state: failed, message: "QEMU ended: the guest powered off or crashed"},
		"missing once is nothing": {s: at(ready, wantReady), change: func(s *situation) {
			s.domain, s.nextDescribe = presenceUnknown, noon.Add(time.Hour)
		}, state: ready},
		"missing twice is looked for": {s: at(ready, wantReady), change: func(s *situation) { s.domain = presenceMissing },
			do: seek, state: ready},
		"and before a disk goes": {s: at(stopped, wantDeleted), change: func(s *situation) { s.domain = presenceMissing },
			do: seek, state: stopped},
		"a failed life's VM is looked for too": {s: at(failed, wantReady), change: func(s *situation) {
			s.assignment, s.domain = nil, presenceMissing
		}, do: seek, state: failed},
		"but not of one that never was started": {s: at(failed, wantReady), change: func(s *situation) {
			s.domain, s.start = presenceMissing, startMark{}
		}, state: failed},
		"but not what was never started": {s: at(prepared, wantReady), change: func(s *situation) { s.domain, s.slot = presenceMissing, true },
			do: start, state: starting, message: "starting"},
		"the host restarted": {s: at(ready, wantReady), change: func(s *situation) {
			s.domain, s.start.bootID = presenceAbsent, "boot before"
		}, state: failed, message: "the host restarted"},
		"a start nobody confirmed, before a restart of the host": {s: at(starting, wantReady), change: func(s *situation) {
			s.domain, s.start = presenceAbsent, startMark{phase: startIntended, bootID: "boot before"}
		}, state: failed, message: "the host restarted"},
		"a start nobody confirmed, on no list": {s: at(starting, wantReady), change: func(s *situation) {
			s.domain, s.start.phase, s.slot = presenceAbsent, startIntended, true
		}, do: start, state: starting, message: "starting"},
		"a start nobody confirmed, not looked for yet": {s: at(starting, wantReady), change: func(s *situation) {
			s.domain, s.start.phase, s.trouble.err = presenceUnknown, startIntended, ErrTimeout
		}, state: starting, message: "waiting for the hypervisor's word on the start: no answer in time: outcome unknown"},
		"described now and then": {s: at(ready, wantReady), do: describe, state: ready},
		"stop gently":            {s: at(ready, wantStopped), do: shutdown, state: stopping, message: "the guest was asked to power off"},
		"give it time": {s: at(stopping, wantStopped), change: func(s *situation) { s.stopAsked = noon.Add(-stopGrace + 1) },
			state: stopping, message: "the guest was asked to power off"},
		"then end it": {s: at(stopping, wantStopped), change: func(s *situation) { s.stopAsked = noon.Add(-stopGrace) },
			do: destroy, state: stopping, message: "the guest did not power off: its VM is ended"},
		"stopped": {s: at(stopping, wantStopped), change: func(s *situation) { s.domain = presenceAbsent }, state: stopped},
		"a failed life is stopped and stays failed": {s: at(failed, wantStopped), change: func(s *situation) { s.status.Message = "why" },
			do: shutdown, state: failed, message: "why"},
		"a stopped life is not started": {s: at(stopped, wantReady), change: func(s *situation) { s.domain = presenceAbsent }, state: stopped},
		"delete: stop first":            {s: at(ready, wantDeleted), do: shutdown, state: stopping, message: "the guest was asked to power off"},
		"delete: not on one list's word": {s: at(ready, wantDeleted), change: func(s *situation) { s.domain = presenceUnknown },
			state: ready, message: "waiting for the hypervisor to say whether the VM runs"},
		"delete: then the overlay": {s: at(stopping, wantDeleted), change: func(s *situation) { s.domain = presenceAbsent },
			do: trashOverlay, state: stopping},
		"delete: data is kept without a word": {s: at(stopping, wantDeleted), change: func(s *situation) {
			s.domain, s.overlayTrashed = presenceAbsent, true
		}, state: deleted},
		"delete: data by name": {s: at(stopping, wantDeleted), change: func(s *situation) {
			s.domain, s.overlayTrashed = presenceAbsent, true
			s.assignment.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE
		}, do: trashData, state: stopping},
		"delete: never the data of a newer life": {s: at(stopping, wantDeleted), change: func(s *situation) {
			s.domain, s.overlayTrashed, s.newest = presenceAbsent, true, false
			s.assignment.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE
		}, state: deleted},
		"delete: not data that another life uses": {s: at(stopping, wantDeleted), change: func(s *situation) {
			s.domain, s.overlayTrashed, s.rival = presenceAbsent, true, 4
			s.assignment.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE
		}, state: stopping, message: "waiting until generation 4 of this desktop has let go of the data disk"},
		"an orphan goes on":        {s: at(ready, wantDeleted), change: func(s *situation) { s.assignment = nil }, do: describe, state: ready},
		"an orphan's end is noted": {s: at(ready, wantDeleted), change: func(s *situation) { s.assignment, s.domain = nil, presenceAbsent }, state: failed, message: "QEMU ended: the guest powered off or crashed"},
		"an orphan is not started": {s: at(prepared, wantReady), change: func(s *situation) { s.assignment = nil }, state: prepared},
		"frozen":                   {s: at(ready, wantDeleted), change: func(s *situation) { s.frozen = true }, state: ready},
	} {
		t.Run(name, func(t *testing.T) {
			if test.change != nil {
				test.change(&test.s)
			}
			got := decide(noon, test.s)
			if got.do != test.do || got.state != test.state || got.message != test.message {
				t.Errorf("got %s, %s, %q; want %s, %s, %q", got.do, got.state, got.message, test.do, test.state, test.message)
			}
		})
	}
}

// anySituation draws situations without regard to whether they can come to be: decisions must be safe in all.
func anySituation(t *rapid.T) situation {
	states := []v1.DesktopState{placed, preparing, prepared, starting, ready, suspended, stopping, stopped, deleted, failed}
	s := at(rapid.SampledFrom(states).Draw(t, "state"), rapid.SampledFrom([]v1.DesiredState{0, wantPrepared, wantReady, wantStopped, wantDeleted, wantSuspended}).Draw(t, "desired"))
	flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
	when := func(name string) time.Time {
		return rapid.SampledFrom([]time.Time{{}, noon.Add(-time.Hour), noon.Add(-time.Second), noon, noon.Add(time.Second)}).Draw(t, name)
	}
	if flag("disposal") {
		s.assignment.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE
	}
	if flag("data disk") {
		s.assignment.Incarnation.Shape.DataDiskGib = 1
	}
	if flag("probe") {
		s.assignment.Incarnation.Readiness = &v1.Readiness{Probe: []string{"true"}}
	}
	if at := when("start at"); !at.IsZero() {
		s.assignment.Incarnation.StartAt = timestamppb.New(at)
	}
	if flag("on condition") {
		s.assignment.Incarnation.UnlessUsedSince = timestamppb.New(noon)
		s.unusedAt, s.nextConfirm = when("unused"), when("next confirm")
		if flag("declined") {
			s.status.Declined = timestamppb.New(noon)
		}
	}
	if flag("orphan") {
		s.assignment = nil
	}
	s.frozen = flag("frozen")
	s.start = startMark{phase: rapid.SampledFrom([]started{startNever, startIntended, startConfirmed}).Draw(t, "phase"),
		bootID: rapid.SampledFrom([]string{"boot", "boot before"}).Draw(t, "boot")}
	s.startedAt = when("started")
	s.domain = rapid.SampledFrom([]presence{presenceUnknown, presenceMissing, presenceAbsent, presentNow}).Draw(t, "domain")
	s.domainState = rapid.SampledFrom([]DomainState{DomainUnknown, DomainRunning, DomainPausedIO, DomainPaused, DomainShuttingDown}).Draw(t, "domain state")
	s.rival = rapid.SampledFrom([]int64{0, 4, 6}).Draw(t, "rival")
	s.newest, s.hasZone = flag("newest"), flag("zone")
	s.base = fetchState{done: flag("base"), running: flag("fetching")}
	s.overlay, s.data, s.slot = flag("overlay"), flag("data"), flag("slot")
	s.answered, s.proven = flag("answered"), flag("proven")
	s.nextPing, s.nextDescribe, s.stopAsked = when("next ping"), when("next describe"), when("stop asked")
	s.kept, s.keptKnown = rapid.SampledFrom([]Kept{KeptNone, KeptBegun, KeptWhole}).Draw(t, "kept"), flag("kept known")
	s.saver, s.woken, s.wakingSince = flag("saver"), flag("woken"), when("waking since")
	s.overlayTrashed, s.dataTrashed = flag("overlay trashed"), flag("data trashed")
	if flag("trouble") {
		s.trouble = trouble{err: rapid.SampledFrom([]error{errors.New("x"), ErrPermanent, ErrNoSpace, ErrTimeout}).Draw(t, "error"), since: when("since"), next: when("next")}
	}
	return s
}

// atLeast raises the number of rapid's checks, of which its own hundred do not reach the rare corners of many dimensions.
func atLeast(t *testing.T, checks int) {
	t.Helper()
	given := flag.Lookup("rapid.checks")
	before := given.Value.String()
	if n, err := strconv.Atoi(before); err != nil || n >= checks {
		return
	}
	if err := given.Value.Set(strconv.Itoa(checks)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = given.Value.Set(before) })
}

func TestDecideIsSafe(t *testing.T) {
	atLeast(t, 200_000)
	rapid.Check(t, func(t *rapid.T) {
		s := anySituation(t)
		got := decide(noon, s)
		state := s.status.GetState()
		want := s.assignment.GetIncarnation().GetDesired()
		if rank(got.state) < rank(state) {
			t.Fatalf("state goes back from %s to %s", state, got.state)
		}
		if (state == deleted || s.frozen) && (got.do != wait || got.state != state) {
			t.Fatalf("%s although nothing may be done", got.do)
		}
		if !got.until.IsZero() && got.do != wait && got.do != askSlot && got.do != askSaver {
			t.Fatalf("%s and wait until %v", got.do, got.until)
		}
		switch got.do {
		case start:
			if s.domain == presentNow || s.start.phase == startConfirmed || s.rival != 0 || !s.slot || !s.overlay || !s.base.done || want != wantReady {
				t.Fatalf("start in %+v", s)
			}
			if s.start.phase == startIntended && s.domain != presenceAbsent && rank(state) >= rank(starting) {
				t.Fatalf("started a second time without knowing what became of the first")
			}
		case shutdown, destroy:
			restoredOnly := want == wantSuspended && state == suspended && s.keptKnown && s.kept == KeptWhole && s.domainState == DomainPaused
			if want != wantStopped && want != wantDeleted && (got.do != destroy || !restoredOnly) || s.domain != presentNow {
				t.Fatalf("%s with desired %s and domain %d", got.do, want, s.domain)
			}
		case trashOverlay, trashData:
			if want != wantDeleted || s.domain != presenceAbsent {
				t.Fatalf("%s with desired %s and domain %d", got.do, want, s.domain)
			}
			if got.do == trashData && (!s.newest || s.rival != 0 || s.assignment.GetIncarnation().GetDataDisposal() != v1.DataDisposal_DATA_DISPOSAL_DELETE) {
				t.Fatal("data thrown away that nobody named, or that another life uses")
			}
		case fetchBase, createOverlay, createData, askSlot:
			if want != wantReady && want != wantPrepared && want != wantSuspended {
				t.Fatalf("%s with desired %s", got.do, want)
			}
		}
		wakeIsSafe(t, s, got)
		orderIsHeeded(t, s, got)
		if got.state == ready && state != ready && !s.answered {
			t.Fatal("ready without the guest's word")
		}
		if got.state == deleted && state != deleted && (want != wantDeleted || s.domain != presenceAbsent || !s.overlayTrashed) {
			t.Fatal("deleted what is still there")
		}
	})
}
