package hosttest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"daybreak/hostagent"
	"daybreak/images"
)

// noiseImage is content that no other host has seen.
func noiseImage(t *testing.T) *Image {
	t.Helper()
	disk := make([]byte, 3*images.ChunkBytes+512)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	rand.NewChaCha8(seed).Read(disk[:2*images.ChunkBytes])
	return NewImage(t, bytes.NewReader(disk), int64(len(disk)))
}

func (r *Rig) listsBase(t *testing.T, im *Image) bool {
	t.Helper()
	digests, err := r.Disks.Bases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.Contains(digests, im.Digest())
}

func (r *Rig) testBase(t *testing.T) {
	im := noiseImage(t)
	if _, _, err := r.Disks.CreateOverlay(t.Context(), newLife("early"), im.Digest(), 1<<20); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("overlay on a base that is not there: %v, want ErrNotFound", err)
	}
	for name, spoil := range map[string]func(images.Digest, []byte) ([]byte, error){
		"bit flipped": func(_ images.Digest, b []byte) ([]byte, error) { b[len(b)/2] ^= 1; return b, nil },
		"truncated":   func(_ images.Digest, b []byte) ([]byte, error) { return b[:len(b)/2], nil },
	} {
		im.Spoil(spoil)
		if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(uint32) {}); !errors.Is(err, hostagent.ErrCorrupt) {
			t.Errorf("%s: EnsureBase = %v, want ErrCorrupt", name, err)
		}
		if r.listsBase(t, im) {
			t.Errorf("%s: the base is listed", name)
		}
	}
	broken := errors.New("line cut")
	im.Spoil(func(images.Digest, []byte) ([]byte, error) { return nil, broken })
	if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(uint32) {}); !errors.Is(err, broken) || r.listsBase(t, im) {
		t.Errorf("source breaks off: %v; listed %v", err, r.listsBase(t, im))
	}
	im.Spoil(nil)
	im.Given()
	var progress []uint32
	if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(p uint32) { progress = append(progress, p) }); err != nil {
		t.Fatal(err)
	}
	if len(progress) == 0 || progress[len(progress)-1] != 100 || !slices.IsSorted(progress) {
		t.Errorf("progress %v, want it to rise to 100", progress)
	}
	if n := im.Given(); n != 2 || !r.listsBase(t, im) {
		t.Errorf("%d chunks fetched, want 2; listed %v", n, r.listsBase(t, im))
	}
	if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(uint32) {}); err != nil || im.Given() != 0 {
		t.Errorf("a base that is there was fetched again (%v)", err)
	}
	for digest := range im.sealed {
		if plain, err := r.Disks.Chunk(t.Context(), digest); err != nil || images.Sum(plain) != digest {
			t.Errorf("chunk of a base: %d bytes, %v", len(plain), err)
		}
	}
	if _, err := r.Disks.Chunk(t.Context(), images.Sum([]byte("nowhere"))); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("chunk that is nowhere: %v, want ErrNotFound", err)
	}
}

func (r *Rig) testOverlay(t *testing.T) {
	life := newLife("overlay")
	next := life
	next.Generation++
	has := func(l hostagent.Life) bool {
		t.Helper()
		lives, err := r.Disks.Overlays(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(lives, l)
	}
	base, overlay, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), 1<<20)
	if err != nil || base.Raw == "" || overlay == "" || base.Top() == overlay {
		t.Fatalf("CreateOverlay = %+v, %q, %v", base, overlay, err)
	}
	if _, again, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), 1<<20); err != nil || again != overlay {
		t.Errorf("again: %q, %v; want %q", again, err, overlay)
	}
	if _, other, err := r.Disks.CreateOverlay(t.Context(), next, r.Image.Digest(), 1<<20); err != nil || other == overlay {
		t.Errorf("the next generation's: %q, %v; want another one", other, err)
	}
	for range 2 {
		if err := r.Disks.TrashOverlay(t.Context(), life); err != nil {
			t.Errorf("TrashOverlay: %v", err)
		}
	}
	if has(life) || !has(next) {
		t.Errorf("listed after the trash: %v; the other: %v", has(life), has(next))
	}
	if err := r.Disks.Sweep(t.Context(), time.Now()); err != nil || !has(next) {
		t.Errorf("Sweep: %v; the other listed: %v", err, has(next))
	}
	if err := r.Disks.TrashOverlay(t.Context(), next); err != nil {
		t.Error(err)
	}
}

