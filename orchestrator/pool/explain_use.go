package pool

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// queueNews tells who waits for a desktop of the pool, and at which place; none when nobody does.
func (d *decision) queueNews() []string {
	if len(d.Queue) == 0 {
		return nil
	}
	var names []string
	for i, claim := range d.Queue {
		if i == maxWaiting {
			names = append(names, fmt.Sprintf("and %d more", len(d.Queue)-maxWaiting))
			break
		}
		names = append(names, fmt.Sprintf("%s (number %d, since %s)", claim.GetUser(), i+1, clock(d.Clock, claim.GetQueued().AsTime())))
	}
	return []string{fmt.Sprintf("%s for a desktop: %s", waitPhrase(len(d.Queue)), strings.Join(names, ", "))}
}

// asleep says why a held desktop does not run, and what wakes it; "" when it is not kept from running.
func (d *decision) asleep(view *store.View, desktop *v1.Desktop) string {
	user, inc := desktop.GetClaim().GetUser(), desktop.GetIncarnation()
	switch state := store.State(desktop); {
	case isSuspended(desktop) && user != "" && state == v1.DesktopState_DESKTOP_STATE_READY:
		return "it is being suspended" + onHost(view, inc.GetHost()) + d.idleSince(view, desktop, ReasonSuspended)
	case isSuspended(desktop) && user != "":
		return "it is suspended" + onHost(view, inc.GetHost()) + d.idleSince(view, desktop, ReasonSuspended) + "; it goes on where it was when " + user + " claims it"
	case isCold(d.now, desktop) && user != "":
		return "it is shut down" + d.idleSince(view, desktop, ReasonShutDown) + "; it starts anew when " + user + " claims it"
	case state == v1.DesktopState_DESKTOP_STATE_SUSPENDED && inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY:
		return "it was suspended" + onHost(view, inc.GetHost()) + " and is being woken" + d.cause(view, desktop, ReasonWoken) + d.makingRoom(view, desktop)
	case d.makingRoom(view, desktop) != "":
		return "it is " + word(state) + onHost(view, inc.GetHost()) + ", and " + user + " wants it" + d.makingRoom(view, desktop)
	}
	return ""
}

// idleSince tells how it is known that the desktop, which was reclaimed, is not used; else what its event says.
func (d *decision) idleSince(view *store.View, desktop *v1.Desktop, reason string) string {
	reclaim, event := desktop.GetClaim().GetReclaim(), newest(view, desktop, reason)
	if event == nil || !reclaim.GetActing() {
		return d.cause(view, desktop, reason)
	}
	return fmt.Sprintf(" (at %s: %s)", clock(d.Clock, event.GetAt().AsTime()), reclaim.GetReason())
}

// cause tells of the newest event with a reason, in brackets; "" when none is kept.
func (d *decision) cause(view *store.View, desktop *v1.Desktop, reason string) string {
	if event := newest(view, desktop, reason); event != nil {
		return d.bracketed(event)
	}
	return ""
}

func (d *decision) bracketed(event *v1.Event) string {
	return fmt.Sprintf(" (at %s: %s)", clock(d.Clock, event.GetAt().AsTime()), event.GetMessage())
}

// newest returns the newest event about a desktop with a reason; nil when none is kept.
func newest(view *store.View, desktop *v1.Desktop, reason string) *v1.Event {
	for _, event := range slices.Backward(view.EventsAbout(store.RefOf(desktop))) {
		if event.GetReason() == reason {
			return event
		}
	}
	return nil
}

// whySuspended tells, in brackets, what gave back the memory of a suspended desktop that nobody holds: the schedule, or want of
// use before its user let go of it; "" when neither is remembered.
func (d *decision) whySuspended(view *store.View, desktop *v1.Desktop) string {
	began := desktop.GetIncarnation().GetCreated().AsTime()
	cooled, story := d.cooling(view, desktop, began, d.now)
	idle := newest(view, desktop, ReasonSuspended)
	switch at := idle.GetAt().AsTime(); {
	case idle != nil && !at.Before(began) && (story == "" || at.After(cooled)):
		return d.bracketed(idle)
	case story != "":
		return " (" + story + ")"
	}
	return ""
}

// whyReleased tells, in brackets, that the desktop's life follows one that was taken back from its user; "" when they let go of
// it themselves, or it was made anew for its age.
func (d *decision) whyReleased(view *store.View, desktop *v1.Desktop) string {
	inc := desktop.GetIncarnation()
	if inc.GetReason() != reasonReleased || RefreshModeOf(d.Pool.GetSpec()) == v1.RefreshMode_REFRESH_MODE_AFTER_DAYS {
		return ""
	}
	for _, event := range slices.Backward(view.EventsAbout(store.RefOf(desktop))) {
		switch at := event.GetAt().AsTime(); {
		case at.After(inc.GetCreated().AsTime()):
			continue
		case event.GetReason() == ReasonReclaimed:
			return d.bracketed(event)
		case event.GetReason() == ReasonRenewed && at.Before(inc.GetCreated().AsTime()):
			return ""
		}
	}
	return ""
}

// idleNews says what a pool's idle policy makes of a desktop that somebody holds; "" when it has nothing to say.
func (d *decision) idleNews(view *store.View, desktop *v1.Desktop) string {
	claim := desktop.GetClaim()
	if d.Pool.GetSpec().GetIdle() == nil || claim == nil || d.asleep(view, desktop) != "" {
		return ""
	}
	in := idleInput{pool: d.Pool, desktops: d.Desktops, clock: d.Clock, round: d}
	in.rule, _ = ruleNow(d.now, view, d.Pool)
	if keep, _ := in.excluded(d.now, desktop); keep != "" {
		return "it is not reclaimed: " + keep
	}
	use := useOf(d.now, desktop, d.now, d.Clock)
	switch reclaim := claim.GetReclaim(); {
	case reclaim != nil:
		text := fmt.Sprintf("%s was told at %s that it will be %s at %s: %s", claim.GetUser(), clock(d.Clock, reclaim.GetSince().AsTime()),
			participle(reclaim.GetAction()), clock(d.Clock, reclaim.GetActAt().AsTime()), reclaim.GetReason())
		if isToRelease(d.now, desktop) && !in.turns(d.now)[desktop.GetMeta().GetName()] {
			text += "; it stays as it is until it can be made anew at once" + cmp.Or(d.obstacle(), ": others of the pool come before it (maxUnavailable)")
		}
		return text
	case !use.known:
		return "it is not reclaimed, since it is not known whether it is idle: " + use.how
	}
	return fmt.Sprintf("it is %s when it was not used for %s; last sign of use: %s", participle(in.rule.GetAction()),
		spell(in.rule.GetAfter().AsDuration()), cmp.Or(use.sign, use.how))
}

// heir says who alone gets a desktop that nobody holds, or whose it stays; "" when anybody may get it.
func heir(desktop *v1.Desktop) string {
	owner, last := desktop.GetSpec().GetOwner(), desktop.GetIncarnation().GetUsedBy()
	switch {
	case owner != "" && desktop.GetClaim() != nil:
		return "it stays " + owner + "'s for ever, also when they release it"
	case owner != "":
		return "it is " + owner + "'s for ever: nobody else ever gets it"
	case desktop.GetClaim() == nil && last != "":
		return last + " used it: nobody else gets it before its overlay is thrown away"
	}
	return ""
}
