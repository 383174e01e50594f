package hostagent

import "testing"

func TestExitWord(t *testing.T) {
	for output, want := range map[string]string{"": "the probe exited with 1", "no display": "the probe exited with 1: no display"} {
		if got := exitWord("the probe", 1, output); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
