package warmup_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Digests of two versions of the image office, and of another image.
var v2, v1digest, other = strings.Repeat("2", 64), strings.Repeat("1", 64), strings.Repeat("f", 64)

func imageOf(digest string) string {
	switch digest {
	case v1digest, v2:
		return "office"
	case other:
		return "lab"
	}
	return ""
}

// took are samples of one kind, one a day.
func took(digest, class string, atOnce uint32, times ...time.Duration) []*v1.BootSample {
	return every(24*time.Hour, digest, class, atOnce, times...)
}

func every(apart time.Duration, digest, class string, atOnce uint32, times ...time.Duration) []*v1.BootSample {
	var all []*v1.BootSample
	for i, t := range times {
		all = append(all, &v1.BootSample{
			Digest: digest, HostClass: class, AtOnce: atOnce, Took: durationpb.New(t), Ready: timestamppb.New(open.Add(time.Duration(i) * apart)),
		})
	}
	return all
}

func times(n int, t time.Duration) []time.Duration {
	var all []time.Duration
	for range n {
		all = append(all, t)
	}
	return all
}

func TestEstimate(t *testing.T) {
	const s = time.Second
	boot := warmup.Boot{Image: "office", Digest: v2, Class: "a", AtOnce: 4}
	for _, row := range []struct {
		name           string
		samples        [][]*v1.BootSample
		mean, quantile time.Duration
		n              int
	}{
		{"nothing is known", nil, 300 * s, 300 * s, 0},
		{"another class is no help", [][]*v1.BootSample{took(v2, "b", 4, times(9, 20*s)...)}, 300 * s, 300 * s, 0},
		{"many alike", [][]*v1.BootSample{took(v2, "a", 4, times(100, 20*s)...)}, 20 * s, 20 * s, 100},
		{"one: a quarter of deviation more, and nearly twice, on the only day", [][]*v1.BootSample{took(v2, "a", 4, 20*s)}, 30804 * time.Millisecond, 46821 * time.Millisecond, 1},
		{"four", [][]*v1.BootSample{took(v2, "a", 4, times(4, 20*s)...)}, 23504 * time.Millisecond, 29250 * time.Millisecond, 4},
		{"25", [][]*v1.BootSample{took(v2, "a", 4, times(25, 20*s)...)}, 20 * s, 22 * s, 25},
		{"many of one day", [][]*v1.BootSample{every(9*time.Minute, v2, "a", 4, times(100, 20*s)...)}, 24643 * time.Millisecond, 24643 * time.Millisecond, 100},
		{"mornings of two days", [][]*v1.BootSample{every(9*time.Minute, v2, "a", 4, times(50, 20*s)...), every(31*time.Hour, v2, "a", 4, times(2, 20*s)...)}, 22143 * time.Millisecond, 22999 * time.Millisecond, 52},
		{"a large site's morning does not hide the days before", [][]*v1.BootSample{took(v2, "a", 4, times(14, 20*s)...), every(20*time.Second, v2, "a", 4, times(800, 20*s)...)}, 20 * s, 20 * s, 814},
		{"a month ago is gone by", [][]*v1.BootSample{took(v2, "a", 4, append(times(30, 90*s), times(600, 20*s)...)...)}, 20 * s, 20 * s, 512},
		{"the version before, when there are few", [][]*v1.BootSample{took(v2, "a", 4, times(4, 90*s)...), took(v1digest, "a", 4, times(96, 20*s)...)}, 0, 0, 100},
		{"another image", [][]*v1.BootSample{took(other, "a", 4, times(100, 20*s)...)}, 30 * s, 30 * s, 100},
		{"this version, although there are others", [][]*v1.BootSample{took(v2, "a", 4, times(100, 20*s)...), took(v1digest, "a", 4, times(100, 60*s)...)}, 20 * s, 20 * s, 100},
		{"in a greater crowd they take longer", [][]*v1.BootSample{took(v2, "a", 2, times(100, 20*s)...)}, 40 * s, 40 * s, 100},
		{"those of a greater crowd count when there are no others", [][]*v1.BootSample{took(v2, "a", 8, times(100, 20*s)...)}, 20 * s, 20 * s, 100},
		{"and do not when there are", [][]*v1.BootSample{took(v2, "a", 8, times(100, 90*s)...), took(v2, "a", 4, times(100, 20*s)...)}, 20 * s, 20 * s, 100},
		{"lone starts of the day say little of a morning's crowd", [][]*v1.BootSample{took(v2, "a", 1, times(300, 10*s)...), took(v2, "a", 4, times(100, 20*s)...)}, 20 * s, 20 * s, 100},
		{"they count when there are hardly others", [][]*v1.BootSample{took(v2, "a", 1, times(96, 20*s)...), took(v2, "a", 4, times(4, 20*s)...)}, 20 * s, 20 * s, 100},
		{"about as many are as good", [][]*v1.BootSample{took(v2, "a", 3, times(50, 20*s)...), took(v2, "a", 4, times(50, 20*s)...)}, 20 * s, 20 * s, 100},
		{"never longer than it may", [][]*v1.BootSample{took(v2, "a", 4, times(9, time.Hour)...)}, 300 * s, 300 * s, 9},
		{"a host that says nonsense", [][]*v1.BootSample{took(v2, "a", 4, -5*s, 0, time.Nanosecond)}, 300 * s, 300 * s, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := &v1.History{}
			for _, some := range row.samples {
				h.Boots = append(h.Boots, some...)
			}
			e := warmup.Learn([]*v1.History{h}, imageOf).Estimate(boot)
			if e.Samples != row.n || row.mean > 0 && (e.Mean.Round(time.Millisecond) != row.mean || e.Quantile.Round(time.Millisecond) != row.quantile) {
				t.Errorf("got mean %v, quantile %v from %d (%s); want %v, %v from %d", e.Mean, e.Quantile, e.Samples, e.From, row.mean, row.quantile, row.n)
			}
		})
	}
}

