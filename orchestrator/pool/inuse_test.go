package pool

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

func minutes(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Minute) }

func reminding(w *world) {
	w.pool.Spec.Rollout = &v1.RolloutPolicy{InUse: &v1.InUse{
		Mode: v1.InUseMode_IN_USE_MODE_REMIND, Notice: minutes(10), Deferrals: 2, DeferBy: minutes(60),
	}}
}

// held returns a world of version 1 with one desktop, which taro holds.
func held(t *testing.T, edit ...func(*world)) *world {
	w := settled(t, 1, append(edit, published)...)
	w.claim("sales-1", "taro")
	return w
}

func TestRemind(t *testing.T) {
	w := held(t, reminding)
	w.let(rolling(1))
	a := w.round()
	d := w.desktops["sales-1"]
	if len(a.Retire) != 0 || !d.Claim.GetRestartAt().AsTime().Equal(w.now.Add(10*time.Minute)) {
		t.Fatalf("retired %v, claim %v", changedNames(a.Retire), d.Claim)
	}
	want := "This desktop will be restarted for an update at 08:14 UTC, in 10 minutes. Please save your work. " +
		"The restart can be put off 2 times more."
	if got := d.Incarnation.Notice.GetText(); got != want {
		t.Errorf("notice\n got %s\nwant %s", got, want)
	}
	if a := w.round(); len(a.Amend)+len(a.Retire) != 0 || a.Again != 10*time.Minute {
		t.Errorf("then amended %v, retired %v, again in %v", changedNames(a.Amend), changedNames(a.Retire), a.Again)
	}
	w.now = w.now.Add(10 * time.Minute)
	if a := w.round(); len(a.Retire) != 1 || a.Retire[0].Reason != ReasonMoved || w.desktops["sales-1"].Claim.GetRestartAt() != nil {
		t.Fatalf("at the time: %v", a.Retire)
	}
	w.settle(20)
	d = w.desktops["sales-1"]
	if d.Claim.GetUser() != "taro" || d.Incarnation.UsedBy != "taro" || d.Incarnation.Version != 2 || len(w.ready()) != 1 {
		t.Errorf("the user goes on with: %v", d)
	}
}

func TestRestartIsWithdrawn(t *testing.T) {
	for name, edit := range map[string]func(w *world){
		"paused":         func(w *world) { w.pool.Release.Moving = false },
		"done":           func(w *world) { w.let(&v1.Release{Version: 2}) },
		"taken back":     func(w *world) { w.let(&v1.Release{Version: 1, Moving: true, Rollback: true}) },
		"another policy": func(w *world) { w.pool.Spec.Rollout = nil },
		"withdrawn":      func(w *world) { w.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_WITHDRAWN },
		"being deleted":  func(w *world) { w.pool.Meta.Deletion = &v1.Deletion{} },
	} {
		w := held(t, reminding)
		w.let(rolling(1))
		w.round()
		id := w.desktops["sales-1"].Incarnation.Notice.Id
		edit(w)
		a := w.round()
		d := w.desktops["sales-1"]
		if d.Claim.RestartAt != nil || len(a.Amend) != 1 || a.Amend[0].Reason != ReasonRestartWithdrawn || d.Incarnation.Notice.Id == id {
			t.Errorf("%s: claim %v, notice %v", name, d.Claim, d.Incarnation.Notice)
		}
		w.now = w.now.Add(time.Hour)
		if a := w.round(); len(a.Retire)+len(a.Amend) != 0 {
			t.Errorf("%s: later retired %v, amended %v", name, changedNames(a.Retire), changedNames(a.Amend))
		}
	}
}

func TestForce(t *testing.T) {
	w := held(t)
	w.let(rolling(1))
	force := w.now.Add(2 * time.Hour)
	w.pool.Release.ForceFrom = timestamppb.New(force)
	if a := w.round(); len(a.Amend)+len(a.Retire) != 0 || a.Again != 105*time.Minute {
		t.Fatalf("two hours before: amended %v, again in %v", changedNames(a.Amend), a.Again)
	}
	w.now = force.Add(-15 * time.Minute)
	if w.round(); !w.desktops["sales-1"].Claim.GetRestartAt().AsTime().Equal(force) {
		t.Fatalf("a notice's time before: %v", w.desktops["sales-1"].Claim)
	}
	w.now = force
	if a := w.round(); len(a.Retire) != 1 {
		t.Errorf("the time has come: %v", changedNames(a.Retire))
	}
	late := held(t)
	late.let(rolling(1))
	late.pool.Release.ForceFrom = timestamppb.New(late.now.Add(-time.Hour))
	if a := late.round(); len(a.Retire) != 0 || !late.desktops["sales-1"].Claim.GetRestartAt().AsTime().Equal(late.now.Add(15*time.Minute)) {
		t.Errorf("after the deadline: retired %v, claim %v; want a notice first", changedNames(a.Retire), late.desktops["sales-1"].Claim)
	}
}

