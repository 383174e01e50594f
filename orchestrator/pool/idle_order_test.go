package pool

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// ordered is a desktop of taro's about which something is to be done since nobody uses it, which its host does not do yet.
func ordered(t *testing.T, action v1.IdleAction) *world {
	w, _ := heldWorld(t)
	w.change("sales-1", func(d *v1.Desktop) {
		d.Claim.Reclaim = &v1.Reclaim{Since: timestamppb.New(w.now.Add(-6 * time.Minute)), ActAt: timestamppb.New(w.now.Add(-time.Minute)), Action: action}
		d.Incarnation.LookAt = timestamppb.New(w.now.Add(-time.Minute))
	})
	w.idleRound(w.idleInput(idleRule(action)))
	if d := w.desktops["sales-1"]; !d.Claim.GetReclaim().GetActing() || d.Incarnation.UnlessUsedSince == nil {
		t.Fatalf("%v: nothing is ordered: %v", action, d)
	}
	return w
}

// decline has the host of a desktop decline what is ordered.
func (w *world) decline(name string, session *v1.GuestSession) {
	w.change(name, func(d *v1.Desktop) { d.Status.Declined, d.Status.Session = d.Incarnation.UnlessUsedSince, session })
}

// What a host declines is withdrawn, and the desktop goes on, its user's as before: whatever was to be done, and whoever asked for
// the desktop meanwhile.
func TestDeclinedIsWithdrawn(t *testing.T) {
	for _, action := range []v1.IdleAction{suspend, shutDown, release} {
		for why, session := range map[string]*v1.GuestSession{
			"it stays as it is: it was used again before its host acted":                                  {UsersKnown: true, Users: 1},
			"it stays as it is: its guest did not say who uses it right before its host would have acted": nil,
		} {
			w := ordered(t, action)
			life := w.desktops["sales-1"].Incarnation.Generation
			if changes, _ := w.idleRound(w.idleInput(nil)); len(changes) != 0 {
				t.Fatalf("%v, and its host did not say anything: %v", action, changes)
			}
			w.decline("sales-1", session)
			changes, _ := w.idleRound(w.idleInput(nil))
			d := w.desktops["sales-1"]
			if len(changes) != 1 || changes[0].releases || changes[0].event.GetReason() != ReasonIdleWithdrawn || changes[0].event.GetMessage() != why {
				t.Fatalf("%v: %v", action, changes)
			}
			if inc := d.Incarnation; inc.Desired != v1.DesiredState_DESIRED_STATE_READY || inc.UnlessUsedSince != nil || inc.Generation != life {
				t.Errorf("%v: %v", action, inc)
			}
			if d.Claim.GetUser() != "taro" || d.Claim.Reclaim != nil || !strings.HasPrefix(d.Incarnation.Notice.GetText(), "This desktop stays as it is") {
				t.Errorf("%v: %v", action, d)
			}
			if a := w.round(); changed(a) != 0 {
				t.Errorf("%v: after that %v end", action, changedNames(a.Retire))
			}
		}
	}
	w := ordered(t, shutDown)
	d, _ := returned(w.now, w.desktops["sales-1"])
	w.put(d)
	if since := w.desktops["sales-1"].Incarnation.UnlessUsedSince; since.AsTime().Unix() != 0 {
		t.Errorf("its user asked for it, and its host ends it if nobody touched it since %v", since.AsTime())
	}
	w.decline("sales-1", &v1.GuestSession{UsersKnown: true, Users: 1})
	w.idleRound(w.idleInput(nil))
	if d := w.desktops["sales-1"]; d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_READY || d.Claim.GetUser() != "taro" {
		t.Errorf("asked for meanwhile: %v", d)
	}
}

// While a host is not heard from nobody knows whether it declines: a claim that is to end goes on, and so does the desktop if it does.
func TestASilentHostMayDecline(t *testing.T) {
	w := ordered(t, release)
	w.report("sales-1", v1.DesktopState_DESKTOP_STATE_LOST, "")
	if changes, _ := w.idleRound(w.idleInput(nil)); len(changes) != 0 {
		t.Fatalf("on a silent host: %v", changes)
	}
	w.report("sales-1", v1.DesktopState_DESKTOP_STATE_READY, "")
	w.decline("sales-1", &v1.GuestSession{UsersKnown: true, Users: 1})
	w.idleRound(w.idleInput(nil))
	if d := w.desktops["sales-1"]; d.Claim.GetUser() != "taro" || ends(d) {
		t.Errorf("declined: %v", d)
	}
	w = ordered(t, release) // an admin says that the host is off
	w.report("sales-1", v1.DesktopState_DESKTOP_STATE_LOST, "")
	delete(w.hosts, "h1")
	if a := w.round(); len(a.Renew) != 1 || w.desktops["sales-1"].Claim.GetUser() != "taro" || w.desktops["sales-1"].Claim.Reclaim != nil {
		t.Errorf("its host is off: %v", w.desktops["sales-1"])
	}
}

