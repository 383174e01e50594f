package pool

import (
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

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

// toRefresh: the desktop had a user who let go of it, and its time has come.
func (d *decision) toRefresh(desktop *v1.Desktop) bool {
	if desktop.GetIncarnation().GetUsedBy() == "" {
		return false
	}
	at, ever := refreshAt(d.Pool, desktop)
	if ever && at.After(d.now) {
		d.again(at)
	}
	return ever && !at.After(d.now)
}
