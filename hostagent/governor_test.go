package hostagent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRoom(t *testing.T) {
	enough := room{memoryMiB: 8000, promisedMiB: 4000, availableMiB: 4000, availableKnown: true, storeBytes: 5 << 30, storeFloor: 1 << 30, storeKnown: true}
	for name, c := range map[string]struct {
		change func(*room)
		why    string
		never  bool
	}{
		"enough":                       {change: func(*room) {}},
		"just enough":                  {change: func(r *room) { r.promisedMiB, r.availableMiB = 6000, 2000 }},
		"promised":                     {change: func(r *room) { r.promisedMiB = 6001 }, why: "promised to what runs"},
		"taken by others":              {change: func(r *room) { r.availableMiB = 1999 }, why: "other programs"},
		"the kernel does not say":      {change: func(r *room) { r.availableMiB, r.availableKnown = 0, false }},
		"never":                        {change: func(r *room) { r.memoryMiB = 1999 }, why: "this host has 1999 for desktops", never: true},
		"the store is about full":      {change: func(r *room) { r.storeBytes = 1<<30 - 1 }, why: "less than 1024 MiB of this host's store"},
		"nobody knows about the store": {change: func(r *room) { r.storeBytes, r.storeKnown = 0, false }},
	} {
		r := enough
		c.change(&r)
		if why, never := r.lacks(2000); (why == "") != (c.why == "") || !strings.Contains(why, c.why) || never != c.never {
			t.Errorf("%s: %q, %v", name, why, never)
		}
	}
	for _, c := range []struct{ said, memory, want uint64 }{{0, 16384, 1024}, {0, 1024, 256}, {512, 16384, 512}} {
		if got := reservedMiB(c.said, c.memory); got != c.want {
			t.Errorf("%d said of %d: %d, want %d", c.said, c.memory, got, c.want)
		}
	}
}

// host8000 is a host with 8000 MiB for desktops, of which some are taken.
func host8000(taken *uint64) *governor {
	g := newGovernor(4, 4)
	g.room = func(held map[lifeKey]uint64) room {
		r := room{memoryMiB: 8000, promisedMiB: *taken}
		for _, mib := range held {
			r.promisedMiB += mib
		}
		return r
	}
	return g
}

func TestTheSmallOvertakeTheLargeForAWhile(t *testing.T) {
	taken := uint64(5000)
	g := host8000(&taken)
	key := func(name string) lifeKey { return lifeKey{uid: name, generation: 1} }
	ask := func(name string, after time.Duration, mib uint64) (bool, string) {
		due := map[string]time.Time{"huge": noon, "large": noon.Add(time.Second), "small": noon.Add(time.Minute), "late": noon.Add(2 * time.Minute)}[name]
		return g.ask(noon.Add(after), key(name), need{due: due, mib: mib}, func() {})
	}
	if ok, why := ask("huge", 0, 9000); ok || !strings.Contains(why, "this host has 8000") {
		t.Errorf("what never fits: %v, %q", ok, why)
	}
	if ok, why := ask("large", 0, 4000); ok || !strings.Contains(why, "promised") {
		t.Errorf("what does not fit now: %v, %q", ok, why)
	}
	if ok, why := ask("small", overtake-1, 1000); !ok {
		t.Errorf("what fits does not start: %q", why)
	}
	if ok, why := ask("late", overtake, 1000); ok || why != "waits until one that was due earlier has found room" {
		t.Errorf("it may wait for ever behind later ones: %v, %q", ok, why)
	}
	if got := g.heldBack(); !strings.HasPrefix(got, "2 desktops wait: waits for memory: it takes 9000 MiB") {
		t.Errorf("held back: %q", got)
	}
	taken = 3000
	g.release(noon.Add(overtake), key("small"), true)
	if ok, why := ask("large", overtake+time.Second, 4000); !ok {
		t.Errorf("with room: %q", why)
	}
	if ok, why := ask("late", overtake+time.Second, 1000); !ok {
		t.Errorf("behind it: %q", why)
	}
}

// However they come and go: no more is promised than there is, and whoever fits at all starts in the end.
func TestNobodyStarves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		taken := uint64(0)
		g := host8000(&taken)
		now := noon
		type life struct {
			need
			key   lifeKey
			ready time.Time
		}
		var waiting, running []life
		next := int64(0)
		arrive := func(mib uint64) {
			next++
			waiting = append(waiting, life{need: need{due: now, mib: mib}, key: lifeKey{uid: fmt.Sprint(next), generation: next}})
		}
		large := lifeKey{}
		for round := 0; round < 600; round++ {
			now = now.Add(5 * time.Second)
			if round == 30 {
				arrive(6000)
				large = waiting[len(waiting)-1].key
			}
			if len(waiting) < 20 {
				arrive(uint64(rapid.SampledFrom([]int{500, 1000, 2000}).Draw(t, "mib")))
			}
			running = slices.DeleteFunc(running, func(l life) bool {
				if now.Before(l.ready) {
					return false
				}
				g.release(now, l.key, true)
				return true
			})
			for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}).Draw(t, "order") {
				if i >= len(waiting) || waiting[i].key.uid == "" {
					continue
				}
				if ok, _ := g.ask(now, waiting[i].key, waiting[i].need, func() {}); ok {
					if waiting[i].key == large {
						return
					}
					waiting[i].ready = now.Add(time.Duration(10+rapid.IntRange(0, 60).Draw(t, "boot")) * time.Second)
					running = append(running, waiting[i])
					waiting[i].key.uid = ""
				}
			}
			waiting = slices.DeleteFunc(waiting, func(l life) bool { return l.key.uid == "" })
			sum := uint64(0)
			for _, l := range running {
				sum += l.mib
			}
			if sum > 8000 || len(running) > 4 {
				t.Fatalf("%d MiB in %d boots at once", sum, len(running))
			}
		}
		t.Fatal("the large one waits for ever")
	})
}
