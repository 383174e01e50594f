package pool

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// workplace is a pool with users in it, seen from outside: what really happened, by a clock that nobody sets. The control
// plane's clock, which is w.now, differs from it by what was set; the hosts' clocks do not.
type workplace struct {
	*world
	rule   *v1.IdleRule
	real   time.Time
	at     time.Time // when the last decision was made
	empty  map[string]emptiness
	people map[string]*person
}

// person is who holds a desktop, and what is true of them.
type person struct {
	loggedIn bool
	helper   bool      // the guest tells of input
	input    time.Time // last key that was pressed
	back     time.Time // last call to the control plane
	dated    bool      // its clock was right then
	said     time.Time // when the guest last spoke
	saidUse  bool      // what it said was of somebody at work
	warned   time.Time // zero when they are not
	acted    bool
}

func newWorkplace(t *rapid.T) *workplace {
	w := newWorld(3)
	w.settle(60)
	o := &workplace{world: w, real: w.now, people: map[string]*person{}, rule: idleRule(rapid.SampledFrom([]v1.IdleAction{suspend, shutDown, release}).Draw(t, "action"))}
	for _, name := range w.names() {
		w.claim(name, "user of "+name)
		o.people[name] = &person{helper: rapid.Bool().Draw(t, "helper"), input: o.real, back: o.real, dated: true, loggedIn: true}
	}
	o.pool.Spec.Idle = &v1.IdlePolicy{KeepUsers: []string{"user of sales-3"}}
	o.pool.Spec.MaxUnavailable = uint32(rapid.IntRange(1, 3).Draw(t, "may be out of service"))
	return o
}

// pass lets time pass for everybody.
func (o *workplace) pass(d time.Duration) {
	o.real, o.now = o.real.Add(d), o.now.Add(d)
}

// speak has a guest say, by its host's clock, who uses it.
func (o *workplace) speak(name string) {
	p := o.people[name]
	if store.State(o.desktops[name]) != v1.DesktopState_DESKTOP_STATE_READY {
		return
	}
	p.said, p.saidUse = o.real, p.loggedIn && (!p.helper || o.real.Sub(p.input) < o.rule.After.AsDuration())
	o.change(name, func(d *v1.Desktop) {
		d.Status.Session = &v1.GuestSession{Asked: timestamppb.New(o.real), UsersKnown: true}
		if p.loggedIn {
			d.Status.Session.Users = 1
		}
		if p.helper {
			d.Status.Session.InputIdleSince = timestamppb.New(p.input)
		}
	})
}

// decide runs a round. meanwhile happens between the decision and its transaction: what it changes is not overwritten.
func (o *workplace) decide(t *rapid.T, meanwhile func()) time.Duration {
	in, at := o.idleInput(o.rule), o.now
	o.empty = watchEmpty(o.now, o.empty, in.desktops)
	for name, noted := range o.empty {
		in.empty[name] = noted.since
	}
	changes, again := decideIdle(o.now, in)
	repeated, _ := decideIdle(o.now, in)
	if len(changes) != len(repeated) {
		t.Fatal("decideIdle is not deterministic")
	}
	released := 0
	for _, change := range changes {
		if before := o.desktops[change.desktop.Meta.Name]; o.rule.GetAction() == release && ends(change.desktop) && !ends(before) {
			released++
		}
	}
	if out := o.outOfService(); released > 0 && out+released > int(o.pool.Spec.MaxUnavailable) {
		t.Fatalf("%d are taken back, %d are out of service", released, out)
	}
	meanwhile()
	o.at = at
	for _, change := range changes {
		name := change.desktop.Meta.Name
		if o.desktops[name].Meta.Revision != change.desktop.Meta.Revision {
			continue // somebody was quicker
		}
		o.check(t, name, o.desktops[name], change)
		o.revision++
		o.put(change.desktop)
	}
	return again
}

func ends(d *v1.Desktop) bool { return d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED }

