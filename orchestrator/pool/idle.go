package pool

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Bounds of what is believed about a desktop's use.
const (
	defaultGrace = 5 * time.Minute
	// sessionLife is how long the word of a guest counts; hosts repeat it every five minutes.
	sessionLife = 10 * time.Minute
	// sessionSkew is how far a host's clock may be ahead of ours.
	sessionSkew = 2 * time.Minute
	// lookPatience is how long a fresh word of the guest is waited for before nothing is done.
	lookPatience = 3 * time.Minute
)

// idleInput is all that decideIdle looks at.
type idleInput struct {
	pool *v1.Pool
	// rule is the policy's for the present phase of the calendar; nil: nothing is to be done.
	rule *v1.IdleRule
	// ends is when another phase begins; zero when none does.
	ends time.Time
	// desktops of the pool.
	desktops []*v1.Desktop
	// empty is since when a desktop's guest has said that nobody is logged in, by name.
	empty map[string]time.Time
	// clock is the time zone in which users are told times.
	clock *time.Location
	// round is what else the pool is about, weighed; nil where no desktop is to be taken back.
	round *decision
	// turn says which desktops may be taken back now, by name (see turns).
	turn map[string]bool
}

// idleChange is a held desktop as it is to be written, with the event that goes with it, if any. releases: the user's claim
// ends in the same transaction.
type idleChange struct {
	desktop  *v1.Desktop
	event    *v1.Event
	releases bool
}

// decideIdle says what is to be done about desktops that users hold and do not use. It is pure. First the user is warned,
// and brokering knows of it; when the grace is over the guest is asked anew; only if that word, which cannot be older than
// the question, says the same, it is acted, at once or not at all: what has to wait is asked anew. Every step is a
// compare-and-swap on the desktop, which whatever the user does through the control plane changes. Its host looks once more
// before it does as it is told, and what it declines is withdrawn.
func decideIdle(now time.Time, in idleInput) (changes []idleChange, again time.Duration) {
	look := func(at time.Time) {
		wait := max(at.Sub(now), time.Millisecond)
		if again == 0 || wait < again {
			again = wait
		}
	}
	in.turn = in.turns(now)
	for _, desktop := range in.desktops {
		if len(changes) >= maxChanges {
			look(now)
			break
		}
		if change := answered(now, desktop); change != nil {
			changes = append(changes, *change)
			continue
		}
		if desktop.GetClaim() == nil || desktop.GetClaim().GetReclaim().GetActing() {
			continue
		}
		change, at := in.judge(now, desktop)
		if change != nil {
			changes = append(changes, *change)
		}
		if !at.IsZero() {
			look(at)
		}
		if !in.ends.IsZero() {
			look(in.ends)
		}
	}
	return changes, again
}

// judge decides about one held desktop that nothing is being done about, and when to look at it again.
func (in idleInput) judge(now time.Time, desktop *v1.Desktop) (change *idleChange, again time.Time) {
	reclaim := desktop.GetClaim().GetReclaim()
	keep, until := in.excluded(now, desktop)
	use := useOf(now, desktop, in.empty[desktop.GetMeta().GetName()], in.clock)
	due := use.last.Add(in.rule.GetAfter().AsDuration())
	switch {
	case reclaim == nil && (keep != "" || !use.known || desktop.GetClaim().GetRestartAt() != nil):
		return nil, until
	case reclaim == nil && now.Before(due):
		return nil, due
	case reclaim == nil:
		return in.warn(now, desktop, use), time.Time{}
	case keep != "":
		return withdrawn(now, desktop, keep), until
	case !use.known:
		return withdrawn(now, desktop, use.how), time.Time{}
	case now.Before(due), use.last.After(reclaim.GetSince().AsTime()):
		return withdrawn(now, desktop, use.again(reclaim, in.rule)), due
	case reclaim.GetAction() != in.rule.GetAction():
		return withdrawn(now, desktop, "another rule holds now"), now
	case now.Before(reclaim.GetActAt().AsTime()):
		return nil, reclaim.GetActAt().AsTime()
	}
	return in.lookThenAct(now, desktop, use)
}

// excluded says why a desktop is left alone, and until when if that is known; "" when it is not.
func (in idleInput) excluded(now time.Time, desktop *v1.Desktop) (why string, until time.Time) {
	policy, claim := in.pool.GetSpec().GetIdle(), desktop.GetClaim()
	busy := claim.GetBusyUntil()
	switch {
	case in.rule == nil:
		return "the pool's policy does nothing now", time.Time{}
	case in.pool.GetMeta().GetDeletion() != nil || desktop.GetMeta().GetDeletion() != nil:
		return "it is to be deleted", time.Time{}
	case slices.Contains(policy.GetKeepUsers(), claim.GetUser()):
		return "desktops of " + claim.GetUser() + " are left alone", time.Time{}
	case slices.Contains(policy.GetKeepDesktops(), desktop.GetMeta().GetName()):
		return "it is left alone by the pool's policy", time.Time{}
	case in.rule.GetAction() == v1.IdleAction_IDLE_ACTION_SHUT_DOWN && !holdsData(desktop) &&
		RefreshModeOf(in.pool.GetSpec()) == v1.RefreshMode_REFRESH_MODE_NEVER:
		return "it has no data disk, and would come back with nothing of what is on it", time.Time{}
	case busy.AsTime().After(now):
		return "it is busy until " + clock(in.clock, busy.AsTime()), busy.AsTime()
	}
	return "", time.Time{}
}

