package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// heldOffice is a pool whose desktops are all held, with a host that does as it is told and guests that speak every minute.
type heldOffice struct {
	*shop
	t     *testing.T
	lives map[string]int64     // the generation that each desktop was claimed with
	input map[string]time.Time // last key that was pressed
}

func openOffice(t *testing.T, seats int, edit func(*v1.PoolSpec)) *heldOffice {
	w := settled(t, uint32(seats), func(w *world) {
		w.now = time.Now().Add(-5 * time.Minute)
		w.pool.Spec.Idle = &v1.IdlePolicy{Open: idleRule(release)}
		w.pool.Spec.MaxUnavailable = 1
		edit(w.pool.Spec)
	})
	o := &heldOffice{shop: openForWorld(t, w), t: t, lives: map[string]int64{}, input: map[string]time.Time{}}
	o.lead(t)
	for i := range seats {
		d, err := o.claimer.Claim(t.Context(), "sales", fmt.Sprintf("user%d", i), "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		name := d.GetMeta().GetName()
		o.lives[name], o.input[name] = d.GetIncarnation().GetGeneration(), time.Now()
	}
	return o
}

func (o *heldOffice) desktop(name string) *v1.Desktop {
	d, _ := store.Lookup[*v1.Desktop](o.mirror.View(), name)
	return d
}

// old: the desktop is still in the life that its user had.
func (o *heldOffice) old(d *v1.Desktop) bool {
	return d.GetIncarnation().GetGeneration() == o.lives[d.GetMeta().GetName()]
}

// minute lets the host and its guests do what they do in a minute.
func (o *heldOffice) minute() {
	rest(time.Minute)
	for name := range o.lives {
		d := o.desktop(name)
		inc := d.GetIncarnation()
		switch {
		case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED && store.State(d) != v1.DesktopState_DESKTOP_STATE_DELETED:
			o.edit(o.t, name, func(d *v1.Desktop) {
				d.Status = &v1.DesktopStatus{Generation: inc.GetGeneration(), State: v1.DesktopState_DESKTOP_STATE_DELETED}
			})
		case inc.GetHost() == "":
			o.edit(o.t, name, func(d *v1.Desktop) {
				d.Incarnation.Host = "h1"
				d.Status = &v1.DesktopStatus{Generation: inc.GetGeneration(), State: v1.DesktopState_DESKTOP_STATE_READY}
			})
		}
	}
	o.say()
}

// say lets the guests speak.
func (o *heldOffice) say() {
	for name := range o.lives {
		if d := o.desktop(name); o.old(d) && store.State(d) == v1.DesktopState_DESKTOP_STATE_READY {
			o.edit(o.t, name, func(d *v1.Desktop) {
				d.Status.Session = &v1.GuestSession{Asked: timestamppb.Now(), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.New(o.input[name])}
			})
		}
	}
	rest(time.Second)
}

// Who comes back in the guest keeps the desktop, however long others take to be made anew before it: what cannot end at once
// stays its user's.
func TestReleasedOnlyWhenItCanEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openOffice(t, 4, func(*v1.PoolSpec) {})
		back := ""
		for range 90 {
			o.minute()
			ending, released := 0, false
			for name := range o.lives {
				d := o.desktop(name)
				ends := d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED
				if o.old(d) && d.GetClaim() == nil && !ends {
					t.Fatalf("%s is nobody's and goes on, with what its user may do on it: %v", name, d)
				}
				if ends {
					ending++
				}
				released = released || d.GetClaim() == nil
			}
			if ending > 1 {
				t.Fatalf("%d end at once", ending)
			}
			for name := range o.lives { // one types again when the first was taken back, and does not stop
				if released && back == "" && o.desktop(name).GetClaim() != nil {
					back = name
				}
			}
			if back != "" {
				o.input[back] = time.Now()
			}
		}
		for name := range o.lives {
			if d := o.desktop(name); o.old(d) != (name == back) || (d.GetClaim() != nil) != (name == back) {
				t.Errorf("%s in the end, when %s is used: %v", name, back, d)
			}
		}
	})
}

// Where used desktops are kept for days, nothing ends when one is taken back: all are, at once.
func TestReleasedForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := openOffice(t, 4, func(spec *v1.PoolSpec) {
			spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 2}
		})
		for range 40 {
			o.minute()
		}
		for name := range o.lives {
			if d := o.desktop(name); !o.old(d) || d.GetClaim() != nil || d.GetIncarnation().GetDesired() != v1.DesiredState_DESIRED_STATE_READY {
				t.Errorf("%s: %v", name, d)
			}
		}
	})
}

