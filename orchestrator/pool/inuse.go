package pool

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Defaults of the policy for desktops in use, as the proto promises them.
const (
	defaultNotice  = 15 * time.Minute
	defaultDeferBy = 4 * time.Hour
)

// What a rollout does with a claimed desktop now.
const (
	turnNone = iota // it is left alone
	turnWait        // its user knows when it restarts
	turnNow         // that time has come
)

// inUse is the policy for desktops that a user holds, with its defaults.
type inUse struct {
	remind          bool
	notice, deferBy time.Duration
	deferrals       uint32
	force           time.Time // from then on nobody is waited for; zero means never
}

// NoticeOf is the time between the announcement of a restart and the restart, by a policy.
func NoticeOf(policy *v1.InUse) time.Duration { return durationOr(policy.GetNotice(), defaultNotice) }

func inUseOf(pool *v1.Pool) inUse {
	policy := pool.GetSpec().GetRollout().GetInUse()
	p := inUse{
		remind:    policy.GetMode() == v1.InUseMode_IN_USE_MODE_REMIND,
		notice:    NoticeOf(policy),
		deferBy:   durationOr(policy.GetDeferBy(), defaultDeferBy),
		deferrals: policy.GetDeferrals(),
	}
	if force := pool.GetRelease().GetForceFrom(); force != nil {
		p.force = force.AsTime()
	}
	return p
}

func durationOr(value *durationpb.Duration, standard time.Duration) time.Duration {
	if value == nil {
		return standard
	}
	return value.AsDuration()
}

// restartAt says when a desktop that is to move is restarted, given what its user was told; zero when it waits for the
// user, then look is when that changes, if it does. The user always has the notice's time.
func (p inUse) restartAt(now time.Time, claim *v1.DesktopClaim) (at, look time.Time) {
	earliest := now.Add(p.notice)
	told := time.Time{}
	if claim.GetRestartAt() != nil {
		told = claim.GetRestartAt().AsTime()
	}
	switch {
	case p.remind && told.IsZero():
		return earliest, time.Time{}
	case p.remind && (p.force.IsZero() || !told.After(p.force)):
		return told, time.Time{}
	case p.force.IsZero():
		return time.Time{}, time.Time{}
	case p.remind: // what was promised goes beyond the end of all patience
		return earlier(told, later(p.force, earliest)), time.Time{}
	case !told.IsZero() && !told.Before(p.force):
		return earlier(told, later(p.force, earliest)), time.Time{}
	case p.force.After(earliest):
		return time.Time{}, p.force.Add(-p.notice)
	}
	return earliest, time.Time{}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// left is how often the user may put a restart off.
func (p inUse) left(claim *v1.DesktopClaim) uint32 {
	at := claim.GetRestartAt()
	if !p.remind || claim.GetDeferrals() >= p.deferrals || at == nil || !p.force.IsZero() && !at.AsTime().Before(p.force) {
		return 0
	}
	return p.deferrals - claim.GetDeferrals()
}

// restart does what the policy says about a claimed desktop that is to move. soon counts those who were told to save
// their work: no more than may restart at once, so that each restarts when its user was told. One that goes back waits for
// no others.
func (d *decision) restart(desktop *v1.Desktop, soon *int) int {
	p, claim := inUseOf(d.Pool), desktop.GetClaim()
	at, look := p.restartAt(d.now, claim)
	if store.Broken(store.State(desktop)) && (p.force.IsZero() || d.now.Before(p.force)) {
		at = time.Time{} // nobody could be told, and its overlay may hold work that is not saved
	}
	if at.IsZero() {
		if !look.IsZero() {
			d.again(look)
		}
		return turnNone
	}
	if claim.GetRestartAt() == nil && *soon >= d.limit() && !d.Pool.GetRelease().GetRollback() {
		return turnNone
	}
	if !at.After(d.now.Add(p.notice)) {
		*soon++
	}
	if claim.GetRestartAt() == nil || !claim.GetRestartAt().AsTime().Equal(at) {
		changed := announced(d.now, d.Pool, d.Clock, desktop, at)
		d.actions.Amend = append(d.actions.Amend, Change{Desktop: changed, Reason: ReasonRestartAnnounced,
			Message: fmt.Sprintf("%s is told that it restarts at %s with another version", claim.GetUser(), clock(d.Clock, at))})
		return turnWait
	}
	if !d.now.Before(at) {
		return turnNow
	}
	d.again(at)
	return turnWait
}

// withdrawRestarts takes back what was announced to users and no longer holds. turns are those with whom it goes on. What
// is on a silent host waits until that is back. How often a user put restarts off is remembered while the rollout goes on:
// else the end of each night's window would give them as many deferrals again.
func (d *decision) withdrawRestarts(turns map[string]bool) {
	goesOn := d.Pool.GetRelease().GetNext() != 0
	for _, desktop := range slices.Concat(d.rest, d.removing) {
		name, claim := desktop.GetMeta().GetName(), desktop.GetClaim()
		if turns[name] || d.stopped[name] || claim.GetRestartAt() == nil && (goesOn || claim.GetDeferrals() == 0) {
			continue
		}
		if d.full() {
			return
		}
		changed := proto.CloneOf(desktop)
		changed.Claim.RestartAt = nil
		if !goesOn {
			changed.Claim.Deferrals = 0
		}
		if claim.GetRestartAt() == nil {
			d.actions.Amend = append(d.actions.Amend, Change{Desktop: changed})
			continue
		}
		at := claim.GetRestartAt().AsTime()
		changed.Incarnation.Notice = &v1.Notice{
			Id:   fmt.Sprintf("off-%d", at.Unix()),
			Text: fmt.Sprintf("The restart that was announced for %s is off for now.", told(d.now, at, d.Clock)),
		}
		d.actions.Amend = append(d.actions.Amend, Change{Desktop: changed, Reason: ReasonRestartWithdrawn,
			Message: fmt.Sprintf("the restart that %s was told of is off for now", claim.GetUser())})
	}
}

// announced returns the desktop with its restart set to a time, and the notice that says so.
func announced(now time.Time, pool *v1.Pool, zone *time.Location, desktop *v1.Desktop, at time.Time) *v1.Desktop {
	changed := proto.CloneOf(desktop)
	changed.Claim.RestartAt = timestamppb.New(at)
	text := fmt.Sprintf("This desktop will be restarted for an update at %s, in %s. Please save your work.", told(now, at, zone), spell(at.Sub(now)))
	if left := inUseOf(pool).left(changed.Claim); left > 0 {
		text += fmt.Sprintf(" The restart can be put off %s more.", times(left))
	}
	changed.Incarnation.Notice = &v1.Notice{Id: fmt.Sprintf("restart-%d", at.Unix()), Text: text}
	return changed
}

func times(n uint32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// told writes a time for the user of a desktop.
func told(now, at time.Time, zone *time.Location) string {
	now, at = inZone(zone, now), inZone(zone, at)
	if now.Format(time.DateOnly) == at.Format(time.DateOnly) {
		return at.Format("15:04 MST")
	}
	return at.Format("2006-01-02 15:04 MST")
}

// spell writes a span of time in words, minutes and hours at the finest.
func spell(span time.Duration) string {
	switch minutes := int(span.Round(time.Minute).Minutes()); {
	case minutes < 1:
		return "less than a minute"
	case minutes < 120:
		return plural(minutes, "minute")
	case minutes%60 == 0:
		return plural(minutes/60, "hour")
	default:
		return plural(minutes/60, "hour") + " and " + plural(minutes%60, "minute")
	}
}
