package warmup_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"daybreak/orchestrator/warmup"
)

// calm makes a site with plenty of memory, and targets that lie hours ahead, in steps of five minutes, as demand is counted.
func calm(in warmup.Input, now time.Time) warmup.Input {
	for i := range in.Hosts {
		in.Hosts[i].MemoryMiB, in.Hosts[i].VCPUs = 1e6, 1e6
	}
	for i := range in.Pools {
		p := &in.Pools[i]
		for j := range p.Targets {
			p.Targets[j].From = p.Targets[j].From.Add(3 * time.Hour).Truncate(5 * time.Minute)
			if j > 0 {
				p.Targets[j].From = latest(p.Targets[j].From, p.Targets[j-1].From.Add(5*time.Minute))
			}
		}
		p.Targets = slices.Insert(p.Targets, 0, warmup.Target{From: now.Add(-time.Hour)})
	}
	return in
}

// follow writes a plan's first starts on the seats, and on no others, places those that have no host, and tells when the next of them comes.
func follow(in warmup.Input, out warmup.Output, now time.Time) (next time.Time) {
	for n, p := range out.Pools {
		for i := range in.Pools[n].Seats {
			if seat := &in.Pools[n].Seats[i]; seat.Phase == warmup.Cold {
				seat.StartAt, seat.For = time.Time{}, time.Time{}
			}
		}
		for _, s := range p.Starts {
			seat := &in.Pools[n].Seats[s.Seat-1]
			if s.First && seat.Phase == warmup.Cold {
				seat.Host, seat.StartAt, seat.For = s.Host, s.At, s.Deadline
			}
			if s.At.After(now) && (next.IsZero() || s.At.Before(next)) {
				next = s.At
			}
		}
	}
	return next
}

// The same facts a minute later give the same starts. That a seat was placed is another fact: while some have no host, each pool is
// given what is best for itself, and once they have one, places come free that are better for others. So the next plans may differ
// then; none is worse, and soon they are the same.
func TestTheSameFacts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at("06:00:00")
		in := calm(anyInput(t, now, true), now)
		differ := 0
		if slices.ContainsFunc(in.Pools, hasUnplaced) {
			differ = 3
		}
		before := warmup.Plan(now, in)
		for {
			follow(in, before, now)
			now = now.Add(time.Minute)
			after := warmup.Plan(now, in)
			diff := ""
			for n, p := range after.Pools {
				// Which of two deadlines a start that meets both is for makes no difference.
				diff += cmp.Diff(before.Pools[n].Starts, p.Starts, cmpopts.IgnoreFields(warmup.Start{}, "Deadline"))
			}
			if diff == "" {
				return
			}
			if differ--; differ < 0 || isWorse(after, before) {
				t.Fatal(diff)
			}
			before = after
		}
	})
}

func hasUnplaced(p warmup.Pool) bool {
	return slices.ContainsFunc(p.Seats, func(s warmup.Seat) bool { return s.Host == "" })
}

// isWorse: a plan starts fewer than another, more of them late, or all of them earlier by more than starts are rounded.
func isWorse(plan, other warmup.Output) bool {
	count := func(out warmup.Output) (starts, late int, early time.Duration) {
		for _, p := range out.Pools {
			for _, s := range p.Starts {
				starts++
				early += s.Deadline.Sub(s.Sure)
				if s.Late() > 0 {
					late++
				}
			}
		}
		return starts, late, early
	}
	starts, late, early := count(plan)
	otherStarts, otherLate, otherEarly := count(other)
	return starts < otherStarts || late > otherLate || early > otherEarly+time.Duration(starts)*time.Second
}

// While one wave after another begins before an opening, the others stay where they are.
func TestWavesBegin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := at("06:00:00")
		in := calm(anyInput(t, now, true), now)
		for i := range in.Pools {
			targets := in.Pools[i].Targets
			in.Pools[i].Targets = []warmup.Target{targets[0], {From: open, Running: targets[len(targets)-1].Running}}
		}
		next := follow(in, warmup.Plan(now, in), now)
		for range 10 {
			if next.IsZero() {
				return
			}
			now = next.Add(time.Duration(rapid.IntRange(-70, 300).Draw(t, "seconds")) * time.Second)
			for n := range in.Pools {
				for i := range in.Pools[n].Seats {
					seat := &in.Pools[n].Seats[i]
					switch class := in.Hosts[hostOf(in, *seat)].Class; {
					case seat.StartAt.IsZero() || seat.StartAt.After(now):
					case seat.StartAt.Add(meanOf(class)).Before(now):
						seat.Phase = warmup.Ready
					default:
						seat.Phase = warmup.Starting
					}
				}
			}
			out := warmup.Plan(now, in)
			for n, p := range out.Pools {
				for _, s := range p.Starts {
					if was := in.Pools[n].Seats[s.Seat-1].StartAt; was.Sub(s.At).Abs() > 30*time.Second {
						t.Fatalf("at %v, seat %d of %s moved from %v to %v", now, s.Seat, p.Name, was, s.At)
					}
				}
			}
			if next = follow(in, out, now); now.After(at("20:00:00")) {
				return
			}
		}
	})
}

func hostOf(in warmup.Input, s warmup.Seat) int {
	return max(0, slices.IndexFunc(in.Hosts, func(h warmup.Host) bool { return h.Name == s.Host }))
}

func meanOf(class string) time.Duration {
	return classModel.Estimate(warmup.Boot{Image: "office", Digest: digest, Class: class, AtOnce: 1}).Mean
}
