package pool

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	suspend  = v1.IdleAction_IDLE_ACTION_SUSPEND
	shutDown = v1.IdleAction_IDLE_ACTION_SHUT_DOWN
	release  = v1.IdleAction_IDLE_ACTION_RELEASE
)

func idleRule(action v1.IdleAction) *v1.IdleRule {
	return &v1.IdleRule{After: durationpb.New(30 * time.Minute), Grace: durationpb.New(5 * time.Minute), Action: action}
}

// heldWorld is a pool with one desktop, which taro has held for hours, and in whose guest he has not touched anything for 40
// minutes; the guest said so a minute ago.
func heldWorld(t *testing.T) (*world, *v1.Desktop) {
	w := settled(t, 1)
	w.claim("sales-1", "taro")
	w.now = w.now.Add(3 * time.Hour)
	w.change("sales-1", func(d *v1.Desktop) {
		d.Status.Session = &v1.GuestSession{
			Asked: timestamppb.New(w.now.Add(-time.Minute)), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.New(w.now.Add(-40 * time.Minute)),
		}
	})
	return w, w.desktops["sales-1"]
}

func (w *world) idleInput(rule *v1.IdleRule) idleInput {
	in := idleInput{pool: w.pool, rule: rule, empty: map[string]time.Time{}}
	for _, name := range w.names() {
		in.desktops = append(in.desktops, w.desktops[name])
	}
	in.round = newDecision(w.now, w.snapshot())
	in.round.weigh(in.round.surplus)
	return in
}

// idleRound decides and commits.
func (w *world) idleRound(in idleInput) ([]idleChange, time.Duration) {
	changes, again := decideIdle(w.now, in)
	for _, change := range changes {
		w.revision++
		w.put(change.desktop)
		if change.event != nil {
			w.events = append(w.events, change.event)
		}
	}
	return changes, again
}

func TestIdleWarnsLooksAndActs(t *testing.T) {
	for action, want := range map[v1.IdleAction]struct{ reason, text string }{
		suspend:  {ReasonSuspended, "it is suspended, and goes on where it was when taro claims it: no input since "},
		shutDown: {ReasonShutDown, "it is shut down, and starts anew when taro claims it: no input since "},
		release:  {ReasonReclaiming, "its life is to end, and it is taken back from taro: no input since "},
	} {
		w, _ := heldWorld(t)
		changes, _ := w.idleRound(w.idleInput(idleRule(action)))
		d := w.desktops["sales-1"]
		if len(changes) != 1 || changes[0].event.GetReason() != ReasonIdleWarned || !d.Claim.Reclaim.ActAt.AsTime().Equal(w.now.Add(5*time.Minute)) {
			t.Fatalf("%v: %v", action, changes)
		}
		if text := d.Incarnation.Notice.GetText(); !strings.Contains(text, "Nobody has used this desktop since ") || !strings.Contains(text, "in 5 minutes, unless it is used.") {
			t.Errorf("notice %q", text)
		}
		w.now = w.now.Add(4 * time.Minute)
		if changes, again := w.idleRound(w.idleInput(idleRule(action))); len(changes) != 0 || again != time.Minute {
			t.Fatalf("%v: in the grace: %v, again in %v", action, changes, again)
		}
		w.now = w.now.Add(2 * time.Minute)
		w.idleRound(w.idleInput(idleRule(action)))
		look := w.desktops["sales-1"].Incarnation.GetLookAt().AsTime()
		if !look.Equal(w.now) {
			t.Fatalf("%v: looks at %v, now %v", action, look, w.now)
		}
		if changes, _ := w.idleRound(w.idleInput(idleRule(action))); len(changes) != 0 {
			t.Fatalf("%v: acts without a fresh word: %v", action, changes)
		}
		w.change("sales-1", func(d *v1.Desktop) { d.Status.Session.Asked = timestamppb.New(w.now.Add(time.Second)) })
		changes, _ = w.idleRound(w.idleInput(idleRule(action)))
		if len(changes) != 1 || changes[0].event.GetReason() != want.reason || !strings.HasPrefix(changes[0].event.GetMessage(), want.text) {
			t.Fatalf("%v: %v", action, changes)
		}
		d = w.desktops["sales-1"]
		if !d.GetClaim().GetReclaim().GetActing() || changes[0].releases || d.Incarnation.LookAt != nil || !proto.Equal(d.Incarnation.UnlessUsedSince, d.Status.Session.Asked) {
			t.Errorf("%v: %v", action, d)
		}
		w.now = w.now.Add(time.Hour)
		if changes, _ := w.idleRound(w.idleInput(idleRule(action))); len(changes) != 0 {
			t.Errorf("%v: acts twice: %v", action, changes)
		}
	}
}

