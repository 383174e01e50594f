package disk

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/hostagent/hosttest"
)

// quietly changes a file the way somebody would who does not want it to show, or a restore from a backup that keeps times:
// size and mtime are as before. It returns once the file system's clock has moved on.
func quietly(t *testing.T, path string, change func(t *testing.T, path string)) {
	t.Helper()
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	was, err := stampOf(path)
	if err != nil {
		t.Fatal(err)
	}
	for change(t, path); ; {
		if err := os.Chtimes(path, before.ModTime(), before.ModTime()); err != nil {
			t.Fatal(err)
		}
		if now, err := stampOf(path); err != nil || now != was {
			return
		}
	}
}

func writeAt(t *testing.T, path string, data []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0) // root may, whatever the mode
	if errors.Is(err, os.ErrPermission) {
		err = os.Chmod(path, 0o644)
		if err == nil {
			f, err = os.OpenFile(path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

// replace puts a file of other content under the same name.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", content, 0o444), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// TestTamperedBase: whatever becomes of a base, no overlay is made or started on it before it is whole again, also when the
// agent was away meanwhile.
func TestTamperedBase(t *testing.T) {
	disk := content(1, diskSize)
	for name, tamper := range map[string]func(t *testing.T, path string){
		"bit flipped": func(t *testing.T, path string) { writeAt(t, path, []byte{disk[1000] ^ 4}, 1000) },
		"hole punched": func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err == nil {
				err = errors.Join(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096), f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		"cut off and made long again": func(t *testing.T, path string) {
			if err := errors.Join(os.Truncate(path, 4096), os.Truncate(path, diskSize)); err != nil {
				t.Fatal(err)
			}
		},
		"cut off":           func(t *testing.T, path string) { os.Truncate(path, 4096) },
		"longer":            func(t *testing.T, path string) { os.Truncate(path, diskSize+512) },
		"zeros written":     func(t *testing.T, path string) { writeAt(t, path, make([]byte, 512), 0) },
		"another's swapped": func(t *testing.T, path string) { replace(t, path, content(2, diskSize)) },
	} {
		for away, stop := range map[string]func(*Store) error{"": nil, " while the agent was killed": kill, " while the agent was stopped": (*Store).Close} {
			t.Run(name+away, func(t *testing.T) {
				s := open(t, Config{})
				im := image(t, disk)
				mustEnsure(t, s, im)
				if _, _, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20); err != nil {
					t.Fatal(err)
				}
				if stop != nil {
					if err := stop(s); err != nil {
						t.Fatal(err)
					}
				}
				quietly(t, basePath(s, im), tamper)
				if stop != nil {
					s = open(t, Config{Root: s.cfg.Root})
				}
				wantUnusable(t, s, im)
				mustEnsure(t, s, im)
				checkContent(t, basePath(s, im), disk)
				if _, _, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20); err != nil {
					t.Errorf("on the base that was made good: %v", err)
				}
			})
		}
	}
}

func wantUnusable(t *testing.T, s *Store, im *hosttest.Image) {
	t.Helper()
	if bases, err := s.Bases(t.Context()); err != nil || len(bases) > 0 {
		t.Errorf("Bases = %v, %v", bases, err)
	}
	for _, generation := range []int64{7, 8} { // one that is there, one that is not
		if _, _, err := s.CreateOverlay(t.Context(), life(generation), im.Digest(), 1<<20); !errors.Is(err, hostagent.ErrNotFound) {
			t.Errorf("overlay of generation %d: %v, want ErrNotFound", generation, err)
		}
	}
}

// TestNoBaseUnderItsName: a link or a directory in a base's place neither counts as one nor keeps the store from opening.
func TestNoBaseUnderItsName(t *testing.T) {
	disk := content(1, diskSize)
	for name, put := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"link to the very content": func(path string) error {
			return errors.Join(os.WriteFile(path+".elsewhere", disk, 0o644), os.Symlink(path+".elsewhere", path))
		},
		"pipe": func(path string) error { return unix.Mkfifo(path, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			im := image(t, disk)
			mustEnsure(t, s, im)
			if err := errors.Join(os.Remove(basePath(s, im)), put(basePath(s, im)), kill(s)); err != nil {
				t.Fatal(err)
			}
			s = open(t, Config{Root: s.cfg.Root})
			wantUnusable(t, s, im)
			mustEnsure(t, s, im)
			if info, err := os.Lstat(basePath(s, im)); err != nil || !info.Mode().IsRegular() {
				t.Errorf("%v, %v", info, err)
			}
			checkContent(t, basePath(s, im), disk)
		})
	}
}

// TestDistrustLasts: a base that was found damaged is not trusted by the next agent either, although nothing of the file
// shows it.
func TestDistrustLasts(t *testing.T) {
	s := open(t, Config{})
	im := image(t, content(1, diskSize))
	mustEnsure(t, s, im)
	s.distrust(mustDigest(t, im))
	if err := kill(s); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Root: s.cfg.Root})
	wantUnusable(t, s, im)
	mustEnsure(t, s, im)
}

// TestTamperedStamp: a stamp that is damaged or another base's makes no base trusted.
func TestTamperedStamp(t *testing.T) {
	for name, change := range map[string]func(old string) string{
		"flipped": func(old string) string { return strings.Replace(old, "2 ", "3 ", 1) }, "empty": func(string) string { return "" },
		"cut off": func(old string) string { return old[:len(old)/2] }, "longer": func(old string) string { return old + "0" },
		"of another file": func(string) string { return stamp{size: diskSize, mtime: 1, ctime: 2, inode: 3}.encode() },
	} {
		s := open(t, Config{})
		im := image(t, content(1, diskSize))
		mustEnsure(t, s, im)
		path := s.path(dirBases, im.Digest()+".whole")
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.WriteFile(path, []byte(change(string(old))), 0o600), kill(s)); err != nil {
			t.Fatal(err)
		}
		s = open(t, Config{Root: s.cfg.Root})
		if bases, _ := s.Bases(t.Context()); len(bases) > 0 {
			t.Errorf("%s: trusted", name)
		}
		mustEnsure(t, s, im)
		if im.Given() > 3 {
			t.Errorf("%s: a whole base was fetched again", name)
		}
	}
}

