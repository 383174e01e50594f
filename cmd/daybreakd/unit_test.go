package main

import (
	"os"
	"strings"
	"testing"
)

// Only a unit of type notify has a socket to be told on that the daemon serves.
func TestUnitWaitsForTheWord(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/systemd/daybreakd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nType=notify\n", "\nTimeoutStartSec=infinity\n"} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("the unit lacks %q", strings.TrimSpace(want))
		}
	}
}
