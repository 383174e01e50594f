package hostagent

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"daybreak/images"
)

func everyone(int) bool { return true }

func seedsOf(hosts []string) []uint64 {
	var seeds []uint64
	for _, host := range hosts {
		seeds = append(seeds, seedOf(host))
	}
	return seeds
}

func chunkNumber(i int) images.Digest {
	return images.Sum([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
}

// Whoever knows the same hosts names the same owner, and a host that comes or goes moves only what it gets or had.
func TestOwners(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}[0-9]{0,3}`), 2, 20, rapid.ID[string]).Draw(t, "hosts")
		slices.Sort(hosts)
		gone := rapid.IntRange(0, len(hosts)-1).Draw(t, "gone")
		fewer := slices.Delete(slices.Clone(hosts), gone, gone+1)
		seeds, fewerSeeds := seedsOf(hosts), seedsOf(fewer)
		for i := range 100 {
			chunk := chunkNumber(i + rapid.IntRange(0, 1000).Draw(t, "chunk"))
			all := ranked(seeds, chunk, len(hosts), everyone)
			if len(all) != len(hosts) || len(slices.Compact(slices.Sorted(slices.Values(all)))) != len(hosts) {
				t.Fatalf("%d hosts ranked as %v", len(hosts), all)
			}
			for n := 1; n <= len(hosts); n++ {
				if best := ranked(seeds, chunk, n, everyone); !slices.Equal(best, all[:n]) {
					t.Fatalf("the best %d are %v, of all they are %v", n, best, all[:n])
				}
			}
			before := slices.DeleteFunc(slices.Clone(all), func(h int) bool { return h == gone })
			for at, h := range ranked(fewerSeeds, chunk, len(fewer), everyone) {
				if fewer[h] != hosts[before[at]] {
					t.Fatalf("without %s the order of the others changed", hosts[gone])
				}
			}
			left := ranked(seeds, chunk, 1, func(h int) bool { return h != gone })
			if hosts[left[0]] != hosts[before[0]] {
				t.Fatalf("leaving %s out names %s, want %s", hosts[gone], hosts[left[0]], hosts[before[0]])
			}
		}
	})
}

// Every chunk has one owner, nobody owns much more than its share, and when a host goes most of what the others own stays.
func TestOwnersAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts, first := rapid.IntRange(2, 40).Draw(t, "hosts"), rapid.IntRange(0, 10_000).Draw(t, "first")
		chunks := rapid.IntRange(1, 2000).Draw(t, "chunks")
		var names []string
		for i := range hosts {
			names = append(names, hostNumber(i))
		}
		var wants []Want
		for i := range chunks {
			wants = append(wants, Want{Digest: chunkNumber(first + i)})
		}
		before, loads := owners(seedsOf(names), wants), make([]int, hosts)
		for _, owner := range before {
			loads[owner]++
		}
		share := (chunks + hosts - 1) / hosts
		if len(before) != chunks || slices.Max(loads) > share+share/32 {
			t.Fatalf("%d owners for %d chunks, loads %v", len(before), chunks, loads)
		}
		gone := rapid.IntRange(0, hosts-1).Draw(t, "gone")
		after, moved := owners(seedsOf(slices.Delete(slices.Clone(names), gone, gone+1)), wants), 0
		for i, owner := range before {
			now := after[i]
			if now >= gone {
				now++
			}
			if owner != gone && owner != now {
				moved++
			}
		}
		if moved > chunks*2/5+3*hosts {
			t.Errorf("%d of %d chunks moved between %d hosts that stayed", moved, chunks, hosts)
		}
	})
}

// No host ranks first for much more than its share, also when the names differ in one digit only.
func TestOwnersShareEvenly(t *testing.T) {
	const chunks = 20_000
	var hosts []string
	for i := range 32 {
		hosts = append(hosts, "kvm"+string(rune('0'+i/10))+string(rune('0'+i%10)))
	}
	seeds, shares := seedsOf(hosts), make([]int, len(hosts))
	for i := range chunks {
		shares[ranked(seeds, chunkNumber(i), 1, everyone)[0]]++
	}
	for h, share := range shares {
		if share < chunks/32*8/10 || share > chunks/32*12/10 {
			t.Errorf("%s owns %d of %d chunks, its share is %d", hosts[h], share, chunks, chunks/32)
		}
	}
}
