package pool

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestExplainUse(t *testing.T) {
	event := func(w *world, reason, message string) store.Object {
		return store.NewEvent(w.now.Add(-time.Hour), w.desktops["sales-1"], reason, message, false)
	}
	for name, test := range map[string]struct {
		edit func(w *world, d *v1.Desktop)
		want string // in the summary or a detail
		more func(w *world) store.Object
	}{
		"idle": {func(*world, *v1.Desktop) {}, "it is suspended when it was not used for 30 minutes; last sign of use: no input since 2027-04-05 10:24:00 UTC", nil},
		"warned": {func(w *world, d *v1.Desktop) {
			d.Claim.Reclaim = &v1.Reclaim{Since: timestamppb.New(w.now), ActAt: timestamppb.New(w.now.Add(5 * time.Minute)), Action: suspend, Reason: "no input"}
		}, "taro was told at 2027-04-05 11:04:00 UTC that it will be suspended at 2027-04-05 11:09:00 UTC: no input", nil},
		"unknown": {func(_ *world, d *v1.Desktop) { d.Status.Session = nil }, "it is not reclaimed, since it is not known whether it is idle: its guest does not say who uses it", nil},
		"busy":    {func(w *world, d *v1.Desktop) { d.Claim.BusyUntil = timestamppb.New(w.now.Add(time.Hour)) }, "it is not reclaimed: it is busy until 2027-04-05 12:04:00 UTC", nil},
		"suspended": {func(_ *world, d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesktopState_DESKTOP_STATE_SUSPENDED
		}, "sales-1 is not ready: it is suspended on host h1 (at 2027-04-05 10:04:00 UTC: no session since noon); it goes on where it was when taro claims it",
			func(w *world) store.Object { return event(w, ReasonSuspended, "no session since noon") }},
		"suspended for being idle": {func(_ *world, d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesktopState_DESKTOP_STATE_SUSPENDED
			d.Claim.Reclaim = &v1.Reclaim{Action: suspend, Acting: true, Reason: "last used at noon"}
		}, "sales-1 is not ready: it is suspended on host h1 (at 2027-04-05 10:04:00 UTC: last used at noon); it goes on where it was when taro claims it",
			func(w *world) store.Object {
				return event(w, ReasonSuspended, "it is suspended, and goes on where it was when taro claims it: last used at noon")
			}},
		"shut down": {func(_ *world, d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_PREPARED, v1.DesktopState_DESKTOP_STATE_PREPARED
		}, "sales-1 is not ready: it is shut down (at 2027-04-05 10:04:00 UTC: no session); it starts anew when taro claims it",
			func(w *world) store.Object { return event(w, ReasonShutDown, "no session") }},
		"waking": {func(_ *world, d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_SUSPENDED },
			"sales-1 is not ready: it was suspended on host h1 and is being woken", nil},
	} {
		w, _ := heldWorld(t)
		w.pool.Spec.Idle = &v1.IdlePolicy{Open: idleRule(suspend)}
		w.change("sales-1", func(d *v1.Desktop) { test.edit(w, d) })
		var more []store.Object
		if test.more != nil {
			more = append(more, test.more(w))
		}
		answer, err := Explain(shown(t, w, more...), w.now, "sales-1")
		if err != nil {
			t.Fatal(err)
		}
		if said := append(slices.Clone(answer.Details), answer.Summary); !slices.Contains(said, test.want) {
			t.Errorf("%s:\n  %s\nwant %s", name, strings.Join(said, "\n  "), test.want)
		}
	}
}

