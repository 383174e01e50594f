package warmup_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// classes of hosts, on which starts take 10, 20 … seconds, and some of them half as long again.
var classes = []string{"a", "b", "c"}

func modelOfClasses() *warmup.Model {
	h := &v1.History{}
	for i, class := range classes {
		for n := range 150 {
			took := time.Duration(i+1) * 10 * time.Second
			if n%20 == 0 {
				took += took / 2
			}
			h.Boots = append(h.Boots, &v1.BootSample{
				Digest: digest, HostClass: class, Took: durationpb.New(took), AtOnce: 64, Ready: timestamppb.New(open.Add(time.Duration(n-2000) * time.Minute)),
			})
		}
	}
	return warmup.Learn([]*v1.History{h}, func(string) string { return "office" })
}

var classModel = modelOfClasses()

// anyInput is some site early in the morning. steady: targets only rise, and nothing runs.
func anyInput(t *rapid.T, now time.Time, steady bool) warmup.Input {
	in := warmup.Input{Until: now.Add(36 * time.Hour), Model: classModel}
	for h := range rapid.IntRange(1, 5).Draw(t, "hosts") {
		in.Hosts = append(in.Hosts, warmup.Host{
			Name: fmt.Sprintf("kvm%d", h), Class: rapid.SampledFrom(classes).Draw(t, "class"), Boots: rapid.IntRange(0, 4).Draw(t, "boots"),
			MemoryMiB: 1024 * rapid.Int64Range(0, 40).Draw(t, "memory"), VCPUs: rapid.Int64Range(0, 60).Draw(t, "vcpus"),
		})
	}
	for n := range rapid.IntRange(1, 3).Draw(t, "pools") {
		p := warmup.Pool{
			Name: fmt.Sprintf("pool%d", n), Image: "office", Digest: digest, VCPUs: 1, MemoryMiB: 1024 * rapid.Int64Range(1, 3).Draw(t, "size"),
		}
		seats := rapid.IntRange(0, 30).Draw(t, "seats")
		for i := range seats {
			s := warmup.Seat{Number: uint32(i + 1), Host: in.Hosts[rapid.IntRange(0, len(in.Hosts)-1).Draw(t, "host")].Name}
			switch rapid.IntRange(0, 9).Draw(t, "phase") {
			case 0:
				s.Host = ""
			case 1:
				s.Phase = warmup.Ready
				s.Claimed = rapid.Bool().Draw(t, "claimed")
			case 2:
				s.Phase, s.StartAt = warmup.Starting, now.Add(-time.Duration(rapid.IntRange(0, 30).Draw(t, "ago"))*time.Second)
			case 3:
				s.StartAt = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "in")) * time.Second)
			}
			if steady {
				s.Phase, s.StartAt = warmup.Cold, time.Time{}
			}
			if s.Phase != warmup.Cold { // what runs has room
				for h := range in.Hosts {
					if in.Hosts[h].Name == s.Host {
						in.Hosts[h].MemoryMiB += p.MemoryMiB
						in.Hosts[h].VCPUs += p.VCPUs
					}
				}
			}
			p.Seats = append(p.Seats, s)
		}
		from, target := now.Add(-time.Hour), 0
		for range rapid.IntRange(1, 6).Draw(t, "steps") {
			if steady {
				target = rapid.IntRange(target, max(target, seats)).Draw(t, "target")
			} else {
				target = rapid.IntRange(0, seats+3).Draw(t, "target")
			}
			p.Targets = append(p.Targets, warmup.Target{From: from, Running: target})
			from = from.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "after")) * time.Minute)
		}
		in.Pools = append(in.Pools, p)
	}
	return in
}

func TestPlansHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at("06:00:00")
		in := anyInput(t, now, false)
		out := warmup.Plan(now, in)
		if diff := cmp.Diff(out, warmup.Plan(now, in)); diff != "" {
			t.Fatal("another time, another plan:", diff)
		}
		for n, p := range out.Pools {
			first, seats := map[uint32]bool{}, map[uint32]warmup.Seat{}
			for _, s := range in.Pools[n].Seats {
				seats[s.Number] = s
			}
			for _, s := range p.Starts {
				if s.At.Before(now) && !s.Fixed {
					t.Fatal("a start before now:", s)
				}
				if s.First && first[s.Seat] {
					t.Fatal("a cold seat starts twice:", s)
				}
				first[s.Seat] = first[s.Seat] || s.First
				if host := seats[s.Seat].Host; host != "" && host != s.Host {
					t.Fatal("a seat moved:", s, host)
				}
				if s.Fixed && !s.At.Equal(seats[s.Seat].StartAt) {
					t.Fatal("a start that is near was moved:", s)
				}
			}
		}
		memory, vcpus := warmup.Free(now, in)
		for _, h := range in.Hosts {
			if roomy := memory[h.Name] >= 0 && vcpus[h.Name] >= 0; !roomy && h.MemoryMiB >= 0 && !hasNear(in, h.Name) {
				t.Fatal("more is promised than", h.Name, "has:", memory, vcpus)
			}
			if n := boots(now, in, out, h.Name); n > max(1, h.Boots) {
				t.Fatal(n, "boots at once on", h)
			}
		}
	})
}

