package pool

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// withdraw takes from a claim what was to be done about its desktop, and returns the event that says so. What is being done
// goes on, and the desktop wakes after it: of that there is no event here.
func withdraw(now time.Time, desktop *v1.Desktop, why string) *v1.Event {
	reclaim := desktop.GetClaim().GetReclaim()
	desktop.Claim = proto.CloneOf(desktop.Claim)
	desktop.Claim.Reclaim, desktop.Incarnation.LookAt = nil, nil
	if reclaim.GetActing() {
		return nil
	}
	desktop.Incarnation.Notice = &v1.Notice{
		Id:   fmt.Sprintf("used-%d", now.Unix()),
		Text: "This desktop is in use again and stays as it is.",
	}
	return store.NewEvent(now, desktop, ReasonIdleWithdrawn, "it stays as it is: "+why, false)
}
