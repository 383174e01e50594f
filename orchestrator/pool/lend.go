package pool

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// candidates returns the desktops of the pool that the user may have, the best first: the user's own, then those whose
// version most of the pool is to run now, and among equals in an order that differs between users, so that many who claim
// at once do not fight for one desktop. Who owns a dedicated desktop gets that one or none.
func candidates(view *store.View, pool *v1.Pool, user string, now time.Time) []*v1.Desktop {
	type ranked struct {
		desktop *v1.Desktop
		rank    int
		lot     [sha256.Size]byte
	}
	var found []ranked
	lasting, owns := lastingVersion(pool), false
	for _, desktop := range view.DesktopsOfPool(pool.GetMeta().GetName()) {
		owns = owns || isDedicated(pool) && desktop.GetSpec().GetOwner() == user
		if !lendable(view, desktop, user, now) {
			continue
		}
		inc, rank := desktop.GetIncarnation(), 2
		switch {
		case isTheirs(desktop, user):
			rank = 0
		case inc.GetVersion() == lasting && inc.GetImage() == pool.GetSpec().GetImage():
			rank = 1
		}
		found = append(found, ranked{
			desktop: desktop,
			rank:    rank,
			lot:     sha256.Sum256([]byte(user + "\x00" + desktop.GetMeta().GetName())),
		})
	}
	slices.SortFunc(found, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), bytes.Compare(a.lot[:], b.lot[:]))
	})
	desktops := make([]*v1.Desktop, 0, len(found))
	for _, f := range found {
		if !owns || f.desktop.GetSpec().GetOwner() == user {
			desktops = append(desktops, f.desktop)
		}
	}
	return desktops
}

func isDedicated(pool *v1.Pool) bool {
	return pool.GetSpec().GetClaims().GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED
}

// isTheirs: nobody but the user can have the desktop now, for what they left on it or because it is theirs for ever.
func isTheirs(d *v1.Desktop, user string) bool {
	return user != "" && d.GetIncarnation().GetUsedBy() == user || isLastingly(d, user)
}

// isLastingly: the desktop is the user's through all its lives.
func isLastingly(d *v1.Desktop, user string) bool {
	return user != "" && (d.GetSpec().GetOwner() == user || d.GetSpec().GetDataUser() == user)
}

// inTurn returns why the user may not have a desktop before others who wait; nil when they may. Who comes back to a desktop
// of their own takes nothing from anybody, nor does who finds more of them than there are users ahead.
func inTurn(view *store.View, pool *v1.Pool, user string, now time.Time, candidates []*v1.Desktop) error {
	if len(candidates) > 0 && isTheirs(candidates[0], user) {
		return nil
	}
	place, _ := placeOf(view, pool.GetMeta().GetName(), user, now)
	if place == 1 || place <= len(candidates) {
		return nil
	}
	return noneReady(view, pool.GetMeta().GetName(), user, now)
}

// placeOf says where the user stands in the queue, or would, from 1, and how many wait now.
func placeOf(view *store.View, pool, user string, now time.Time) (place, queued int) {
	queue := view.ClaimsWaiting(pool)
	var own *v1.Claim
	for _, claim := range queue {
		if claim.GetUser() == user {
			own = claim
		}
	}
	place = 1
	for _, claim := range queue {
		if isExpired(claim, now) && claim != own {
			continue
		}
		queued++
		if claim != own && (own == nil || inQueue(claim, own) < 0) {
			place++
		}
	}
	return place, queued
}

// isExpired: nobody was heard of the one who waits for too long.
func isExpired(claim *v1.Claim, now time.Time) bool { return claim.GetExpires().AsTime().Before(now) }

// noneReady says why there is no desktop for the user.
func noneReady(view *store.View, pool, user string, now time.Time) error {
	place, queued := placeOf(view, pool, user, now)
	rest := "taken just now" // it looked free a moment ago
	if queued > 0 {
		rest = "about to be given to those who wait"
	}
	return &NoneReadyError{Pool: pool, Counts: census(view, pool, rest), Queued: queued, Place: place}
}

// lastingVersion returns the version that users should get: one that is not about to give way. While a rollout has not
// taken in half of the pool, the new version is on trial, and no user should serve as its test.
func lastingVersion(pool *v1.Pool) uint32 {
	release := pool.GetRelease()
	if release.GetNext() != 0 && 2*release.GetAdmitted() >= pool.GetSpec().GetDesktops() {
		return release.GetNext()
	}
	return release.GetVersion()
}

