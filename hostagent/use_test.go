package hostagent

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	v1 "daybreak/proto/daybreak/v1"
)

// orderIsHeeded: what is to be done since nobody uses a desktop is not begun before its guest said so right before, and never once
// it was declined.
func orderIsHeeded(t *rapid.T, s situation, got step) {
	since := s.assignment.GetIncarnation().GetUnlessUsedSince()
	if since == nil || s.status.GetState() != ready || s.domain != presentNow {
		return
	}
	acts := got.do == suspend || got.do == shutdown || got.do == destroy || got.state == stopping
	want := s.assignment.GetIncarnation().GetDesired()
	if acts && want != wantStopped && (s.status.GetDeclined() != nil || noon.Sub(s.unusedAt).Abs() >= useFresh) {
		t.Fatalf("%s, in %+v", got.do, s)
	}
	if got.do == confirm && (s.status.GetDeclined() != nil || noon.Before(s.nextConfirm)) {
		t.Fatalf("asked again, in %+v", s)
	}
}

func TestDecideHeedsTheGuest(t *testing.T) {
	const saving = "its memory is being saved"
	type change = func(*situation)
	saver := func(s *situation) { s.saver = true }
	said := func(ago time.Duration) change {
		return func(s *situation) { s.saver, s.unusedAt = true, noon.Add(-ago) }
	}
	declined := func(s *situation) { s.saver, s.status.Declined = true, timestamppb.New(noon) }
	for name, test := range map[string]struct {
		s       situation
		change  change
		do      action
		state   v1.DesktopState
		message string
	}{
		"its turn comes first":        {s: at(ready, wantSuspended), do: askSaver, state: ready, message: "waits to be suspended: at most 2 desktops are at once"},
		"suspend: the guest's word":   {s: at(ready, wantSuspended), change: saver, do: confirm, state: ready},
		"suspend: unused":             {s: at(ready, wantSuspended), change: said(time.Second), do: suspend, state: ready, message: saving},
		"suspend: unused a while":     {s: at(ready, wantSuspended), change: said(useFresh), do: confirm, state: ready},
		"suspend: declined":           {s: at(ready, wantSuspended), change: declined, state: ready},
		"end: the guest's word":       {s: at(ready, wantDeleted), do: confirm, state: ready},
		"end: unused":                 {s: at(ready, wantDeleted), change: said(time.Second), do: shutdown, state: stopping, message: "the guest was asked to power off"},
		"end: declined":               {s: at(ready, wantDeleted), change: declined, state: ready},
		"end: another was declined":   {s: at(ready, wantDeleted), change: func(s *situation) { s.status.Declined = timestamppb.New(noon.Add(-time.Hour)) }, do: confirm, state: ready},
		"end: asked again in a bit":   {s: at(ready, wantDeleted), change: func(s *situation) { s.nextConfirm = noon.Add(time.Second) }, state: ready},
		"end: it never was ready":     {s: at(starting, wantDeleted), do: shutdown, state: stopping, message: "the guest was asked to power off"},
		"end: it has begun to stop":   {s: at(stopping, wantDeleted), do: shutdown, state: stopping, message: "the guest was asked to power off"},
		"end: nobody is in it":        {s: at(ready, wantDeleted), change: func(s *situation) { s.domain = presenceAbsent }, do: trashOverlay, state: ready},
		"wanted again":                {s: at(ready, wantReady), change: declined, state: ready},
		"stop: somebody asked for it": {s: at(ready, wantStopped), do: shutdown, state: stopping, message: "the guest was asked to power off"},
	} {
		t.Run(name, func(t *testing.T) {
			test.s.assignment.Incarnation.UnlessUsedSince = timestamppb.New(noon)
			if test.change != nil {
				test.change(&test.s)
			}
			test.s.nextDescribe = noon.Add(time.Hour)
			if got := decide(noon, test.s); got.do != test.do || got.state != test.state || got.message != test.message {
				t.Errorf("got %s, %s, %q; want %s, %s, %q", got.do, got.state, got.message, test.do, test.state, test.message)
			}
		})
	}
}
