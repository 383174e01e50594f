package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
	"daybreak/images/pack"
)

func layerPath(s *Store, im *hosttest.Image) string {
	return filepath.Join(s.cfg.Root, dirBases, im.Digest()+".qcow2")
}

// patchOf changes a piece in the midst, makes zeros of the next, and puts content where there was none.
func patchOf(disk []byte) []byte {
	patched := bytes.Clone(disk)
	copy(patched[4*images.ChunkBytes+1000:], "a patch")
	clear(patched[5*images.ChunkBytes : 6*images.ChunkBytes])
	return patched
}

// withLayer makes a version, and the next as a layer on it.
func withLayer(t *testing.T) (s *Store, root, im *hosttest.Image, disk, patched []byte) {
	t.Helper()
	s, disk = open(t, Config{}), noisy(12)
	patched = patchOf(disk)
	root, im = image(t, disk), image(t, patched)
	mustEnsure(t, s, root)
	mustEnsure(t, s, im)
	mustLayer(t, s, im, true)
	root.Given()
	im.Given()
	return s, root, im, disk, patched
}

// mustLayer says in which of its forms a base lies there.
func mustLayer(t *testing.T, s *Store, im *hosttest.Image, layered bool) {
	t.Helper()
	_, raw := os.Lstat(basePath(s, im))
	_, layer := os.Lstat(layerPath(s, im))
	if (layer == nil) != layered || (raw == nil) == layered {
		t.Fatalf("want a layer: %v; raw file: %v, layer: %v", layered, raw, layer)
	}
}

func TestLayer(t *testing.T) {
	s, root, im, disk, patched := withLayer(t)
	checkBase(t, s, root.Digest(), disk)
	checkBase(t, s, im.Digest(), patched)
	if n := allocated(t, layerPath(s, im)); n > (6+1)*images.ChunkBytes {
		t.Errorf("a layer of one piece takes %d bytes", n)
	}
	if info, _ := os.Stat(layerPath(s, im)); info.Mode().Perm() != 0o444 {
		t.Errorf("mode %v", info.Mode())
	}
	base, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
	if err != nil || base != (hostagent.Base{Raw: basePath(s, root), Layer: layerPath(s, im)}) {
		t.Fatalf("CreateOverlay = %+v, %v", base, err)
	}
	for _, path := range []string{layerPath(s, im), overlay} {
		if out := qemuImg(t, "check", "-f", "qcow2", path); !strings.Contains(out, "No errors were found") {
			t.Error(out)
		}
		checkQEMU(t, path, patched)
	}
	chain := qemuImg(t, "info", "--backing-chain", "-f", "qcow2", overlay)
	if strings.Count(chain, "backing file format: ") != 2 || strings.Index(chain, "backing file format: qcow2") > strings.Index(chain, "backing file format: raw") {
		t.Error(chain)
	}
	if _, again, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20); err != nil || again != overlay {
		t.Errorf("once more: %s, %v", again, err)
	}
	// What peers ask for comes out of both files.
	for at := 0; at < len(patched); at += images.ChunkBytes {
		part := patched[at:min(len(patched), at+images.ChunkBytes)]
		if plain, err := s.Chunk(t.Context(), images.Sum(part)); !images.AllZero(part) && (err != nil || !bytes.Equal(plain, part)) {
			t.Errorf("chunk at %d: %v", at, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Config{Root: s.cfg.Root})
	checkBase(t, s, im.Digest(), patched)
}

// checkQEMU reads an image as QEMU does.
func checkQEMU(t *testing.T, path string, want []byte) {
	t.Helper()
	flat := filepath.Join(t.TempDir(), "flat.raw")
	qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", path, flat)
	checkContent(t, flat, want)
}

// TestRootStays: the base below a layer goes after the last layer on it.
func TestRootStays(t *testing.T) {
	s, root, im, _, patched := withLayer(t)
	soon := time.Now().Add(time.Hour)
	clear := func(keep *hosttest.Image, want ...string) {
		t.Helper()
		named := map[string]bool{}
		if keep != nil {
			named[keep.Digest()] = true
		}
		gone, err := s.TrashBases(t.Context(), named, soon)
		if err != nil || fmt.Sprint(gone) != fmt.Sprint(want) {
			t.Errorf("went %v (%v), want %v", gone, err, want)
		}
	}
	clear(im)
	checkBase(t, s, im.Digest(), patched)
	if _, _, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20); err != nil {
		t.Fatal(err)
	}
	clear(nil)
	if err := s.TrashOverlay(t.Context(), life(7)); err != nil {
		t.Fatal(err)
	}
	clear(root, im.Digest())
	mustEnsure(t, s, im)
	mustLayer(t, s, im, true)
	if n := im.Given(); n != 0 {
		t.Errorf("%d chunks fetched that lie in the trash", n)
	}
	clear(nil, im.Digest(), root.Digest())
}

// TestRootStaysWhileALayerIsMade: nor does it go from under one that is on its way.
func TestRootStaysWhileALayerIsMade(t *testing.T) {
	s, disk := open(t, Config{}), noisy(12)
	root, im := image(t, disk), image(t, patchOf(disk))
	mustEnsure(t, s, root)
	im.Spoil(func(_ images.Digest, sealed []byte) ([]byte, error) {
		if gone, err := s.TrashBases(t.Context(), nil, time.Now().Add(time.Hour)); err != nil || len(gone) > 0 {
			t.Errorf("went %v, %v", gone, err)
		}
		return sealed, nil
	})
	mustEnsure(t, s, im)
	mustLayer(t, s, im, true)
}

