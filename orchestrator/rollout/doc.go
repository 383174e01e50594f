// Package rollout brings image versions to the hosts and to the desktops.
//
// Here: staging, which keeps on every host the list of versions that it shall hold ahead of their use (Staging); the rollout
// loop, which says by Pool.release which versions a pool's desktops run, and moves that from one to another in waves, each of
// which must prove itself (Decide, Controller); and what people ask of rollouts (Steward). Not here: which versions there are
// (orchestrator/catalog), fetching on the host (hostagent/disk), taking desktops out of service and making them anew within
// the release (orchestrator/pool). api calls the Steward; orchestrator runs staging and the loop on the leader; api and the
// CLI read policies and rollouts with Waves, WaveSize, Title and Ordinal.
package rollout

import "errors"

// ErrRefused: what was asked for cannot be done as things are. The message says why. Nothing was changed.
var ErrRefused = errors.New("refused")
