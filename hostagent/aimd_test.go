package hostagent

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// knee is a host in virtual time whose VMs get ready faster together up to a knee, and slower beyond it.
type knee struct {
	cpus, most, at int
	// fall is by how much of itself the ready rate of the whole host sinks for each boot beyond the knee.
	fall float64
	// alone is how long a boot takes that has the host to itself.
	alone time.Duration
	// pressure is what k boots at once press.
	pressure func(k int) bearing
	// silent: the kernel tells nothing of that.
	silent bool
}

// rate is how many get ready each second when k boot at once.
func (h knee) rate(k int) float64 {
	if k == 0 {
		return 0
	}
	return float64(min(k, h.at)) / h.alone.Seconds() / (1 + h.fall*float64(max(0, k-h.at)))
}

const tick = 200 * time.Millisecond

// makespan boots n VMs, as many at once as limit says, and says how long that took and what the limit was at the end. A limit of 0
// leaves it to a governor.
func (h knee) makespan(n, limit int) (time.Duration, []int) {
	g := newGovernor(h.most, h.cpus)
	var limits []int
	if limit > 0 {
		g.control.limit, g.control.most = limit, limit
	}
	now, done, average := noon, 0, bearing{known: !h.silent}
	progress := map[lifeKey]float64{}
	waiting := make([]lifeKey, n)
	for i := range waiting {
		waiting[i] = lifeKey{uid: fmt.Sprint(i), generation: int64(i + 1)}
	}
	for step := 0; done < n; step++ {
		if limit > 0 {
			g.control.limit = limit
		}
		for more := true; more && len(waiting) > 0; {
			if more, _ = g.ask(now, waiting[0], need{due: noon}, func() {}); more {
				progress[waiting[0]] = 0
				waiting = waiting[1:]
			}
		}
		now = now.Add(tick)
		k := len(progress)
		weight := 1 - math.Exp(-tick.Seconds()/10)
		var p bearing
		if !h.silent {
			p = h.pressure(k)
		}
		average.cpu += weight * (p.cpu - average.cpu)
		average.memory += weight * (p.memory - average.memory)
		average.io += weight * (p.io - average.io)
		if limit == 0 && step%25 == 0 {
			g.bear(now, average)
			limits = append(limits, g.control.limit)
		}
		for key := range progress {
			if progress[key] += h.rate(k) / float64(k) * tick.Seconds(); progress[key] >= 1 {
				delete(progress, key)
				g.release(now, key, true)
				done++
			}
		}
	}
	return now.Sub(noon), limits
}

func calmly(int) bearing { return bearing{} }

// cpuBound presses on the CPUs as soon as more boot than there are.
func cpuBound(cpus int) func(int) bearing {
	return func(k int) bearing { return bearing{cpu: 100 * (1 - math.Min(1, float64(cpus)/float64(max(k, 1))))} }
}

// The governor does not know the knee, and comes near to whoever does.
func TestGovernorFindsTheKnee(t *testing.T) {
	for name, c := range map[string]struct {
		host   knee
		within float64
	}{
		"knee below the CPUs, falling": {knee{cpus: 16, most: 16, at: 4, fall: 0.1, pressure: func(k int) bearing { return bearing{io: min(100, 20*float64(k))} }}, 1.25},
		"knee at the CPUs, flat":       {knee{cpus: 8, most: 32, at: 8, pressure: cpuBound(8)}, 1.1},
		"knee at the CPUs, falling":    {knee{cpus: 8, most: 32, at: 8, fall: 0.05, pressure: cpuBound(8)}, 1.1},
		// One more a round: from 4 to 16 takes twelve rounds, and 200 boots are no more than that.
		"knee above the CPUs, no pressure":   {knee{cpus: 4, most: 32, at: 16, pressure: calmly}, 1.45},
		"knee above the CPUs, then it falls": {knee{cpus: 4, most: 32, at: 12, fall: 0.2, pressure: calmly}, 1.25},
		"memory thrashes beyond the knee": {knee{cpus: 16, most: 16, at: 6, fall: 0.3, pressure: func(k int) bearing {
			return bearing{memory: 15 * float64(max(0, k-6))}
		}}, 1.4},
		"two CPUs under emulation":                             {knee{cpus: 2, most: 2, at: 2, pressure: func(int) bearing { return bearing{cpu: 95} }}, 1.02},
		"two CPUs under emulation, reading a disk":             {knee{cpus: 2, most: 2, at: 2, pressure: func(int) bearing { return bearing{cpu: 95, io: 90} }}, 1.02},
		"knee below the CPUs, falling, no pressure told":       {knee{cpus: 16, most: 16, at: 4, fall: 0.1, silent: true}, 1.35},
		"knee at the CPUs, flat, no pressure told":             {knee{cpus: 8, most: 32, at: 8, silent: true}, 1.25},
		"knee at the CPUs, falling, no pressure told":          {knee{cpus: 8, most: 32, at: 8, fall: 0.05, silent: true}, 1.25},
		"knee above the CPUs, then it falls, no pressure told": {knee{cpus: 4, most: 32, at: 12, fall: 0.2, silent: true}, 1.4},
		"two CPUs, no pressure told":                           {knee{cpus: 2, most: 2, at: 2, silent: true}, 1.02},
		"two CPUs, and somebody thought of sixteen":            {knee{cpus: 2, most: 16, at: 2, fall: 0.2, pressure: cpuBound(2)}, 1.1},
	} {
		t.Run(name, func(t *testing.T) {
			c.host.alone = 20 * time.Second
			const n = 200
			best, bestLimit := time.Duration(math.MaxInt64), 0
			for limit := 1; limit <= c.host.most; limit++ {
				if took, _ := c.host.makespan(n, limit); took < best {
					best, bestLimit = took, limit
				}
			}
			all, _ := c.host.makespan(n, c.host.most)
			got, limits := c.host.makespan(n, 0)
			ratio := got.Seconds() / best.Seconds()
			t.Logf("%v, %.2f of the best (%v with %d at once); all at once %v; limits %v", got, ratio, best, bestLimit, all, limits)
			if ratio > c.within {
				t.Errorf("%.2f times the best of all fixed limits, want at most %.2f", ratio, c.within)
			}
		})
	}
}

