package hostagent_test

import (
	"testing"
	"time"

	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

func TestFromAssignmentToReadyToDeleted(t *testing.T) {
	story(t, fakehost.Config{Fetch: 10 * time.Second}, func(r *rig) {
		a := r.desktop("office-1", 7)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		got := r.plane.status(a)
		if got.GetOrphan() || got.GetStatus().GetMessage() != "" {
			t.Errorf("reported as %v", got)
		}
		var reached []v1.DesktopState
		for _, at := range got.GetStatus().GetTimes() {
			reached = append(reached, at.GetState())
		}
		if len(reached) != 5 || reached[0] != placed || reached[4] != ready {
			t.Errorf("times of %v", reached)
		}
		r.await("described", 20*time.Second, func() bool { return r.plane.status(a).GetStatus().GetGuest().GetHostname() == "office-1" })
		r.plane.assign(toBeDeleted(a))
		r.awaitState(a, deleted, time.Minute)
		if r.runs(a) || r.starts(a) != 1 || r.host.Tally().Destroys[lifeOf(a)] != 0 {
			t.Errorf("after a graceful end: %+v", r.host.Tally())
		}
		r.plane.drop("office-1")
		r.plane.cut()
		r.await("forgotten", time.Minute, func() bool { return r.plane.lastReport().GetFull() && r.plane.status(a) == nil })
	})
}
