package warmup_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// steadyModel: every start takes 10 s on hosts of class a, and 20 s on those of class b.
func steadyModel() *warmup.Model {
	h := &v1.History{}
	for i := range 240 {
		took := time.Duration(i%2+1) * 10 * time.Second
		h.Boots = append(h.Boots, &v1.BootSample{
			Digest: digest, HostClass: classes[i%2], Took: durationpb.New(took), AtOnce: 64, Ready: timestamppb.New(open.Add(time.Duration(i-2000) * 3 * time.Hour)),
		})
	}
	return warmup.Learn([]*v1.History{h}, func(string) string { return "office" })
}

// place is where a boot may run.
type place struct {
	host int
	took time.Duration
}

// leastIdle tries every way to deal deadlines out to the places of hosts, each place working backwards from its last deadline, and returns the
// least time that desktops run and wait together before their deadlines.
func leastIdle(deadlines []time.Time, places []place, seats []int) time.Duration {
	best := time.Duration(1 << 62)
	given := make([][]time.Time, len(places))
	var deal func(n int)
	deal = func(n int) {
		if n == len(deadlines) {
			total := time.Duration(0)
			for i, due := range given {
				var next time.Time
				for _, d := range slices.Backward(due) {
					at := d.Add(-places[i].took)
					if latest := next.Add(-places[i].took); !next.IsZero() && latest.Before(at) {
						at = latest
					}
					total += d.Sub(at.Add(places[i].took))
					next = at
				}
			}
			best = min(best, total)
			return
		}
		for i, p := range places {
			if seats[p.host] == 0 {
				continue
			}
			seats[p.host]--
			given[i] = append(given[i], deadlines[n])
			deal(n + 1)
			given[i] = given[i][:len(given[i])-1]
			seats[p.host]++
		}
	}
	deal(0)
	return best
}

// In small cases, a plan for one deadline leaves desktops waiting for no longer than the best plan there is. With many deadlines that are nearer to
// each other than boots take, it is no more than a boot for each desktop.
func TestAsFewAsPossibleAreEarly(t *testing.T) {
	model := steadyModel()
	rapid.Check(t, func(t *rapid.T) {
		in := warmup.Input{Until: open.Add(time.Hour), Model: model}
		p := warmup.Pool{Name: "counter", Image: "office", Digest: digest, MemoryMiB: 1, VCPUs: 1, Targets: []warmup.Target{{From: open.Add(-24 * time.Hour)}}}
		single := rapid.Bool().Draw(t, "one deadline")
		var places []place
		var seats []int
		for h := range rapid.IntRange(1, 2).Draw(t, "hosts") {
			class, boots := rapid.IntRange(0, 1).Draw(t, "class"), rapid.IntRange(1, 2).Draw(t, "boots")
			in.Hosts = append(in.Hosts, warmup.Host{Name: fmt.Sprint("kvm", h), Class: classes[class], Boots: boots, MemoryMiB: 100, VCPUs: 100})
			for range boots {
				places = append(places, place{h, time.Duration(class+1) * 10 * time.Second})
			}
			seats = append(seats, rapid.IntRange(1, 4).Draw(t, "seats"))
			for range seats[h] {
				p.Seats = append(p.Seats, warmup.Seat{Number: uint32(len(p.Seats)), Host: in.Hosts[h].Name})
			}
		}
		var deadlines []time.Time
		at := open
		for len(deadlines) < min(6, len(p.Seats)) {
			for range rapid.IntRange(1, 3).Draw(t, "more") {
				if len(deadlines) < min(6, len(p.Seats)) {
					deadlines = append(deadlines, at)
				}
			}
			if last := len(p.Targets) - 1; p.Targets[last].From.Equal(at) {
				p.Targets[last].Running = len(deadlines)
			} else {
				p.Targets = append(p.Targets, warmup.Target{From: at, Running: len(deadlines)})
			}
			if !single {
				at = at.Add(time.Duration(rapid.IntRange(1, 60).Draw(t, "after")) * time.Second)
			}
		}
		in.Pools = []warmup.Pool{p}
		plan := warmup.Plan(open.Add(-12*time.Hour), in).Pools[0]
		if len(plan.Shortfalls) > 0 {
			t.Fatal(plan.Shortfalls)
		}
		idle := time.Duration(0)
		for _, s := range plan.Starts {
			idle += s.Deadline.Sub(s.Expected)
		}
		best := leastIdle(deadlines, places, seats)
		allowed := time.Duration(0)
		if !single {
			allowed = time.Duration(len(plan.Starts)) * 20 * time.Second
		}
		if idle > best+allowed {
			t.Fatalf("desktops wait %v, and could wait %v: %v", idle, best, plan.Starts)
		}
	})
}