// A small host that is busy with others' work is not left with one boot at a time.
func TestASmallBusyHostIsNotLeftWithOne(t *testing.T) {
	c := newControl(2, 2)
	busy := bearing{known: true, cpu: 99, io: 70}
	now := noon.Add(time.Minute)
	c = c.press(now, bearing{known: true, memory: 40})
	if c.limit != 1 {
		t.Fatalf("limit %d after memory lacked", c.limit)
	}
	for c.limit == 1 {
		now = now.Add(20 * time.Second)
		c = c.boots(now, 1, true).ready(now.Add(time.Second), busy).ready(now.Add(20*time.Second), busy)
		if now.Sub(noon) > 10*time.Minute {
			t.Fatal("one at a time for ever")
		}
	}
	for range 100 {
		now = now.Add(20 * time.Second)
		c = c.press(now, busy).boots(now, 2, true)
		for i := range 4 {
			c = c.ready(now.Add(time.Duration(i+1)*5*time.Second), busy)
		}
		if c.limit != 2 {
			t.Fatalf("limit %d for being busy", c.limit)
		}
	}
}

// Whatever it is told, the limit stays within its bounds, and nothing but lack of memory or a worse rate than one known makes it
// smaller where there is a CPU for each.
func TestControlStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newControl(rapid.IntRange(1, 64).Draw(t, "most"), rapid.IntRange(1, 64).Draw(t, "cpus"))
		now := noon
		for range rapid.IntRange(1, 200).Draw(t, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30_000).Draw(t, "pause")) * time.Millisecond)
			percent := rapid.Float64Range(0, 100)
			b := bearing{known: rapid.Bool().Draw(t, "known"), cpu: percent.Draw(t, "cpu"), memory: percent.Draw(t, "memory"), io: percent.Draw(t, "io")}
			before := c
			switch rapid.IntRange(0, 2).Draw(t, "event") {
			case 0:
				c = c.boots(now, rapid.IntRange(0, 70).Draw(t, "in flight"), rapid.Bool().Draw(t, "wanted"))
			case 1:
				c = c.press(now, b)
			default:
				c = c.ready(now, b)
			}
			switch {
			case c.limit < minBoots || c.limit > c.most:
				t.Fatalf("limit %d of at most %d", c.limit, c.most)
			case c.limit > before.limit+1 && before.bestLimit != c.limit:
				t.Fatalf("the limit leapt from %d to %d", before.limit, c.limit)
			case c.limit < before.limit && !b.known && before.best == 0 && before.limit <= 2:
				t.Fatal("the limit fell for what nobody measured")
			case c.limit < before.limit && b.known && b.memory < memoryThrash && before.best == 0 && !before.overfull(b):
				t.Fatalf("the limit fell from %d to %d although there was nothing to compare with: %+v", before.limit, c.limit, b)
			case c.limit < before.limit && c.limit < before.limit/2:
				t.Fatalf("more than halved: %d to %d", before.limit, c.limit)
			}
		}
	})
}
