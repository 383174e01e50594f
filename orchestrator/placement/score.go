package placement

import "daybreak/orchestrator/room"

// Weights of the scores, each of which is between 0 and 1. Memory leads, since it is what runs out.
const (
	weightMemory = 1.0
	weightSpread = 0.5
	weightBoots  = 0.3
	weightImage  = 0.2
	weightSound  = 0.3
	// weightCold is what it takes from a host for lives that run that cold ones lie there, which will want to start.
	weightCold = 0.2
	// weightHolds puts hosts that could run a cold life beside all that lies there before all others: pool moves cold lives
	// there, and what moves must not come back.
	weightHolds = 10
	// weightShunned is more than all others together.
	weightShunned = 20
)

// score says how good a host is for a life that fits there. Higher is better.
func score(h *host, n need) float64 {
	total := weightSpread / float64(1+h.OfPool[n.Pool])
	if h.MemoryMiB > 0 {
		total += memoryScore(h, n) / float64(h.MemoryMiB)
	}
	total += weightBoots * (1 - min(1, float64(h.Boots)/float64(h.MaxBoots)))
	if h.Images[n.Digest] {
		total += weightImage
	}
	total += weightSound * (1 - min(1, float64(h.Failed)/3)) // a host where many fail is not the place for more
	if h.shunned[n.attempt] != nil {
		total -= weightShunned
	}
	return total
}

// memoryScore spreads lives that run by the memory that is free, and cold ones by what would be if all seats ran, so that
// they find room where they lie when their time comes.
func memoryScore(h *host, n need) float64 {
	free, cold := float64(h.FreeMemoryMiB-int64(n.MemoryMiB)), float64(h.ColdMiB)
	if n.Phase == room.Runs {
		return weightMemory*free - weightCold*cold
	}
	if free >= cold {
		return weightHolds*float64(h.MemoryMiB) + weightMemory*(free-cold)
	}
	return weightMemory * (free - cold)
}
