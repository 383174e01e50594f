package placement

// Weights of the scores, each of which is between 0 and 1. Memory leads, since it is what runs out.
const (
	weightMemory = 1.0
	weightSpread = 0.5
	weightBoots  = 0.3
	weightImage  = 0.2
	weightSound  = 0.3
)

// score says how good a host is for a life that fits there. Higher is better.
func score(h *host, n need) float64 {
	total := weightSpread / float64(1+h.ofPool[n.pool])
	if h.memoryMiB > 0 {
		total += weightMemory * float64(h.freeMemoryMiB-int64(n.memoryMiB)) / float64(h.memoryMiB)
	}
	total += weightBoots * (1 - min(1, float64(h.boots)/float64(h.maxBoots)))
	if h.images[n.digest] {
		total += weightImage
	}
	total += weightSound * (1 - min(1, float64(h.failed)/3)) // a host where many fail is not the place for more
	return total
}
