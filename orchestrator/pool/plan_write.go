package pool

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// planSlack is by how much a start that was told may be earlier than the plan has it, and lateSlack by how much later: less is not
	// worth telling hosts. A late one takes from the time that makes sure of the deadline.
	planSlack, lateSlack = 30 * time.Second, 2 * time.Second
	// maxPlannedStarts is the proto's bound of Plan.starts.
	maxPlannedStarts = 5000
	// maxPlanTargets is that of Plan.targets.
	maxPlanTargets = 600
	// targetPace is how often at most a plan that has half of them notes that something else is wanted than was planned: claims
	// change that all day.
	targetPace = 5 * time.Minute
	// KeptPlans is for how many days after its date a plan is kept.
	KeptPlans = 14
)

// startDesktops tells cold desktops when they start, and takes back what is not planned any more. The plan gets the times
// that desktops keep. A start is told only while its host could promise what it takes: one that needs what others give
// back before is told when they have.
func (r *dayRound) startDesktops(now time.Time, view *store.View, pool *v1.Pool, plan *warmup.PoolPlan, rooms map[string]*room.Host) {
	first := map[int]*warmup.Start{}
	plan.Starts = slices.Clone(plan.Starts)
	for i := range plan.Starts {
		if start := &plan.Starts[i]; start.First {
			first[int(start.Seat)] = start
		}
	}
	held := pool.GetStatus().GetHeldUntil().AsTime()
	for _, desktop := range view.DesktopsOfPool(pool.GetMeta().GetName()) {
		inc := desktop.GetIncarnation()
		if !isCold(now, desktop) || desktop.GetClaim() != nil || desktop.GetMeta().GetDeletion() != nil {
			continue
		}
		start, told := first[seatNumber(desktop)], inc.GetStartAt()
		switch {
		case start != nil && start.Host != inc.GetHost() && inc.GetHost() != "":
			// It lies on a host that takes no desktops any more, and the plan starts its next life, elsewhere.
			if told != nil && told.AsTime().After(now.Add(warmup.DefaultNear)) {
				r.starts = append(r.starts, store.Update(toStart(desktop, time.Time{})))
			}
			continue
		case start == nil && told == nil:
			continue
		case start == nil:
			r.starts = append(r.starts, store.Update(toStart(desktop, time.Time{})))
			continue
		case told != nil && (start.Fixed || stands(told.AsTime(), start.At)):
			start.At = told.AsTime()
			continue
		case told == nil && start.At.Before(held): // too many failed in a row: no more are started until then
			continue
		case told == nil && !promise(rooms[inc.GetHost()], desktop):
			continue
		}
		r.starts = append(r.starts, store.Update(toStart(desktop, start.At)))
	}
}

// stands: a start that was told need not be told anew.
func stands(told, planned time.Time) bool {
	late := told.Sub(planned)
	return -planSlack <= late && late <= lateSlack
}

// promise books a cold desktop's start on its host; false when the host has no room for it now.
func promise(h *room.Host, desktop *v1.Desktop) bool {
	if h == nil {
		return desktop.GetIncarnation().GetHost() == "" // placement finds room, or says why there is none
	}
	n := need(desktop, room.PhaseOf(desktop))
	if !h.Holds(n) {
		return false
	}
	h.Wake(n)
	return true
}

// toStart returns the desktop with the time at which it starts; zero: it waits until somebody says more.
func toStart(desktop *v1.Desktop, at time.Time) *v1.Desktop {
	changed := proto.CloneOf(desktop)
	changed.Incarnation.Desired, changed.Incarnation.StartAt, changed.Incarnation.Woken = v1.DesiredState_DESIRED_STATE_PREPARED, nil, nil
	if !at.IsZero() {
		changed.Incarnation.Desired, changed.Incarnation.StartAt = v1.DesiredState_DESIRED_STATE_READY, timestamppb.New(at)
	}
	return changed
}

