package pool

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// horizon is how far ahead schedules are read and plans are made; curves that are remembered reach curveSlack further.
const (
	horizon    = 48 * time.Hour
	curveSlack = 6 * time.Hour
)

// DemandOf is what a pool's curve is made of.
func DemandOf(view *store.View, pool *v1.Pool) demand.Pool {
	p := demand.Pool{Spec: pool.GetSpec(), TimeToReady: readinessDeadline(pool)}
	p.History, _ = store.Lookup[*v1.History](view, pool.GetMeta().GetName())
	p.Calendar = calendarOf(view, pool) // without it all seats are wanted: one that cannot be read must not leave people without desktops
	if p.History != nil {
		p.TimeToReady = timeToReady(view, pool, p.History)
	}
	return p
}

// timeToReady is how long starts of the pool take, by its own history, nearly always.
func timeToReady(view *store.View, pool *v1.Pool, history *v1.History) time.Duration {
	model := warmup.Learn([]*v1.History{history}, imagesOf(view))
	longest := time.Duration(0)
	for _, class := range classes(view, pool, history) {
		estimate := model.Estimate(warmup.Boot{
			Image: pool.GetSpec().GetImage(), Digest: digestOf(view, pool), Class: class, Readiness: readinessDeadline(pool),
		})
		longest = max(longest, estimate.Quantile)
	}
	if longest == 0 {
		return readinessDeadline(pool)
	}
	return longest
}

// classes are those that a history knows starts on and that hosts have on which the pool's desktops may start, whether those are well just
// now or not; all that it knows when there is no such host. They are in the order of the history.
func classes(view *store.View, pool *v1.Pool, history *v1.History) []string {
	here := map[string]bool{}
	for _, host := range store.All[*v1.Host](view) {
		if slices.Contains(host.GetStatus().GetZones(), pool.GetSpec().GetZone()) && !host.GetSpec().GetUnschedulable() && host.GetMeta().GetDeletion() == nil {
			here[warmup.HostClass(host.GetStatus().GetCapacity())] = true
		}
	}
	var known, usable []string
	for _, boot := range history.GetBoots() {
		class := boot.GetHostClass()
		if slices.Contains(known, class) {
			continue
		}
		known = append(known, class)
		if here[class] {
			usable = append(usable, class)
		}
	}
	if len(usable) == 0 {
		return known
	}
	return usable
}

func readinessDeadline(pool *v1.Pool) time.Duration {
	return readiness(pool.GetSpec().GetReadiness()).GetDeadline().AsDuration()
}

// digestOf is that of the version which the pool's next lives run; "" when there is none.
func digestOf(view *store.View, pool *v1.Pool) string {
	image, _ := store.Lookup[*v1.Image](view, pool.GetSpec().GetImage())
	number := pool.GetRelease().GetVersion()
	if number == 0 {
		number = image.GetStatus().GetCurrent()
	}
	return store.Version(image, number).GetDigest()
}

// imagesOf finds the image that a version's digest belongs to.
func imagesOf(view *store.View) func(digest string) string {
	names := map[string]string{}
	for _, image := range store.All[*v1.Image](view) {
		for _, version := range image.GetStatus().GetVersions() {
			names[version.GetDigest()] = image.GetMeta().GetName()
		}
	}
	return func(digest string) string { return names[digest] }
}

func lookupIn(view *store.View) calendar.Lookup {
	return func(name string) (*v1.Calendar, error) {
		found, ok := store.Lookup[*v1.Calendar](view, name)
		if !ok {
			return nil, fmt.Errorf("calendar %q: %w", name, calendar.ErrNoParent)
		}
		return found, nil
	}
}

// calendars are the one that the pool follows and those that it inherits from; none when it cannot be read.
func calendars(view *store.View, pool *v1.Pool) []*v1.Calendar {
	own, ok := store.Lookup[*v1.Calendar](view, pool.GetSpec().GetCalendar())
	if !ok {
		return nil
	}
	line, err := calendar.Line(own, lookupIn(view))
	if err != nil {
		return nil
	}
	return line
}

// calendarOf is the pool's calendar with all that it inherits; nil when it has none, or when that cannot be read.
func calendarOf(view *store.View, pool *v1.Pool) *calendar.Resolved {
	line := calendars(view, pool)
	if len(line) == 0 {
		return nil
	}
	resolved, err := calendar.Resolve(line[0], lookupIn(view))
	if err != nil {
		return nil
	}
	return resolved
}

// addDay puts in a snapshot what the day of its pool asks for.
func (s *Snapshot) addDay(view *store.View, now time.Time, known *curves) {
	s.Curve = known.get(view, s.Pool, now)
	sleeps := func(d *v1.Desktop) bool {
		return isCold(now, d) || store.State(d) == v1.DesktopState_DESKTOP_STATE_SUSPENDED
	}
	waits := someoneWaits(now, s.Desktops, view)
	if s.Curve == nil && !waits && !slices.ContainsFunc(s.Desktops, sleeps) {
		return // nothing waits or is woken, and nothing is to be cooled
	}
	s.Rooms = sync.OnceValue(func() []*room.Host { return known.rooms.Of(view) })
	if waits {
		s.Yields = yields(now, s.Rooms(), neighboursIn(view))
	}
	s.Plans = plansOf(view, s.Pool)
}

// plansOf returns the plans of a pool.
func plansOf(view *store.View, pool *v1.Pool) []*v1.Plan {
	var plans []*v1.Plan
	for _, plan := range store.All[*v1.Plan](view) {
		if plan.GetPool() == pool.GetMeta().GetName() {
			plans = append(plans, plan)
		}
	}
	return plans
}
