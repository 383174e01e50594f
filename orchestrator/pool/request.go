package pool

import (
	"fmt"
	"slices"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A desktop remembers the requests of so many claims that ended, each for so long: time enough for a call that lay in some
// buffer to arrive. It is written with the claim's end, and swept when the desktop is lent or let go the next time.
const (
	requestLife = 10 * time.Minute
	maxEnded    = 8
)

// remembered returns what a desktop remembers that is not too old.
func remembered(desktop *v1.Desktop, now time.Time) []*v1.EndedClaim {
	return slices.DeleteFunc(slices.Clone(desktop.GetEnded()), func(ended *v1.EndedClaim) bool {
		return isForgotten(ended, now)
	})
}

func isForgotten(ended *v1.EndedClaim, now time.Time) bool {
	return now.Sub(ended.GetAt().AsTime()) > requestLife
}

// unused returns why a request id must not make a new claim for the user: ErrRequestUsed when it made one that ended, or is
// of another user's. errMirrorOld: by the view the user's claim with this id lasts, and they have none. So a view that is
// behind lets an id pass only when it has not even heard of the claim that the id made, a moment ago.
func unused(view *store.View, pool, user, requestID string, now time.Time) error {
	if requestID == "" {
		return nil
	}
	others := func(holder string) error {
		return fmt.Errorf("claim a desktop of pool %s: request id %q is of a claim of %q, not of %q; use a new one: %w", pool, requestID, holder, user, ErrRequestUsed)
	}
	for _, claim := range view.ClaimsWaiting(pool) {
		if claim.GetRequestId() == requestID && claim.GetUser() != user {
			return others(claim.GetUser())
		}
	}
	for _, desktop := range view.DesktopsOfPool(pool) {
		if claim := desktop.GetClaim(); claim.GetRequestId() == requestID {
			if claim.GetUser() == user {
				return errMirrorOld
			}
			return others(claim.GetUser())
		}
		for _, ended := range desktop.GetEnded() {
			switch {
			case ended.GetRequestId() != requestID, isForgotten(ended, now):
			case ended.GetUser() != user:
				return others(ended.GetUser())
			default:
				return fmt.Errorf("claim a desktop of pool %s: the claim of %q with request id %q, of desktop %s, was ended at %s; use a new request id for a new claim: %w",
					pool, user, requestID, desktop.GetMeta().GetName(), clock(nil, ended.GetAt().AsTime()), ErrRequestUsed)
			}
		}
	}
	return nil
}
