package pool

import (
	"slices"
	"testing"

	v1 "daybreak/proto/daybreak/v1"
)

// TestReleasedBeforeReady: a desktop that its user let go before it was ready is out of service already. It is made anew
// whatever the budget says, and it takes one of the places.
func TestReleasedBeforeReady(t *testing.T) {
	w := settled(t, 4)
	w.pool.Spec.MaxUnavailable = 1
	w.change("sales-1", func(d *v1.Desktop) {
		d.Incarnation.UsedBy, d.Incarnation.Reason = "hanako", "refresh after release"
		d.Status.State = v1.DesktopState_DESKTOP_STATE_STARTING
	})
	w.report("sales-2", v1.DesktopState_DESKTOP_STATE_FAILED, "died")
	actions := Decide(w.now, w.snapshot())
	if got := changedNames(actions.Retire); !slices.Equal(got, []string{"sales-1"}) {
		t.Errorf("with one place, and that taken by sales-1, %v are made anew", got)
	}
}
