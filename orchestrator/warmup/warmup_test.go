package warmup_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

const digest = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// open is a Tuesday, 08:30 in Tokyo.
var open = time.Date(2026, 11, 24, 8, 30, 0, 0, time.FixedZone("JST", 9*3600))

// learned is a model of which every start took so long.
func learned(took ...time.Duration) *warmup.Model {
	h := &v1.History{}
	for i := range 128 {
		h.Boots = append(h.Boots, &v1.BootSample{
			Digest: digest, HostClass: "std", Took: durationpb.New(took[i%len(took)]), AtOnce: 64, Ready: timestamppb.New(open.Add(time.Duration(i-2000) * 3 * time.Hour)),
		})
	}
	return warmup.Learn([]*v1.History{h}, func(string) string { return "office" })
}

// site is so many hosts with places for boots, and one pool with so many cold desktops on each, wanted at the opening.
func site(hosts, boots, each, target int) warmup.Input {
	in := warmup.Input{Until: open.Add(24 * time.Hour), Model: learned(20 * time.Second)}
	p := warmup.Pool{
		Name: "counter", Image: "office", Digest: digest, MemoryMiB: 1024, VCPUs: 1,
		Targets: []warmup.Target{{From: open.Add(-24 * time.Hour)}, {From: open, Running: target}},
	}
	for h := range hosts {
		in.Hosts = append(in.Hosts, warmup.Host{
			Name: fmt.Sprintf("kvm%03d", h), Class: "std", Boots: boots, MemoryMiB: int64(each) * 1024, VCPUs: int64(each),
		})
		for range each {
			p.Seats = append(p.Seats, warmup.Seat{Number: uint32(len(p.Seats) + 1), Host: in.Hosts[h].Name})
		}
	}
	in.Pools = []warmup.Pool{p}
	return in
}

func at(clock string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04:05", "2026-11-24 "+clock, open.Location())
	if err != nil {
		panic(err)
	}
	return t
}

// starts are the times of the first pool's starts, and how many start then.
func starts(out warmup.Output) map[string]int {
	n := map[string]int{}
	for _, s := range out.Pools[0].Starts {
		n[s.At.In(open.Location()).Format("15:04:05")]++
	}
	return n
}

func TestWavesBeforeTheDeadline(t *testing.T) {
	out := warmup.Plan(at("06:00:00"), site(2, 4, 10, 20))
	want := map[string]int{"08:29:40": 8, "08:29:20": 8, "08:29:00": 4}
	if diff := cmp.Diff(want, starts(out)); diff != "" {
		t.Error(diff)
	}
	if short := out.Pools[0].Shortfalls; len(short) > 0 {
		t.Error(short)
	}
	if last := out.Pools[0].Ready[len(out.Pools[0].Ready)-1]; last.Count != 20 || !last.At.Equal(open) {
		t.Error(last)
	}
}

func TestTooLate(t *testing.T) {
	out := warmup.Plan(at("08:29:30"), site(2, 4, 10, 20))
	want := map[string]int{"08:29:30": 8, "08:29:50": 8, "08:30:10": 4}
	if diff := cmp.Diff(want, starts(out)); diff != "" {
		t.Error(diff)
	}
	short := out.Pools[0].Shortfalls
	if len(short) != 1 || short[0].Desktops != 12 || !short[0].Ready.Equal(at("08:30:30")) {
		t.Error(short)
	}
}

func TestNoRoom(t *testing.T) {
	in := site(2, 4, 10, 20)
	in.Hosts[1].MemoryMiB = 3 * 1024
	out := warmup.Plan(at("06:00:00"), in)
	want := []warmup.Shortfall{{Deadline: open, Desktops: 7, Reason: "the hosts of 7 cold desktops have no memory free: one needs 1024 MiB, and kvm001, which has most, has 0 MiB"}}
	if diff := cmp.Diff(want, out.Pools[0].Shortfalls); diff != "" {
		t.Error(diff)
	}
	if len(out.Pools[0].Starts) != 13 {
		t.Error(len(out.Pools[0].Starts))
	}
}

// A host that starts nothing gets no starts, also none that it had in the plan before, and the plan says why.
func TestClosedHost(t *testing.T) {
	in := site(2, 4, 10, 20)
	in.Hosts[1].Closed = "has 0 MiB of its store free"
	for i := range in.Pools[0].Seats {
		in.Pools[0].Seats[i].StartAt = at("08:20:00").Add(time.Duration(i) * 20 * time.Second)
	}
	out := warmup.Plan(at("06:00:00"), in)
	want := []warmup.Shortfall{{Deadline: open, Desktops: 10, Reason: "the hosts of 10 cold desktops start nothing: kvm001 has 0 MiB of its store free"}}
	if diff := cmp.Diff(want, out.Pools[0].Shortfalls); diff != "" {
		t.Error(diff)
	}
	for _, s := range out.Pools[0].Starts {
		if s.Host != "kvm000" {
			t.Errorf("seat %d starts on %s", s.Seat, s.Host)
		}
	}
	for i := range in.Pools[0].Seats { // those without a place go where something starts
		in.Pools[0].Seats[i].Host, in.Pools[0].Seats[i].StartAt = "", time.Time{}
	}
	in.Hosts[0].MemoryMiB = 20 * 1024
	in.Hosts[0].VCPUs = 20
	if out := warmup.Plan(at("06:00:00"), in); len(out.Pools[0].Starts) != 20 || len(out.Pools[0].Shortfalls) != 0 {
		t.Error(len(out.Pools[0].Starts), out.Pools[0].Shortfalls)
	}
}

