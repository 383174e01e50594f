package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"daybreak/hostagent"
	"daybreak/images"
	"daybreak/images/pack"
)

var buildLife = hostagent.Life{Desktop: "office", UID: uid, Generation: 1, Build: true}

// largeBase has more than one second-level table, and an odd end.
func largeBase() []byte {
	base := make([]byte, bytesPerL2+5*images.ChunkBytes+512)
	copy(base, content(1, diskSize))
	copy(base[bytesPerL2:], content(2, 5*images.ChunkBytes+512))
	return base
}

// withBuild makes a build's overlay on a base.
func withBuild(t *testing.T, base []byte) (s *Store, digest, overlay string) {
	t.Helper()
	s = open(t, Config{})
	t.Cleanup(func() { s.Close() })
	im := image(t, base)
	mustEnsure(t, s, im)
	_, overlay, err := s.CreateOverlay(t.Context(), buildLife, im.Digest(), 1<<40)
	if err != nil {
		t.Fatalf("more is reserved than the disk can take: %v", err)
	}
	return s, im.Digest(), overlay
}

// qemuIO writes as a guest would.
func qemuIO(t *testing.T, overlay string, commands ...string) {
	t.Helper()
	if _, err := exec.LookPath("qemu-io"); err != nil {
		t.Skip("qemu-io is not installed")
	}
	args := []string{"-f", "qcow2", "-d", "unmap"}
	for _, command := range commands {
		args = append(args, "-c", command)
	}
	if out, err := exec.Command("qemu-io", append(args, overlay)...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-io %q: %v\n%s", commands, err, out)
	}
}