// The user's own word, and an admin's, wait for no guest.
func TestOrdersOfPeopleHaveNoCondition(t *testing.T) {
	w := ordered(t, shutDown)
	if d := letGo(w.desktops["sales-1"], w.now); d.Incarnation.UnlessUsedSince != nil || d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_DELETED {
		t.Errorf("let go: %v", d.Incarnation)
	}
	w, _ = keptForDays(t)
	w.change("sales-1", nobodyIn(w.now))
	w.round()
	w.change("sales-1", func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{} })
	if w.round(); w.desktops["sales-1"].Incarnation.UnlessUsedSince != nil {
		t.Errorf("to be deleted: %v", w.desktops["sales-1"].Incarnation)
	}
	w, _ = heldWorld(t)
	w.release("sales-1")
	if w.round(); w.desktops["sales-1"].Incarnation.Desired != v1.DesiredState_DESIRED_STATE_DELETED || w.desktops["sales-1"].Incarnation.UnlessUsedSince != nil {
		t.Errorf("released: %v", w.desktops["sales-1"].Incarnation)
	}
}

// A refresh for age is declined as any other order that rests on nobody's using the desktop, and comes again when that is so.
func TestDeclinedRefresh(t *testing.T) {
	w, due := keptForDays(t)
	w.change("sales-1", nobodyIn(due.Add(-time.Minute)))
	w.round()
	if inc := w.desktops["sales-1"].Incarnation; inc.Desired != v1.DesiredState_DESIRED_STATE_DELETED || !inc.UnlessUsedSince.AsTime().Equal(due.Add(-time.Minute)) {
		t.Fatalf("to be made anew: %v", inc)
	}
	w.decline("sales-1", &v1.GuestSession{Asked: timestamppb.New(due), UsersKnown: true, Users: 1})
	w.idleRound(w.idleInput(nil))
	if a := w.round(); changed(a) != 0 || w.desktops["sales-1"].Incarnation.Desired != v1.DesiredState_DESIRED_STATE_READY {
		t.Fatalf("declined: %v, %v", changedNames(a.Retire), w.desktops["sales-1"])
	}
	w.now = due.Add(time.Hour)
	w.change("sales-1", nobodyIn(w.now))
	if got := changedNames(w.round().Retire); len(got) != 1 {
		t.Errorf("nobody is in it any more, and %v end", got)
	}
}

// A guest that falls silent between its last word and its host's question leaves that word as it was: no order rests on it again,
// which the host would decline at once, and so on for as long as the word is believed.
func TestDeclinedRefreshIsNotOrderedOnTheSameWord(t *testing.T) {
	w, due := keptForDays(t)
	last := due.Add(-time.Minute)
	w.change("sales-1", nobodyIn(last))
	w.round()
	w.decline("sales-1", w.desktops["sales-1"].Status.Session)
	changes, _ := w.idleRound(w.idleInput(nil))
	if len(changes) != 1 || !strings.Contains(changes[0].event.GetMessage(), "its guest did not say who uses it") {
		t.Errorf("its guest is silent: %v", changes)
	}
	if a := w.round(); len(a.Retire) != 0 || a.Again != refreshPatience {
		t.Fatalf("its guest is silent: %v end, looks again in %v", changedNames(a.Retire), a.Again)
	}
	w.now = due.Add(time.Hour)
	w.change("sales-1", nobodyIn(w.now))
	if got := changedNames(w.round().Retire); len(got) != 1 {
		t.Errorf("its guest says again that nobody uses it, and %v end", got)
	}
}

// Who comes back after their desktop's life was told to end, and before its host came to that, keeps claim and life, also while
// the loop is at work; the claim of one who does not ends when the host has begun.
func TestTakenBackWhenItsHostActs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openOffice(t, 2, func(spec *v1.PoolSpec) { spec.MaxUnavailable = 2 })
		told := func() bool { return ends(o.desktop("sales-1")) && ends(o.desktop("sales-2")) }
		for range 60 {
			rest(time.Minute)
			if o.say(); told() {
				break
			}
		}
		if !told() || len(store.All[*v1.Claim](o.mirror.View())) != 2 {
			t.Fatalf("told to end: %v", store.All[*v1.Desktop](o.mirror.View()))
		}
		o.edit(t, "sales-1", func(d *v1.Desktop) {
			d.Status.Declined = d.Incarnation.UnlessUsedSince
			d.Status.Session = &v1.GuestSession{Asked: timestamppb.Now(), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.Now()}
		})
		o.edit(t, "sales-2", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_STOPPING })
		rest(time.Second)
		if d := o.desktop("sales-1"); d.GetClaim() == nil || d.GetClaim().GetReclaim() != nil || ends(d) || !o.old(d) {
			t.Errorf("declined: %v", d)
		}
		if d := o.desktop("sales-2"); d.GetClaim() != nil || !ends(d) || len(store.All[*v1.Claim](o.mirror.View())) != 1 {
			t.Errorf("begun: %v", d)
		}
	})
}