func (r *Rig) testData(t *testing.T) {
	life := newLife("data")
	const size = 4 << 20
	path, err := r.Disks.CreateData(t.Context(), life.Desktop, life.UID, size)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Disks.CreateData(t.Context(), life.Desktop, life.UID, size/2); err != nil || again != path {
		t.Errorf("again: %q, %v; want %q", again, err, path)
	}
	bytesOf := func() (size uint64) {
		t.Helper()
		disks, err := r.Disks.DataDisks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range disks {
			if d.GetDesktopUid() == life.UID && d.GetDesktop() == life.Desktop {
				size += d.GetBytes()
			}
		}
		return size
	}
	if got := bytesOf(); got != size {
		t.Errorf("listed with %d bytes, want %d: it never shrinks", got, size)
	}
	// A life comes and goes; the data disk is not a part of it.
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), 1<<20); err != nil {
		t.Error(err)
	}
	if err := r.Disks.TrashOverlay(t.Context(), life); err != nil {
		t.Error(err)
	}
	if got := bytesOf(); got != size {
		t.Errorf("after a life: %d bytes, want %d", got, size)
	}
	for range 2 {
		if err := r.Disks.TrashData(t.Context(), life.UID); err != nil {
			t.Errorf("TrashData: %v", err)
		}
	}
	if got := bytesOf(); got != 0 {
		t.Errorf("after the trash: %d bytes", got)
	}
}

func (r *Rig) testNoSpace(t *testing.T) {
	space, err := r.Disks.Space(t.Context())
	if err != nil || space.Available == 0 || space.Available > space.Size {
		t.Fatalf("Space = %+v, %v", space, err)
	}
	life := newLife("greedy")
	tooMuch := (space.Size + 1<<20) &^ 511
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), tooMuch); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("CreateOverlay with more than there is: %v, want ErrNoSpace", err)
	}
	if _, err := r.Disks.CreateData(t.Context(), life.Desktop, life.UID, tooMuch); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("CreateData with more than there is: %v, want ErrNoSpace", err)
	}
	lives, err := r.Disks.Overlays(t.Context())
	if err != nil || slices.Contains(lives, life) {
		t.Errorf("what was refused is there: %v, %v", lives, err)
	}
	// Promises count before they are used.
	half := (space.Available / 2) &^ 511
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, r.Image.Digest(), half); err != nil {
		t.Fatal(err)
	}
	after, err := r.Disks.Space(t.Context())
	if err != nil || after.Available > space.Available-half/2 {
		t.Errorf("after a promise of %d of %d: %d available (%v)", half, space.Available, after.Available, err)
	}
	if err := r.Disks.TrashOverlay(t.Context(), life); err != nil {
		t.Error(err)
	}
}

// keepAll is every base but one.
func (r *Rig) keepAll(t *testing.T, but *Image) map[string]bool {
	t.Helper()
	digests, err := r.Disks.Bases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keep := map[string]bool{}
	for _, digest := range digests {
		keep[digest] = digest != but.Digest()
	}
	return keep
}

