package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// TestTamperedLayer: whatever becomes of a layer or of the base below it, no overlay is made or started on the layer before
// both are whole again, and only what was hurt is fetched.
func TestTamperedLayer(t *testing.T) {
	ways := map[string]func(t *testing.T, path string){
		"begin flipped":            func(t *testing.T, path string) { flipAt(t, path, 3) },
		"name of the root flipped": func(t *testing.T, path string) { flipAt(t, path, backingAt+40) },
		"entry flipped":            func(t *testing.T, path string) { flipAt(t, path, 4*images.ChunkBytes+8*4+3) },
		"content flipped":          func(t *testing.T, path string) { flipAt(t, path, 5*images.ChunkBytes+999) },
		"hole punched": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				err = errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 5*images.ChunkBytes, 4096), f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"cut off": func(t *testing.T, path string) { os.Truncate(path, 5*images.ChunkBytes) },
		"longer": func(t *testing.T, path string) {
			info, _ := os.Stat(path)
			os.Truncate(path, info.Size()+512)
		},
		"gone":    func(t *testing.T, path string) { os.Remove(path) },
		"swapped": func(t *testing.T, path string) { replace(t, path, noisy(7)) },
		"a link": func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".x"), os.Symlink(path+".x", path)); err != nil {
				t.Fatal(err)
			}
		},
		"another layer's": func(t *testing.T, path string) {
			if data, err := os.ReadFile(filepath.Join(filepath.Dir(path), "..", "other.qcow2")); err == nil {
				replace(t, path, data)
			}
		},
		"another backing file": func(t *testing.T, path string) { writeAt(t, path, []byte("/etc/shadow\x00"), backingAt) },
	}
	for which := range map[string]bool{"layer": true, "root": true} {
		for name, tamper := range ways {
			for away, stop := range map[string]func(*Store) error{"": nil, " while the agent was killed": kill, " and the power cut": kill} {
				if strings.Contains(away, "power") && name != "content flipped" && name != "gone" && name != "another layer's" {
					continue // what a comparison finds, it finds the same way
				}
				t.Run(which+" "+name+away, func(t *testing.T) {
					t.Parallel()
					s, root, im, disk, patched := withLayer(t)
					if data, err := os.ReadFile(layerPath(s, im)); err == nil { // a layer of the same version, on another root
						os.WriteFile(s.path("other.qcow2"), bytes.ReplaceAll(data, []byte(root.Digest()), []byte(im.Digest())), 0o600)
					}
					_, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
					if err != nil {
						t.Fatal(err)
					}
					if stop != nil {
						if err := stop(s); err != nil {
							t.Fatal(err)
						}
					}
					path := layerPath(s, im)
					if which == "root" {
						path = basePath(s, root)
					}
					if name == "gone" || name == "a link" {
						tamper(t, path)
					} else {
						quietly(t, path, tamper)
					}
					if stop != nil {
						if strings.Contains(away, "power") {
							if err := os.WriteFile(s.path(fileBoot), []byte("another boot"), 0o600); err != nil {
								t.Fatal(err)
							}
						}
						s = open(t, Config{Root: s.cfg.Root})
					}
					for _, generation := range []int64{7, 8} {
						if _, _, err := s.CreateOverlay(t.Context(), life(generation), im.Digest(), 1<<20); !errors.Is(err, hostagent.ErrNotFound) {
							t.Errorf("overlay of generation %d: %v, want ErrNotFound", generation, err)
						}
					}
					if bases, err := s.Bases(t.Context()); err != nil || strings.Contains(strings.Join(bases, " "), im.Digest()) {
						t.Errorf("Bases = %v, %v", bases, err)
					}
					mustEnsure(t, s, im)
					checkBase(t, s, im.Digest(), patched)
					if n := im.Given(); n > 1 && name != "gone" && name != "swapped" && name != "another layer's" && name != "a link" && name != "cut off" {
						t.Errorf("%d chunks fetched", n)
					}
					base, again, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
					if err != nil || again != overlay {
						t.Errorf("on the base that was made good: %s, %v", again, err)
					}
					mustEnsure(t, s, root)
					checkBase(t, s, root.Digest(), disk)
					checkBase(t, s, im.Digest(), patched)
					if base.Layer != "" {
						checkQEMU(t, base.Layer, patched)
					}
				})
			}
		}
	}
}

func flipAt(t *testing.T, path string, at int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, path, []byte{data[at] ^ 1}, at)
}

// TestRootThatIsMadeGood: a layer whose root was damaged, and is whole again, is used as it is.
func TestRootThatIsMadeGood(t *testing.T) {
	s, root, im, disk, patched := withLayer(t)
	spoilFile(t, basePath(s, root), 10)
	if _, ok := s.usable(mustDigest(t, im)); ok {
		t.Error("a layer on a damaged root may be used")
	}
	mustEnsure(t, s, root)
	checkBase(t, s, root.Digest(), disk)
	checkBase(t, s, im.Digest(), patched)
	mustEnsure(t, s, im)
	mustLayer(t, s, im, true)
	if n, m := root.Given(), im.Given(); n != 1 || m != 0 {
		t.Errorf("%d and %d chunks fetched to mend one", n, m)
	}
}

// TestScrubOfLayers: both files have their turn, and rot without a trace is found in both.
func TestScrubOfLayers(t *testing.T) {
	for _, which := range []string{"layer", "root"} {
		s, root, im, _, patched := withLayer(t)
		path, owner := layerPath(s, im), im
		if which == "root" {
			path, owner = basePath(s, root), root
		}
		d := mustDigest(t, owner)
		rotten := s.verified[d]
		quietly(t, path, func(t *testing.T, path string) { flipAt(t, path, 5*images.ChunkBytes+77) })
		now, err := stampOf(path)
		if err != nil {
			t.Fatal(err)
		}
		rotten.stamp = now
		s.verified[d] = rotten
		found := map[string]bool{}
		begun := time.Now()
		for range 3 {
			digest, damaged, err := s.Scrub(t.Context(), begun, 1<<40)
			if err != nil {
				t.Fatal(err)
			}
			found[digest] = damaged
		}
		if !found[owner.Digest()] {
			t.Errorf("%s: the rot was not found: %v", which, found)
		}
		if _, ok := s.usable(mustDigest(t, im)); ok {
			t.Errorf("%s: the layer may be used", which)
		}
		mustEnsure(t, s, im)
		checkBase(t, s, im.Digest(), patched)
	}
}
