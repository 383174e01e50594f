package warmup

import (
	"cmp"
	"slices"
	"time"
)

// Bulk is the cold desktops of one host that could be started.
type Bulk struct {
	// Desktops of the host that could be.
	Desktops int
	// Boots at once, and what one of them takes on the average.
	Boots int
	Mean  time.Duration
	// ReadBytes of one start and ReadRate of the store per second; 0 when not known.
	ReadBytes, ReadRate uint64
}

// Bound is the fluid lower bound of the time that so many starts take: as if boots could be cut into pieces as small as one
// likes, and every host worked until the last one was done, at the rate that its scarcest resource allows (places for
// boots, and the store's reads). No schedule beats it. false when there are not so many desktops.
func Bound(starts int, hosts []Bulk) (time.Duration, bool) {
	type flow struct{ desktops, rate, done float64 }
	var flows []flow
	total := 0
	for _, h := range hosts {
		rate := float64(max(1, h.Boots)) / max(shortest, h.Mean).Seconds()
		if h.ReadBytes > 0 && h.ReadRate > 0 {
			rate = min(rate, float64(h.ReadRate)/float64(h.ReadBytes))
		}
		flows = append(flows, flow{float64(h.Desktops), rate, float64(h.Desktops) / rate})
		total += h.Desktops
	}
	if starts > total {
		return 0, false
	}
	// Hosts end one after another: find in whose turn the last start is done.
	slices.SortFunc(flows, func(a, b flow) int { return cmp.Compare(a.done, b.done) })
	missing, rate := float64(starts), 0.0
	for _, f := range flows {
		rate += f.rate
	}
	ended := 0.0
	for _, f := range flows {
		if missing/rate <= f.done || f.rate >= rate*(1-1e-12) {
			break
		}
		missing -= f.desktops
		rate -= f.rate
		ended = f.done
	}
	if rate <= 0 {
		return time.Duration(ended * float64(time.Second)), true
	}
	return time.Duration(max(ended, missing/rate) * float64(time.Second)), true
}