// obey has a desktop's host do as it is told, but for what rests on nobody's using what is used.
func (o *workplace) obey(name string) {
	p, since := o.people[name], o.desktops[name].Incarnation.UnlessUsedSince
	if d := o.desktops[name]; store.State(d) == v1.DesktopState_DESKTOP_STATE_SUSPENDED && d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_READY {
		o.change(name, func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_READY })
		return
	}
	if store.State(o.desktops[name]) != v1.DesktopState_DESKTOP_STATE_READY || since == nil || hasDeclined(o.desktops[name]) {
		return
	}
	used := p.loggedIn && (!p.helper || p.input.After(since.AsTime()))
	o.change(name, func(d *v1.Desktop) {
		switch {
		case used:
			d.Status.Declined = since
		case ends(d):
			d.Status.State = v1.DesktopState_DESKTOP_STATE_DELETED
		default:
			d.Status.State = v1.DesktopState_DESKTOP_STATE_SUSPENDED
		}
	})
}

// checkAnswer holds what follows from a host's answer against what it said; false when it gave none.
func (o *workplace) checkAnswer(t *rapid.T, name string, before *v1.Desktop, change idleChange) bool {
	p, after := o.people[name], change.desktop
	switch {
	case hasDeclined(before):
		if after.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_READY || after.Incarnation.UnlessUsedSince != nil || after.Claim.GetReclaim() != nil ||
			after.Claim.GetUser() != before.Claim.GetUser() || change.event.GetReason() != ReasonIdleWithdrawn {
			t.Fatalf("%s was declined: %v, %v", name, after, change.event)
		}
		p.warned, p.acted = time.Time{}, false
		return true
	case change.releases:
		if !p.acted || !isTakenBack(before) || !ends(before) || store.State(before) == v1.DesktopState_DESKTOP_STATE_READY {
			t.Fatalf("%s is taken back before its life has begun to end: %v", name, before)
		}
		return true
	}
	return false
}

// check holds one change against what is true.
func (o *workplace) check(t *rapid.T, name string, before *v1.Desktop, change idleChange) {
	p, after := o.people[name], change.desktop
	if before.Claim == nil && !hasDeclined(before) || o.rule == nil && before.Claim.Reclaim == nil {
		t.Fatalf("%s: nothing was to be done: %v", name, after)
	}
	if o.checkAnswer(t, name, before, change) {
		return
	}
	acts := after.GetClaim().GetReclaim().GetActing()
	switch {
	case acts:
		switch {
		case before.Claim.GetUser() == "user of sales-3" || before.Claim.GetBusyUntil().AsTime().After(o.at):
			t.Fatalf("%s is excluded, and %s", name, change.event.Message)
		case p.warned.IsZero() || p.acted:
			t.Fatalf("%s: acts unannounced or twice: %v", name, before.Claim)
		case p.back.After(p.warned):
			t.Fatalf("%s: its user came back at %v, was warned at %v", name, p.back, p.warned)
		case o.real.Sub(p.warned) < o.rule.Grace.AsDuration():
			t.Fatalf("%s: the grace was %v", name, o.real.Sub(p.warned))
		case p.saidUse || p.said.Before(p.warned.Add(o.rule.Grace.AsDuration())):
			t.Fatalf("%s: the last word of its guest was of %v, use %v; warned at %v, now %v", name, p.said, p.saidUse, p.warned, o.real)
		case p.dated && o.at.Equal(o.real) && o.real.Sub(p.back) < o.rule.After.AsDuration():
			t.Fatalf("%s: its user asked for it %v ago", name, o.real.Sub(p.back))
		case p.dated && o.at.Equal(o.real) && o.real.Sub(p.said) > lookPatience:
			t.Fatalf("%s: the last word of its guest was of %v, now %v", name, p.said, o.real)
		case after.Incarnation.UnlessUsedSince.AsTime() != p.said.UTC():
			t.Fatalf("%s: ordered unless it is used since %v, its guest spoke at %v", name, after.Incarnation.UnlessUsedSince.AsTime(), p.said)
		}
		p.acted = true
	case before.Claim.Reclaim == nil:
		if after.Claim.Reclaim == nil || change.event.GetReason() != ReasonIdleWarned || before.Claim.GetUser() == "user of sales-3" {
			t.Fatalf("%s: %v", name, change.event)
		}
		p.warned, p.acted = o.real, false
	case after.Claim.Reclaim == nil:
		if change.event.GetReason() != ReasonIdleWithdrawn {
			t.Fatalf("%s: taken back without a word: %v", name, change.event)
		}
		p.warned = time.Time{}
	default: // it asks the guest
		if change.event != nil || after.Incarnation.LookAt == nil || !proto.Equal(before.Claim, after.Claim) {
			t.Fatalf("%s: %v", name, after)
		}
	}
	if !acts && (after.Incarnation.Desired != before.Incarnation.Desired || after.Claim.GetUser() != before.Claim.GetUser()) {
		t.Fatalf("%s: done without being said: %v", name, after)
	}
}

