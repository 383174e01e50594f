package hostagent_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

func TestAHostThatRestartsStartsNoLifeAgain(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		b.Incarnation.StartAt = timestamppb.New(time.Now().Add(time.Hour))
		r.plane.assign(a, b)
		r.awaitState(a, ready, time.Minute)
		r.awaitState(b, prepared, time.Minute)
		r.crash()
		r.host.SetVolatile(lifeOf(b), true)
		r.host.PowerLoss()
		r.start()
		r.awaitState(a, failed, time.Minute)
		if got := r.plane.status(a).GetStatus().GetMessage(); got != "the host restarted" {
			t.Errorf("failed because %q", got)
		}
		r.awaitState(b, ready, 2*time.Hour)
		if r.starts(a) != 1 || r.starts(b) != 1 {
			t.Errorf("started %d and %d times", r.starts(a), r.starts(b))
		}
		if r.plane.greeted()[0].GetBootId() == r.plane.greeted()[1].GetBootId() {
			t.Error("the boot id did not change")
		}
	})
}

// While a host is off, somebody may attest that and give its desktops other lives elsewhere. The host must not start what
// it remembers before it was told of that.
func TestAHostThatRestartsWaitsForOrders(t *testing.T) {
	story(t, fakehost.Config{}, func(r *rig) {
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		for _, assignment := range []*v1.Assignment{a, b} {
			assignment.Incarnation.StartAt = timestamppb.New(time.Now().Add(time.Hour))
		}
		r.plane.assign(a, b)
		r.awaitState(a, prepared, time.Minute)
		r.awaitState(b, prepared, time.Minute)
		r.crash()
		r.host.PowerLoss()
		r.plane.set(func() { r.plane.refuse = errors.New("not the leader") })
		r.start()
		time.Sleep(2 * time.Hour)
		if len(r.host.Running()) != 0 {
			t.Errorf("started from memory: %v", r.host.Running())
		}
		r.restart() // and a restart of the agent changes nothing about that
		time.Sleep(time.Minute)
		if len(r.host.Running()) != 0 {
			t.Errorf("started from memory after a restart of the agent: %v", r.host.Running())
		}
		r.plane.drop("office-2")
		r.plane.set(func() { r.plane.refuse = nil })
		r.awaitState(a, ready, 2*time.Minute)
		if r.starts(b) != 0 {
			t.Error("started what others run by now")
		}
	})
}

func TestARestartedAgentCountsTheBootsUnderWay(t *testing.T) {
	boot := func(hostagent.Life) fakehost.Boot { return fakehost.Boot{After: 40 * time.Second} }
	story(t, fakehost.Config{Boot: boot}, func(r *rig) {
		r.configure = func(cfg *hostagent.Config) { cfg.MaxBoots = 2 }
		r.restart()
		for i := range 8 {
			r.plane.assign(r.desktop(fmt.Sprintf("office-%d", i), 7))
		}
		for range 20 {
			time.Sleep(7 * time.Second)
			r.restart()
			time.Sleep(2 * time.Second)
			if n := r.host.Booting(); n > 2 {
				r.t.Fatalf("%d boot at once", n)
			}
		}
	})
}