// One start that hung, or a host that lies, does not move the plan by more than its share.
func TestOutliers(t *testing.T) {
	samples := append(took(v2, "a", 4, times(199, 20*time.Second)...), took(v2, "a", 4, 2*time.Hour)...)
	e := warmup.Learn([]*v1.History{{Boots: samples}}, imageOf).Estimate(warmup.Boot{Image: "office", Digest: v2, Class: "a", AtOnce: 4, Readiness: 2 * time.Hour})
	if e.Mean > 21*time.Second || e.Quantile > 21*time.Second {
		t.Error(e)
	}
	few := append(took(v2, "a", 4, times(9, 20*time.Second)...), took(v2, "a", 4, 2*time.Hour)...)
	e = warmup.Learn([]*v1.History{{Boots: few}}, imageOf).Estimate(warmup.Boot{Image: "office", Digest: v2, Class: "a", AtOnce: 4, Readiness: 2 * time.Hour})
	if e.Quantile > 4*20*time.Second*13/10 {
		t.Error(e)
	}
}

// Whatever hosts say, an estimate is a time that a start may take, and the quantile is not below the mean.
func TestEstimatesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &v1.History{}
		for range rapid.IntRange(0, 300).Draw(t, "n") {
			h.Boots = append(h.Boots, &v1.BootSample{
				Digest: rapid.SampledFrom([]string{v1digest, v2, other, ""}).Draw(t, "digest"), HostClass: rapid.SampledFrom([]string{"a", "b", ""}).Draw(t, "class"),
				Took:   &durationpb.Duration{Seconds: rapid.Int64().Draw(t, "seconds"), Nanos: rapid.Int32().Draw(t, "nanos")},
				AtOnce: rapid.Uint32().Draw(t, "at once"), ReadBytes: rapid.Uint64().Draw(t, "bytes"),
			})
		}
		limit := time.Duration(rapid.Int64Range(-10, 7200).Draw(t, "limit")) * time.Second
		e := warmup.Learn([]*v1.History{h, nil}, imageOf).Estimate(warmup.Boot{
			Image: "office", Digest: v2, Class: "a", AtOnce: rapid.IntRange(-1, 1<<30).Draw(t, "of"), Readiness: limit,
		})
		if limit <= 0 {
			limit = 5 * time.Minute
		}
		if e.Mean <= 0 || e.Quantile < e.Mean || e.Quantile > limit || e.Deviation < 0 || e.ReadBytes > 1<<50 {
			t.Fatal(e, limit)
		}
	})
}

