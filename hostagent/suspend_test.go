package hostagent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	v1 "daybreak/proto/daybreak/v1"
)

// wakeIsSafe: what is done about a life's memory cannot have it run twice from it, nor from its disk alone.
func wakeIsSafe(t *rapid.T, s situation, got step) {
	state, want := s.status.GetState(), s.assignment.GetIncarnation().GetDesired()
	switch got.do {
	case start:
		if state == suspended {
			t.Fatal("a life that is suspended is booted")
		}
	case suspend:
		gone := state == ready && s.domain == presenceAbsent && s.kept != KeptNone
		if !gone && (want != wantSuspended || s.domain != presentNow || state == suspended && s.kept == KeptWhole) || !s.saver {
			t.Fatalf("suspend in %+v", s)
		}
	case resume:
		if state != suspended || want != wantReady || !s.keptKnown {
			t.Fatalf("resume in %+v", s)
		}
		if s.kept == KeptWhole && (!s.slot || s.rival != 0 || !s.told || s.domain == presentNow && s.domainState == DomainRunning) {
			t.Fatalf("restored where it must wait: %+v", s)
		}
		if s.kept != KeptWhole && s.domain != presentNow {
			t.Fatal("woken without knowing that it is there")
		}
	case dropMemory:
		ran := state == suspended && s.domain == presentNow && s.domainState == DomainRunning
		if !ran && (want != wantStopped || s.domain != presenceAbsent) {
			t.Fatalf("memory dropped in %+v", s)
		}
	}
	if got.state == suspended && state != suspended {
		t.Fatal("suspended without a save") // only the step itself enters the state
	}
}

func TestDecideSuspend(t *testing.T) {
	wrong := errors.New("it broke")
	kept := func(change func(*situation)) func(*situation) {
		return func(s *situation) {
			s.kept, s.domain = KeptWhole, presenceAbsent
			if change != nil {
				change(s)
			}
		}
	}
	for name, test := range map[string]struct {
		s       situation
		change  func(*situation)
		do      action
		state   v1.DesktopState
		message string
	}{
		"not before it was ready":   {s: at(starting, wantSuspended), do: ping, state: starting, message: "the guest agent has not answered yet"},
		"not begun is not started":  {s: at(prepared, wantSuspended), state: prepared},
		"waits for its turn":        {s: at(ready, wantSuspended), do: askSaver, state: ready, message: "waits to be suspended: at most 2 desktops are at once"},
		"saved":                     {s: at(ready, wantSuspended), change: func(s *situation) { s.saver = true }, do: suspend, state: ready, message: "its memory is being saved"},
		"tried again when it broke": {s: at(ready, wantSuspended), change: func(s *situation) { s.saver, s.trouble = true, trouble{err: wrong, next: noon.Add(time.Second)} }, state: ready, message: "suspending will be tried again: it broke"},
		"not while its disk fails": {s: at(ready, wantSuspended), change: func(s *situation) { s.domainState = DomainPausedIO }, state: ready,
			message: "the VM stands still: the host's store is full or failing; it goes on when that is mended"},
		"gone: was it suspended?":      {s: at(ready, wantSuspended), change: func(s *situation) { s.domain, s.keptKnown = presenceAbsent, false }, do: findMemory, state: ready},
		"gone, and it may have been":   {s: at(ready, wantSuspended), change: func(s *situation) { s.domain, s.kept, s.saver = presenceAbsent, KeptBegun, true }, do: suspend, state: ready, message: "its memory is being saved"},
		"gone, and it was not":         {s: at(ready, wantSuspended), change: func(s *situation) { s.domain = presenceAbsent }, state: failed, message: "QEMU ended: the guest powered off or crashed"},
		"asleep":                       {s: at(suspended, wantSuspended), change: kept(nil), state: suspended},
		"asleep after a restart":       {s: at(suspended, wantSuspended), change: kept(func(s *situation) { s.start.bootID, s.told = "boot before", false }), state: suspended},
		"restored, and wanted no more": {s: at(suspended, wantSuspended), change: kept(func(s *situation) { s.domain, s.domainState = presentNow, DomainPaused }), do: destroy, state: suspended},
		"woken, and wanted no more":    {s: at(suspended, wantSuspended), change: func(s *situation) { s.saver = true }, do: suspend, state: suspended, message: "its memory is being saved"},
		"wake: find it":                {s: at(suspended, wantReady), change: kept(func(s *situation) { s.keptKnown = false }), do: findMemory, state: suspended},
		"wake: a slot first":           {s: at(suspended, wantReady), change: kept(nil), do: askSlot, state: suspended, message: "waits for a boot slot"},
		"wake":                         {s: at(suspended, wantReady), change: kept(func(s *situation) { s.slot = true }), do: resume, state: suspended, message: "waking"},
		"wake: the image first":        {s: at(suspended, wantReady), change: kept(func(s *situation) { s.slot, s.base.done = true, false }), do: fetchBase, state: suspended, message: "fetching the image"},
		"wake: not after a restart of the host, before new orders": {s: at(suspended, wantReady), change: kept(func(s *situation) { s.slot, s.told = true, false }), state: suspended,
			message: "the host restarted: waiting until the control plane says what it shall run"},
		"wake: not beside another life": {s: at(suspended, wantReady), change: kept(func(s *situation) { s.slot, s.rival = true, 4 }), state: suspended, message: "waiting until generation 4 of this desktop has ended"},
		"wake: it stands still":         {s: at(suspended, wantReady), change: func(s *situation) { s.domainState = DomainPaused }, do: resume, state: suspended, message: "waking"},
		"wake: ask the guest":           {s: at(suspended, wantReady), do: ping, state: suspended, message: "woken: the guest agent has not answered yet"},
		"wake: before the next list":    {s: at(suspended, wantReady), change: func(s *situation) { s.domain, s.woken = presenceUnknown, true }, do: ping, state: suspended, message: "woken: the guest agent has not answered yet"},
		"awake":                         {s: at(suspended, wantReady), change: func(s *situation) { s.answered = true }, state: ready},
		"awake too late": {s: at(suspended, wantReady), change: func(s *situation) {
			s.wakingSince = noon.Add(-time.Minute)
			s.assignment.Incarnation.Readiness = &v1.Readiness{Deadline: durationpb.New(time.Minute)}
		}, state: failed, message: "not awake within 1m0s: the guest agent does not answer"},
		"cannot be restored": {s: at(suspended, wantReady), change: kept(func(s *situation) { s.trouble.err = fmt.Errorf("another CPU: %w", ErrPermanent) }), state: failed,
			message: "cannot be woken, and what was open in it is lost: another CPU: cannot be done on this host"},
		"cannot be restored in time": {s: at(suspended, wantReady), change: kept(func(s *situation) {
			s.wakingSince, s.trouble.err = noon.Add(-time.Minute), errors.New("no memory")
			s.assignment.Incarnation.Readiness = &v1.Readiness{Deadline: durationpb.New(time.Minute)}
		}), state: failed, message: "not awake within 1m0s, and what was open in it is lost: no memory"},
		"died while it was woken": {s: at(suspended, wantReady), change: func(s *situation) { s.domain = presenceAbsent }, state: failed,
			message: "QEMU ended while the desktop was woken, and its memory is gone with it"},
		"not on one list's word":          {s: at(suspended, wantReady), change: func(s *situation) { s.domain = presenceUnknown }, state: suspended, message: "waiting for the hypervisor to say whether the VM runs"},
		"an orphan sleeps on":             {s: at(suspended, wantReady), change: kept(func(s *situation) { s.assignment = nil }), state: suspended},
		"delete: the disk and the memory": {s: at(suspended, wantDeleted), change: kept(nil), do: trashOverlay, state: suspended},
		"stop: its memory goes":           {s: at(suspended, wantStopped), change: kept(nil), do: dropMemory, state: suspended},
		"stop":                            {s: at(suspended, wantStopped), change: func(s *situation) { s.domain = presenceAbsent }, state: stopped},
	} {
		t.Run(name, func(t *testing.T) {
			if test.change != nil {
				test.change(&test.s)
			}
			test.s.nextDescribe = noon.Add(time.Hour)
			got := decide(noon, test.s)
			if got.do != test.do || got.state != test.state || got.message != test.message {
				t.Errorf("got %s, %s, %q; want %s, %s, %q", got.do, got.state, got.message, test.do, test.state, test.message)
			}
		})
	}
}

