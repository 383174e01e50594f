package pool

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Spares cover the arrivals within one start as starts are on the hosts that the pool can use: the slow ones of a host that is gone, is
// drained, or has left the zone, say nothing any more.
func TestTimeToReadyIsOfHostsInUse(t *testing.T) {
	fast := &v1.Host{Meta: &v1.Meta{Name: "fast"}, Status: &v1.HostStatus{Zones: []string{"lgwan"}, Capacity: &v1.HostCapacity{Kvm: true, CpuModel: "fast"}}}
	slow := &v1.Host{Meta: &v1.Meta{Name: "slow"}, Status: &v1.HostStatus{Zones: []string{"lgwan"}, Capacity: &v1.HostCapacity{Emulation: true, CpuModel: "slow"}}}
	changed := func(change func(*v1.Host)) *v1.Host {
		h := proto.CloneOf(slow)
		change(h)
		return h
	}
	for _, c := range []struct {
		name  string
		hosts []store.Object
		slow  bool
	}{
		{"both are there", []store.Object{fast, slow}, true},
		{"the slow one is gone", []store.Object{fast}, false},
		{"the slow one is down for a while", []store.Object{fast, changed(func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN })}, true},
		{"the slow one is drained", []store.Object{fast, changed(func(h *v1.Host) { h.Spec = &v1.HostSpec{Unschedulable: true} })}, false},
		{"the slow one is of another zone", []store.Object{fast, changed(func(h *v1.Host) { h.Status.Zones = []string{"core"} })}, false},
		{"none is there", nil, true},
	} {
		w := newWorld(1)
		withSchedule("UTC", office(), 0)(w)
		history := &v1.History{Meta: &v1.Meta{Name: "sales"}}
		for i := range 128 {
			for class, took := range map[*v1.Host]time.Duration{fast: 20 * time.Second, slow: 200 * time.Second} {
				history.Boots = append(history.Boots, &v1.BootSample{
					Digest: digestOne, HostClass: warmup.HostClass(class.GetStatus().GetCapacity()), Took: durationpb.New(took), AtOnce: 1,
					Ready: timestamppb.New(w.now.Add(time.Duration(i-1000) * time.Minute)),
				})
			}
		}
		got := DemandOf(shown(t, w, append(c.hosts, history)...), w.pool).TimeToReady
		if want := map[bool]time.Duration{true: 200 * time.Second, false: 20 * time.Second}[c.slow]; got < want || got > want*3/2 {
			t.Errorf("%s: a start takes %v", c.name, got)
		}
	}
}

// A curve is of what the clock says: once that is set back, one that was made before is of the future, though time went on.
func TestCurvesFollowTheClock(t *testing.T) {
	w := newWorld(1)
	withSchedule("UTC", office(), 0)(w)
	var known curves
	known.get(shown(t, w), w.pool, time.Now())
	if from := known.of["sales"].from; from != from.Round(0) { // Equal does not see one
		t.Errorf("the curve's time %v has a monotonic reading", from)
	}
}