func TestHostClass(t *testing.T) {
	a := &v1.HostCapacity{Cpus: 64, MemoryMib: 256 << 10, Kvm: true, CpuModel: "EPYC 7543"}
	b := &v1.HostCapacity{Cpus: 64, MemoryMib: 256<<10 - 300, Kvm: true, CpuModel: "EPYC 7543"}
	if got, want := warmup.HostClass(a), "EPYC 7543 ×64, 256 GiB, KVM"; got != want || warmup.HostClass(b) != want {
		t.Error(got, warmup.HostClass(b))
	}
	if got := warmup.HostClass(&v1.HostCapacity{CpuModel: strings.Repeat("x", 300), Emulation: true}); len([]rune(got)) > 256 {
		t.Error(len(got), "characters")
	}
}

func TestBound(t *testing.T) {
	const s = time.Second
	for _, row := range []struct {
		starts int
		hosts  []warmup.Bulk
		want   time.Duration
		ok     bool
	}{
		{0, nil, 0, true},
		{1, nil, 0, false},
		{10, []warmup.Bulk{{Desktops: 10, Boots: 2, Mean: 20 * s}}, 100 * s, true},
		{20, []warmup.Bulk{{Desktops: 10, Boots: 2, Mean: 20 * s}, {Desktops: 10, Boots: 2, Mean: 20 * s}}, 100 * s, true},
		{10, []warmup.Bulk{{Desktops: 10, Boots: 2, Mean: 20 * s}, {Desktops: 10, Boots: 2, Mean: 20 * s}}, 50 * s, true},
		// The small host is done after 10 s; the other one has 9 left to start, one in 10 s.
		{11, []warmup.Bulk{{Desktops: 1, Boots: 1, Mean: 10 * s}, {Desktops: 10, Boots: 1, Mean: 10 * s}}, 100 * s, true},
		{12, []warmup.Bulk{{Desktops: 1, Boots: 1, Mean: 10 * s}, {Desktops: 10, Boots: 1, Mean: 10 * s}}, 0, false},
		// The store reads 1 MB/s, and a start 10.
		{10, []warmup.Bulk{{Desktops: 10, Boots: 10, Mean: 20 * s, ReadBytes: 10e6, ReadRate: 1e6}}, 100 * s, true},
	} {
		got, ok := warmup.Bound(row.starts, row.hosts)
		if ok != row.ok || (got-row.want).Abs() > time.Millisecond {
			t.Errorf("%d of %v: got %v, %v; want %v, %v", row.starts, row.hosts, got, ok, row.want, row.ok)
		}
	}
}

// A store that cannot read faster makes waves longer.
func TestReadRate(t *testing.T) {
	in := site(1, 4, 8, 8)
	in.Hosts[0].ReadRate = 10e6
	var boots []*v1.BootSample
	for _, b := range took(digest, "std", 4, times(100, 20*time.Second)...) {
		b.ReadBytes = 100e6
		boots = append(boots, b)
	}
	in.Model = warmup.Learn([]*v1.History{{Boots: boots}}, func(string) string { return "office" })
	out := warmup.Plan(at("06:00:00"), in)
	if got := starts(out); got["08:29:20"] != 4 || got["08:28:40"] != 4 {
		t.Error(got)
	}
}
