package warmup_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"daybreak/orchestrator/warmup"
)

// A plan takes longer than the fluid bound by what being sure of it takes, and by nothing else: with starts that all take as long it is the bound,
// and with starts that differ the margin of one start and of its waves is all there is.
func TestMakespanOfWaves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var varied []time.Duration
	for range 128 {
		varied = append(varied, time.Duration(40*math.Exp(0.2*random.NormFloat64())*float64(time.Second)))
	}
	for _, waves := range []int{1, 3, 5, 10, 20} {
		for name, model := range map[string]*warmup.Model{"equal": learned(20 * time.Second), "varied": learned(varied...)} {
			in := site(2, 4, 4*waves, 8*waves)
			in.Model = model
			e := model.Estimate(warmup.Boot{Image: "office", Digest: digest, Class: "std", AtOnce: 4})
			bound, _ := warmup.Bound(8*waves, []warmup.Bulk{{Desktops: 4 * waves, Boots: 4, Mean: e.Mean}, {Desktops: 4 * waves, Boots: 4, Mean: e.Mean}})
			plan := warmup.Plan(at("00:00:00"), in).Pools[0]
			makespan := open.Sub(plan.Starts[0].At)
			margin := e.Quantile - e.Mean + time.Duration(float64(e.Deviation)*math.Sqrt(float64(waves-1)/4))
			if over := makespan - bound - margin; over.Abs() > time.Second || len(plan.Starts) != 8*waves {
				t.Errorf("%d waves of starts that are %s: %d starts in %v, with a bound of %v and a margin of %v", waves, name, len(plan.Starts), makespan, bound, margin)
			}
		}
	}
}