// use is what is known about the use of a held desktop.
type use struct {
	known bool
	// last is the newest sign of use; how says what is known, for people; sign is what last was, if it is not the guest's
	// word: "taro asked for it at …".
	last      time.Time
	how, sign string
}

// useOf puts together what claim and guest say. What is not known is not idle.
func useOf(now time.Time, desktop *v1.Desktop, empty time.Time, zone *time.Location) use {
	inc, claim, session := desktop.GetIncarnation(), desktop.GetClaim(), store.Present(desktop).GetSession()
	state, asked := store.State(desktop), session.GetAsked()
	unknown := func(how string) use { return use{how: how} }
	switch {
	case state != v1.DesktopState_DESKTOP_STATE_READY || inc.GetDesired() != v1.DesiredState_DESIRED_STATE_READY || store.Present(desktop).GetPausedIo():
		return unknown("it is not ready, and nobody knows whether it is used")
	case asked == nil || !session.GetUsersKnown():
		return unknown("its guest does not say who uses it")
	case now.Sub(asked.AsTime()) > sessionLife:
		return unknown("its guest has not said who uses it since " + clock(zone, asked.AsTime()))
	case asked.AsTime().Sub(now) > sessionSkew:
		return unknown("the clock of its host is ahead, or ours is behind")
	case session.GetUsers() > 0 && session.GetInputIdleSince() == nil:
		return use{known: true, last: now, how: "somebody is logged in"}
	}
	last := use{known: true, last: reached(desktop, v1.DesktopState_DESKTOP_STATE_READY, now), sign: "it got ready"}
	newer := func(at time.Time, how, sign string) {
		if at.After(last.last) {
			last.last, last.how, last.sign = at, how, sign
		}
	}
	newer(claim.GetSince().AsTime(), "", claim.GetUser()+" was given it")
	newer(claim.GetAsked().AsTime(), "", claim.GetUser()+" asked for it")
	how := "no input"
	if session.GetUsers() == 0 {
		how = "no session"
	}
	switch input := session.GetInputIdleSince(); {
	case input != nil:
		newer(input.AsTime(), how, "")
	case empty.IsZero():
		newer(now, how, "")
	default:
		newer(empty, how, "")
	}
	if last.sign == "" {
		last.how += " since " + clock(zone, last.last)
		return last
	}
	last.how = fmt.Sprintf("last used at %s, when %s", clock(zone, last.last), last.sign)
	last.sign += " at " + clock(zone, last.last)
	return last
}

// again says why what was announced to a user is not done: since they were back, or since the rule is another one now.
func (u use) again(reclaim *v1.Reclaim, rule *v1.IdleRule) string {
	switch {
	case !u.last.After(reclaim.GetSince().AsTime()):
		return fmt.Sprintf("the policy now wants it unused for %s (%s)", spell(rule.GetAfter().AsDuration()), u.how)
	case u.sign != "":
		return "it was used again: " + u.sign
	}
	return "it is not idle for long enough: " + u.how
}

// graceOf is the time between the warning and the act. What nobody wrote keeps the rule that holds for what they write: who is
// warned for longer than they were away is warned all day.
func graceOf(rule *v1.IdleRule) time.Duration {
	return durationOr(rule.GetGrace(), min(defaultGrace, rule.GetAfter().AsDuration()))
}

// warn is the first step: the user is told, and the desktop is marked.
func (in idleInput) warn(now time.Time, desktop *v1.Desktop, use use) *idleChange {
	changed := proto.CloneOf(desktop)
	at := now.Add(graceOf(in.rule))
	action := in.rule.GetAction()
	changed.Claim.Reclaim = &v1.Reclaim{Since: timestamppb.New(now), ActAt: timestamppb.New(at), Action: action, Reason: use.how}
	changed.Incarnation.Notice = &v1.Notice{Id: fmt.Sprintf("idle-%d", now.UnixMilli()), Text: fmt.Sprintf(
		"Nobody has used this desktop since %s. It will be %s at %s, in %s, unless it is used.%s",
		told(now, use.last, in.clock), participle(action), told(now, at, in.clock), spell(at.Sub(now)), advice(action))}
	event := store.NewEvent(now, changed, ReasonIdleWarned, fmt.Sprintf("%s is told that it will be %s at %s: %s",
		desktop.GetClaim().GetUser(), participle(action), clock(in.clock, at), use.how), false)
	return &idleChange{desktop: changed, event: event}
}