// Where no grace is written it is five minutes, and never longer than the desktop was idle.
func TestIdleGraceByDefault(t *testing.T) {
	for after, want := range map[time.Duration]time.Duration{
		time.Minute: time.Minute, 5 * time.Minute: 5 * time.Minute, 30 * time.Minute: 5 * time.Minute,
	} {
		w, _ := heldWorld(t)
		w.idleRound(w.idleInput(&v1.IdleRule{After: durationpb.New(after), Action: suspend}))
		if got := w.desktops["sales-1"].GetClaim().GetReclaim().GetActAt().AsTime().Sub(w.now); got != want {
			t.Errorf("idle after %v: warned %v ahead, want %v", after, got, want)
		}
	}
}

// What the second step finds changed takes the first one back.
func TestIdleIsWithdrawn(t *testing.T) {
	ago := func(w *world, d time.Duration) *timestamppb.Timestamp { return timestamppb.New(w.now.Add(-d)) }
	for name, test := range map[string]struct {
		why  string
		edit func(w *world, d *v1.Desktop)
		rule *v1.IdleRule
	}{
		"input":          {"no input since", func(w *world, d *v1.Desktop) { d.Status.Session.InputIdleSince = ago(w, time.Minute) }, idleRule(suspend)},
		"input, unknown": {"somebody is logged in", func(_ *world, d *v1.Desktop) { d.Status.Session.InputIdleSince = nil }, idleRule(suspend)},
		"asked for":      {"taro asked for it", func(w *world, d *v1.Desktop) { d.Claim.Asked = ago(w, time.Second) }, idleRule(suspend)},
		"users unknown":  {"does not say who uses it", func(_ *world, d *v1.Desktop) { d.Status.Session.UsersKnown = false }, idleRule(suspend)},
		"silence":        {"has not said who uses it since", func(w *world, d *v1.Desktop) { d.Status.Session.Asked = ago(w, 11*time.Minute) }, idleRule(suspend)},
		"clocks differ":  {"clock of its host is ahead", func(w *world, d *v1.Desktop) { d.Status.Session.Asked = ago(w, -time.Hour) }, idleRule(suspend)},
		"lost":           {"not ready", func(_ *world, d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_LOST }, idleRule(suspend)},
		"paused":         {"not ready", func(_ *world, d *v1.Desktop) { d.Status.PausedIo = true }, idleRule(suspend)},
		"busy":           {"busy until", func(w *world, d *v1.Desktop) { d.Claim.BusyUntil = ago(w, -time.Hour) }, idleRule(suspend)},
		"deleted":        {"to be deleted", func(_ *world, d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{} }, idleRule(suspend)},
		"another rule":   {"another rule", func(*world, *v1.Desktop) {}, idleRule(shutDown)},
		"no rule":        {"does nothing now", func(*world, *v1.Desktop) {}, nil},
		"a longer rule":  {"no input since", func(*world, *v1.Desktop) {}, &v1.IdleRule{After: durationpb.New(2 * time.Hour), Action: suspend}},
		"kept user":      {"desktops of taro", func(w *world, _ *v1.Desktop) { w.pool.Spec.Idle = &v1.IdlePolicy{KeepUsers: []string{"taro"}} }, idleRule(suspend)},
		"kept desktop":   {"left alone by", func(w *world, _ *v1.Desktop) { w.pool.Spec.Idle = &v1.IdlePolicy{KeepDesktops: []string{"sales-1"}} }, idleRule(suspend)},
		"host's own time": {"by its host's clock", func(w *world, d *v1.Desktop) {
			d.Status.Session.Asked = ago(w, 9*time.Minute)
			d.Incarnation.LookAt = ago(w, 9*time.Minute)
			d.Claim.Reclaim.ActAt = ago(w, 10*time.Minute)
			d.Status.Session.InputIdleSince = ago(w, 38*time.Minute)
			d.Claim.Reclaim.Since = ago(w, 15*time.Minute)
		}, idleRule(suspend)},
		"no answer": {"did not answer", func(w *world, d *v1.Desktop) {
			d.Incarnation.LookAt = ago(w, 4*time.Minute)
			d.Claim.Reclaim.ActAt = ago(w, 5*time.Minute)
			d.Status.Session.Asked = ago(w, 5*time.Minute)
		}, idleRule(suspend)},
	} {
		w, _ := heldWorld(t)
		w.idleRound(w.idleInput(idleRule(suspend)))
		w.now = w.now.Add(5 * time.Minute)
		w.pool = proto.CloneOf(w.pool)
		w.change("sales-1", func(d *v1.Desktop) { test.edit(w, d) })
		changes, _ := w.idleRound(w.idleInput(test.rule))
		d := w.desktops["sales-1"]
		if len(changes) != 1 || d.Claim.Reclaim != nil || d.Incarnation.LookAt != nil || changes[0].event.GetReason() != ReasonIdleWithdrawn ||
			!strings.Contains(changes[0].event.GetMessage(), test.why) {
			t.Errorf("%s: %v, %v", name, changes, d.Claim)
		}
		if !strings.Contains(d.Incarnation.Notice.GetText(), "stays as it is") {
			t.Errorf("%s: the user is told %q", name, d.Incarnation.Notice)
		}
	}
}

