// Package catalog knows which versions there are of each image.
//
// Here: the intake of versions and their signatures (Intake), what came of their checks, their publication and retirement,
// who uses them (Usage) and what differs between them (Comparer), and the collection of what nobody needs any more from the
// image store (Collector). Not here: chunks and manifests themselves (images), the calls that bring them (api), the builds
// that make them (orchestrator/build), which version a pool's desktops run and how they come to it (orchestrator/rollout).
// api calls the Intake, Usage, the Comparer and the Collector, orchestrator/build the Intake; orchestrator runs a daily
// collection on the leader. All of it writes as store.WriterRollout.
package catalog

import "errors"

// ErrRefused: what was asked for cannot be done as things are. The message says why. Nothing was changed.
var ErrRefused = errors.New("refused")