// A user whose desktop was lost with its host goes on with the version that is known to work, while nothing has shown that
// the next one gets ready.
func TestUsersAreNoCanaries(t *testing.T) {
	for _, c := range []struct {
		what    string
		ready   bool // a desktop runs the next version and is ready
		held    int
		release *v1.Release
		want    uint32
	}{
		{what: "nothing shown", held: 1, release: rolling(3), want: 1},
		{what: "a canary is ready", ready: true, held: 1, release: rolling(3), want: 2},
		{what: "all are held", held: 4, release: rolling(3), want: 2},
		{what: "a rollback", held: 1, release: &v1.Release{Version: 1, Next: 2, Admitted: 3, Rollback: true, Rollout: "sales-1"}, want: 2},
	} {
		w := settled(t, 4, published)
		if c.ready {
			w.let(rolling(1))
			w.settle(20)
		}
		users := w.running(1)[:c.held]
		for i, name := range users {
			w.claim(name, fmt.Sprintf("user%d", i))
		}
		w.change(users[0], func(d *v1.Desktop) { d.Incarnation.Host = "removed" })
		w.let(c.release)
		var lives []int64
		for range 3 { // no host takes it
			w.round()
			inc := w.desktops[users[0]].Incarnation
			if lives = append(lives, inc.Generation); inc.Version != c.want || inc.Generation != lives[0] {
				t.Errorf("%s: lives %v of a desktop that is held, now with version %d, want %d and one life", c.what, lives, inc.Version, c.want)
			}
		}
	}
}

// Whoever was told to restart with the next version gets it, also as the first.
func TestToldUserGetsTheNextVersion(t *testing.T) {
	w := settled(t, 2, reminding, published, func(w *world) { w.pool.Spec.MinReady = 1 })
	w.claim("sales-1", "taro")
	w.let(rolling(1))
	w.round()
	w.now = w.now.Add(time.Hour)
	if a := w.round(); len(a.Retire) != 1 {
		t.Fatalf("retired %v", changedNames(a.Retire))
	}
	w.settle(20)
	if got := w.running(2); len(got) != 1 || got[0] != "sales-1" {
		t.Errorf("version 2 runs on %v, want sales-1", got)
	}
}

// Whoever was told a time is restarted then: no more are told at once than may restart at once.
func TestRemindersComeInBatches(t *testing.T) {
	w := settled(t, 8, published, reminding, func(w *world) { w.pool.Spec.MaxUnavailable = 3 })
	for _, name := range w.names() {
		w.claim(name, "user of "+name)
	}
	w.let(rolling(8))
	if a := w.round(); len(a.Amend) != 3 {
		t.Errorf("told %v", changedNames(a.Amend))
	}
	if a := w.round(); len(a.Amend) != 0 {
		t.Errorf("and then told %v", changedNames(a.Amend))
	}
	if w.settle(120) < 0 || len(w.running(2)) != 8 {
		t.Errorf("%v run version 2 in the end", w.running(2))
	}
	w.let(&v1.Release{Version: 1, Moving: true, Rollback: true})
	if a := w.round(); len(a.Amend) != 8 {
		t.Errorf("of what goes back, told %v, want all", changedNames(a.Amend))
	}
}

// Nobody sits before a desktop that died, and its overlay may hold what they did: a reminder would reach no one.
func TestBrokenWhileHeldWaits(t *testing.T) {
	w := held(t, reminding)
	w.report("sales-1", v1.DesktopState_DESKTOP_STATE_FAILED, "died")
	w.let(rolling(1))
	if a := w.round(); len(a.Amend)+len(a.Retire) != 0 {
		t.Errorf("amended %v, retired %v", changedNames(a.Amend), changedNames(a.Retire))
	}
	w.pool.Release.ForceFrom = timestamppb.New(w.now)
	if a := w.round(); len(a.Amend) != 1 {
		t.Errorf("after the deadline: amended %v", changedNames(a.Amend))
	}
}