// TestRootLostWhileALayerIsMade: a layer is not published on what is not whole any more; the next try does without.
func TestRootLostWhileALayerIsMade(t *testing.T) {
	s, disk := open(t, Config{}), noisy(12)
	root, im := image(t, disk), image(t, patchOf(disk))
	mustEnsure(t, s, root)
	im.Spoil(func(_ images.Digest, sealed []byte) ([]byte, error) {
		spoilFile(t, basePath(s, root), 10)
		return sealed, nil
	})
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); err == nil {
		t.Error("a layer was made on a damaged base")
	}
	im.Spoil(nil)
	mustEnsure(t, s, im)
	mustLayer(t, s, im, false)
	checkBase(t, s, im.Digest(), patchOf(disk))
}

// TestResumeOfLayer: what is right of a broken-off layer is kept.
func TestResumeOfLayer(t *testing.T) {
	s, disk := open(t, Config{}), noisy(40)
	mustEnsure(t, s, image(t, disk))
	patched := bytes.Clone(disk)
	for i := range 6 {
		copy(patched[(3+5*i)*images.ChunkBytes:], "a patch")
	}
	im, broken, left := image(t, patched), errors.New("line cut"), 4
	im.Spoil(func(_ images.Digest, b []byte) ([]byte, error) {
		if left--; left < 0 {
			return nil, broken
		}
		return b, nil
	})
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); !errors.Is(err, broken) {
		t.Fatalf("EnsureBase = %v", err)
	}
	part := s.path(dirTmp, partName(mustDigest(t, im), true))
	for _, at := range []int64{100, 6*images.ChunkBytes + 9} { // the header, and the second piece
		flipAt(t, part, at)
	}
	if err := s.Sweep(t.Context(), time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	im.Given()
	im.Spoil(nil)
	mustEnsure(t, s, im)
	mustLayer(t, s, im, true)
	checkBase(t, s, im.Digest(), patched)
	if n := im.Given(); n != 3 {
		t.Errorf("%d chunks fetched, want the damaged and the two missing ones", n)
	}
}

// TestConsolidation: layers are always on a raw base and hold all that differs from it; one that would hold too much is made
// whole instead. So what a VM opens has three files at most however many versions came before: overlay, layer and raw base.
func TestConsolidation(t *testing.T) {
	s, disk := open(t, Config{}), noisy(40)
	mustEnsure(t, s, image(t, disk))
	layers, raws := 0, 0
	for i := range 20 {
		disk = bytes.Clone(disk)
		copy(disk[2*i*images.ChunkBytes:], "version "+strconv.Itoa(i))
		im := image(t, disk)
		before := used(t, s)
		mustEnsure(t, s, im)
		if n := im.Given(); n != 1 {
			t.Errorf("version %d: %d chunks fetched, want 1", i, n)
		}
		checkBase(t, s, im.Digest(), disk)
		grown := used(t, s) - before
		if _, err := os.Stat(layerPath(s, im)); err == nil {
			layers++
			if most := int64(5+(i%10)+2) * images.ChunkBytes; grown > most {
				t.Errorf("version %d took %d bytes, at most %d were needed", i, grown, most)
			}
			checkQEMU(t, layerPath(s, im), disk)
		} else {
			raws++
		}
		_, overlay, err := s.CreateOverlay(t.Context(), life(int64(i+1)), im.Digest(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if links := strings.Count(qemuImg(t, "info", "--backing-chain", "-f", "qcow2", overlay), "image: "); links < 2 || links > 3 {
			t.Errorf("version %d: a VM's disk is a chain of %d files, at most 3 are wanted", i, links)
		}
	}
	if raws != 1 || layers != 19 {
		t.Errorf("%d whole bases and %d layers after the first", raws, layers)
	}
}

// used is what du says of the bases.
func used(t *testing.T, s *Store) int64 {
	t.Helper()
	out, err := exec.Command("du", "-s", "--block-size=1", s.path(dirBases)).Output()
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(out))[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestReservationOfLayer: a next version is taken in where there is room for what differs, and for no more.
func TestReservationOfLayer(t *testing.T) {
	s, disk := open(t, Config{}), noisy(40)
	mustEnsure(t, s, image(t, disk))
	patched := bytes.Clone(disk)
	copy(patched[4*images.ChunkBytes:], "a patch")
	im, most := image(t, patched), uint64(0)
	im.Spoil(func(_ images.Digest, sealed []byte) ([]byte, error) {
		s.alloc.Lock()
		defer s.alloc.Unlock()
		for c := range s.claims {
			most = max(most, c.bytes)
		}
		return sealed, nil
	})
	mustEnsure(t, s, im)
	if most == 0 || most > 7*images.ChunkBytes {
		t.Errorf("%d bytes were claimed for a patch of one piece", most)
	}
}

// TestBuildOnLayer: what a build's VM wrote over a layer is read through it and the base below.
func TestBuildOnLayer(t *testing.T) {
	s, _, im, _, patched := withLayer(t)
	_, overlay, err := s.CreateOverlay(t.Context(), buildLife, im.Digest(), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	qemuIO(t, overlay, "write -P 0xaa 300k 100", "write -P 0xbb "+strconv.Itoa(4*images.ChunkBytes+70_000)+" 10", "write -P 0xcc 1400k 10", "write -z 2M 256k")
	flat := filepath.Join(t.TempDir(), "flat")
	qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", overlay, flat)
	want, err := os.ReadFile(flat)
	if err != nil {
		t.Fatal(err)
	}
	parent, disk, err := s.Changes(t.Context(), buildLife, im.Digest())
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	got := make([]byte, len(patched))
	if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what the build wrote reads otherwise than QEMU reads it: %v", err)
	}
	touched := 0
	for p := range parent.Pieces() {
		if disk.Piece(p.Index) != pack.Kept {
			touched++
		}
	}
	if touched != 4 {
		t.Errorf("%d pieces count as changed, want 4", touched)
	}
}
