package demand

import "slices"

// The trend of a pool is how many of its desktops are in use at most on a usual day, by the median of two weeks of working days,
// so that neither a weekday nor a single strange day, such as that of a typhoon, makes one.
const (
	// trendDays is two weeks of working days.
	trendDays = 10
	// steady is by how much it must have changed to be one, and steepest how much of it is followed.
	steady, steepest = 0.15, 2
)

// follow gives each working day the scale that makes it one of today's: what the newest two weeks had by what those around
// it had. Three weeks of them must be known.
func follow(facts []fact) {
	var at, peaks []int
	for i, f := range facts {
		if f.kind == workingDay && len(f.GetClaimed()) > 0 {
			at = append(at, i)
			peaks = append(peaks, int(slices.Max(f.GetClaimed())))
		}
	}
	if len(peaks) < trendDays*3/2 {
		return
	}
	now := median(peaks[len(peaks)-trendDays:])
	for i, place := range at {
		from := min(max(i-trendDays/2, 0), len(peaks)-trendDays)
		then := median(peaks[from : from+trendDays])
		if scale := now / max(then, 1); scale < 1-steady || scale > 1+steady {
			facts[place].scale = min(max(scale, 1.0/steepest), steepest)
		}
	}
}

// median of a few counts; of an even number the mean of the two in the middle.
func median(of []int) float64 {
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	return float64(sorted[(n-1)/2]+sorted[n/2]) / 2
}