func TestWhenToLook(t *testing.T) {
	due := noon.Add(time.Minute)
	for name, c := range map[string]struct {
		used         bool
		lookAt, said time.Time
		want         time.Time
	}{
		"nobody ever used it":         {},
		"used":                        {used: true, want: due},
		"to be looked at":             {lookAt: noon, want: noon},
		"looked at since":             {lookAt: noon, said: noon.Add(time.Second)},
		"looked at before":            {used: true, lookAt: noon, said: noon.Add(-time.Second), want: noon},
		"to be looked at, soon again": {lookAt: noon.Add(-time.Hour), want: noon.Add(-time.Minute + useAgain)},
	} {
		s := at(ready, wantReady)
		s.assignment.Used, s.nextUse, s.lookedAt = c.used, due, noon.Add(-time.Minute)
		if !c.lookAt.IsZero() {
			s.assignment.Incarnation.LookAt = timestamppb.New(c.lookAt)
		}
		if !c.said.IsZero() {
			s.status.Session = &v1.GuestSession{Asked: timestamppb.New(c.said)}
		}
		if got := s.nextLook(); !got.Equal(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestNewsOfUse(t *testing.T) {
	old := &v1.GuestSession{Asked: timestamppb.New(noon), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.New(noon.Add(-time.Hour))}
	session := func(after time.Duration, users uint32, idleSince time.Duration) *v1.GuestSession {
		return &v1.GuestSession{Asked: timestamppb.New(noon.Add(after)), UsersKnown: true, Users: users, InputIdleSince: timestamppb.New(noon.Add(idleSince))}
	}
	for name, c := range map[string]struct {
		next   *v1.GuestSession
		wanted time.Time
		want   bool
	}{
		"the same, soon":          {next: session(time.Minute, 1, -time.Hour)},
		"about the same":          {next: session(time.Minute, 1, -time.Hour+time.Second)},
		"the same, after a while": {next: session(5*time.Minute, 1, -time.Hour), want: true},
		"the same, wanted":        {next: session(time.Minute, 1, -time.Hour), wanted: noon.Add(30 * time.Second), want: true},
		"wanted before":           {next: session(time.Minute, 1, -time.Hour), wanted: noon.Add(-time.Second)},
		"logged off":              {next: session(time.Minute, 0, -time.Hour), want: true},
		"touched":                 {next: session(time.Minute, 1, 50*time.Second), want: true},
		"silent":                  {next: &v1.GuestSession{Asked: timestamppb.New(noon.Add(time.Minute)), UsersKnown: true, Users: 1}, want: true},
	} {
		var wanted *timestamppb.Timestamp
		if !c.wanted.IsZero() {
			wanted = timestamppb.New(c.wanted)
		}
		if got := newsOfUse(old, c.next, wanted); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