// hasNear: a start that was set before is on its way to the host, whether it has room or not.
func hasNear(in warmup.Input, host string) bool {
	for _, p := range in.Pools {
		if slices.ContainsFunc(p.Seats, func(s warmup.Seat) bool { return s.Host == host && s.Phase == warmup.Cold && !s.StartAt.IsZero() }) {
			return true
		}
	}
	return false
}

// boots are the most that a plan ever has at once on a host. Starts that were set before are not its doing. Starts are written in whole
// seconds, and read again, so one counts from two seconds later.
func boots(now time.Time, in warmup.Input, out warmup.Output, host string) int {
	type edge struct {
		at time.Time
		by int
	}
	var edges []edge
	for _, p := range out.Pools {
		for _, s := range p.Starts {
			if s.Host == host && !s.Fixed {
				edges = append(edges, edge{s.At.Add(2 * time.Second), 1}, edge{s.Expected, -1})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return max(-1, min(1, a.at.Compare(b.at)*2+a.by)) })
	most, n := 0, 0
	for _, e := range edges {
		n += e.by
		most = max(most, n)
	}
	return most
}

// Everything that is wanted starts in time, or is told.
func TestWhatIsMissingIsTold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at("06:00:00")
		in := anyInput(t, now, true)
		for n, p := range warmup.Plan(now, in).Pools {
			wanted := in.Pools[n].Targets[len(in.Pools[n].Targets)-1].Running
			late, never := 0, 0
			for _, s := range p.Shortfalls {
				if s.Ready.IsZero() {
					never = s.Desktops // as targets only rise, it is all that were missing before, too
				} else {
					late += s.Desktops
				}
				if s.Reason == "" || s.Desktops == 0 {
					t.Fatal("a shortfall that says nothing:", s)
				}
			}
			if len(p.Starts)+never != wanted {
				t.Fatalf("%d wanted, %d starts and %d never", wanted, len(p.Starts), never)
			}
			missed := 0
			for _, s := range p.Starts {
				if s.Late() > 0 {
					missed++
				}
			}
			if missed != late {
				t.Fatalf("%d are late and %d are told", missed, late)
			}
		}
	})
}

// Whatever the hosts, a plan takes no longer than the fluid bound and the longest of its starts, by what it expects of them, but for margins that differ
// from host to host; what makes it sure comes after that: the margin of one start, and of those before it. The same holds from now on when
// the deadline is over.
func TestMakespan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var bulk []warmup.Bulk
		in := warmup.Input{Until: open.Add(time.Hour), Model: classModel}
		p := warmup.Pool{Name: "counter", Image: "office", Digest: digest, MemoryMiB: 1, VCPUs: 1}
		slowest, margin, least := time.Duration(0), time.Duration(0), time.Hour
		for h := range rapid.IntRange(1, 8).Draw(t, "hosts") {
			class := rapid.IntRange(0, len(classes)-1).Draw(t, "class")
			host := warmup.Host{
				Name: fmt.Sprintf("kvm%d", h), Class: classes[class], Boots: rapid.IntRange(1, 6).Draw(t, "boots"), MemoryMiB: 1e6, VCPUs: 1e6,
			}
			in.Hosts = append(in.Hosts, host)
			e := classModel.Estimate(warmup.Boot{Image: "office", Digest: digest, Class: host.Class, AtOnce: host.Boots})
			seats := rapid.IntRange(0, 100).Draw(t, "seats")
			for range seats {
				p.Seats = append(p.Seats, warmup.Seat{Number: uint32(len(p.Seats)), Host: host.Name})
			}
			bulk = append(bulk, warmup.Bulk{Desktops: seats, Boots: host.Boots, Mean: e.Mean})
			slowest = max(slowest, e.Mean)
			before := float64(max(0, seats-1) / host.Boots)
			margin = max(margin, e.Quantile-e.Mean+time.Duration(float64(e.Deviation)*math.Sqrt(before)))
			least = min(least, e.Quantile-e.Mean)
		}
		target := rapid.IntRange(0, len(p.Seats)).Draw(t, "target")
		p.Targets = []warmup.Target{{From: open, Running: target}}
		if early := rapid.Bool().Draw(t, "in time"); early {
			p.Targets = []warmup.Target{{From: open.Add(-24 * time.Hour)}, {From: open, Running: target}}
		}
		in.Pools = []warmup.Pool{p}
		bound, ok := warmup.Bound(target, bulk)
		if !ok || target == 0 {
			return
		}
		for _, now := range []time.Time{open.Add(-12 * time.Hour), open.Add(time.Minute)} {
			plan := warmup.Plan(now, in).Pools[0]
			if len(plan.Starts) != target {
				t.Fatal(len(plan.Starts), "starts for", target)
			}
			first, last, sure := plan.Starts[0].At, time.Time{}, open
			for _, s := range plan.Starts {
				last, sure = latest(last, s.Expected), latest(sure, s.Sure)
			}
			if now.After(open) {
				first = now
			}
			if planned := last.Sub(first); planned > bound+slowest+margin-least+time.Second {
				t.Fatalf("a planned makespan of %v, with a bound of %v, and starts of %v", planned, bound, slowest)
			}
			if lead := sure.Sub(first); lead > bound+slowest+margin+time.Second {
				t.Fatalf("surely done in %v, with a bound of %v, starts of %v, and a margin of %v", lead, bound, slowest, margin)
			}
		}
	})
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
