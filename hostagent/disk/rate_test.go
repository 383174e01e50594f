package disk

import (
	"math/rand/v2"
	"os"
	"testing"

	"daybreak/images"
)

// rateAfterRestart is the read rate that the next agent knows when it finds the store as it is, or with the file broken.
func rateAfterRestart(t *testing.T, s *Store, broken string) (*Store, uint64) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if broken != "" {
		if err := os.WriteFile(s.path(fileRate), []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, Config{Root: s.cfg.Root})
	return s, rateOf(t, s)
}

func rateOf(t *testing.T, s *Store) uint64 {
	t.Helper()
	space, err := s.Space(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return space.ReadRate
}

// A base that is large enough to measure says how fast the store is, to this agent and the next one. Where that was kept badly it is
// unknown, and the next base says it anew.
func TestReadRate(t *testing.T) {
	s := open(t, Config{})
	mustEnsure(t, s, image(t, content(1, diskSize)))
	if got := rateOf(t, s); got != 0 {
		t.Errorf("%d bytes/s after a small base", got)
	}
	s, got := rateAfterRestart(t, s, "")
	if got != 0 {
		t.Errorf("%d bytes/s after a restart, and nothing was measured", got)
	}
	large := func(seed byte) {
		disk := make([]byte, leastRead+images.ChunkBytes)
		rand.NewChaCha8([32]byte{seed}).Read(disk)
		mustEnsure(t, s, image(t, disk))
	}
	large(7)
	rate := rateOf(t, s)
	if rate == 0 {
		t.Error("unknown after a large base")
	}
	if s, got = rateAfterRestart(t, s, ""); got != rate {
		t.Errorf("%d bytes/s after a restart, want %d", got, rate)
	}
	for _, broken := range []string{"\x00\x00", "-1", "18446744073709551615", "1e9"} {
		if s, got = rateAfterRestart(t, s, broken); got != 0 {
			t.Errorf("%d bytes/s of a file that says %q", got, broken)
		}
	}
	large(8)
	if rate = rateOf(t, s); rate == 0 {
		t.Error("unknown after another large base")
	}
	if _, got = rateAfterRestart(t, s, ""); got != rate {
		t.Errorf("%d bytes/s after the last restart, want %d", got, rate)
	}
}