func TestChangesOfNothing(t *testing.T) {
	s, digest, _ := withBuild(t, content(1, diskSize))
	parent, disk, err := s.Changes(t.Context(), buildLife, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	for p := range parent.Pieces() {
		if state := disk.Piece(p.Index); state != pack.Kept {
			t.Errorf("piece %d of an overlay that nobody wrote to: %v", p.Index, state)
		}
	}
}

// What QEMU wrote is read as QEMU reads it, and what is said to be kept, or zero, is.
func TestChangesAsQEMUReadsThem(t *testing.T) {
	base := largeBase()
	s, digest, overlay := withBuild(t, base)
	rng := rand.New(rand.NewPCG(1, 2))
	commands := []string{"write -P 0xaa 0 1M", "write -z 300k 300k", "discard 0 128k", "write -P 0x55 " + strconv.Itoa(len(base)-700) + " 700", "discard 1M 768k"}
	for range 60 {
		at := rng.IntN(12*images.ChunkBytes) / 512 * 512
		if rng.IntN(2) == 0 {
			at += bytesPerL2 - 7*images.ChunkBytes
		}
		length := min(512*(1+rng.IntN(600)), len(base)-at)
		what := []string{"write -P " + strconv.Itoa(1+rng.IntN(255)), "write -z", "discard"}[rng.IntN(3)]
		commands = append(commands, what+" "+strconv.Itoa(at)+" "+strconv.Itoa(length))
	}
	qemuIO(t, overlay, commands...)
	raw := filepath.Join(t.TempDir(), "raw")
	qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", overlay, raw)
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	parent, disk, err := s.Changes(t.Context(), buildLife, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	buf, count := make([]byte, images.ChunkBytes), map[pack.State]int{}
	for p := range parent.Pieces() {
		part, state := want[p.Offset:p.Offset+int64(p.Length)], disk.Piece(p.Index)
		count[state]++
		if _, err := disk.ReadAt(buf[:p.Length], p.Offset); err != nil || !bytes.Equal(buf[:p.Length], part) {
			t.Errorf("piece %d (%v) is not what QEMU reads: %v", p.Index, state, err)
		}
		switch {
		case state == pack.Kept && !bytes.Equal(part, base[p.Offset:p.Offset+int64(p.Length)]):
			t.Errorf("piece %d is said to be kept, and differs", p.Index)
		case state == pack.Zeroed && !images.AllZero(part):
			t.Errorf("piece %d is said to be zero, and is not", p.Index)
		case state == pack.Thinned && p.Zero() && !images.AllZero(part):
			t.Errorf("piece %d is said to have lost something, and has won", p.Index)
		}
	}
	if count[pack.Written] == 0 || count[pack.Zeroed] == 0 || count[pack.Thinned] == 0 || count[pack.Kept] < parent.Len()/2 {
		t.Errorf("the test wrote too little: %v", count)
	}
	if _, err := disk.ReadAt(buf, int64(len(base))); !errors.Is(err, io.EOF) {
		t.Errorf("reading behind the end: %v", err)
	}
}

// Tables that QEMU has no reason to write are refused.
func TestChangesOfHostileTables(t *testing.T) {
	s, digest, overlay := withBuild(t, content(1, diskSize))
	qemuIO(t, overlay, "write -P 0xaa 0 1M")
	good, err := os.ReadFile(overlay)
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	l1 := be.Uint64(good[40:])
	l2 := be.Uint64(good[l1:]) & entryOffset
	set := func(at uint64, value uint64) func([]byte) {
		return func(b []byte) { be.PutUint64(b[at:], value) }
	}
	set32 := func(at int, value uint32) func([]byte) {
		return func(b []byte) { be.PutUint32(b[at:], value) }
	}
	for name, change := range map[string]func([]byte){
		"other format":          set32(0, 0x51464900),
		"old version":           set32(4, 2),
		"other clusters":        set32(20, 12),
		"longer disk":           set(24, 1<<50),
		"encrypted":             set32(32, 1),
		"huge first table":      set32(36, 1<<30),
		"first table in header": set(40, 0),
		"first table outside":   set(40, uint64(len(good))),
		"first table askew":     set(40, l1+8),
		"snapshots":             set32(60, 1),
		"external data file":    set(72, 4),
		"marked corrupt":        set(72, 2),
		"unknown feature":       set(72, 1<<40),
		"other backing file":    func(b []byte) { copy(b[be.Uint64(b[8:]):], "/etc/shadow") },
		"name of backing far":   set(8, 1<<60),
		"shorter name":          set32(16, 3),
		"second table outside":  set(l1, entryCopied|uint64(len(good)+clusterSize-1)/clusterSize*clusterSize),
		"second table askew":    set(l1, entryCopied|(l2+512)),
		"second table reserved": set(l1, l2|1),
		"compressed cluster":    set(l2, entryCompressed|clusterSize),
		"cluster in header":     set(l2+8, entryCopied|512),
		"cluster outside":       set(l2+8, entryCopied|1<<50),
		"cluster reserved bits": set(l2+8, l2|1<<58),
	} {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(good)
			change(bad)
			if err := os.WriteFile(overlay, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Changes(t.Context(), buildLife, digest); !errors.Is(err, errOverlay) {
				t.Errorf("Changes: %v, want errOverlay", err)
			}
		})
	}
	if err := os.WriteFile(overlay, good, 0o600); err != nil {
		t.Fatal(err)
	}
	_, disk, err := s.Changes(t.Context(), buildLife, digest)
	if err != nil {
		t.Fatalf("the overlay as it was: %v", err)
	}
	disk.Close()
	if err := os.Truncate(overlay, 50); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Changes(t.Context(), buildLife, digest); err == nil {
		t.Error("an overlay of 50 bytes was read")
	}
	if err := errors.Join(os.Remove(overlay), os.Symlink("/etc/shadow", overlay)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Changes(t.Context(), buildLife, digest); err == nil {
		t.Error("a link was followed")
	}
}

// Whatever stands in an overlay, reading it ends, and nothing but an error or content comes of it.
func FuzzChanges(f *testing.F) {
	const size = 3*images.ChunkBytes + 512
	dir := f.TempDir()
	base := filepath.Join(dir, "base")
	if err := os.WriteFile(base, content(1, diskSize)[:size], 0o600); err != nil {
		f.Fatal(err)
	}
	seed, err := os.Create(filepath.Join(dir, "seed"))
	if err != nil {
		f.Fatal(err)
	}
	if err := writeOverlay(seed, base, formatRaw, size); err != nil {
		f.Fatal(err)
	}
	empty, err := os.ReadFile(seed.Name())
	if err != nil {
		f.Fatal(err)
	}
	// The place of one table, and one entry in it.
	f.Add(uint64(0), uint64(0), uint64(0))
	f.Add(uint64(clusterL1*clusterSize), uint64(4*clusterSize)|entryCopied, uint64(5*clusterSize)|entryCopied)
	f.Add(uint64(clusterL1*clusterSize), uint64(4*clusterSize), uint64(entryZero))
	f.Add(uint64(40), uint64(clusterSize), uint64(clusterSize))
	f.Fuzz(func(t *testing.T, at, value, entry uint64) {
		image := append(bytes.Clone(empty), make([]byte, 3*clusterSize)...)
		binary.BigEndian.PutUint64(image[4*clusterSize:], entry)
		binary.BigEndian.PutUint64(image[at%uint64(len(image)-8):], value)
		path := filepath.Join(t.TempDir(), "overlay")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		baseFile, err := os.Open(base)
		if err != nil {
			t.Fatal(err)
		}
		c := &changes{overlay: overlay, base: baseFile, size: size}
		defer c.Close()
		if c.load(t.Context(), base) != nil {
			return
		}
		buf := make([]byte, images.ChunkBytes)
		for i := range images.Count(size) {
			c.Piece(i)
			if n, err := c.ReadAt(buf, int64(i)*images.ChunkBytes); err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("piece %d: %d bytes, %v", i, n, err)
			}
		}
	})
}

func TestBuildOverlays(t *testing.T) {
	s, digest, overlay := withBuild(t, content(1, diskSize))
	if lives, err := s.Overlays(t.Context()); err != nil || len(lives) != 0 {
		t.Errorf("a build's overlay is listed as a desktop's: %v, %v", lives, err)
	}
	if lives, err := s.BuildOverlays(t.Context()); err != nil || len(lives) != 1 || lives[0] != buildLife {
		t.Errorf("BuildOverlays = %v, %v", lives, err)
	}
	if err := s.TrashOverlay(t.Context(), buildLife); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(overlay); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the overlay is still there: %v", err)
	}
	if entries, err := os.ReadDir(s.path(dirTrash)); err != nil || len(entries) != 0 {
		t.Errorf("the trash has %v (%v)", entries, err)
	}
	if err := s.TrashOverlay(t.Context(), buildLife); err != nil {
		t.Errorf("once more: %v", err)
	}
	if _, _, err := s.Changes(t.Context(), buildLife, digest); err == nil {
		t.Error("Changes of nothing succeeded")
	}
}