// lookThenAct is the second step: a fresh word of the guest, and the act if it says the same. A word that could not be acted
// upon while it was fresh does not count.
func (in idleInput) lookThenAct(now time.Time, desktop *v1.Desktop, use use) (*idleChange, time.Time) {
	session, look := store.Present(desktop).GetSession(), desktop.GetIncarnation().GetLookAt().AsTime()
	asked, patience := session.GetAsked().AsTime(), look.Add(lookPatience)
	hasTurn := in.rule.GetAction() != v1.IdleAction_IDLE_ACTION_RELEASE || in.turn[desktop.GetMeta().GetName()]
	switch {
	case !wasAsked(desktop) && !hasTurn:
		return nil, now.Add(lookPatience)
	case !wasAsked(desktop):
		return ask(now, desktop)
	case asked.Before(look) && !now.Before(patience):
		return withdrawn(now, desktop, "its guest did not answer when it was asked again"), time.Time{}
	case asked.Before(look):
		return nil, patience
	}
	// By the host's own clock, whatever ours did meanwhile.
	if input := session.GetInputIdleSince(); input != nil && asked.Sub(input.AsTime()) < in.rule.GetAfter().AsDuration() {
		return withdrawn(now, desktop, "by its host's clock it was last used at "+clock(in.clock, input.AsTime())), time.Time{}
	}
	switch {
	case !hasTurn:
		changed := proto.CloneOf(desktop)
		changed.Incarnation.LookAt = nil
		return &idleChange{desktop: changed}, now.Add(lookPatience)
	case !now.Before(patience):
		return ask(now, desktop)
	}
	return in.act(now, desktop, use), time.Time{}
}

// ask has a guest say anew whether it is used.
func ask(now time.Time, desktop *v1.Desktop) (*idleChange, time.Time) {
	changed := proto.CloneOf(desktop)
	asked := store.Present(desktop).GetSession().GetAsked().AsTime()
	// Later than all that the guest said before, also if its host's clock is ahead of ours.
	changed.Incarnation.LookAt = timestamppb.New(later(now, asked.Add(time.Nanosecond)))
	return &idleChange{desktop: changed}, now.Add(lookPatience)
}

// act does what was announced, on condition that nobody is back when the host comes to it.
func (in idleInput) act(now time.Time, desktop *v1.Desktop, use use) *idleChange {
	changed, user := proto.CloneOf(desktop), desktop.GetClaim().GetUser()
	reason, message := ReasonSuspended, "it is suspended, and goes on where it was when "+user+" claims it"
	switch in.rule.GetAction() {
	case v1.IdleAction_IDLE_ACTION_SHUT_DOWN:
		changed = retired(changed, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)
		reason, message = ReasonShutDown, "it is shut down, and starts anew when "+user+" claims it"
	case v1.IdleAction_IDLE_ACTION_RELEASE:
		if !in.endsAtOnce(now, desktop) {
			return takenBack(now, desktop, use.how)
		}
		changed = retired(changed, v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED)
		reason, message = ReasonReclaiming, "its life is to end, and it is taken back from "+user
	default:
		changed.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_SUSPENDED
	}
	changed.Incarnation.LookAt, changed.Incarnation.UnlessUsedSince = nil, store.Present(desktop).GetSession().GetAsked()
	changed.Claim.Reclaim.Acting, changed.Claim.Reclaim.Reason = true, use.how
	return &idleChange{desktop: changed, event: store.NewEvent(now, changed, reason, message+": "+use.how, false)}
}

// withdrawn is a desktop about which nothing is to be done any more.
func withdrawn(now time.Time, desktop *v1.Desktop, why string) *idleChange {
	changed := proto.CloneOf(desktop)
	event := withdraw(now, changed, why)
	return &idleChange{desktop: changed, event: event}
}

// withdraw takes from a claim what was to be done about its desktop, and returns the event that says so. What is being done
// goes on, and the desktop wakes after it: of that there is no event here. But a host that has not come to it yet spares what
// its user left open: it declines if anybody is logged in, however long nobody touched anything.
func withdraw(now time.Time, desktop *v1.Desktop, why string) *v1.Event {
	reclaim := desktop.GetClaim().GetReclaim()
	desktop.Claim = proto.CloneOf(desktop.Claim)
	desktop.Claim.Reclaim, desktop.Incarnation.LookAt = nil, nil
	if reclaim.GetActing() {
		if desktop.GetIncarnation().GetUnlessUsedSince() != nil {
			desktop.Incarnation.UnlessUsedSince = timestamppb.New(time.Unix(0, 0))
		}
		return nil
	}
	desktop.Incarnation.Notice = &v1.Notice{
		Id:   fmt.Sprintf("used-%d", now.UnixMilli()),
		Text: fmt.Sprintf("This desktop stays as it is: it will not be %s.", participle(reclaim.GetAction())),
	}
	return store.NewEvent(now, desktop, ReasonIdleWithdrawn, "it stays as it is: "+why, false)
}

// participle is an action in the words of "it will be …".
func participle(action v1.IdleAction) string {
	switch action {
	case v1.IdleAction_IDLE_ACTION_SHUT_DOWN:
		return "shut down"
	case v1.IdleAction_IDLE_ACTION_RELEASE:
		return "taken back"
	}
	return "suspended"
}

// advice is what a user should know before the act.
func advice(action v1.IdleAction) string {
	if action == v1.IdleAction_IDLE_ACTION_SUSPEND {
		return " What is open stays open."
	}
	return " Please save your work."
}
