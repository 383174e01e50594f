package warmup_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// What a plan expects takes no longer than 1.1 times the fluid bound, which is of what starts take in truth. What being sure of it takes
// comes once, after that: nothing when all starts take as long.
func TestMakespanOfWaves(t *testing.T) {
	for _, kind := range kindsOfBoots() {
		for _, waves := range []int{1, 3, 5, 10, 20} {
			in := site(2, 4, 4*waves, 8*waves)
			in.Model = observed(300, 4, kind.boot)
			e := in.Model.Estimate(warmup.Boot{Image: "office", Digest: digest, Class: "std", AtOnce: 4})
			bulk := warmup.Bulk{Desktops: 4 * waves, Boots: 4, Mean: time.Duration(kind.mean * float64(time.Second))}
			bound, _ := warmup.Bound(8*waves, []warmup.Bulk{bulk, bulk})
			plan := warmup.Plan(at("00:00:00"), in).Pools[0]
			first, last := plan.Starts[0].At, plan.Starts[len(plan.Starts)-1].Expected
			t.Logf("%d waves of starts that are %s: %v planned, %v are the bound, %v before the opening", waves, kind.name, last.Sub(first), bound, open.Sub(first))
			if planned := last.Sub(first); float64(planned) > 1.1*float64(bound) || len(plan.Starts) != 8*waves {
				t.Errorf("%d waves of starts that are %s: %d starts in %v, with a bound of %v", waves, kind.name, len(plan.Starts), planned, bound)
			}
			margin := e.Quantile - e.Mean + time.Duration(float64(e.Deviation)*math.Sqrt(float64(waves-1)))
			if over := open.Sub(last) - margin; over.Abs() > time.Second {
				t.Errorf("%d waves of starts that are %s: done %v before the opening, with a margin of %v", waves, kind.name, open.Sub(last), margin)
			}
		}
	}
}

// kindOfBoots is how long starts take, in seconds: drawn, and on the average.
type kindOfBoots struct {
	name string
	boot func() float64
	mean float64
}

func kindsOfBoots() []kindOfBoots {
	random := rand.New(rand.NewPCG(1, 2))
	logNormal := func(median, sigma float64) kindOfBoots {
		return kindOfBoots{
			fmt.Sprintf("unlike by %v", sigma), func() float64 { return median * math.Exp(sigma*random.NormFloat64()) }, median * math.Exp(sigma*sigma/2),
		}
	}
	return []kindOfBoots{
		{"alike", func() float64 { return 20 }, 20},
		logNormal(20, 0.1),
		logNormal(40, 0.3),
		{"of all lengths", func() float64 { return 10 + 30*random.Float64() }, 25},
	}
}

// Boots take as long as they take; the host lets no more than its boots run at once. 99 of 100 are ready by the deadline, however many wait for
// each other, and whatever they differ by.
func TestReadyByTheDeadline(t *testing.T) {
	for _, kind := range kindsOfBoots() {
		allStarts, allLate := 0, 0
		for _, boots := range []int{2, 8} {
			for _, waves := range []int{1, 2, 4, 12} {
				total, late := 0, 0
				for total < 8000 {
					each := waves * boots
					in := site(1, boots, each, each)
					in.Model = observed(200, boots, kind.boot)
					plan := warmup.Plan(at("06:00:00"), in).Pools[0]
					total += len(plan.Starts)
					late += lateOf(plan, boots, kind.boot)
				}
				if float64(late) > 0.012*float64(total) {
					t.Errorf("%d waves of %d starts that are %s: %d of %d late", waves, boots, kind.name, late, total)
				}
				allStarts, allLate = allStarts+total, allLate+late
			}
		}
		if allLate*100 > allStarts {
			t.Errorf("starts that are %s: %d of %d late", kind.name, allLate, allStarts)
		}
	}
}

// observed is a model of so many starts, one a day.
func observed(n, atOnce int, boot func() float64) *warmup.Model {
	h := &v1.History{}
	for i := range n {
		h.Boots = append(h.Boots, &v1.BootSample{
			Digest: digest, HostClass: "std", Took: durationpb.New(time.Duration(boot() * float64(time.Second))), AtOnce: uint32(atOnce),
			Ready: timestamppb.New(open.AddDate(0, 0, i-n)),
		})
	}
	return warmup.Learn([]*v1.History{h}, func(string) string { return "office" })
}

// lateOf carries a plan of one host out, and counts the desktops that are ready after the deadline.
func lateOf(plan warmup.PoolPlan, boots int, boot func() float64) (late int) {
	free := make([]time.Time, boots)
	for _, s := range plan.Starts {
		slices.SortFunc(free, time.Time.Compare)
		free[0] = latest(s.At, free[0]).Add(time.Duration(boot() * float64(time.Second)))
		if free[0].After(open) {
			late++
		}
	}
	return late
}

// A row that grows after it was planned begins as much earlier as it needs, although hosts were told the rest of it before.
func TestAGrownRowIsAsSure(t *testing.T) {
	boot := kindsOfBoots()[2].boot
	in := site(1, 4, 48, 4)
	in.Model = observed(200, 4, boot)
	e := in.Model.Estimate(warmup.Boot{Image: "office", Digest: digest, Class: "std", AtOnce: 4})
	for minute, wanted := range []int{4, 8, 8, 48, 48, 48} {
		in.Pools[0].Targets[1].Running = wanted
		now := at("06:00:00").Add(time.Duration(minute) * time.Minute)
		out := warmup.Plan(now, in)
		follow(in, out, now)
		starts := out.Pools[0].Starts
		last := open.Add(-e.Quantile - time.Duration(float64(e.Deviation)*math.Sqrt(float64(wanted/4-1))))
		if at := starts[len(starts)-1].At; len(starts) != wanted || at.After(last.Add(2*time.Second)) {
			t.Errorf("with %d wanted %d start, the last at %v: want %v", wanted, len(starts), at, last)
		}
	}
}

// Where a start is not wanted any more, the earliest takes its place, and the others stay where they are.
func TestARowClosesUp(t *testing.T) {
	in := site(1, 3, 22, 11)
	other := in.Pools[0]
	other.Name, other.Seats = "hall", slices.Clone(in.Pools[0].Seats[11:])
	in.Pools[0].Seats = in.Pools[0].Seats[:11]
	for i := range other.Seats {
		other.Seats[i].Number = uint32(i + 1)
	}
	in.Pools = append(in.Pools, other)
	follow(in, warmup.Plan(at("06:00:00"), in), at("06:00:00"))
	in.Pools[1].Targets = []warmup.Target{other.Targets[0], {From: open, Running: 10}}
	first, moved := open, 0
	for n, p := range warmup.Plan(at("06:10:00"), in).Pools {
		for _, s := range p.Starts {
			if s.At.Before(first) {
				first = s.At
			}
			if !s.At.Equal(in.Pools[n].Seats[s.Seat-1].StartAt) {
				moved++
			}
		}
	}
	if first.Before(open.Add(-7*20*time.Second)) || moved > 1 {
		t.Errorf("21 starts in 3 places begin at %v, %d of them moved", first, moved)
	}
}
