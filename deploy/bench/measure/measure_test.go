package measure_test

import (
	"testing"

	"daybreak/deploy/bench/measure"
)

func TestMedian(t *testing.T) {
	for want, of := range map[float64][]float64{5: {5}, 2: {3, 1, 2}, 2.5: {4, 1, 3, 2}} {
		if got := measure.Median(of); got != want {
			t.Errorf("of %v: %v, want %v", of, got, want)
		}
	}
}
