package pool

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// An opening that came while no daybreakd ran is judged when its hosts were heard again, or are DOWN, and not before.
func TestPlanWaitsForHosts(t *testing.T) {
	for _, c := range []struct {
		name   string
		status *v1.HostStatus
		ready  bool
		want   string // in the event; "" for none
	}{
		{"not heard yet", &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Unheard: true}, false, ""},
		{"heard, and was ready in time", &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}, true, ""},
		{"heard, and was not", &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}, false, "1 of 1 desktop that were to be ready"},
		{"down", &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_DOWN}, false, "1 on silent hosts"},
	} {
		w := settled(t, 1)
		d, deadline := w.desktops["sales-1"], w.now.Add(-2*time.Minute)
		d.Incarnation.Host = "h9"
		d.Status.State, d.Status.Times = v1.DesktopState_DESKTOP_STATE_PREPARED, nil
		if c.ready {
			d.Status.State = v1.DesktopState_DESKTOP_STATE_READY
			d.Status.Times = []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_READY, At: timestamppb.New(deadline.Add(-10 * time.Second))}}
		}
		stored := planOf(plannedStart(1, deadline.Add(-time.Minute), deadline))
		view := shown(t, w, &v1.Host{Meta: &v1.Meta{Name: "h9"}, Status: c.status})
		var r dayRound
		noted := Noted(w.now, view, w.pool, stored)
		r.tell(w.now, view, w.pool, time.UTC, stored, noted)
		got := ""
		for _, op := range r.events {
			got += op.Object.(*v1.Event).GetMessage()
		}
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: told %q", c.name, got)
		}
		if unheard := Unheard(w.now, view, noted); (len(unheard) == 1) != c.status.GetUnheard() {
			t.Errorf("%s: unheard %v", c.name, unheard)
		}
	}
}
