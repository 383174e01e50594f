package pool

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// refreshPatience is how long a desktop that is old enough to be made anew, and that nobody holds, is spared after its guest last
// said who uses it, and for how long nobody must have touched it where the pool does not say when an idle desktop may lose
// what is open in it. Nobody is warned of a refresh, so that a night is not enough.
const refreshPatience = 24 * time.Hour

// RefreshModeOf returns when desktops of a pool that had a user are made anew, with the default where the pool does not say.
func RefreshModeOf(spec *v1.PoolSpec) v1.RefreshMode {
	mode := spec.GetRefresh().GetMode()
	if mode != v1.RefreshMode_REFRESH_MODE_UNSPECIFIED {
		return mode
	}
	if spec.GetClaims().GetMode() == v1.ClaimMode_CLAIM_MODE_DEDICATED {
		return v1.RefreshMode_REFRESH_MODE_NEVER
	}
	return v1.RefreshMode_REFRESH_MODE_AT_LOGOFF
}

// refreshAt is when a desktop that had a user, and that nobody holds, is made anew; false when it is not, but by rollouts.
func refreshAt(pool *v1.Pool, desktop *v1.Desktop) (time.Time, bool) {
	switch RefreshModeOf(pool.GetSpec()) {
	case v1.RefreshMode_REFRESH_MODE_NEVER:
		return time.Time{}, false
	case v1.RefreshMode_REFRESH_MODE_AFTER_DAYS:
		days := time.Duration(pool.GetSpec().GetRefresh().GetDays())
		return desktop.GetIncarnation().GetCreated().AsTime().Add(days * 24 * time.Hour), true
	}
	return time.Time{}, true
}

// toRefresh: the desktop had a user who let go of it, its time has come, and nobody seems to be back in it.
func (d *decision) toRefresh(desktop *v1.Desktop) bool {
	at, ever := refreshAt(d.Pool, desktop)
	if desktop.GetIncarnation().GetUsedBy() == "" || !ever {
		return false
	}
	if _, until := d.refreshWaits(desktop, at); until.After(at) {
		at = until
	}
	if at.After(d.now) {
		d.again(at)
		return false
	}
	return true
}

// refreshWaits says why a desktop that nobody holds is not made anew although it is old enough since due, and until when that
// is so as far as is known now; "" when nothing speaks against it. Whoever let go of a desktop that is kept for days may
// come back to it in the guest without a claim, and what counts as use is what counts for desktops that are held. A guest
// that says nothing is waited for for a while only: else one without an agent would keep its overlay for ever.
func (d *decision) refreshWaits(desktop *v1.Desktop, due time.Time) (why string, until time.Time) {
	runs := store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY && desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY
	if RefreshModeOf(d.Pool.GetSpec()) != v1.RefreshMode_REFRESH_MODE_AFTER_DAYS || !runs || due.After(d.now) {
		return "", time.Time{}
	}
	use, session := useOf(d.now, desktop, time.Unix(0, 0), d.Clock), store.Present(desktop).GetSession()
	asked := session.GetAsked().AsTime()
	if use.known && wasSilent(desktop) { // an order that rests on the same word again is declined again, at once
		use.known, use.how = false, "it said nothing when its host asked it once more"
	}
	if !use.known {
		heard := due
		if session.GetUsersKnown() && !asked.After(d.now.Add(sessionSkew)) {
			heard = later(due, asked)
		}
		if until = heard.Add(refreshPatience); until.After(d.now) {
			return fmt.Sprintf("waits until %s for its guest to say that nobody uses it: %s", clock(d.Clock, until), use.how), until
		}
		return "", time.Time{}
	}
	last, quiet := d.now, refreshPatience
	if input := session.GetInputIdleSince(); input != nil {
		last = input.AsTime()
	} else if session.GetUsers() == 0 {
		return "", time.Time{}
	}
	if rule := d.IdleRule; rule != nil && rule.GetAction() != v1.IdleAction_IDLE_ACTION_SUSPEND {
		quiet = rule.GetAfter().AsDuration() + graceOf(rule)
	}
	if until = last.Add(quiet); !until.After(d.now) {
		return "", time.Time{}
	}
	return fmt.Sprintf("waits until it was not used for %s: %s", spell(quiet), use.how), earlier(until, asked.Add(sessionLife+time.Second))
}

// unlessUsed is since when nobody must have used a desktop that is made anew for its age; nil where its guest does not say.
func (d *decision) unlessUsed(desktop *v1.Desktop) *timestamppb.Timestamp {
	ages := RefreshModeOf(d.Pool.GetSpec()) == v1.RefreshMode_REFRESH_MODE_AFTER_DAYS
	if !ages || !useOf(d.now, desktop, time.Unix(0, 0), d.Clock).known {
		return nil
	}
	return store.Present(desktop).GetSession().GetAsked()
}

// refreshNews says why a desktop that nobody holds is not made anew although it is old enough; "" when that is not so.
func (d *decision) refreshNews(desktop *v1.Desktop) string {
	at, ever := refreshAt(d.Pool, desktop)
	if desktop.GetClaim() != nil || desktop.GetIncarnation().GetUsedBy() == "" || !ever {
		return ""
	}
	why, _ := d.refreshWaits(desktop, at)
	if why == "" {
		return ""
	}
	return fmt.Sprintf("it was to be made anew at %s, %s after it was made, and %s", clock(d.Clock, at),
		plural(int(d.Pool.GetSpec().GetRefresh().GetDays()), "day"), why)
}
