package main

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The run itself is checked with every event (pool.check). Here: that numbers are what they are called, and the same each time.
func TestCompare(t *testing.T) {
	small := options{weeks: 3, pools: 5, hosts: 6, seed: 3}
	r, err := compare(small)
	if err != nil {
		t.Fatal(err)
	}
	again, err := compare(small)
	if err != nil {
		t.Fatal(err)
	}
	r.CPUS, again.CPUS = 0, 0
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("the same seed, other numbers:\n%s", diff)
	}
	if r.MiddleSixth < 0.3 || r.MiddleSixth > 0.5 {
		t.Errorf("%.2f of the logons in the middle sixth of the opening hour", r.MiddleSixth)
	}
	rows := map[string]row{}
	for _, each := range r.Policies {
		rows[each.Policy] = each
		misses := float64(each.Claims) * (1 - each.HitRate)
		switch {
		case each.Claims != r.Policies[0].Claims || each.Claims == 0:
			t.Errorf("%s: %d claims", each.Policy, each.Claims)
		case each.HitRate > 1 || each.WorstPool > each.HitRate || float64(each.OpeningMisses) > misses+0.5:
			t.Errorf("%s: hits %v, in the worst pool %v, %d misses at the opening", each.Policy, each.HitRate, each.WorstPool, each.OpeningMisses)
		case each.HitRate < 1 && each.WaitMax == 0 || each.HitRate >= 0.99 && each.WaitP99 > 0:
			t.Errorf("%s: hits %v, waits up to %v, p99 %v", each.Policy, each.HitRate, each.WaitMax, each.WaitP99)
		}
	}
	if rows["learned"].IdleHours >= rows["open_100%"].IdleHours || rows["static_open"].IdleHours >= rows["static"].IdleHours {
		t.Errorf("idle: learned %v of %v, static_open %v of %v", rows["learned"].IdleHours, rows["open_100%"].IdleHours, rows["static_open"].IdleHours, rows["static"].IdleHours)
	}
}

// A pool with a desktop for everybody that never stops hits always, and idles whenever nobody holds one.
func TestStaticIsExact(t *testing.T) {
	w, err := newWorld(options{weeks: 1, pools: 1, hosts: 60, seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	h := w.pools[0]
	n := len(h.claims) + 1
	got := newEngine(w, w.pools, &static{n, around}, func(*house) int { return n }).run()[0]
	var used second
	for _, c := range h.claims {
		used += c.ends - c.begins + remaking
	}
	if got.hits != got.claims || len(got.waits) > 0 {
		t.Errorf("%d of %d hits", got.hits, got.claims)
	}
	// All were started in the first minutes, some of them in a second or third round.
	if want := second(n)*w.end() - used; got.idleSeconds > want || float64(got.idleSeconds) < 0.999*float64(want) {
		t.Errorf("idle for %d s, want a little less than %d", got.idleSeconds, want)
	}
}

// What a policy cannot know must not change what it does: the days to come are not in the history that it sees.
func TestHistoryIsOfThePast(t *testing.T) {
	w, err := newWorld(options{weeks: 2, pools: 1, hosts: 60, seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	before := newOurs(w, learnedSchedule())
	e := newEngine(w, w.pools, before, func(h *house) int { return h.seats })
	want := before.curve(e.pools[0], 8*day)
	h := w.pools[0]
	for _, d := range h.days[8:] {
		d.Claimed = slices.Repeat([]uint32{4000}, 288)
	}
	if diff := cmp.Diff(want, before.curve(e.pools[0], 8*day)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(w.pools[0].days) != 14 {
		t.Errorf("%d days", len(w.pools[0].days))
	}
}
