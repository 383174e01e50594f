package hostagent_test

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

// unlessUsed is an order that rests on nobody's having used the desktop since a time.
func unlessUsed(a *v1.Assignment, state v1.DesiredState, since time.Time) *v1.Assignment {
	return with(a, func(a *v1.Assignment) {
		a.Used, a.Incarnation.Desired, a.Incarnation.UnlessUsedSince = true, state, timestamppb.New(since)
	})
}

// Whoever comes back while an order to suspend or end the desktop for want of use is on its way keeps it, and the control plane
// learns of that; so does who may be back in a guest that does not say.
func TestWhoCameBackIsSpared(t *testing.T) {
	for name, test := range map[string]struct {
		says  hostagent.Session // when the order comes
		acted bool
	}{
		"still away, with helper":  {hostagent.Session{UsersKnown: true, Users: 1, InputKnown: true, InputIdle: time.Hour}, true},
		"nobody logged in":         {hostagent.Session{UsersKnown: true}, true},
		"types":                    {hostagent.Session{UsersKnown: true, Users: 1, InputKnown: true}, false},
		"typed, and nobody is in":  {hostagent.Session{UsersKnown: true, InputKnown: true, InputIdle: time.Second}, false},
		"logged in, no helper":     {hostagent.Session{UsersKnown: true, Users: 1}, false},
		"does not say who uses it": {hostagent.Session{InputKnown: true, InputIdle: time.Hour}, false},
	} {
		for want, done := range map[v1.DesiredState]v1.DesktopState{wantSuspended: suspended, v1.DesiredState_DESIRED_STATE_DELETED: deleted} {
			t.Run(name+" "+done.String(), func(t *testing.T) {
				story(t, fakehost.Config{}, func(r *rig) {
					a := r.desktop("office-1", 7)
					r.plane.assign(a)
					r.awaitState(a, ready, time.Minute)
					since := time.Now()
					time.Sleep(time.Minute)
					r.host.SetSession(lifeOf(a), test.says)
					order := unlessUsed(a, want, since)
					r.plane.assign(order)
					if test.acted {
						r.awaitState(a, done, time.Minute)
						return
					}
					declined := func() bool {
						return proto.Equal(r.plane.status(a).GetStatus().GetDeclined(), order.GetIncarnation().GetUnlessUsedSince())
					}
					r.await("declined", time.Minute, declined)
					// Once and for all: the control plane goes by it, whatever becomes of guest and agent.
					r.host.SetSession(lifeOf(a), hostagent.Session{UsersKnown: true})
					time.Sleep(10 * time.Minute)
					r.kill()
					r.restart()
					time.Sleep(10 * time.Minute)
					if !r.runs(a) || r.plane.state(a) != ready || !declined() {
						t.Fatalf("declined and done: %v", r.plane.status(a))
					}
					r.plane.assign(a)
					time.Sleep(time.Minute)
					if !r.runs(a) || r.starts(a) != 1 {
						t.Error("it did not go on")
					}
					r.plane.assign(unlessUsed(a, want, time.Now())) // by now nobody uses it
					r.awaitState(a, done, time.Minute)
				})
			})
		}
	}
}

// A user who asked for the desktop while the order was on its way, and is not back in the guest yet, keeps what they left open.
func TestWhoAskedForItIsSpared(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.SetSession(lifeOf(a), hostagent.Session{UsersKnown: true, Users: 1, InputKnown: true, InputIdle: time.Hour})
		r.plane.assign(unlessUsed(a, v1.DesiredState_DESIRED_STATE_DELETED, time.Unix(0, 0)))
		r.await("declined", 2*time.Minute, func() bool { return r.plane.status(a).GetStatus().GetDeclined() != nil })
		if !r.runs(a) {
			t.Error("it ended")
		}
	})
}

// A guest that does not answer is asked a few times, and counts as used. An order without a condition waits for no guest.
func TestAGuestThatDoesNotAnswerIsSpared(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.host.SetState(lifeOf(a), hostagent.DomainPaused)
		r.plane.assign(unlessUsed(a, v1.DesiredState_DESIRED_STATE_DELETED, time.Now()))
		r.await("declined", 2*time.Minute, func() bool { return r.plane.status(a).GetStatus().GetDeclined() != nil })
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, 2*time.Minute)
	})
}