// idleOffice is three desktops that were to be taken back a minute ago.
func idleOffice(t *testing.T) *world {
	w := settled(t, 3)
	for _, name := range w.names() {
		w.claim(name, "user of "+name)
	}
	w.now = w.now.Add(3 * time.Hour)
	for _, name := range w.names() {
		w.change(name, func(d *v1.Desktop) {
			d.Claim.Reclaim = &v1.Reclaim{Since: timestamppb.New(w.now.Add(-6 * time.Minute)), ActAt: timestamppb.New(w.now.Add(-time.Minute)), Action: release}
			d.Status.Session = &v1.GuestSession{Asked: timestamppb.New(w.now), UsersKnown: true, Users: 1, InputIdleSince: timestamppb.New(w.now.Add(-time.Hour))}
		})
	}
	return w
}

func TestTurnsOfRelease(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(w *world)
		want int // desktops whose guest is asked
	}{
		"by default":         {func(*world) {}, 1},
		"as many as may":     {func(w *world) { w.pool.Spec.MaxUnavailable = 2 }, 2},
		"another is asked":   {func(w *world) { w.pool.Spec.MaxUnavailable = 2; w.change("sales-3", asked(w.now)) }, 1},
		"nothing can follow": {func(w *world) { w.pool.Spec.Image = "gone"; w.image = nil }, 0},
		"one is made anew":   {func(w *world) { w.release("sales-1") }, 0},
		"one failed": {func(w *world) {
			w.release("sales-1")
			w.change("sales-1", func(d *v1.Desktop) { d.Incarnation.UsedBy, d.Status.State = "", v1.DesktopState_DESKTOP_STATE_FAILED })
		}, 0},
		"two too many":      {func(w *world) { w.pool.Spec.Desktops = 1 }, 3},
		"one went already":  {func(w *world) { w.pool.Spec.Desktops = 1; w.release("sales-1") }, 2},
		"too many, no next": {func(w *world) { w.pool.Spec.Desktops, w.image = 2, nil }, 1},
	} {
		w := idleOffice(t)
		test.edit(w)
		changes, _ := decideIdle(w.now, w.idleInput(idleRule(release)))
		for _, change := range changes {
			if change.desktop.GetIncarnation().GetLookAt() == nil || change.desktop.GetClaim() == nil {
				t.Errorf("%s: %v", name, change)
			}
		}
		if len(changes) != test.want {
			t.Errorf("%s: %d are asked, want %d", name, len(changes), test.want)
		}
	}
}

// asked makes a desktop one whose guest was asked whether it is used, and did not answer yet.
func asked(now time.Time) func(d *v1.Desktop) {
	return func(d *v1.Desktop) { d.Incarnation.LookAt = timestamppb.New(now.Add(time.Nanosecond)) }
}

// A turn that is lost between question and answer, and an answer that is old, are followed by another question.
func TestOnlyAFreshWordEndsADesktop(t *testing.T) {
	for name, test := range map[string]struct {
		later time.Duration
		edit  func(w *world)
		asks  bool
	}{
		"at once":      {time.Second, func(*world) {}, false},
		"much later":   {lookPatience, func(*world) {}, true},
		"without turn": {time.Second, func(w *world) { w.release("sales-2") }, false},
		"used meantime": {time.Second, func(w *world) {
			w.change("sales-1", func(d *v1.Desktop) { d.Status.Session.InputIdleSince = timestamppb.New(w.now) })
		}, false},
	} {
		w := idleOffice(t)
		look := w.now
		w.change("sales-1", func(d *v1.Desktop) { d.Incarnation.LookAt = timestamppb.New(look) })
		w.now = w.now.Add(test.later)
		test.edit(w)
		w.idleRound(w.idleInput(idleRule(release)))
		d := w.desktops["sales-1"]
		acted := d.GetClaim().GetReclaim().GetActing()
		if again := d.GetIncarnation().GetLookAt().AsTime().After(look); again != test.asks || acted != (name == "at once") {
			t.Errorf("%s: asks again %v, acted %v: %v", name, again, acted, d)
		}
		if ends := d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED; ends != acted {
			t.Errorf("%s: ends %v, acted %v", name, ends, acted)
		}
		if !acted && !test.asks && d.GetIncarnation().GetLookAt() != nil {
			t.Errorf("%s: the old answer counts: %v", name, d)
		}
	}
}

// Explain says what a desktop waits for that is not taken back although its time has come.
func TestExplainWaitsForItsTurn(t *testing.T) {
	w := idleOffice(t)
	w.pool.Spec.Idle = &v1.IdlePolicy{Open: idleRule(release)}
	view := shown(t, w)
	const waits = "; it stays as it is until it can be made anew at once: others of the pool come before it (maxUnavailable)"
	for name, want := range map[string]bool{"sales-1": false, "sales-2": true} {
		answer, err := Explain(view, w.now, name)
		if err != nil || slices.ContainsFunc(answer.GetDetails(), func(line string) bool { return strings.HasSuffix(line, waits) }) != want {
			t.Errorf("%s, waits %v: %v, %v", name, want, answer, err)
		}
	}
}