// writePlans keeps the Plan objects of a pool, one for each civil date on which something starts or is missing.
func (r *dayRound) writePlans(now time.Time, view *store.View, pool *v1.Pool, plan warmup.PoolPlan, known *curves) {
	zone := time.UTC
	if office := known.office(view, pool); office != nil {
		zone = office.Zone()
	}
	last := calendar.DateOf(now.Add(planAhead).In(zone))
	for date := calendar.DateOf(now.In(zone)); date.Compare(last) <= 0; date = date.Add(1) {
		name := PlanName(pool.GetMeta().GetName(), date.String())
		stored, known := store.Lookup[*v1.Plan](view, name)
		next := plan.OnDate(date.String(), zone, now)
		next.Meta = &v1.Meta{Name: name}
		if known {
			next = merged(now, stored, next)
		}
		note(now, view, pool, next)
		noteUsers(now, view, pool, next)
		r.tell(now, view, pool, zone, stored, next)
		switch {
		case known && !proto.Equal(stored, next):
			r.objects = append(r.objects, store.Update(next))
		case !known && len(next.GetStarts())+len(next.GetShortfalls()) > 0:
			r.objects = append(r.objects, store.Create(next))
		}
	}
	// Yesterday's starts may get ready after midnight.
	yesterday := calendar.DateOf(now.In(zone)).Add(-1).String()
	if stored, ok := store.Lookup[*v1.Plan](view, PlanName(pool.GetMeta().GetName(), yesterday)); ok {
		next := proto.CloneOf(stored)
		note(now, view, pool, next)
		r.tell(now, view, pool, zone, stored, next)
		if !proto.Equal(stored, next) {
			r.objects = append(r.objects, store.Update(next))
		}
	}
}

// merged is a stored plan with what the new one says of the time to come: what has come stays as it was planned.
func merged(now time.Time, stored, next *v1.Plan) *v1.Plan {
	over := func(t *timestamppb.Timestamp) bool { return !t.AsTime().After(now) }
	all := proto.CloneOf(stored)
	all.Targets = slices.DeleteFunc(all.Targets, func(t *v1.PlanTarget) bool { return !over(t.GetFrom()) })
	if changed := inForce(now, all.GetTargets(), next.GetTargets()); changed != nil {
		all.Targets = append(all.Targets, changed)
	}
	for _, t := range next.GetTargets() {
		if !over(t.GetFrom()) || len(all.Targets) == 0 {
			all.Targets = append(all.Targets, t)
		}
	}
	all.Starts = slices.DeleteFunc(all.Starts, func(s *v1.PlannedStart) bool {
		// What began in its time stays although the clock was set back since.
		began := s.GetReady() != nil && !s.GetReady().AsTime().Before(s.GetStartAt().AsTime())
		return !over(s.GetStartAt()) && !began
	})
	past, undone := map[uint32][]*v1.PlannedStart{}, map[*v1.PlannedStart]bool{}
	for _, s := range all.GetStarts() {
		past[s.GetSeat()] = append(past[s.GetSeat()], s)
	}
	for _, s := range next.GetStarts() {
		old, belongs := supersedes(past[s.GetSeat()], s)
		if old != nil {
			undone[old] = true
		}
		if belongs {
			start := proto.CloneOf(s)
			start.Host = place(all, next.GetHosts()[s.GetHost()])
			all.Starts = append(all.Starts, start)
		}
	}
	all.Starts = slices.DeleteFunc(all.Starts, func(s *v1.PlannedStart) bool { return undone[s] })
	all.Starts = all.Starts[:min(len(all.Starts), maxPlannedStarts)]
	inOrder(all.Starts)
	stillShort(all, over)
	for _, s := range next.GetShortfalls() {
		if !over(s.GetDeadline()) {
			all.Shortfalls = append(all.Shortfalls, s)
		}
	}
	all.TimeZone = next.GetTimeZone()
	if len(stored.GetTargets()) == 0 || !over(stored.GetTargets()[0].GetFrom()) {
		all.Standing = next.Standing // its day has not begun
	}
	if len(past) == 0 && !proto.Equal(stored, all) {
		all.Hosts, all.Made = next.GetHosts(), next.GetMade()
		all.Starts = next.GetStarts()
		inOrder(all.Starts)
	}
	return all
}

