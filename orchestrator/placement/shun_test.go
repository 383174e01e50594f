package placement

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

var morning = time.Date(2027, 4, 5, 8, 0, 0, 0, time.UTC)

func born(at time.Time) func(*v1.Desktop) {
	return func(d *v1.Desktop) { d.Incarnation.Created = timestamppb.New(at) }
}

func gotReady(d *v1.Desktop) {
	d.Status.Times = []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_READY, At: d.Incarnation.Created}}
}

// failed is the event that a life failed on a host before it was ready.
func failed(at time.Time, host string, generation int64) *v1.Event {
	life := newDesktop("a-1", on(host, v1.DesktopState_DESKTOP_STATE_FAILED), func(d *v1.Desktop) { d.Incarnation.Generation = generation })
	event := store.NewEvent(at, life, "DesktopReplaced", "", true)
	event.Meta.Labels[store.LabelAttempt] = "a"
	return event
}

// Three hosts, of which h1 is empty, and so the best for what waits.
func TestShunnedHost(t *testing.T) {
	before := func(ago time.Duration) time.Time { return morning.Add(-ago) }
	three := func(ago time.Duration) []store.Object {
		return []store.Object{failed(before(ago), "h1", 1), failed(before(ago-time.Second), "h1", 2), failed(before(ago-2*time.Second), "h1", 3)}
	}
	ready := v1.DesktopState_DESKTOP_STATE_READY
	full := func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 }
	for name, c := range map[string]struct {
		objects []store.Object
		others  []func(*v1.Host)
		want    string
	}{
		"nothing failed":              {nil, nil, "h1"},
		"two failed":                  {three(time.Minute)[:2], nil, "h1"},
		"three failed":                {three(time.Minute), nil, "h2"},
		"three failed long ago":       {three(11 * time.Minute), nil, "h1"},
		"one life, told twice":        {append(three(time.Minute)[:2], failed(before(time.Second), "h1", 2)), nil, "h1"},
		"they were ready before that": {append(three(time.Minute), newDesktop("a-5", on("h1", ready), born(before(time.Hour)), gotReady)), nil, "h2"},
		"one got ready since":         {append(three(time.Minute), newDesktop("a-5", on("h1", ready), born(before(30*time.Second)), gotReady)), nil, "h1"},
		"no other fits":               {three(time.Minute), []func(*v1.Host){full}, "h1"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := append(c.objects, image(), newHost("h1"), newHost("h2", c.others...), newDesktop("a-9", born(morning)),
				newDesktop("a-10", on("h2", ready), born(before(time.Hour)), gotReady), newDesktop("a-11", on("h2", ready), born(before(time.Hour)), gotReady))
			plan := Plan(viewOf(t, objects...))
			if len(plan) != 1 || plan[0].Desktop.Incarnation.Host != c.want {
				t.Errorf("placed %v, want host %s", plan, c.want)
			}
		})
	}
}

// A host on which everything fails, and which is soon the emptiest, takes three lives in ten minutes and no more, however many
// begin anew.
func TestBadHostTakesFew(t *testing.T) {
	objects := []store.Object{image(), newHost("h1"), newHost("h2"), newHost("h3")}
	var failures []time.Time
	for n := range 60 {
		now, name := morning.Add(time.Duration(n)*20*time.Second), fmt.Sprintf("a-%d", n%10)
		plan := Plan(viewOf(t, append(objects, newDesktop(name, born(now), func(d *v1.Desktop) { d.Incarnation.Generation = int64(n + 1) }))...))
		switch host := plan[0].Desktop.Incarnation.Host; {
		case host == "h1":
			failures = append(failures, now)
			objects = append(objects, failed(now.Add(10*time.Second), "h1", int64(n+1)))
		case n%20 < 3: // some stay, so that the others are never as empty
			objects = append(objects, newDesktop(fmt.Sprintf("b-%d", n), on(host, v1.DesktopState_DESKTOP_STATE_READY), born(now), gotReady))
		}
	}
	for i := failuresToShun; i < len(failures); i++ {
		if failures[i].Sub(failures[i-failuresToShun]) < shunWindow-time.Minute {
			t.Fatalf("failures at %v", failures)
		}
	}
	if len(failures) < failuresToShun {
		t.Errorf("the bad host was never tried: %v", failures)
	}
}
