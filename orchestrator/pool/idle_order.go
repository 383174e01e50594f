package pool

import (
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// What is to be done to a desktop since nobody uses it is ordered on a condition, which its host looks at once more when it comes
// to it: hours later, it may be, if it was cut off. A host that declines an order never carries it out after that, and says so;
// one that did not decline may have acted at any moment. So an order is taken back only when it was declined, and a claim that is to
// end with the desktop's life ends only when its host has begun to end that.

// hasDeclined: the desktop's host does not carry out what is ordered, since the desktop is used or may be.
func hasDeclined(desktop *v1.Desktop) bool {
	since := desktop.GetIncarnation().GetUnlessUsedSince()
	return since != nil && proto.Equal(since, store.Present(desktop).GetDeclined())
}

// wasSilent: the guest's last word is that on which an order rested that its host declined; it said nothing when it was asked once more.
func wasSilent(desktop *v1.Desktop) bool {
	declined := store.Present(desktop).GetDeclined()
	return declined != nil && proto.Equal(declined, store.Present(desktop).GetSession().GetAsked())
}

// isTakenBack: the user's claim is to end as soon as the host has begun to end the desktop's life.
func isTakenBack(desktop *v1.Desktop) bool {
	reclaim := desktop.GetClaim().GetReclaim()
	return reclaim.GetActing() && reclaim.GetAction() == v1.IdleAction_IDLE_ACTION_RELEASE
}

// endsWithClaim: it is taken back, and its host has begun to end its life. One that is not heard from may decline yet.
func endsWithClaim(desktop *v1.Desktop) bool {
	state := store.State(desktop)
	return isTakenBack(desktop) && state != v1.DesktopState_DESKTOP_STATE_READY && state != v1.DesktopState_DESKTOP_STATE_LOST
}

// answered is what follows from a host's answer to an order on condition; nil when there is none.
func answered(now time.Time, desktop *v1.Desktop) *idleChange {
	switch {
	case hasDeclined(desktop):
		return goesOn(now, desktop)
	case endsWithClaim(desktop):
		return takenBack(now, desktop, desktop.GetClaim().GetReclaim().GetReason())
	}
	return nil
}

// goesOn is a desktop that is wanted again, as it is, since its host declined what was ordered.
func goesOn(now time.Time, desktop *v1.Desktop) *idleChange {
	changed, why := proto.CloneOf(desktop), "it was used again before its host acted"
	if wasSilent(desktop) || !store.Present(desktop).GetSession().GetUsersKnown() {
		why = "its guest did not say who uses it right before its host would have acted"
	}
	changed.Incarnation.Desired, changed.Incarnation.UnlessUsedSince = v1.DesiredState_DESIRED_STATE_READY, nil
	if reclaim := changed.GetClaim().GetReclaim(); reclaim != nil {
		reclaim.Acting = false
		return &idleChange{desktop: changed, event: withdraw(now, changed, why)}
	}
	return &idleChange{desktop: changed, event: store.NewEvent(now, changed, ReasonIdleWithdrawn, "it stays as it is: "+why, false)}
}

// takenBack is a desktop whose user's claim ends for want of use.
func takenBack(now time.Time, desktop *v1.Desktop, why string) *idleChange {
	changed := letGo(desktop, now)
	event := store.NewEvent(now, changed, ReasonReclaimed, "it was taken back from "+desktop.GetClaim().GetUser()+": "+why, false)
	return &idleChange{desktop: changed, releases: true, event: event}
}
