// Package rollout brings image versions into the house and to the hosts.
//
// Here: the intake of versions (Intake), their publication, and staging, which keeps on every host the list of versions
// that it shall hold ahead of their use. Not here: chunks and manifests themselves (images), the calls that bring them
// (api), fetching on the host (hostagent/disk), which version a desktop runs (orchestrator/pool). api calls the intake;
// cmd/daybreakd runs the staging on the leader.
package rollout

import (
	"errors"

	v1 "daybreak/proto/daybreak/v1"
)

// ErrRefused: what was asked for cannot be done as things are. The message says why. Nothing was changed.
var ErrRefused = errors.New("refused")

// version finds a version of an image by its number, nil when there is none.
func version(image *v1.Image, number uint32) *v1.ImageVersion {
	for _, v := range image.GetStatus().GetVersions() {
		if v.GetNumber() == number {
			return v
		}
	}
	return nil
}