// remake has those that were taken back begin anew, ready and nobody's, and those whose users came back too late ready for them.
func (o *workplace) remake() {
	for _, name := range o.names() {
		d := o.desktops[name]
		cameBack := d.Claim != nil && d.Claim.Reclaim == nil && store.State(d) == v1.DesktopState_DESKTOP_STATE_DELETED
		if !ends(d) || d.Claim != nil && !cameBack {
			continue
		}
		o.change(name, func(d *v1.Desktop) {
			d.Incarnation.Generation, d.Incarnation.Desired, d.Incarnation.UsedBy = o.revision, v1.DesiredState_DESIRED_STATE_READY, d.Claim.GetUser()
			d.Incarnation.UnlessUsedSince = nil
			ready := v1.DesktopState_DESKTOP_STATE_READY
			d.Status = &v1.DesktopStatus{Generation: o.revision, State: ready, Times: []*v1.StateTime{{State: ready, At: timestamppb.New(o.real)}}}
		})
	}
}

// happen lets something happen to one desktop or its user.
func (o *workplace) happen(t *rapid.T) {
	name := rapid.SampledFrom(o.names()).Draw(t, "desktop")
	p, d := o.people[name], o.desktops[name]
	switch rapid.IntRange(0, 13).Draw(t, "event") {
	case 0:
		p.loggedIn = rapid.Bool().Draw(t, "logged in")
		p.input = o.real
	case 1:
		if p.loggedIn {
			p.input = o.real
		}
	case 2: // asks for it
		p.back, p.dated = o.real, o.now.Equal(o.real)
		if d.Claim == nil {
			return
		}
		if changed, _ := returned(o.now, d); changed != nil {
			o.revision++
			o.put(changed)
			p.warned, p.acted = time.Time{}, false
		}
	case 3:
		if d.Claim != nil {
			o.change(name, func(d *v1.Desktop) { d.Claim.BusyUntil = timestamppb.New(o.now.Add(time.Hour)) })
		}
	case 4: // the host is silent for a while
		o.change(name, func(d *v1.Desktop) { d.Status.Session = nil })
	case 5:
		o.now = o.real.Add(rapid.SampledFrom([]time.Duration{-2 * time.Hour, 2 * time.Hour}).Draw(t, "step"))
	case 6:
		o.now = o.real
	case 7:
		o.empty = nil // another leader
	case 8:
		o.remake()
	case 9:
		o.obey(name)
	default:
		o.speak(name)
	}
}

func TestIdleProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newWorkplace(t)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			o.pass(time.Duration(rapid.IntRange(1, 900).Draw(t, "seconds")) * time.Second)
			for name, d := range o.desktops {
				if d.Incarnation.LookAt != nil && rapid.IntRange(0, 3).Draw(t, "answers") > 0 {
					o.speak(name)
				}
			}
			o.happen(t)
			o.decide(t, func() {
				if rapid.IntRange(0, 5).Draw(t, "meanwhile") == 0 {
					o.happen(t)
				}
			})
		}
		o.settleIdle(t)
	})
}

// settleIdle lets everybody go home, and the clocks be right: what is not excluded must be reclaimed.
func (o *workplace) settleIdle(t *rapid.T) {
	o.now = o.real
	for _, name := range o.names() {
		o.people[name].loggedIn = false
		if o.desktops[name].Claim != nil {
			o.change(name, func(d *v1.Desktop) { d.Claim.BusyUntil = nil })
		}
	}
	for range 240 { // 4 hours: the clock may have been ahead by 2 when somebody asked
		o.pass(time.Minute)
		for _, name := range o.names() {
			o.speak(name)
			o.obey(name)
		}
		o.decide(t, func() {})
		o.remake()
	}
	for _, name := range o.names() {
		d := o.desktops[name]
		ended := d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED // and its user came back after that
		reclaimed := d.Claim == nil || ended || d.Claim.GetReclaim().GetActing()
		if kept := name == "sales-3"; reclaimed == kept {
			t.Fatal(fmt.Sprintf("%s in the end: %v", name, d))
		}
	}
}