// lendable: nobody holds the desktop, nothing that another user left is on it, and it is ready; or it is the user's and
// can get ready: it is suspended, or theirs through all its lives and on its way or waiting to be started.
func lendable(view *store.View, d *v1.Desktop, user string, now time.Time) bool {
	inc, state := d.GetIncarnation(), store.State(d)
	if d.GetClaim() != nil || d.GetMeta().GetDeletion() != nil || store.Present(d).GetPausedIo() {
		return false
	}
	if !isOr(inc.GetUsedBy(), user) || !isOr(d.GetSpec().GetDataUser(), user) || !isOr(d.GetSpec().GetOwner(), user) {
		return false
	}
	if host, ok := store.Lookup[*v1.Host](view, inc.GetHost()); inc.GetHost() != "" && (!ok || host.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_DOWN) {
		return false
	}
	desired, suspended := inc.GetDesired(), v1.DesiredState_DESIRED_STATE_SUSPENDED
	switch {
	case desired == v1.DesiredState_DESIRED_STATE_READY && state == v1.DesktopState_DESKTOP_STATE_READY:
		return true
	case state == v1.DesktopState_DESKTOP_STATE_READY || state == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return isTheirs(d, user) && (desired == v1.DesiredState_DESIRED_STATE_READY || desired == suspended)
	case isStarting(state):
		return isLastingly(d, user) && (desired == v1.DesiredState_DESIRED_STATE_READY || desired == v1.DesiredState_DESIRED_STATE_PREPARED)
	}
	return false
}

// wake tells a life to run that was told not to, and returns what was done in words; "" when it runs or is told to.
func wake(now time.Time, d *v1.Desktop) string {
	inc, what := d.Incarnation, ""
	switch {
	case inc.Desired == v1.DesiredState_DESIRED_STATE_SUSPENDED:
		what = "goes on where it was"
	case inc.Desired == v1.DesiredState_DESIRED_STATE_PREPARED, inc.StartAt != nil && inc.StartAt.AsTime().After(now):
		what = "starts"
	default:
		return ""
	}
	if what == "starts" {
		inc.Woken = timestamppb.New(now)
	}
	inc.Desired, inc.StartAt, inc.UnlessUsedSince = v1.DesiredState_DESIRED_STATE_READY, nil, nil
	return what
}

func isOr(value, user string) bool { return value == "" || value == user }

// census says in words what the desktops of a pool are that somebody cannot have; rest is what the others are.
func census(view *store.View, pool, rest string) string {
	counts := map[string]int{}
	desktops := view.DesktopsOfPool(pool)
	for _, d := range desktops {
		counts[cmp.Or(standing(view, d), rest)]++
	}
	if n := leaving(view, pool, desktops); n > 0 {
		counts["being made anew"] -= n
		counts["going for good"] += n
	}
	var parts []string
	for _, what := range []string{"claimed", "starting", "being made anew", "going for good", "paused", "on a silent host", "failed", "suspended", "not started", "kept for its user", rest} {
		if n := counts[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	if len(parts) == 0 {
		return "it has no desktops"
	}
	return strings.Join(parts, ", ")
}

// standing says in a few words what a desktop is to somebody who wants one; "" when it is ready.
func standing(view *store.View, d *v1.Desktop) string {
	state := store.State(d)
	host, _ := store.Lookup[*v1.Host](view, d.GetIncarnation().GetHost())
	switch {
	case d.GetClaim() != nil:
		return "claimed"
	case d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED || d.GetMeta().GetDeletion() != nil ||
		d.GetIncarnation().GetUsedBy() != "" && d.GetSpec().GetOwner() == "":
		return "being made anew"
	case d.GetSpec().GetOwner() != "":
		return "kept for its user"
	case d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_PREPARED:
		return "not started"
	case isStarting(state):
		return "starting"
	case state == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return "suspended"
	case state == v1.DesktopState_DESKTOP_STATE_LOST || host.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_DOWN:
		return "on a silent host"
	case store.Broken(state):
		return "failed"
	case store.Present(d).GetPausedIo():
		return "paused"
	case d.GetSpec().GetDataUser() != "":
		return "kept for its user"
	case state == v1.DesktopState_DESKTOP_STATE_DELETED:
		return "being made anew"
	}
	return ""
}
