package disk

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"daybreak/images"
)

// Whatever the history of versions, with any size, what is read through the chain is the version, by our eyes and by QEMU's.
func TestHistories(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			r.Fatal(err)
		}
		s := open(t, Config{Root: filepath.Join(dir, "store")})
		defer s.Close()
		pieces := rapid.IntRange(4, 24).Draw(r, "pieces")
		disk := make([]byte, pieces*images.ChunkBytes+512*rapid.IntRange(0, 511).Draw(r, "tail"))
		rng := rand.NewChaCha8([32]byte{byte(pieces)})
		rng.Read(disk)
		for version := range rapid.IntRange(2, 5).Draw(r, "versions") {
			if version > 0 {
				disk = nextVersion(r, rng, disk)
			}
			im := image(t, disk)
			mustEnsure(t, s, im)
			checkBase(t, s, im.Digest(), disk)
			if _, err := os.Stat(layerPath(s, im)); err == nil && rapid.IntRange(0, 3).Draw(r, "look") == 0 {
				if out := qemuImg(t, "check", "-f", "qcow2", layerPath(s, im)); !strings.Contains(out, "No errors were found") {
					t.Fatal(out)
				}
				checkQEMU(t, layerPath(s, im), disk)
			}
			if rapid.IntRange(0, 4).Draw(r, "clear") == 0 {
				if _, err := s.TrashBases(t.Context(), map[string]bool{im.Digest(): true}, time.Now().Add(time.Hour)); err != nil {
					t.Fatal(err)
				}
				checkBase(t, s, im.Digest(), disk)
			}
		}
	})
}

// nextVersion changes some pieces, makes zeros of some, and maybe the disk longer or shorter.
func nextVersion(r *rapid.T, rng *rand.ChaCha8, disk []byte) []byte {
	size := len(disk)
	switch rapid.IntRange(0, 3).Draw(r, "size") {
	case 0:
		size += 512 * rapid.IntRange(1, 2000).Draw(r, "grown")
	case 1:
		size = max(size-512*rapid.IntRange(1, 1500).Draw(r, "shrunk"), images.ChunkBytes)
	}
	next := make([]byte, size)
	copy(next, disk)
	for range rapid.IntRange(0, 3).Draw(r, "changes") {
		at := rapid.IntRange(0, size-1).Draw(r, "at")
		part := next[at:min(size, at+rapid.IntRange(1, 3*images.ChunkBytes/2).Draw(r, "length"))]
		if rapid.Bool().Draw(r, "zero") {
			at = at / images.ChunkBytes * images.ChunkBytes
			clear(next[at:min(size, at+images.ChunkBytes)])
		} else {
			rng.Read(part)
		}
	}
	return next
}