// inForce is what is wanted from now on when that is not what was planned before, as when an opening was moved; nil when it is.
func inForce(now time.Time, past, next []*v1.PlanTarget) *v1.PlanTarget {
	i := slices.IndexFunc(next, func(t *v1.PlanTarget) bool { return t.GetFrom().AsTime().After(now) })
	if i < 0 {
		i = len(next)
	}
	if len(past) == 0 || i == 0 || past[len(past)-1].GetRunning() == next[i-1].GetRunning() || len(past)+len(next)-i >= maxPlanTargets {
		return nil
	}
	if last := past[len(past)-1].GetFrom().AsTime(); len(past) >= maxPlanTargets/2 && now.Sub(last) < targetPace {
		return nil
	}
	changed := proto.CloneOf(next[i-1])
	changed.From = timestamppb.New(now)
	return changed
}

// stillShort leaves a plan the shortfalls whose deadline is over, and of the others as many desktops as are on their way, and late.
func stillShort(plan *v1.Plan, over func(*timestamppb.Timestamp) bool) {
	late := map[time.Time]uint32{}
	for _, s := range plan.GetStarts() {
		sure := s.GetStartAt().AsTime().Add(plan.GetHosts()[s.GetHost()].GetQuantile().AsDuration())
		if over(s.GetStartAt()) && s.GetReady() == nil && sure.After(s.GetDeadline().AsTime()) {
			late[s.GetDeadline().AsTime()]++
		}
	}
	var kept []*v1.Shortfall
	for _, s := range plan.GetShortfalls() {
		if !over(s.GetDeadline()) {
			n := min(s.GetDesktops(), late[s.GetDeadline().AsTime()])
			if s.GetReady() == nil || n == 0 {
				continue
			}
			late[s.GetDeadline().AsTime()] -= n
			s = proto.CloneOf(s)
			s.Desktops = n
		}
		kept = append(kept, s)
	}
	plan.Shortfalls = kept
}

// supersedes says what a start that is planned now does to those of the seat whose time has come: whether it belongs beside
// them, and which it stands for. A start that did not happen, since nothing could start then, is planned again each time.
// What was to be ready in time stays as it was planned, once its deadline is over.
func supersedes(past []*v1.PlannedStart, start *v1.PlannedStart) (undone *v1.PlannedStart, belongs bool) {
	belongs = true
	for _, old := range past {
		same := proto.Equal(old.GetDeadline(), start.GetDeadline())
		switch {
		case proto.Equal(old.GetStartAt(), start.GetStartAt()):
			return nil, false
		case old.GetReady() != nil:
		case warmup.AtOnce(old) && warmup.AtOnce(start), same && !warmup.AtOnce(start):
			undone = old
		case same:
			belongs = false
		}
	}
	return undone, belongs
}

// inOrder puts starts in the order of time, in which they are looked for.
func inOrder(starts []*v1.PlannedStart) {
	slices.SortStableFunc(starts, func(a, b *v1.PlannedStart) int {
		return cmp.Or(a.GetStartAt().AsTime().Compare(b.GetStartAt().AsTime()), cmp.Compare(a.GetSeat(), b.GetSeat()))
	})
}

// place finds a host's place in a plan, or gives it one with what is assumed of it now.
func place(plan *v1.Plan, host *v1.PlanHost) uint32 {
	i := slices.IndexFunc(plan.GetHosts(), func(h *v1.PlanHost) bool { return h.GetName() == host.GetName() })
	if i < 0 {
		i = len(plan.GetHosts())
		plan.Hosts = append(plan.Hosts, host)
	}
	return uint32(i)
}
