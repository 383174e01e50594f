package warmup

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// Points is how a plan looks over time: what should run, what is ready by the plan, and what was, up to until (nothing was, in a
// dry run: then it is zero). Desktops that the plan does not start are taken to be ready all the time; when the target
// falls, so does what is ready, unless it rises again within DefaultKeep.
func Points(plan *v1.Plan, until time.Time) []*v1.PlanPoint {
	targets := plan.GetTargets()
	var planned, actual []time.Time
	for _, s := range plan.GetStarts() {
		planned = append(planned, s.GetStartAt().AsTime().Add(hostOf(plan, s).GetMean().AsDuration()))
		if ready := s.GetReady(); ready != nil && !ready.AsTime().After(until) {
			actual = append(actual, ready.AsTime())
		}
	}
	moments := slices.Concat(planned, actual)
	for _, t := range targets {
		moments = append(moments, t.GetFrom().AsTime())
	}
	if !until.IsZero() && len(moments) > 0 {
		moments = append(moments, until)
	}
	slices.SortFunc(moments, time.Time.Compare)
	moments = slices.CompactFunc(moments, time.Time.Equal)
	slices.SortFunc(planned, time.Time.Compare)
	slices.SortFunc(actual, time.Time.Compare)
	base := baseOf(plan)
	byPlan, were := follower{count: base, ups: planned}, follower{count: base, ups: actual}
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

// follower counts desktops that get ready one by one, and are cooled when fewer are wanted.
type follower struct {
	count int
	ups   []time.Time
	most  int
	begun bool
}

func (f *follower) at(t time.Time, most int) int {
	for len(f.ups) > 0 && !f.ups[0].After(t) {
		f.count++
		f.ups = f.ups[1:]
	}
	if f.begun && most < f.most {
		f.count = min(f.count, most)
	}
	f.begun, f.most = true, most
	return max(0, f.count)
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

// baseOf is how many desktops run when the plan begins: what should, less those that the plan starts for it, or cannot.
func baseOf(plan *v1.Plan) int {
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
