package libvirt

import (
	"strconv"
	"testing"
	"time"
)

func TestParseInputIdle(t *testing.T) {
	now := time.Unix(1_800_000_000, 500_000_000)
	for text, want := range map[string]time.Duration{
		"1800000000 0":    500 * time.Millisecond,
		"1800000000 60":   60*time.Second + 500*time.Millisecond,
		"1799999970 3600": time.Hour + 30*time.Second + 500*time.Millisecond,
		"1800000003 7":    7 * time.Second, // clocks of a guest may step a little
		"1799999900 5":    105*time.Second + 500*time.Millisecond,

		"":                                 -1,
		"1800000000":                       -1,
		"1800000000 ":                      -1,
		" 1800000000 5":                    -1,
		"1800000000  5":                    -1,
		"1800000000 5 6":                   -1,
		"1800000000 -5":                    -1,
		"1800000000 +5":                    -1,
		"1800000000 5.5":                   -1,
		"1800000000 0x5":                   -1,
		"1800000000 1e3":                   -1,
		"1800000000 5\n6":                  -1,
		"1800000000 999999999999":          -1, // longer than a machine runs
		"1800000000 99999999999999":        -1,
		"1799999000 5":                     -1, // the helper has died
		"1800009999 5":                     -1,
		"99999999999999999999999999999 60": -1,
	} {
		got, err := parseInputIdle(text, now)
		if want < 0 && err == nil || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}

// FuzzParseInputIdle: what is taken is a time that can be.
func FuzzParseInputIdle(f *testing.F) {
	f.Add("1800000000 60", int64(1_800_000_000))
	f.Add("0 0", int64(0))
	f.Fuzz(func(t *testing.T, text string, now int64) {
		now %= 1 << 33
		idle, err := parseInputIdle(text, time.Unix(now, 0))
		if err == nil && (idle < 0 || idle > maxIdle+maxInputAge) {
			t.Errorf("%q at %s: %v", text, strconv.FormatInt(now, 10), idle)
		}
	})
}
