package pool

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// What was ready long before its start was planned for is another life's, and so is what is ready long after the deadline.
const (
	noteBefore = time.Hour
	noteAfter  = 6 * time.Hour
)

// Noted is a stored plan with what the view knows of its starts by now: the plan's loop writes that down a little later.
func Noted(now time.Time, view *store.View, pool *v1.Pool, plan *v1.Plan) *v1.Plan {
	plan = proto.CloneOf(plan)
	note(now, view, pool, plan)
	return plan
}

// note writes down when desktops that were to start were ready. A life that is about to end was ready for others: the start
// is its successor's.
func note(now time.Time, view *store.View, pool *v1.Pool, plan *v1.Plan) {
	for _, start := range plan.GetStarts() {
		desktop, ok := store.Lookup[*v1.Desktop](view, seatName(plan, start))
		// What is ready before a start has come is the life before, which ends until then.
		if start.GetReady() != nil || !ok || isEnding(now, pool, desktop) || start.GetStartAt().AsTime().After(now) {
			continue
		}
		if at, ready := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY); ready && at.After(start.GetStartAt().AsTime().Add(-noteBefore)) &&
			at.Before(start.GetDeadline().AsTime().Add(noteAfter)) {
			start.Ready = timestamppb.New(at)
		}
	}
}

// noteUsers writes down the desktops that were started for users while the plan was in force, and not by it: they count towards what is wanted.
func noteUsers(now time.Time, view *store.View, pool *v1.Pool, plan *v1.Plan) {
	if len(plan.GetTargets()) == 0 || plan.GetTargets()[0].GetFrom().AsTime().After(now) {
		return
	}
	begin, started := plan.GetTargets()[0].GetFrom().AsTime(), map[string]bool{}
	for _, start := range plan.GetStarts() {
		started[seatName(plan, start)] = true
	}
	for _, desktop := range view.DesktopsOfPool(plan.GetPool()) {
		inc := desktop.GetIncarnation()
		at, ready := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
		if desktop.GetClaim() == nil || started[desktop.GetMeta().GetName()] || !runs(desktop) || inc.GetHost() == "" || isEnding(now, pool, desktop) ||
			ready && at.Before(begin) || len(plan.GetStarts()) >= maxPlannedStarts {
			continue
		}
		began := timestamppb.New(begun(inc))
		start := &v1.PlannedStart{Seat: uint32(seatNumber(desktop)), Host: place(plan, &v1.PlanHost{Name: inc.GetHost()}), StartAt: began, Deadline: began}
		if ready {
			start.Ready = timestamppb.New(at)
		}
		plan.Starts = append(plan.Starts, start)
	}
	inOrder(plan.GetStarts())
}

// isEnding: the present life is told to end, or is to be made anew since its user left.
func isEnding(now time.Time, pool *v1.Pool, desktop *v1.Desktop) bool {
	inc := desktop.GetIncarnation()
	if inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED {
		return true
	}
	at, ever := refreshAt(pool, desktop)
	return desktop.GetClaim() == nil && inc.GetUsedBy() != "" && ever && !at.After(now)
}

// Unheard are the seats of which it cannot be known whether they were ready, by their hosts: a plan had them start by now, of which nothing
// is noted, and since the present leader leads their hosts were neither heard nor called DOWN.
func Unheard(now time.Time, view *store.View, plan *v1.Plan) map[uint32]string {
	var unheard map[uint32]string
	for _, start := range plan.GetStarts() {
		if name, unknown := unheardHost(view, plan, start); unknown && !start.GetStartAt().AsTime().After(now) {
			if unheard == nil {
				unheard = map[uint32]string{}
			}
			unheard[start.GetSeat()] = name
		}
	}
	return unheard
}

func unheardHost(view *store.View, plan *v1.Plan, start *v1.PlannedStart) (name string, unknown bool) {
	if start.GetReady() != nil {
		return "", false
	}
	desktop, _ := store.Lookup[*v1.Desktop](view, seatName(plan, start))
	name = desktop.GetIncarnation().GetHost()
	host, ok := store.Lookup[*v1.Host](view, name)
	return name, ok && host.GetStatus().GetUnheard()
}

func seatName(plan *v1.Plan, start *v1.PlannedStart) string {
	return fmt.Sprintf("%s-%d", plan.GetPool(), start.GetSeat())
}
