package settings

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseBandwidth reads bytes a second: a whole number with KiB, MiB or GiB after it, or without. Empty means 0: no limit.
func ParseBandwidth(text string) (int64, error) {
	number, shift := text, 0
	for unit, bits := range map[string]int{"KiB": 10, "MiB": 20, "GiB": 30} {
		if n, ok := strings.CutSuffix(text, unit); ok {
			number, shift = strings.TrimSpace(n), bits
		}
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	const most = 1 << 40
	if err != nil || n < 0 || n > most>>shift {
		return 0, fmt.Errorf("%q: want bytes a second, for example 500KiB, 20MiB or 0 for no limit", text)
	}
	return n << shift, nil
}
