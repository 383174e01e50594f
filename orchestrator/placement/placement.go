// Package placement chooses a host for every new life of a desktop.
//
// Here: Plan, which is pure (filters in order, then scores, with a ledger of what is promised in the same pass), the
// sentence that explains why nothing fits, and the loop that commits; also where a build's VM has room (ForBuild). It
// writes Incarnation.host and unplaced_reason and nothing else. Not here: what a host has and has promised (room), what
// desktops there should be (pool), whether a host lives (dispatch). A placed incarnation is
// never moved: another place is another incarnation. orchestrator starts the loop; orchestrator/build
// calls ForBuild, api calls Explain.
package placement

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Placement is what was decided about one desktop.
type Placement struct {
	// Desktop is a changed copy at the revision that the decision was made on.
	Desktop *v1.Desktop
	// Host that was chosen, as the decision saw it; nil when none fits, then Desktop has the reason.
	Host *v1.Host
}

// Plan decides about every desktop that has no host: first those that only one host can take, then the oldest wish. It returns only what is to be written: a
// desktop that still fits nowhere for the same reason is left out. It is pure: equal views give equal plans.
func Plan(view *store.View) []Placement {
	var waiting []*v1.Desktop
	for _, desktop := range store.All[*v1.Desktop](view) {
		if waits(desktop) {
			waiting = append(waiting, desktop)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	slices.SortStableFunc(waiting, func(a, b *v1.Desktop) int {
		return cmp.Or(cmp.Compare(choices(a), choices(b)),
			cmp.Compare(a.GetIncarnation().GetGeneration(), b.GetIncarnation().GetGeneration()))
	})
	ledger := open(view, waiting...)
	var plan []Placement
	for _, desktop := range waiting {
		need := needOf(view, desktop)
		chosen, why := ledger.choose(need)
		if chosen == nil && desktop.GetIncarnation().GetUnplacedReason() == why {
			continue
		}
		changed := proto.CloneOf(desktop)
		changed.Incarnation.UnplacedReason = why
		placement := Placement{Desktop: changed}
		if chosen != nil {
			if !need.cleanup {
				need.State = v1.DesktopState_DESKTOP_STATE_PLACED
				chosen.Enter(need.Need)
			}
			changed.Incarnation.Host = chosen.Name()
			placement.Host = chosen.Host.Host
		}
		plan = append(plan, placement)
	}
	return plan
}

// choices is 0 for a desktop that can be on one host only, 1 for others.
func choices(d *v1.Desktop) int {
	if d.GetSpec().GetDataHost() != "" {
		return 0
	}
	return 1
}

// waits: the desktop wants a host and has none. One that is to be deleted wants one only if its data lies there.
func waits(d *v1.Desktop) bool {
	inc := d.GetIncarnation()
	if inc == nil || inc.GetHost() != "" {
		return false
	}
	switch inc.GetDesired() {
	case v1.DesiredState_DESIRED_STATE_PREPARED, v1.DesiredState_DESIRED_STATE_READY:
		return d.GetMeta().GetDeletion() == nil
	case v1.DesiredState_DESIRED_STATE_DELETED:
		return d.GetSpec().GetDataHost() != ""
	}
	return false
}

func needOf(view *store.View, d *v1.Desktop) need {
	return need{Need: room.NeedOf(view, d), attempt: store.Attempt(d.GetIncarnation()), cleanup: d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED}
}
