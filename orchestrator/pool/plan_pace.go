package pool

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// How often plans are made. One looks at all desktops and hosts, so that it is not made for nothing.
const (
	// planPause is how long at least lies between two plans.
	planPause = 5 * time.Second
	// planRest is how long a plan holds while desktops come and go as they do all day, and nothing starts soon.
	planRest = time.Minute
	// planStale is how long a plan holds when nothing changes.
	planStale = 10 * time.Minute
	// A start, or a deadline that will be missed, is near when a plan that is made planRest later could come too late for it.
	nearStart, nearShortfall = 3 * planRest, 15 * time.Minute
)

// urgency is how soon a change asks for another plan.
type urgency int

const (
	// never: plans are not made of it.
	never urgency = iota
	// inTime: what happens all day long, as users come and desktops get ready.
	inTime
	// atOnce: what people ask for, and hosts that come and go.
	atOnce
)

// pace says when the next plan is due. Its zero value is due at once.
type pace struct {
	mu    sync.Mutex
	asked urgency
	last  time.Time // a plan was made
	near  bool
	next  time.Time
}

// ask notes a change, and says whether the next plan may be due sooner for it.
func (p *pace) ask(u urgency) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u <= p.asked {
		return false
	}
	p.asked = u
	return true
}

// begin notes that a plan is made now, of all that changed before.
func (p *pace) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.asked = now, never
}

// foresee notes what the plan says of the time to come.
func (p *pace) foresee(near bool, next time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.near, p.next = near, next
}

// wait is how long it is until the next plan is due; 0 when it is.
func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	since := now.Sub(p.last)
	if p.last.IsZero() || since < 0 {
		return 0
	}
	pause := planStale
	switch {
	case p.asked == atOnce, p.asked == inTime && p.near:
		pause = planPause
	case p.asked == inTime:
		pause = planRest
	}
	if p.next.After(p.last) {
		pause = min(pause, max(p.next.Sub(p.last), planPause))
	}
	return max(0, pause-since)
}

// isNear: of a pool something starts soon or should already, or something will be missed soon.
func isNear(now time.Time, plan warmup.PoolPlan) bool {
	return slices.ContainsFunc(plan.Starts, func(s warmup.Start) bool { return !s.At.After(now.Add(nearStart)) }) ||
		slices.ContainsFunc(plan.Shortfalls, func(s warmup.Shortfall) bool {
			return s.Deadline.After(now) && !s.Deadline.After(now.Add(nearShortfall))
		})
}

// urgencyOf says how soon changes ask for another plan.
func urgencyOf(before, after *store.View, refs []store.Ref) urgency {
	if before == nil {
		return atOnce
	}
	most := never
	for _, ref := range refs {
		switch ref.Kind {
		case v1.Kind_KIND_CALENDAR, v1.Kind_KIND_IMAGE:
			return atOnce
		case v1.Kind_KIND_POOL:
			most = max(most, ofPool(before, after, ref.Name))
		case v1.Kind_KIND_HOST:
			most = max(most, ofHost(before, after, ref.Name))
		case v1.Kind_KIND_DESKTOP:
			most = max(most, ofDesktop(before, after, ref.Name))
		case v1.Kind_KIND_HISTORY:
			most = max(most, ofHistory(before, after, ref.Name))
		}
	}
	return most
}

// ofPool: what is counted of a pool does not matter, since its desktops tell.
func ofPool(before, after *store.View, name string) urgency {
	was, known := store.Lookup[*v1.Pool](before, name)
	is, still := store.Lookup[*v1.Pool](after, name)
	switch {
	case known != still, (was.GetMeta().GetDeletion() == nil) != (is.GetMeta().GetDeletion() == nil),
		!proto.Equal(was.GetSpec(), is.GetSpec()), !proto.Equal(was.GetRelease(), is.GetRelease()):
		return atOnce
	case !proto.Equal(was.GetStatus().GetHeldUntil(), is.GetStatus().GetHeldUntil()):
		return inTime
	}
	return never
}

// ofHost: of what is in use of a host, only how many boots it bears at once and what builds take matters at once.
func ofHost(before, after *store.View, name string) urgency {
	was, known := store.Lookup[*v1.Host](before, name)
	is, still := store.Lookup[*v1.Host](after, name)
	if known != still {
		return atOnce
	}
	a, b := was.GetStatus().GetUsage(), is.GetStatus().GetUsage()
	lasting := func(h *v1.Host) *v1.Host {
		status := proto.CloneOf(h.GetStatus())
		if status != nil {
			status.Usage, status.KeptDisks, status.Message = nil, nil, ""
		}
		return &v1.Host{Spec: h.GetSpec(), Status: status, Meta: &v1.Meta{Deletion: h.GetMeta().GetDeletion()}}
	}
	_, _, wasFull := room.StoreFull(was)
	_, _, isFull := room.StoreFull(is)
	switch {
	case wasFull != isFull, a.GetBootLimit() != b.GetBootLimit(), a.GetBuildMemoryMib() != b.GetBuildMemoryMib(), !proto.Equal(lasting(was), lasting(is)):
		return atOnce
	case a.GetStoreReadRate() != b.GetStoreReadRate():
		return inTime
	}
	return never
}

// ofDesktop: what its guest says of itself does not matter.
func ofDesktop(before, after *store.View, name string) urgency {
	was, known := store.Lookup[*v1.Desktop](before, name)
	is, still := store.Lookup[*v1.Desktop](after, name)
	switch {
	case known != still, store.State(was) != store.State(is), (was.GetClaim() == nil) != (is.GetClaim() == nil),
		(was.GetMeta().GetDeletion() == nil) != (is.GetMeta().GetDeletion() == nil),
		!proto.Equal(was.GetSpec(), is.GetSpec()), !proto.Equal(was.GetIncarnation(), is.GetIncarnation()):
		return inTime
	}
	return never
}

// ofHistory: the first starts that are known of a pool say far more than the limits that stood for them; of later ones a plan that is
// made for another reason learns soon enough.
func ofHistory(before, after *store.View, name string) urgency {
	was, _ := store.Lookup[*v1.History](before, name)
	is, _ := store.Lookup[*v1.History](after, name)
	if n := len(is.GetBoots()); n > len(was.GetBoots()) && n <= fewBoots {
		return atOnce
	}
	return never
}
