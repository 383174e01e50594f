package rollout

import (
	"fmt"
	"strconv"
	"strings"

	v1 "daybreak/proto/daybreak/v1"
)

// defaultWaves are those of a pool that names none.
func defaultWaves() []string { return []string{"1", "10%", "50%"} }

// Waves returns how many of so many desktops run the new version at the end of each wave, each more than the one before,
// the last all of them. The first is never all, unless there is one desktop.
func Waves(policy *v1.RolloutPolicy, desktops int) []int {
	words := policy.GetWaves()
	if len(words) == 0 {
		words = defaultWaves()
	}
	var sizes []int
	last := 0
	for _, word := range words {
		size, err := WaveSize(word, desktops)
		if err != nil || size <= last {
			continue
		}
		if len(sizes) == 0 && size >= desktops {
			size = 1
		}
		if size >= desktops {
			break
		}
		sizes = append(sizes, size)
		last = size
	}
	if len(sizes) == 0 && desktops > 1 {
		sizes = append(sizes, 1)
	}
	if desktops > 0 {
		sizes = append(sizes, desktops)
	}
	return sizes
}

// WaveSize reads one wave: a count, or a percentage of so many desktops, rounded up.
func WaveSize(word string, desktops int) (int, error) {
	digits, percent := strings.CutSuffix(word, "%")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || percent && n > 100 {
		return 0, fmt.Errorf("%q is neither a count from 1 on nor a percentage from 1%% to 100%%", word)
	}
	if percent {
		return (n*desktops + 99) / 100, nil
	}
	return n, nil
}

// waveOf finds the wave in which so many desktops are admitted: its number from 1 (0 before the first), what the one
// before it had, and what the next one will; 0 when it is the last.
func waveOf(sizes []int, admitted int) (number, before, next int) {
	if admitted == 0 {
		if len(sizes) > 0 {
			next = sizes[0]
		}
		return 0, 0, next
	}
	for _, size := range sizes {
		switch {
		case size < admitted:
			number, before = number+1, size
		case size > admitted && next == 0:
			next = size
		}
	}
	return min(number+1, len(sizes)), before, next
}