// Who finds their desktop suspended, or a fresh one in its place, learns what did that.
func TestExplainNamesWhatGaveItBack(t *testing.T) {
	suspended := func(_ *world, d *v1.Desktop) {
		d.Claim, d.Incarnation.Desired, d.Status.State = nil, v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesktopState_DESKTOP_STATE_SUSPENDED
	}
	anew := func(w *world, d *v1.Desktop) {
		d.Claim, d.Incarnation.UsedBy = nil, ""
		d.Incarnation.Reason, d.Incarnation.Created = reasonReleased, timestamppb.New(w.now.Add(-time.Minute))
	}
	ago := func(w *world, d time.Duration, about store.Object, reason, message string) {
		w.events = append(w.events, store.NewEvent(w.now.Add(-d), about, reason, message, false))
	}
	const bare, taken = "it is suspended on host h1, where its memory lies in the store; it goes on when taro claims it", "generation 100 began at 2027-04-05 11:03:00 UTC with version 1 of image office: refresh after release"
	for name, test := range map[string]struct {
		edit  func(w *world, d *v1.Desktop)
		event func(w *world)
		want  string
	}{
		"by the schedule": {suspended, func(w *world) {
			ago(w, 2*time.Hour, w.pool, ReasonCooled, "1 desktop cooled: 4 are wanted (open) (seats 1)")
			ago(w, time.Hour, w.pool, ReasonCooled, "3 desktops cooled: 0 are wanted (closed) (seats 1-3)")
			ago(w, time.Minute, w.pool, ReasonCooled, "1 desktop cooled: 5 are wanted (open) (seats 7)")
		}, "sales-1 is not ready: it is suspended on host h1 (cooled at 2027-04-05 10:04:00 UTC: 0 are wanted (closed)), where its memory lies in the store; it goes on when taro claims it"},
		"not by now": {func(w *world, d *v1.Desktop) {
			suspended(w, d)
			d.Status.State = v1.DesktopState_DESKTOP_STATE_READY
		}, func(w *world) {
			ago(w, time.Minute, w.pool, ReasonCooled, "1 desktop cooled: 0 are wanted (closed) (seat 1)")
		}, "sales-1 is not ready: it is being suspended on host h1 (cooled at 2027-04-05 11:03:00 UTC: 0 are wanted (closed))"},
		"before this life": {func(w *world, d *v1.Desktop) {
			suspended(w, d)
			d.Incarnation.Created = timestamppb.New(w.now.Add(-time.Hour))
		}, func(w *world) {
			ago(w, 2*time.Hour, w.pool, ReasonCooled, "1 desktop cooled: 4 are wanted (open) (seats 1)")
		}, "sales-1 is not ready: " + bare},
		"for want of use, and let go of": {suspended, func(w *world) {
			ago(w, 2*time.Hour, w.pool, ReasonCooled, "1 desktop cooled: 4 are wanted (open) (seats 1)")
			ago(w, time.Hour, w.desktops["sales-1"], ReasonSuspended, "no input since noon")
		}, "sales-1 is not ready: it is suspended on host h1 (at 2027-04-05 10:04:00 UTC: no input since noon), where its memory lies in the store; it goes on when taro claims it"},
		"taken back": {anew, func(w *world) {
			ago(w, 10*time.Minute, w.desktops["sales-1"], ReasonReclaimed, "it was taken back from taro: no input since noon")
			ago(w, time.Minute, w.desktops["sales-1"], ReasonRenewed, "generation 100 begins")
		}, taken + " (at 2027-04-05 10:54:00 UTC: it was taken back from taro: no input since noon)"},
		"taken back long ago": {anew, func(w *world) {
			ago(w, time.Hour, w.desktops["sales-1"], ReasonReclaimed, "it was taken back from taro: no input since noon")
			ago(w, 50*time.Minute, w.desktops["sales-1"], ReasonRenewed, "generation 99 begins")
			ago(w, time.Minute, w.desktops["sales-1"], ReasonRenewed, "generation 100 begins")
		}, taken},
		"too old": {func(w *world, d *v1.Desktop) {
			anew(w, d)
			w.pool.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 3}
		}, func(w *world) {
			ago(w, time.Hour, w.desktops["sales-1"], ReasonReclaimed, "it was taken back from taro: no input since noon")
		}, taken},
	} {
		w, _ := heldWorld(t)
		w.events = nil
		w.change("sales-1", func(d *v1.Desktop) { test.edit(w, d) })
		test.event(w)
		answer, err := Explain(shown(t, w), w.now, "sales-1")
		if err != nil {
			t.Fatal(err)
		}
		if said := append(slices.Clone(answer.Details), answer.Summary); !slices.Contains(said, test.want) {
			t.Errorf("%s:\n  %s\nwant %s", name, strings.Join(said, "\n  "), test.want)
		}
	}
}

func TestExplainQueue(t *testing.T) {
	w, _ := heldWorld(t)
	var waiting []store.Object
	for i, user := range []string{"jiro", "hanako", "a", "b", "c", "d", "e"} {
		waiting = append(waiting, &v1.Claim{Meta: &v1.Meta{Name: claimName("sales", user)}, Pool: "sales", User: user,
			Queued: timestamppb.New(w.now.Add(time.Duration(i) * time.Minute)), Expires: timestamppb.New(w.now.Add(time.Hour))})
	}
	answer, err := Explain(shown(t, w, waiting...), w.now, "sales")
	if err != nil {
		t.Fatal(err)
	}
	const want = "7 users wait for a desktop: jiro (number 1, since 2027-04-05 11:04:00 UTC), hanako (number 2, since 2027-04-05 11:05:00 UTC), "
	if !slices.ContainsFunc(answer.Details, func(line string) bool {
		return strings.HasPrefix(line, want) && strings.HasSuffix(line, ", and 2 more")
	}) {
		t.Errorf("%v", answer.Details)
	}
}

