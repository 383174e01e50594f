package hostagent_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

// looks makes a host count how often its VMs are listed.
func looks(cfg fakehost.Config, count *atomic.Int64) fakehost.Config {
	cfg.Fault = func(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
		if op == fakehost.OpDomains {
			count.Add(1)
		}
		return fakehost.Fault{}
	}
	return cfg
}

// The report that tells of a desktop's state tells what its host has in use since, without waiting for the next look.
func TestUseIsToldWithTheState(t *testing.T) {
	story(t, small(), func(r *rig) {
		in := func(what string, vms uint32, mib uint64, boots uint32) {
			t.Helper()
			if u := r.usage(); u.GetRunning() != vms || u.GetRunningMemoryMib() != mib || u.GetBootsInFlight() != boots {
				t.Errorf("%s: %d VMs with %d MiB, %d boot; want %d, %d, %d", what, u.GetRunning(), u.GetRunningMemoryMib(), u.GetBootsInFlight(), vms, mib, boots)
			}
		}
		var all []*v1.Assignment
		for i := range 3 {
			all = append(all, r.sized(fmt.Sprintf("office-%d", i), int64(7+i), 1024))
		}
		for i, a := range all {
			n := uint32(i + 1)
			r.plane.assign(a)
			r.awaitState(a, starting, time.Minute)
			in("it starts", n, 1024*uint64(n), 1)
			r.awaitState(a, ready, time.Minute)
			in("it is ready", n, 1024*uint64(n), 0)
		}
		r.plane.assign(desired(all[0], wantSuspended))
		r.awaitState(all[0], suspended, time.Minute)
		r.await("its memory is back", 2*time.Second, func() bool { return r.usage().GetRunning() == 2 && r.usage().GetRunningMemoryMib() == 2048 })
		r.plane.assign(all[0])
		r.awaitState(all[0], ready, time.Minute)
		in("it is awake", 3, 3072, 0)
		r.plane.assign(toBeDeleted(all[1]))
		r.awaitState(all[1], deleted, time.Minute)
		in("it has ended", 2, 2048, 0)
	})
}

// An idle host says no more than before, and many starts in a row take no more looks than the time would have had anyway.
func TestFreshUseIsCheap(t *testing.T) {
	var count atomic.Int64
	cfg := fakehost.Config{Hardware: hostagent.Hardware{CPUs: 8, MemoryMiB: 256 << 10}}
	story(t, looks(cfg, &count), func(r *rig) {
		var all []*v1.Assignment
		for i := range 100 {
			all = append(all, r.desktop(fmt.Sprintf("office-%d", i), int64(7+i)))
		}
		time.Sleep(time.Minute)
		began, before := time.Now(), count.Load()
		r.plane.assign(all...)
		for _, a := range all {
			r.awaitState(a, ready, time.Hour)
		}
		took, listed := time.Since(began), count.Load()-before
		t.Logf("100 starts took %s and %d looks", took, listed)
		if most := int64(took/(10*time.Second)) + 20; listed > most {
			t.Errorf("%d looks in %s, want at most %d", listed, took, most)
		}
		time.Sleep(5 * time.Minute)
		reports, before := r.plane.lastReport().GetSequence(), count.Load()
		time.Sleep(time.Minute)
		if said, listed := r.plane.lastReport().GetSequence()-reports, count.Load()-before; said > 60 || listed > 7 {
			t.Errorf("an idle host made %d reports and %d looks in a minute", said, listed)
		}
	})
}