// What lasts and lies on no data disk is left alone, also where a data disk was added to the pool later.
func TestWhatLastsIsNotShutDown(t *testing.T) {
	for name, test := range map[string]struct {
		refresh v1.RefreshMode
		action  v1.IdleAction
		data    bool
		left    bool
	}{
		"lasts":               {v1.RefreshMode_REFRESH_MODE_NEVER, shutDown, false, true},
		"lasts on a disk":     {v1.RefreshMode_REFRESH_MODE_NEVER, shutDown, true, false},
		"lasts, is suspended": {v1.RefreshMode_REFRESH_MODE_NEVER, suspend, false, false},
		"does not last":       {v1.RefreshMode_REFRESH_MODE_AT_LOGOFF, shutDown, false, false},
	} {
		w, _ := heldWorld(t)
		w.pool.Spec.Refresh = &v1.RefreshPolicy{Mode: test.refresh}
		w.pool.Spec.Shape = &v1.Shape{DataDiskGib: 4}
		if test.data {
			w.change("sales-1", func(d *v1.Desktop) { d.Incarnation.Shape.DataDiskGib = 4 })
		}
		in := w.idleInput(idleRule(test.action))
		if why, _ := in.excluded(w.now, w.desktops["sales-1"]); strings.Contains(why, "no data disk") != test.left {
			t.Errorf("%s: %q", name, why)
		}
		if changes, _ := w.idleRound(in); (len(changes) == 0) != test.left {
			t.Errorf("%s: %v", name, changes)
		}
	}
}