func TestTheDayGoesOn(t *testing.T) {
	in := site(2, 4, 10, 20)
	in.Pools[0].Targets = append(in.Pools[0].Targets, warmup.Target{From: open.Add(4 * time.Hour), Running: 5}, warmup.Target{From: open.Add(8 * time.Hour), Running: 12})
	out := warmup.Plan(at("06:00:00"), in)
	if n := len(out.Pools[0].Starts); n != 27 {
		t.Error(n, "starts")
	}
	first := 0
	for _, s := range out.Pools[0].Starts {
		if s.First {
			first++
		}
	}
	if first != 20 {
		t.Error(first, "first starts")
	}
	if last := out.Pools[0].Ready[len(out.Pools[0].Ready)-1]; last.Count != 12 {
		t.Error(last)
	}
}

// Starts that are said to have taken for ever are not believed beyond the deadline for readiness, and never wrap around to
// nothing.
func TestEndlessStarts(t *testing.T) {
	for _, took := range []time.Duration{1 << 62, 1<<63 - 1} {
		for _, boot := range []warmup.Boot{
			{Image: "office", Digest: digest, Class: "std", AtOnce: 4096, Readiness: time.Minute},
			{Image: "other", Digest: "b", Class: "std", AtOnce: 1, Readiness: time.Minute},
		} {
			if got := learned(took).Estimate(boot); got.Mean != time.Minute || got.Quantile != time.Minute {
				t.Errorf("starts that took %v: %+v", took, got)
			}
		}
	}
}

// A shortfall says in numbers why it is one.
func TestWhyShort(t *testing.T) {
	for _, row := range []struct {
		name, want string
		now        time.Time
		edit       func(*warmup.Input)
	}{
		{"too little time", "30s are left for 20 desktops on 2 hosts, 8 at once; a start takes 20s (99 of 100 at most 20s)", at("08:29:30"), nil},
		{"over", "the deadline was over when this was planned: 20 desktops on 2 hosts, 8 at once; a start takes 20s", at("08:40:00"), nil},
		{"no image", "nothing can start on kvm001 before 08:45:00 JST, when the image is there and the desktop is prepared", at("06:00:00"), func(in *warmup.Input) {
			in.Hosts[1].Images = map[string]time.Time{digest: at("08:45:00")}
		}},
		{"memory comes back too late", "kvm000 has no room before 08:31:00 JST, when other desktops have ended there", at("06:00:00"), func(in *warmup.Input) {
			in.Hosts = in.Hosts[:1]
			night := warmup.Pool{Name: "night", Image: "office", Digest: digest, MemoryMiB: 10 * 1024, VCPUs: 1, Targets: []warmup.Target{{From: at("00:00:00"), Running: 1}, {From: open}}}
			night.Seats = []warmup.Seat{{Number: 1, Host: in.Hosts[0].Name, Phase: warmup.Ready}}
			in.Hosts[0].VCPUs = 100
			in.Pools[0].Seats, in.Pools[0].Targets[1].Running = in.Pools[0].Seats[:10], 10
			in.Pools = append(in.Pools, night)
		}},
		{"seats are lost", "all 20 desktops that can be used are taken, and 3 cannot be used (failed)", at("06:00:00"), func(in *warmup.Input) {
			in.Pools[0].Targets[1].Running, in.Pools[0].Lost, in.Pools[0].LostWhy = 23, 3, "failed"
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			in := site(2, 4, 10, 20)
			if row.edit != nil {
				row.edit(&in)
			}
			short := warmup.Plan(row.now, in).Pools[0].Shortfalls
			if len(short) != 1 || !strings.HasPrefix(short[0].Reason, row.want) {
				t.Errorf("got %v, want %q", short, row.want)
			}
		})
	}
}

// Pools that want more than there is get equal shares of what they want.
func TestFairness(t *testing.T) {
	in := site(2, 4, 20, 40)
	for i := range in.Hosts {
		in.Hosts[i].MemoryMiB = 15 * 1024
	}
	small := in.Pools[0]
	small.Name, small.Targets = "small", []warmup.Target{in.Pools[0].Targets[0], {From: open, Running: 20}}
	in.Pools = append(in.Pools, small)
	out := warmup.Plan(at("06:00:00"), in)
	if a, b := len(out.Pools[0].Starts), len(out.Pools[1].Starts); a != 20 || b != 10 {
		t.Errorf("%d of 40 and %d of 20", a, b)
	}
}
