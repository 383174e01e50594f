// Package measure is the arithmetic that the benchmarks share: the median of their samples, and the CPU time that they used.
//
// Here: numbers. Not here: what is run or compared. Only benchmarks in deploy/bench call it.
package measure

import (
	"slices"
	"syscall"
	"time"
)

// Median of at least one number; of an even count the mean of the two in the middle.
func Median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}

// CPUSeconds is the CPU time that this process used so far.
func CPUSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}
