package disk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"daybreak/hostagent"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
)

// deltas is a source that answers with deltas to what is offered, of content that it knows.
type deltas struct {
	*hosttest.Image
	codec *images.Codec
	plain map[images.Digest][]byte
	spoil func(sealed []byte) []byte

	mu           sync.Mutex
	delta, whole int
	bytes        int
}

func newDeltas(t *testing.T, disks ...[]byte) *deltas {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	d := &deltas{codec: codec, plain: map[images.Digest][]byte{}}
	for _, disk := range disks {
		d.Image = image(t, disk)
		for at := 0; at < len(disk); at += images.ChunkBytes {
			plain := disk[at:min(len(disk), at+images.ChunkBytes)]
			d.plain[images.Sum(plain)] = plain
		}
	}
	return d
}

func (d *deltas) Chunks(ctx context.Context, wants []hostagent.Want, sink func(images.Chunk) error) error {
	for _, want := range wants {
		base := d.plain[want.Base]
		if base == nil {
			d.mu.Lock()
			d.whole++
			d.mu.Unlock()
			if err := d.Image.Chunks(ctx, []hostagent.Want{want}, sink); err != nil {
				return err
			}
			continue
		}
		sealed := d.codec.SealDelta(d.plain[want.Digest], base)
		if d.spoil != nil {
			sealed = d.spoil(sealed)
		}
		d.mu.Lock()
		d.delta++
		d.bytes += len(sealed)
		d.mu.Unlock()
		if err := sink(images.Chunk{Digest: want.Digest, Sealed: sealed, Base: want.Base}); err != nil {
			return err
		}
	}
	return nil
}

// noisy is a disk of pieces that all differ.
func noisy(pieces int) []byte {
	disk := make([]byte, pieces*images.ChunkBytes+512)
	rand.NewChaCha8([32]byte{7}).Read(disk)
	return disk
}

func TestDeltas(t *testing.T) {
	for name, c := range map[string]struct {
		hurt         func(t *testing.T, base string)
		spoil        func([]byte) []byte
		delta, whole int
	}{
		"as it should be": {delta: 2},
		// One delta cannot be read, since its dictionary is damaged.
		"the seed is damaged where it is the dictionary": {hurt: func(t *testing.T, base string) { spoilFile(t, base, 4*images.ChunkBytes) }, delta: 2, whole: 1},
		// Nothing of what is damaged is in what comes out.
		"the seed is damaged where it is patched": {hurt: func(t *testing.T, base string) { spoilFile(t, base, 4*images.ChunkBytes+1000) }, delta: 2},
		// What was copied unread is found by the comparison, and fetched.
		"the seed is damaged where it is copied": {hurt: func(t *testing.T, base string) { spoilFile(t, base, 9*images.ChunkBytes) }, delta: 2, whole: 1},
		"the seed is cut off":                    {hurt: func(_ *testing.T, base string) { os.Truncate(base, 8*images.ChunkBytes) }, delta: 2, whole: 5},
		"the deltas are no deltas":               {spoil: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, delta: 2, whole: 2},
	} {
		t.Run(name, func(t *testing.T) {
			s, disk := open(t, Config{}), noisy(12)
			old := image(t, disk)
			mustEnsure(t, s, old)
			if c.hurt != nil {
				c.hurt(t, basePath(s, old))
			}
			patched := bytes.Clone(disk)
			copy(patched[4*images.ChunkBytes+1000:], "a patch")
			copy(patched[7*images.ChunkBytes+99_000:], "another patch")
			from := newDeltas(t, disk, patched)
			from.spoil = c.spoil
			if err := s.EnsureBase(t.Context(), from.Digest(), from, noProgress); err != nil {
				t.Fatal(err)
			}
			checkBase(t, s, from.Digest(), patched)
			if from.delta != c.delta || from.whole != c.whole {
				t.Errorf("%d deltas and %d whole chunks, want %d and %d", from.delta, from.whole, c.delta, c.whole)
			}
			if from.bytes > 1000 && c.spoil == nil {
				t.Errorf("%d bytes for two small patches", from.bytes)
			}
			_, trusted := s.usable(mustDigest(t, old))
			if trusted != (c.hurt == nil) {
				t.Errorf("the seed is trusted: %v", trusted)
			}
		})
	}
}

func mustDigest(t *testing.T, im *hosttest.Image) images.Digest {
	t.Helper()
	d, err := images.ParseDigest(im.Digest())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lyingDeltas gives deltas that nobody offered a base for.
type lyingDeltas struct{ *hosttest.Image }

func (l lyingDeltas) Chunks(_ context.Context, wants []hostagent.Want, sink func(images.Chunk) error) error {
	return sink(images.Chunk{Digest: wants[0].Digest, Sealed: []byte("x"), Base: images.Sum([]byte("y"))})
}

func TestDeltaToNothing(t *testing.T) {
	s, im := open(t, Config{}), image(t, content(1, diskSize))
	if err := s.EnsureBase(t.Context(), im.Digest(), lyingDeltas{im}, noProgress); !errors.Is(err, hostagent.ErrCorrupt) {
		t.Errorf("EnsureBase = %v, want ErrCorrupt", err)
	}
}

func TestDamageIsFoundEverywhere(t *testing.T) {
	disk := content(3, diskSize)
	im := image(t, disk)
	encoded, _ := im.Manifest(t.Context(), im.Digest())
	m, err := images.Parse(encoded)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "base")
	for at := int64(0); at < diskSize; at += images.ChunkBytes / 2 {
		if err := os.WriteFile(path, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		spoilFile(t, path, at)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		wrong, err := damage(t.Context(), f, m, nil, atOnce())
		f.Close()
		if err != nil || len(wrong) != 1 || wrong[0].Index != int(at/images.ChunkBytes) {
			t.Errorf("damage at %d: found %v, %v", at, wrong, err)
		}
	}
}

// Chunks of a base on its way are given out as they come, those of a damaged base are not.
func TestChunksAreGiven(t *testing.T) {
	s, disk := open(t, Config{}), noisy(4)
	im := image(t, disk)
	given := 0
	im.Spoil(func(_ images.Digest, sealed []byte) ([]byte, error) {
		n := 0
		for at := 0; at < len(disk); at += images.ChunkBytes {
			digest := images.Sum(disk[at:min(len(disk), at+images.ChunkBytes)])
			if plain, err := s.Chunk(t.Context(), digest); err == nil && images.Sum(plain) == digest {
				n++
			} else if !errors.Is(err, hostagent.ErrNotFound) {
				t.Errorf("Chunk: %v", err)
			}
		}
		if n != given {
			t.Errorf("%d chunks after %d came", n, given)
		}
		given++
		return sealed, nil
	})
	mustEnsure(t, s, im)
	last := images.Sum(disk[4*images.ChunkBytes:])
	if plain, err := s.Chunk(t.Context(), last); err != nil || !bytes.Equal(plain, disk[4*images.ChunkBytes:]) {
		t.Errorf("the last piece: %d bytes, %v", len(plain), err)
	}
	spoilFile(t, basePath(s, im), 10)
	if _, err := s.Chunk(t.Context(), images.Sum(disk[:images.ChunkBytes])); !errors.Is(err, hostagent.ErrNotFound) {
		t.Errorf("a damaged chunk: %v, want ErrNotFound", err)
	}
	if bases, _ := s.Bases(t.Context()); len(bases) != 0 {
		t.Error("the damaged base is trusted still")
	}
}
