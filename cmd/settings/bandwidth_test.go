package settings

import "testing"

func TestParseBandwidth(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "0": 0, "100": 100, "500KiB": 500 << 10, "20MiB": 20 << 20, "1 GiB": 1 << 30, "1024GiB": 1 << 40,
		"-1": -1, "20MB": -1, "1.5MiB": -1, "MiB": -1, "99999999GiB": -1, "20MiB/s": -1, "99999999999999999999": -1,
	} {
		got, err := ParseBandwidth(text)
		if want >= 0 && (err != nil || got != want) || want < 0 && err == nil {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
}
