// Package rollout brings image versions into the house, to the hosts, and to the desktops.
//
// Here: the intake of versions (Intake), their publication and retirement, who uses them (Usage) and what differs (Comparer);
// the collection of what nobody needs any more from the image store (Collector); staging, which keeps on every host the list of versions
// that it shall hold ahead of their use; and the rollout loop, which says by Pool.release which versions a pool's desktops
// run, and moves that from one to another in waves, each of which must prove itself. Not here: chunks and manifests
// themselves (images), the calls that bring them (api), fetching on the host (hostagent/disk), taking desktops out of
// service and making them anew within the release (orchestrator/pool). api calls the intake, the Comparer, the Collector and
// the Steward; orchestrator runs staging, the loop and a daily collection on the leader.
package rollout

import (
	"errors"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// ErrRefused: what was asked for cannot be done as things are. The message says why. Nothing was changed.
var ErrRefused = errors.New("refused")

// runnable returns a version of the image if it may be run, else nil.
func runnable(image *v1.Image, number uint32) *v1.ImageVersion {
	if v := store.Version(image, number); v.GetState() == v1.VersionState_VERSION_STATE_READY {
		return v
	}
	return nil
}

// wanted returns the version that a pool is to run by its spec, 0 when there is none that may be run.
func wanted(pool *v1.Pool, image *v1.Image) uint32 {
	number := pool.GetSpec().GetVersion()
	if number == 0 {
		number = image.GetStatus().GetCurrent()
	}
	return runnable(image, number).GetNumber()
}