// A guest that nobody is logged in to is idle from when that was first heard; a new leader counts anew.
func TestEmptyGuests(t *testing.T) {
	w, d := heldWorld(t)
	w.change("sales-1", func(d *v1.Desktop) { d.Status.Session.Users, d.Status.Session.InputIdleSince = 0, nil })
	d = w.desktops["sales-1"]
	noted := watchEmpty(w.now, nil, []*v1.Desktop{d})
	in := w.idleInput(idleRule(suspend))
	in.empty = map[string]time.Time{"sales-1": noted["sales-1"].since}
	if changes, again := w.idleRound(in); len(changes) != 0 || again != 30*time.Minute {
		t.Fatalf("%v, again in %v", changes, again)
	}
	w.now = w.now.Add(31 * time.Minute)
	w.change("sales-1", func(d *v1.Desktop) { d.Status.Session.Asked = timestamppb.New(w.now) })
	in.desktops = []*v1.Desktop{w.desktops["sales-1"]}
	if kept := watchEmpty(w.now, noted, in.desktops); kept["sales-1"] != noted["sales-1"] {
		t.Errorf("%v became %v", noted, kept)
	}
	if changes, _ := w.idleRound(in); len(changes) != 1 || !strings.Contains(changes[0].event.GetMessage(), "no session since") {
		t.Errorf("%v", changes)
	}
	for name, edit := range map[string]func(*v1.Desktop){
		"logged in": func(d *v1.Desktop) { d.Status.Session.Users = 1 },
		"unknown":   func(d *v1.Desktop) { d.Status.Session.UsersKnown = false },
		"released":  func(d *v1.Desktop) { d.Claim = nil },
	} {
		changed := proto.CloneOf(d)
		edit(changed)
		if kept := watchEmpty(w.now, noted, []*v1.Desktop{changed}); len(kept) != 0 {
			t.Errorf("%s: %v", name, kept)
		}
	}
	another := proto.CloneOf(d)
	another.Incarnation.Generation++
	another.Status.Generation++
	if kept := watchEmpty(w.now, noted, []*v1.Desktop{another}); !kept["sales-1"].since.Equal(w.now) {
		t.Errorf("another life: %v", kept)
	}
}

// A claim by who holds the desktop takes back what is to be done, and wakes what was done.
func TestReturned(t *testing.T) {
	w, d := heldWorld(t)
	d = proto.CloneOf(d)
	d.Claim.Asked = timestamppb.New(w.now.Add(-30 * time.Second))
	if changed, _ := returned(w.now, d); changed != nil {
		t.Errorf("written again after half a minute: %v", changed)
	}
	changed, events := returned(w.now.Add(time.Minute), d)
	if len(events) != 0 || !changed.GetClaim().GetAsked().AsTime().Equal(w.now.Add(time.Minute)) {
		t.Errorf("%v, %v", changed.GetClaim(), events)
	}
	warned := proto.CloneOf(d)
	warned.Claim.Reclaim = &v1.Reclaim{Since: timestamppb.New(w.now), Action: suspend}
	changed, events = returned(w.now, warned)
	if len(events) != 1 || events[0].Reason != ReasonIdleWithdrawn || changed.Claim.Reclaim != nil || !changed.Claim.Asked.AsTime().Equal(w.now) {
		t.Errorf("%v, %v", changed, events)
	}
	for name, edit := range map[string]func(inc *v1.Incarnation){
		"suspended": func(inc *v1.Incarnation) { inc.Desired = v1.DesiredState_DESIRED_STATE_SUSPENDED },
		"cold":      func(inc *v1.Incarnation) { inc.Desired = v1.DesiredState_DESIRED_STATE_PREPARED },
		"planned":   func(inc *v1.Incarnation) { inc.StartAt = timestamppb.New(w.now.Add(time.Hour)) },
	} {
		asleep := proto.CloneOf(warned)
		asleep.Claim.Reclaim.Acting = true
		edit(asleep.Incarnation)
		changed, events := returned(w.now, asleep)
		inc := changed.GetIncarnation()
		if len(events) != 1 || events[0].Reason != ReasonWoken || inc.GetDesired() != v1.DesiredState_DESIRED_STATE_READY || inc.GetStartAt() != nil || changed.GetClaim().GetReclaim() != nil {
			t.Errorf("%s: %v, %v", name, changed, events)
		}
	}
	ending := proto.CloneOf(warned)
	ending.Claim.Reclaim.Acting, ending.Incarnation.Desired = true, v1.DesiredState_DESIRED_STATE_DELETED
	changed, _ = returned(w.now, ending)
	if changed.GetClaim().GetReclaim() != nil || changed.GetIncarnation().GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED {
		t.Errorf("while it is shut down: %v", changed)
	}
}

