package rollout_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

func TestWaves(t *testing.T) {
	for _, test := range []struct {
		waves    []string
		desktops int
		want     []int
	}{
		{nil, 0, nil}, {nil, 1, []int{1}}, {nil, 2, []int{1, 2}}, {nil, 12, []int{1, 2, 6, 12}}, {nil, 500, []int{1, 50, 250, 500}},
		{[]string{"2", "50%"}, 12, []int{2, 6, 12}}, {[]string{"25%", "100%"}, 10, []int{3, 10}},
		{[]string{"3", "10%", "50%"}, 12, []int{3, 6, 12}}, // one that is no more than the one before is left out
		{[]string{"50"}, 12, []int{1, 12}},                 // the whole pool is never first
		{[]string{"100%"}, 2, []int{1, 2}}, {[]string{"5", "20"}, 10, []int{5, 10}},
	} {
		same(t, fmt.Sprint(test.waves, " of ", test.desktops), test.want, rollout.Waves(&v1.RolloutPolicy{Waves: test.waves}, test.desktops))
	}
	for _, word := range []string{"", "%", "0", "0%", "101%", "-1", "1.5", "many", "1 %"} {
		if n, err := rollout.WaveSize(word, 10); err == nil {
			t.Errorf("WaveSize(%q) = %d", word, n)
		}
	}
}

func TestWavesGrowToAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := &v1.RolloutPolicy{Waves: rapid.SliceOfN(rapid.StringMatching(`[1-9][0-9]{0,3}%?`), 0, 16).Draw(t, "waves")}
		n := rapid.IntRange(0, 5000).Draw(t, "desktops")
		sizes := rollout.Waves(policy, n)
		last := 0
		for i, size := range sizes {
			if size <= last || i == 0 && size == n && n > 1 {
				t.Fatalf("%v of %d", sizes, n)
			}
			last = size
		}
		if last != n {
			t.Fatalf("%v of %d", sizes, n)
		}
	})
}
