package hostagent

import (
	"encoding/binary"

	"daybreak/images"
)

// Every host that fetches a version works out by itself, from the same list of names, who is to get which chunk from the
// store and give it to the others: the one with the highest score for it (rendezvous hashing) that does not own its share
// already. When a host comes or goes, few chunks move but those that it gets or had.

// seedOf stands for a host in scores.
func seedOf(host string) uint64 {
	sum := images.Sum([]byte(host))
	return binary.LittleEndian.Uint64(sum[:])
}

// score says how much a host is the one for a chunk. A chunk's digest is as good as random; what comes after it spreads
// the scores of hosts for one chunk (the finalizer of SplitMix64).
func score(seed uint64, chunk images.Digest) uint64 {
	x := seed ^ binary.LittleEndian.Uint64(chunk[:8])
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// ranked returns the best n of hosts for a chunk, by their places in seeds, the best first. take leaves hosts out.
func ranked(seeds []uint64, chunk images.Digest, n int, take func(int) bool) []int {
	best := make([]int, 0, n+1)
	for i, seed := range seeds {
		if !take(i) {
			continue
		}
		s := score(seed, chunk)
		at := len(best)
		for at > 0 && score(seeds[best[at-1]], chunk) < s {
			at--
		}
		if at == n {
			continue
		}
		best = append(best, 0)
		copy(best[at+1:], best[at:])
		best[at] = i
		best = best[:min(len(best), n)]
	}
	return best
}

// owners gives every chunk an owner, by its place in seeds. Nobody owns more than a little above an equal share: who owns
// most has most to send, and all wait for it.
func owners(seeds []uint64, chunks []Want) []int {
	if len(seeds) == 0 {
		return nil
	}
	share := (len(chunks) + len(seeds) - 1) / len(seeds)
	share += share / 32
	loads, owners := make([]int, len(seeds)), make([]int, len(chunks))
	for i, want := range chunks {
		best := ranked(seeds, want.Digest, 1, func(h int) bool { return loads[h] < share })[0]
		owners[i] = best
		loads[best]++
	}
	return owners
}