// TestTamperedManifest: a base is compared with nothing but the manifest that has its digest.
func TestTamperedManifest(t *testing.T) {
	disk, other := content(1, diskSize), image(t, content(2, diskSize))
	for name, change := range map[string]func(old []byte) []byte{
		"bit flipped": func(old []byte) []byte { old[len(old)/2] ^= 1; return old }, "cut off": func(old []byte) []byte { return old[:len(old)-32] },
		"empty": func([]byte) []byte { return nil },
		"another's": func([]byte) []byte {
			encoded, err := other.Manifest(t.Context(), other.Digest())
			if err != nil {
				t.Fatal(err)
			}
			return encoded
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			im := image(t, disk)
			mustEnsure(t, s, im)
			manifest := s.path(dirBases, im.Digest()+".manifest")
			encoded, err := os.ReadFile(manifest)
			if err != nil {
				t.Fatal(err)
			}
			// The base becomes what the tampered manifest may say, too, and the host stops as it should not.
			replace(t, manifest, change(encoded))
			quietly(t, basePath(s, im), func(t *testing.T, path string) { replace(t, path, content(2, diskSize)) })
			if err := errors.Join(kill(s), os.WriteFile(filepath.Join(s.cfg.Root, fileBoot), []byte("x"), 0o600)); err != nil {
				t.Fatal(err)
			}
			s = open(t, Config{Root: s.cfg.Root})
			wantUnusable(t, s, im)
			mustEnsure(t, s, im)
			checkContent(t, basePath(s, im), disk)
			if _, err := s.keptManifest(mustDigest(t, im)); err != nil {
				t.Errorf("the manifest was not made good: %v", err)
			}
		})
	}
}

// TestTamperedOverlay: an overlay that is not what was made is not started on, whatever it names as its backing file.
func TestTamperedOverlay(t *testing.T) {
	for name, tamper := range map[string]func(t *testing.T, s *Store, overlay string){
		"another backing file": func(t *testing.T, s *Store, overlay string) {
			header, err := os.ReadFile(overlay)
			if err != nil {
				t.Fatal(err)
			}
			at := binary.BigEndian.Uint64(header[8:])
			writeAt(t, overlay, []byte("/etc/shadow"), int64(at))
		},
		"a shorter name of it": func(t *testing.T, _ *Store, overlay string) { writeAt(t, overlay, []byte{0, 0, 0, 11}, 16) },
		"no backing file":      func(t *testing.T, _ *Store, overlay string) { writeAt(t, overlay, make([]byte, 12), 8) },
		"another size":         func(t *testing.T, _ *Store, overlay string) { writeAt(t, overlay, []byte{1}, 28) },
		"external data file":   func(t *testing.T, _ *Store, overlay string) { writeAt(t, overlay, []byte{4}, 79) },
		"encrypted":            func(t *testing.T, _ *Store, overlay string) { writeAt(t, overlay, []byte{2}, 35) },
		"magic flipped":        func(t *testing.T, _ *Store, overlay string) { writeAt(t, overlay, []byte{'q'}, 0) },
		"tables beyond its end": func(t *testing.T, _ *Store, overlay string) {
			writeAt(t, overlay, []byte{0, 0, 0, 1, 0, 0, 0, 0}, 40)
		},
		"empty":   func(t *testing.T, _ *Store, overlay string) { os.Truncate(overlay, 0) },
		"cut off": func(t *testing.T, _ *Store, overlay string) { os.Truncate(overlay, clusterSize) },
		"a link": func(t *testing.T, _ *Store, overlay string) {
			os.Rename(overlay, overlay+".x")
			os.Symlink(overlay+".x", overlay)
		},
		"another's":       func(t *testing.T, s *Store, overlay string) { os.Rename(s.overlayPath(neighbour(7)), overlay) },
		"another version": func(t *testing.T, s *Store, overlay string) { os.Rename(s.overlayPath(life(8)), overlay) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Config{})
			im, other := image(t, content(1, diskSize)), image(t, content(2, diskSize))
			mustEnsure(t, s, im)
			mustEnsure(t, s, other)
			var overlay string
			for l, on := range map[hostagent.Life]*hosttest.Image{life(7): im, life(8): other, neighbour(7): im} {
				_, path, err := s.CreateOverlay(t.Context(), l, on.Digest(), 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				if l == life(7) {
					overlay = path
				}
			}
			tamper(t, s, overlay)
			if _, path, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20); !errors.Is(err, hostagent.ErrPermanent) {
				t.Errorf("taken: %s, %v", path, err)
			}
			if err := s.TrashOverlay(t.Context(), life(7)); err != nil {
				t.Errorf("it cannot be put away: %v", err)
			}
		})
	}
}

func neighbour(generation int64) hostagent.Life {
	return hostagent.Life{Desktop: "office-2", UID: "0b6c7d8e-9f00-4a1b-8c2d-3e4f5a6b7c8d", Generation: generation}
}

// TestOverlayAfterQEMU: an overlay that QEMU has written to is still taken for what it is.
func TestOverlayAfterQEMU(t *testing.T) {
	s, im, _ := withBase(t)
	_, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "bench", "-w", "-f", "qcow2", "-c", "20", "-s", "4096", overlay)
	if _, _, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20); err != nil {
		t.Error(err)
	}
}
