// Package placement chooses a host for every new life of a desktop.
//
// Here: Plan, which is pure (filters in order, then scores, with a ledger of what is promised in the same pass), the
// sentence that explains why nothing fits, and the loop that commits; also where a build's VM has room (ForBuild). It writes Incarnation.host and unplaced_reason and
// nothing else. Not here: what desktops there should be (pool), whether a host lives (dispatch). A placed incarnation is
// never moved: another place is another incarnation. orchestrator starts the loop; orchestrator/build
// calls ForBuild, api calls Explain.
package placement

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/proto"

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
	ledger := open(view)
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
				chosen.enter(need, v1.DesktopState_DESKTOP_STATE_PLACED)
			}
			changed.Incarnation.Host = chosen.name()
			placement.Host = chosen.Host
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

// need is what one life asks of a host.
type need struct {
	pool, zone string
	digest     string
	dataHost   string // the only host, if set
	vcpus      uint64
	memoryMiB  uint64
	overlayMiB uint64
	dataMiB    uint64 // the data disk
	baseMiB    uint64 // what the base may take where it is not yet
	cleanup    bool   // only removes a data disk: needs nothing but its host
	named      bool   // a person named the host: that it is kept from desktops does not matter
}

func needOf(view *store.View, d *v1.Desktop) need {
	inc := d.GetIncarnation()
	n := need{
		pool: d.GetSpec().GetPool(), zone: d.GetSpec().GetZone(), digest: inc.GetDigest(), dataHost: d.GetSpec().GetDataHost(),
		vcpus: uint64(inc.GetShape().GetVcpus()), memoryMiB: uint64(inc.GetShape().GetMemoryMib()),
		overlayMiB: uint64(inc.GetShape().GetOverlayReserveMib()),
		dataMiB:    uint64(inc.GetShape().GetDataDiskGib()) * 1024,
		cleanup:    inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED,
	}
	image, _ := store.Lookup[*v1.Image](view, inc.GetImage())
	for _, version := range image.GetStatus().GetVersions() {
		if version.GetDigest() == inc.GetDigest() {
			n.baseMiB = mebibytes(version.GetSizeBytes())
		}
	}
	return n
}

// mebibytes rounds up, since it is used for needs.
func mebibytes(bytes uint64) uint64 {
	const mib = 1 << 20
	return bytes/mib + min(1, bytes%mib)
}
