package store

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// Present returns the desktop's status if it speaks of the present life, else nil.
func Present(d *v1.Desktop) *v1.DesktopStatus {
	if d.GetIncarnation() == nil || d.GetStatus().GetGeneration() != d.GetIncarnation().GetGeneration() {
		return nil
	}
	return d.GetStatus()
}

// State returns what the desktop's present life is: PENDING or PLACED while its host has said nothing of it.
func State(d *v1.Desktop) v1.DesktopState {
	if state := Present(d).GetState(); state != v1.DesktopState_DESKTOP_STATE_UNSPECIFIED {
		return state
	}
	if d.GetIncarnation().GetHost() == "" {
		return v1.DesktopState_DESKTOP_STATE_PENDING
	}
	return v1.DesktopState_DESKTOP_STATE_PLACED
}

// Reached returns when the desktop's present life was first in a state, by its host's clock; false when it never was.
func Reached(d *v1.Desktop, state v1.DesktopState) (time.Time, bool) {
	for _, t := range Present(d).GetTimes() {
		if t.GetState() == state {
			return t.GetAt().AsTime(), true
		}
	}
	return time.Time{}, false
}

// Course returns when the desktop's present life first reached each state, in order, and at the end since when it is in the
// present one, if it has come to that again; by its host's clock.
func Course(d *v1.Desktop) []*v1.StateTime {
	status := Present(d)
	times := status.GetTimes()
	since := &v1.StateTime{State: status.GetState(), At: status.GetSince()}
	if since.GetAt() == nil || len(times) > 0 && proto.Equal(times[len(times)-1], since) {
		return times
	}
	return append(slices.Clip(times), since)
}

// Attempt names what a life tries, in few letters: lives of the same image version, shape and readiness try the same.
func Attempt(inc *v1.Incarnation) string {
	tried := &v1.Incarnation{Image: inc.GetImage(), Digest: inc.GetDigest(), Shape: inc.GetShape(), Readiness: inc.GetReadiness()}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(tried)
	if err != nil {
		return "unknown" // cannot be: a stored message is valid; one name for all would still be safe
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:8])
}

// Broken tells of a state whether a life in it cannot come to READY any more. A VM that stopped by itself does not start
// again within a life.
func Broken(state v1.DesktopState) bool {
	return state == v1.DesktopState_DESKTOP_STATE_FAILED || state == v1.DesktopState_DESKTOP_STATE_STOPPING ||
		state == v1.DesktopState_DESKTOP_STATE_STOPPED
}
