package warmup

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// Points is how a plan looks over time: what should run, what is ready by the plan, and what was, up to until (nothing was, in a
// dry run: then it is zero). Desktops that stand as it begins are taken to be ready all the time; when the target
// falls, so does what is ready, unless it rises again within DefaultKeep.
func Points(plan *v1.Plan, until time.Time) []*v1.PlanPoint {
	targets := plan.GetTargets()
	var planned, actual []arrival
	var moments []time.Time
	for _, s := range plan.GetStarts() {
		planned = append(planned, arrival{s.GetSeat(), s.GetStartAt().AsTime().Add(hostOf(plan, s).GetMean().AsDuration())})
		if ready := s.GetReady(); ready != nil && !ready.AsTime().After(until) {
			actual = append(actual, arrival{s.GetSeat(), ready.AsTime()})
		}
	}
	for _, a := range slices.Concat(planned, actual) {
		moments = append(moments, a.at)
	}
	for _, t := range targets {
		moments = append(moments, t.GetFrom().AsTime())
	}
	if !until.IsZero() && len(moments) > 0 {
		moments = append(moments, until)
	}
	slices.SortFunc(moments, time.Time.Compare)
	moments = slices.CompactFunc(moments, time.Time.Equal)
	byPlan, were := newFollower(plan, planned), newFollower(plan, actual)
	var points []*v1.PlanPoint
	step := 0
	for _, at := range moments {
		for step+1 < len(targets) && !targets[step+1].GetFrom().AsTime().After(at) {
			step++
		}
		var wanted, most int
		if len(targets) > 0 {
			wanted, most = int(targets[step].GetRunning()), mostUntil(targets[step:], at.Add(DefaultKeep))
		}
		point := &v1.PlanPoint{At: timestamppb.New(at), Wanted: uint32(wanted), Planned: uint32(byPlan.at(at, most))}
		if ready := were.at(at, most); !at.After(until) {
			point.Ready = uint32(ready)
		}
		if n := len(points); n > 0 && !at.Equal(until) && points[n-1].GetWanted() == point.GetWanted() &&
			points[n-1].GetPlanned() == point.GetPlanned() && points[n-1].GetReady() == point.GetReady() {
			continue
		}
		points = append(points, point)
	}
	return points
}

// arrival is a desktop that gets ready.
type arrival struct {
	seat uint32
	at   time.Time
}

// follower counts desktops that get ready one by one, each once, and are cooled when fewer are wanted.
type follower struct {
	standing int             // ready from the beginning on; which ones is not known
	up       map[uint32]bool // got ready since
	coming   []arrival
	most     int
	begun    bool
}

func newFollower(plan *v1.Plan, coming []arrival) follower {
	slices.SortFunc(coming, func(a, b arrival) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.seat, b.seat)) })
	return follower{standing: baseOf(plan), up: map[uint32]bool{}, coming: coming}
}

func (f *follower) count() int { return f.standing + len(f.up) }

func (f *follower) at(t time.Time, most int) int {
	for len(f.coming) > 0 && !f.coming[0].at.After(t) {
		if seat := f.coming[0].seat; !f.up[seat] {
			f.up[seat] = true
			if f.standing > 0 && f.count() > most {
				f.standing-- // it was one of them, and began anew
			}
		}
		f.coming = f.coming[1:]
	}
	if f.begun && most < f.most {
		f.cool(most)
	}
	f.begun, f.most = true, most
	return f.count()
}

// cool leaves so many: those go that will come again, then those that stood, then the others.
func (f *follower) cool(most int) {
	again := map[uint32]bool{}
	for _, a := range f.coming {
		again[a.seat] = true
	}
	seats := slices.SortedFunc(maps.Keys(f.up), func(a, b uint32) int { return cmp.Compare(b, a) })
	for _, seat := range seats {
		if again[seat] && f.count() > most {
			delete(f.up, seat)
		}
	}
	f.standing -= min(f.standing, max(0, f.count()-most))
	for _, seat := range seats {
		if f.count() > most {
			delete(f.up, seat)
		}
	}
}

func mostUntil(targets []*v1.PlanTarget, until time.Time) int {
	most := uint32(0)
	for i, t := range targets {
		if i > 0 && t.GetFrom().AsTime().After(until) {
			break
		}
		most = max(most, t.GetRunning())
	}
	return int(most)
}

// baseOf is how many desktops run when the plan begins. In plans that do not say, it is what should, less those that the plan starts for it, or cannot.
func baseOf(plan *v1.Plan) int {
	if plan.Standing != nil {
		return int(plan.GetStanding())
	}
	if len(plan.GetTargets()) == 0 {
		return 0
	}
	first := plan.GetTargets()[0]
	base := int(first.GetRunning())
	for _, s := range plan.GetStarts() {
		if !s.GetDeadline().AsTime().After(first.GetFrom().AsTime()) {
			base--
		}
	}
	missing := 0
	for _, s := range plan.GetShortfalls() {
		if s.GetReady() == nil && !s.GetDeadline().AsTime().After(first.GetFrom().AsTime()) {
			missing = int(s.GetDesktops()) // those of the deadline before are among them, as far as they still are
		}
	}
	return max(0, base-missing)
}

func hostOf(plan *v1.Plan, s *v1.PlannedStart) *v1.PlanHost {
	if hosts := plan.GetHosts(); int(s.GetHost()) < len(hosts) {
		return hosts[s.GetHost()]
	}
	return nil
}

// Wave is starts of one host that follow each other closely.
type Wave struct {
	Host        *v1.PlanHost
	First, Last time.Time
	Starts      int
	// Expected is when the last of them is ready on the average, Sure when 99 of 100 are.
	Expected, Sure time.Time
	Deadline       time.Time
	// Ready of the starts were, the last of them at LastReady.
	Ready     int
	LastReady time.Time
}

// Waves puts the starts of a plan together by deadline and host.
func Waves(plan *v1.Plan) []Wave {
	type key struct {
		deadline time.Time
		host     uint32
	}
	places := map[key]int{}
	var waves []Wave
	for _, s := range plan.GetStarts() {
		k := key{s.GetDeadline().AsTime(), s.GetHost()}
		i, ok := places[k]
		if !ok {
			i = len(waves)
			places[k] = i
			waves = append(waves, Wave{Host: hostOf(plan, s), First: s.GetStartAt().AsTime(), Deadline: k.deadline})
		}
		w, at := &waves[i], s.GetStartAt().AsTime()
		w.First, w.Last = sooner(w.First, at), later(w.Last, at)
		w.Starts++
		w.Expected = later(w.Expected, at.Add(w.Host.GetMean().AsDuration()))
		w.Sure = later(w.Sure, at.Add(w.Host.GetQuantile().AsDuration()))
		if ready := s.GetReady(); ready != nil {
			w.Ready++
			w.LastReady = later(w.LastReady, ready.AsTime())
		}
	}
	slices.SortStableFunc(waves, func(a, b Wave) int {
		return cmp.Or(a.Deadline.Compare(b.Deadline), a.First.Compare(b.First), cmp.Compare(a.Host.GetName(), b.Host.GetName()))
	})
	return waves
}
