package pool

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// A life that had a user ends when it is as old as the policy says, not a second before, and the pool looks again then.
func TestRefreshAfterDays(t *testing.T) {
	w := settled(t, 2, func(w *world) {
		w.pool.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 3}
	})
	w.claim("sales-1", "taro")
	w.release("sales-1")
	due := w.desktops["sales-1"].Incarnation.Created.AsTime().Add(3 * 24 * time.Hour)
	if a := w.round(); changed(a) != 0 || a.Again != due.Sub(w.now) {
		t.Fatalf("right after the release: %d changes, looks again in %v, want none and %v", changed(a), a.Again, due.Sub(w.now))
	}
	w.now = due.Add(-time.Second)
	if a := w.round(); changed(a) != 0 || a.Again != time.Second {
		t.Fatalf("a second too early: retired %v, looks again in %v", changedNames(a.Retire), a.Again)
	}
	w.now = due
	w.change("sales-1", nobodyIn(due))
	if got := changedNames(w.round().Retire); !slices.Equal(got, []string{"sales-1"}) {
		t.Errorf("retired %v after 3 days, want the one that had a user", got)
	}
}

// nobodyIn has a desktop's guest say that nobody is logged in.
func nobodyIn(at time.Time) func(d *v1.Desktop) {
	return func(d *v1.Desktop) { d.Status.Session = &v1.GuestSession{Asked: timestamppb.New(at), UsersKnown: true} }
}

// keptForDays is a pool with a desktop that is as old as may be, and that taro let go of days ago.
func keptForDays(t *testing.T) (w *world, due time.Time) {
	w = settled(t, 2, func(w *world) {
		w.pool.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 3}
	})
	w.claim("sales-1", "taro")
	w.release("sales-1")
	w.now = w.desktops["sales-1"].Incarnation.Created.AsTime().Add(3 * 24 * time.Hour)
	return w, w.now
}

// Whoever came back to a desktop that they had let go of keeps what is on it while they use it; and a guest that does not say
// so is waited for for a day, not for ever.
func TestRefreshWaitsForWhoIsInTheGuest(t *testing.T) {
	const day = 24 * time.Hour
	session := func(asked, input time.Duration) func(time.Time) *v1.GuestSession {
		return func(now time.Time) *v1.GuestSession {
			return &v1.GuestSession{Asked: timestamppb.New(now.Add(-asked)), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.New(now.Add(-input))}
		}
	}
	bare := func(users uint32, asked time.Duration) func(time.Time) *v1.GuestSession {
		return func(now time.Time) *v1.GuestSession {
			return &v1.GuestSession{Asked: timestamppb.New(now.Add(-asked)), UsersKnown: true, Users: users}
		}
	}
	silent := func(time.Time) *v1.GuestSession { return nil }
	mute := func(now time.Time) *v1.GuestSession { return &v1.GuestSession{Asked: timestamppb.New(now)} }
	rule := func(action v1.IdleAction) *v1.IdleRule {
		return &v1.IdleRule{After: durationpb.New(30 * time.Minute), Action: action}
	}
	for name, test := range map[string]struct {
		late    time.Duration // since it was due
		says    func(now time.Time) *v1.GuestSession
		rule    *v1.IdleRule
		refresh bool
		again   time.Duration
	}{
		"nobody is logged in":            {0, bare(0, time.Minute), nil, true, 0},
		"somebody is logged in":          {0, bare(1, time.Minute), nil, false, sessionLife - time.Minute + time.Second},
		"somebody is, ten days later":    {10 * day, bare(1, time.Minute), nil, false, sessionLife - time.Minute + time.Second},
		"somebody types":                 {time.Hour, session(0, time.Minute), nil, false, sessionLife + time.Second},
		"typed a night ago":              {0, session(time.Minute, 14*time.Hour), nil, false, sessionLife - time.Minute + time.Second},
		"stopped typing nearly a day":    {0, session(time.Minute, day-time.Second), nil, false, time.Second},
		"stopped typing a day ago":       {0, session(time.Minute, day), nil, true, 0},
		"idle by the policy":             {0, session(time.Minute, 35*time.Minute), rule(release), true, 0},
		"idle by it, not warned yet":     {0, session(time.Minute, 34*time.Minute), rule(shutDown), false, time.Minute},
		"idle by one that loses nothing": {0, session(time.Minute, 35*time.Minute), rule(suspend), false, sessionLife - time.Minute + time.Second},
		"never a word":                   {0, silent, nil, false, day},
		"never a word for a day":         {day, silent, nil, true, 0},
		"users are not told":             {day - time.Hour, mute, nil, false, time.Hour},
		"users are not told for a day":   {day, mute, nil, true, 0},
		"silent since a while":           {10 * day, bare(1, time.Hour), nil, false, day - time.Hour},
		"silent for a day":               {10 * day, bare(1, day), nil, true, 0},
		"its host's clock is wrong":      {10 * day, bare(1, -time.Hour), nil, true, 0},
	} {
		w, due := keptForDays(t)
		w.now = due.Add(test.late)
		w.change("sales-1", func(d *v1.Desktop) { d.Status.Session = test.says(w.now) })
		s := w.snapshot()
		s.IdleRule = test.rule
		a := Decide(w.now, s)
		if got := changedNames(a.Retire); len(got) == 1 != test.refresh || a.Again != test.again {
			t.Errorf("%s: retired %v, looks again in %v; want %v and %v", name, got, a.Again, test.refresh, test.again)
		}
	}
}

// What does not run is in nobody's use.
func TestRefreshOfWhatDoesNotRun(t *testing.T) {
	for state, desired := range map[v1.DesktopState]v1.DesiredState{
		v1.DesktopState_DESKTOP_STATE_SUSPENDED: v1.DesiredState_DESIRED_STATE_SUSPENDED,
		v1.DesktopState_DESKTOP_STATE_STOPPED:   v1.DesiredState_DESIRED_STATE_READY,
		v1.DesktopState_DESKTOP_STATE_FAILED:    v1.DesiredState_DESIRED_STATE_READY,
	} {
		w, _ := keptForDays(t)
		w.change("sales-1", func(d *v1.Desktop) { d.Status.State, d.Incarnation.Desired = state, desired })
		if got := changedNames(w.round().Retire); !slices.Equal(got, []string{"sales-1"}) {
			t.Errorf("%v: retired %v", state, got)
		}
	}
}

func TestExplainWhatARefreshWaitsFor(t *testing.T) {
	for name, test := range map[string]struct {
		session *v1.GuestSession
		want    string
	}{
		"used":    {&v1.GuestSession{UsersKnown: true, Users: 1}, "waits until it was not used for 24 hours: somebody is logged in"},
		"unknown": {nil, "waits until 2027-04-09 08:00:00 UTC for its guest to say that nobody uses it: its guest does not say who uses it"},
		"nobody":  {&v1.GuestSession{UsersKnown: true}, ""},
	} {
		w, due := keptForDays(t)
		w.now = due.Add(time.Hour)
		w.change("sales-1", func(d *v1.Desktop) {
			if d.Status.Session = test.session; test.session != nil {
				test.session.Asked = timestamppb.New(w.now)
			}
		})
		answer, err := Explain(shown(t, w), w.now, "sales-1")
		if err != nil {
			t.Fatal(err)
		}
		said := slices.Contains(answer.Details, "it was to be made anew at 2027-04-08 08:00:00 UTC, 3 days after it was made, and "+test.want)
		if said != (test.want != "") {
			t.Errorf("%s: %q, want %q", name, answer.Details, test.want)
		}
	}
}