// testTrashBases: a base goes only when nothing needs it, and comes again when something does.
func (r *Rig) testTrashBases(t *testing.T) {
	im, life := noiseImage(t), newLife("tenant")
	ensure := func() {
		t.Helper()
		if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(uint32) {}); err != nil {
			t.Fatal(err)
		}
	}
	stays := func(what string, keep map[string]bool, since time.Time) {
		t.Helper()
		if gone, err := r.Disks.TrashBases(t.Context(), keep, since); err != nil || len(gone) > 0 || !r.listsBase(t, im) {
			t.Errorf("%s: went %v (%v)", what, gone, err)
		}
	}
	soon := func() time.Time { return time.Now().Add(time.Hour) }
	ensure()
	keep := r.keepAll(t, im)
	stays("used a moment ago", keep, time.Now().Add(-time.Hour))
	keep[im.Digest()] = true
	stays("kept", keep, soon())
	keep[im.Digest()] = false
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, im.Digest(), 1<<20); err != nil {
		t.Fatal(err)
	}
	stays("with an overlay on it", keep, soon())
	if err := r.Disks.TrashOverlay(t.Context(), life); err != nil {
		t.Fatal(err)
	}
	gone, err := r.Disks.TrashBases(t.Context(), keep, soon())
	if err != nil || !slices.Equal(gone, []string{im.Digest()}) || r.listsBase(t, im) {
		t.Fatalf("needed by nothing: went %v (%v), listed %v", gone, err, r.listsBase(t, im))
	}
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, im.Digest(), 1<<20); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("overlay on a base that went: %v, want ErrNotFound", err)
	}
	ensure()
	if !r.listsBase(t, im) {
		t.Error("it did not come again")
	}
	if gone, err := r.Disks.TrashBases(t.Context(), keep, soon()); err != nil || len(gone) != 1 {
		t.Errorf("the second time: went %v (%v)", gone, err)
	}
}

// testNextVersion: a version that differs little from one that is there costs little, and stays whole when that one is not
// needed any more.
func (r *Rig) testNextVersion(t *testing.T) {
	disk := make([]byte, 8*images.ChunkBytes)
	for i := range disk {
		disk[i] = byte(rand.Uint32())
	}
	before := NewImage(t, bytes.NewReader(disk), int64(len(disk)))
	copy(disk[5*images.ChunkBytes:], "a patch")
	after, life := NewImage(t, bytes.NewReader(disk), int64(len(disk))), newLife("patched")
	for _, im := range []*Image{before, after} {
		if err := r.Disks.EnsureBase(t.Context(), im.Digest(), im, func(uint32) {}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, after.Digest(), 1<<20); err != nil {
		t.Fatal(err)
	}
	keep := r.keepAll(t, before)
	if _, err := r.Disks.TrashBases(t.Context(), keep, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Disks.CreateOverlay(t.Context(), life, after.Digest(), 1<<20); err != nil || !r.listsBase(t, after) {
		t.Errorf("without the version before: %v", err)
	}
	for at := 0; at < len(disk); at += images.ChunkBytes {
		part := disk[at : at+images.ChunkBytes]
		if plain, err := r.Disks.Chunk(t.Context(), images.Sum(part)); err != nil || !bytes.Equal(plain, part) {
			t.Errorf("its chunk at %d: %d bytes, %v", at, len(plain), err)
		}
	}
	if err := r.Disks.TrashOverlay(t.Context(), life); err != nil {
		t.Error(err)
	}
	keep[after.Digest()] = false
	_, err := r.Disks.TrashBases(t.Context(), keep, time.Now().Add(time.Hour))
	if err != nil || r.listsBase(t, before) || r.listsBase(t, after) {
		t.Errorf("what nothing needs is still there (%v)", err)
	}
}

// testScrub: every base has its turn, and then none is due.
func (r *Rig) testScrub(t *testing.T) {
	digests, err := r.Disks.Bases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	now, seen := time.Now(), map[string]bool{}
	for range 1000 {
		digest, damaged, err := r.Disks.Scrub(t.Context(), now, 1<<40)
		if err != nil || damaged || seen[digest] {
			t.Fatalf("Scrub = %q, %v, %v; seen before: %v", digest, damaged, err, seen[digest])
		}
		if digest == "" {
			break
		}
		seen[digest] = true
	}
	if len(seen) != len(digests) {
		t.Errorf("%d of %d bases had their turn", len(seen), len(digests))
	}
	if digest, _, err := r.Disks.Scrub(t.Context(), now.Add(-time.Hour), 1<<40); digest != "" || err != nil {
		t.Errorf("one that was just compared is due: %q, %v", digest, err)
	}
}