// A desktop that was shut down for want of use follows its user cold, and starts for no schedule.
func TestShutDownLifeWaitsForItsUser(t *testing.T) {
	w, _ := heldWorld(t)
	w.change("sales-1", func(d *v1.Desktop) {
		d.Claim.Reclaim = &v1.Reclaim{Action: shutDown, Acting: true, Since: timestamppb.New(w.now), ActAt: timestamppb.New(w.now)}
		d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED
	})
	for range 6 {
		w.round()
		w.advance("sales-1", "h1")
	}
	d := w.desktops["sales-1"]
	if d.Claim.GetUser() != "taro" || d.Claim.Reclaim != nil || d.Incarnation.UsedBy != "taro" || d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_PREPARED ||
		store.State(d) > v1.DesktopState_DESKTOP_STATE_PREPARED {
		t.Fatalf("%v", d)
	}
	changed, events := returned(w.now, d)
	if changed.GetIncarnation().GetDesired() != v1.DesiredState_DESIRED_STATE_READY || changed.GetIncarnation().GetWoken() == nil || len(events) != 1 {
		t.Errorf("%v, %v", changed.GetIncarnation(), events)
	}
}

// A desktop that its user woke and that fails before it is ready is made anew for them: there is nothing of theirs on it.
func TestFailedBootIsMadeAnewForItsUser(t *testing.T) {
	w, _ := heldWorld(t)
	w.change("sales-1", func(d *v1.Desktop) {
		d.Incarnation.Generation++
		d.Incarnation.Created = timestamppb.New(w.now.Add(time.Second)) // after the claim: for its user
		d.Status = &v1.DesktopStatus{Generation: d.Incarnation.Generation, State: v1.DesktopState_DESKTOP_STATE_FAILED, Message: "no boot",
			Times: []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_FAILED, At: timestamppb.New(w.now)}}}
	})
	if a := w.round(); len(a.Retire) != 1 || a.Retire[0].Reason != ReasonReplaced || a.Retire[0].Desktop.Claim.GetUser() != "taro" {
		t.Fatalf("%v", a)
	}
	w.settle(10)
	if d := w.desktops["sales-1"]; store.State(d) != v1.DesktopState_DESKTOP_STATE_READY || d.Claim.GetUser() != "taro" || d.Incarnation.UsedBy != "taro" {
		t.Errorf("in the end: %v", d)
	}
}

// A life that was claimed was ready, even when its host lost its journal and says nothing of it: there may be work on it.
func TestForgetfulHostCostsNobodyTheirWork(t *testing.T) {
	w, _ := heldWorld(t)
	w.change("sales-1", func(d *v1.Desktop) {
		d.Status = &v1.DesktopStatus{Generation: d.Incarnation.Generation, State: v1.DesktopState_DESKTOP_STATE_FAILED, Message: "the host restarted"}
	})
	if a := w.round(); len(a.Retire)+len(a.Renew) != 0 {
		t.Errorf("%v", a)
	}
}

func TestIdleWords(t *testing.T) {
	w, _ := heldWorld(t)
	long := timestamppb.New(w.now.Add(-40 * time.Minute))
	w.change("sales-1", func(d *v1.Desktop) {
		d.Claim.Since, d.Status.Session.InputIdleSince = long, timestamppb.New(w.now.Add(-time.Hour))
	})
	changes, _ := w.idleRound(w.idleInput(idleRule(suspend)))
	if len(changes) != 1 || !strings.HasSuffix(changes[0].event.GetMessage(), ": last used at "+clock(nil, long.AsTime())+", when taro was given it") {
		t.Fatalf("%v", changes)
	}
	rule := idleRule(suspend)
	rule.After.Seconds *= 10
	changes, _ = w.idleRound(w.idleInput(rule))
	want := "it stays as it is: the policy now wants it unused for " + spell(rule.GetAfter().AsDuration())
	if len(changes) != 1 || !strings.HasPrefix(changes[0].event.GetMessage(), want) {
		t.Errorf("%v, want %s", changes, want)
	}
}
