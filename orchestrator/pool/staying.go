package pool

import (
	"fmt"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Staying says why a desktop stays on its host though that takes no desktops any more, and what makes it leave; "" when it leaves by itself:
// what ends, and what a schedule starts and cools.
func Staying(now time.Time, zone *time.Location, pool *v1.Pool, desktop *v1.Desktop) string {
	inc, user := desktop.GetIncarnation(), desktop.GetClaim().GetUser()
	name, seats := desktop.GetMeta().GetName(), pool.GetMeta().GetName()
	gone := desktop.GetMeta().GetDeletion() != nil || pool.GetMeta().GetDeletion() != nil
	released := fmt.Sprintf("it leaves once %s lets go of it, or \"daybreak release %s --user '%s'\" ends it with all that is open", user, seats, user)
	deleted := fmt.Sprintf("\"daybreak delete desktop %s\" ends it, and another is made elsewhere", name)
	at, ever := refreshAt(pool, desktop)
	switch {
	case user != "" && (gone || ever && !at.After(now)) && desktop.GetSpec().GetDataHost() == "":
		return holding(now, desktop) + ": " + released
	case gone || inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
		return ""
	case desktop.GetSpec().GetDataHost() != "":
		return fmt.Sprintf("its data disk lies there: it leaves when it is deleted, with the disk or without (--data): \"daybreak delete desktop %s\"", name)
	case user != "":
		return holding(now, desktop) + ", and it is not made anew when they let go of it: after that " + deleted
	case inc.GetUsedBy() != "" && !ever:
		return holding(now, desktop) + ": " + deleted
	case inc.GetUsedBy() != "" && at.After(now):
		return fmt.Sprintf("%s until %s, when it is made anew elsewhere: before that %s", holding(now, desktop), clock(zone, at), deleted)
	case pool.GetSpec().GetSchedule() == nil && inc.GetUsedBy() == "" && !store.Broken(store.State(desktop)):
		return "nobody uses it, and its pool has no schedule by which it would end: " + deleted
	}
	return ""
}

// holding says whose a desktop is, and how it is.
func holding(now time.Time, desktop *v1.Desktop) string {
	user := desktop.GetClaim().GetUser()
	switch {
	case user == "" && isSuspended(desktop):
		return fmt.Sprintf("it is suspended, with what %s has open in the host's store, and kept for them", desktop.GetIncarnation().GetUsedBy())
	case user == "":
		return "it is kept for " + desktop.GetIncarnation().GetUsedBy()
	case isSuspended(desktop):
		return fmt.Sprintf("it is suspended, with what %s has open in the host's store", user)
	case isCold(now, desktop):
		return "it is shut down, and waits for " + user
	}
	return user + " holds it"
}