// The whole way with the loop at work: warned, asked again, taken back; the next user gets a fresh one.
func TestIdleWithTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := settled(t, 1, func(w *world) {
			w.now = time.Now().Add(-5 * time.Minute)
			w.pool.Spec.Idle = &v1.IdlePolicy{Open: idleRule(release)}
		})
		s := openForWorld(t, w)
		s.lead(t)
		if _, err := s.claimer.Claim(t.Context(), "sales", "taro", "", time.Now()); err != nil {
			t.Fatal(err)
		}
		input := time.Now()
		say := func() {
			s.edit(t, "sales-1", func(d *v1.Desktop) {
				d.Status.Session = &v1.GuestSession{Asked: timestamppb.Now(), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.New(input)}
			})
		}
		desktop := func() *v1.Desktop {
			d, _ := store.Lookup[*v1.Desktop](s.mirror.View(), "sales-1")
			return d
		}
		for range 31 {
			rest(time.Minute)
			say()
		}
		rest(time.Second)
		if at := desktop().GetClaim().GetReclaim().GetActAt().AsTime(); at.IsZero() || at.Before(time.Now().Add(3*time.Minute)) {
			t.Fatalf("after half an hour: %v", desktop().GetClaim())
		}
		rest(4 * time.Minute)
		input = time.Now() // taro is back
		say()
		rest(5 * time.Minute)
		if claim := desktop().GetClaim(); claim.GetUser() != "taro" || claim.GetReclaim() != nil {
			t.Fatalf("taken from one who is back: %v", claim)
		}
		for range 40 {
			rest(time.Minute)
			if desktop().GetClaim() != nil {
				say()
			}
		}
		s.edit(t, "sales-1", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_STOPPING })
		rest(time.Second)
		if d := desktop(); d.GetClaim() != nil || d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_DELETED || len(store.All[*v1.Claim](s.mirror.View())) != 0 {
			t.Errorf("in the end: %v", d)
		}
		var reasons []string
		for _, event := range s.mirror.View().EventsAbout(store.RefOf(desktop())) {
			reasons = append(reasons, event.Reason)
		}
		if !slices.Equal(reasons, []string{ReasonIdleWarned, ReasonIdleWithdrawn, ReasonIdleWarned, ReasonReclaiming, ReasonReclaimed}) {
			t.Errorf("events %v", reasons)
		}
	})
}

// Out of hours another rule holds than within them, and none while the calendar cannot be read.
func TestRuleByPhase(t *testing.T) {
	w, _ := heldWorld(t)
	w.pool.Spec.Calendar = "office"
	w.pool.Spec.Idle = &v1.IdlePolicy{Open: idleRule(suspend), Closed: idleRule(release)}
	week := []v1.Weekday{v1.Weekday_WEEKDAY_MONDAY, v1.Weekday_WEEKDAY_TUESDAY}
	office := &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Hours: []*v1.OfficeHours{{Days: week, Open: "08:30", Close: "17:15"}}}}
	s := openShop(t, w, plain)
	if rule, _ := ruleNow(w.now, s.mirror.View(), w.pool); rule != nil {
		t.Errorf("without its calendar: %v", rule)
	}
	revision, err := s.backend.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(office)})
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, revision)
	tokyo, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	monday := func(hour, minute int) time.Time { return time.Date(2027, 4, 5, hour, minute, 0, 0, tokyo) }
	for _, test := range []struct {
		now, ends time.Time
		want      *v1.IdleRule
	}{
		{monday(8, 29), monday(8, 30), w.pool.Spec.Idle.Closed},
		{monday(8, 30), monday(17, 15), w.pool.Spec.Idle.Open},
		{monday(17, 15), monday(8, 30).AddDate(0, 0, 1), w.pool.Spec.Idle.Closed},
	} {
		if rule, ends := ruleNow(test.now, s.mirror.View(), w.pool); !proto.Equal(rule, test.want) || !ends.Equal(test.ends) {
			t.Errorf("at %v: %v until %v", test.now, rule, ends)
		}
	}
	w.pool.Spec.Calendar = ""
	if rule, _ := ruleNow(w.now, s.mirror.View(), w.pool); !proto.Equal(rule, w.pool.Spec.Idle.Open) {
		t.Errorf("without a calendar: %v", rule)
	}
}
