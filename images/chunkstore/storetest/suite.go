// Package storetest is the contract of an image store, as tests. Here: what every store of chunks and manifests must do, and
// a store in memory whose clock the test moves.
// Not here: what only one kind of store can get wrong. Only tests call it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"daybreak/images"
	"daybreak/images/chunkstore"
)

// Opened is a store to be tested, new and empty.
type Opened struct {
	chunkstore.Store
	// Another is the same store as another process has it open.
	Another chunkstore.Store
	// Rough: two callers that send the same at the same moment may both be told that the store grew by it.
	Rough bool
	// MakeOld makes all that is in it so much older.
	MakeOld func(t *testing.T, by time.Duration)
}

// Run tests stores that open returns.
func Run(t *testing.T, open func(t *testing.T) Opened) {
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]func(*testing.T, Opened, *images.Codec){
		"chunks":     testChunks,
		"corrupt":    testCorrupt,
		"manifests":  testManifests,
		"concurrent": testConcurrent,
		"cancelled":  testCancelled,
		"list":       testList,
		"remove":     testRemove,
		"young":      testYoung,
		"races":      testRaces,
		"owner":      testOwner,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t), codec) })
	}
}

// Sample makes the i-th of endless different chunks.
func Sample(codec *images.Codec, i int) images.Chunk {
	plain := make([]byte, 1024+512*(i%7))
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8)}).Read(plain[:512])
	return images.Chunk{Digest: images.Sum(plain), Sealed: codec.Seal(plain)}
}

func samples(codec *images.Codec, from, to int) ([]images.Chunk, []images.Digest) {
	var chunks []images.Chunk
	var digests []images.Digest
	for i := from; i < to; i++ {
		chunks = append(chunks, Sample(codec, i))
		digests = append(digests, chunks[len(chunks)-1].Digest)
	}
	return chunks, digests
}

func size(chunks []images.Chunk) (n uint64) {
	for _, chunk := range chunks {
		n += uint64(len(chunk.Sealed))
	}
	return n
}

func wantMissing(t *testing.T, s chunkstore.Store, ask, want []images.Digest) {
	t.Helper()
	got, err := s.Missing(t.Context(), ask)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Missing = %v, %v; want %v", got, err, want)
	}
}

func wantChunk(t *testing.T, s chunkstore.Store, chunk images.Chunk) {
	t.Helper()
	got, err := s.Get(t.Context(), chunk.Digest)
	if err != nil || !bytes.Equal(got, chunk.Sealed) {
		t.Errorf("Get(%s) = %d bytes, %v", chunk.Digest, len(got), err)
	}
}

func testChunks(t *testing.T, s Opened, codec *images.Codec) {
	chunks, digests := samples(codec, 0, 70)
	wantMissing(t, s, digests, digests)
	if _, err := s.Get(t.Context(), digests[0]); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("Get of a chunk that is not there: %v", err)
	}
	if grown, err := s.Put(t.Context(), chunks[:40]); err != nil || grown != size(chunks[:40]) {
		t.Fatalf("Put = %d, %v; want %d", grown, err, size(chunks[:40]))
	}
	wantMissing(t, s, digests, digests[40:])
	wantMissing(t, s, []images.Digest{{}, digests[50], digests[3], {}}, digests[50:51])
	// Some there, some new, one of them twice.
	again := append(slices.Clone(chunks[30:50]), chunks[49])
	if grown, err := s.Put(t.Context(), again); err != nil || grown != size(chunks[40:50]) {
		t.Errorf("Put of some that are there = %d, %v; want %d", grown, err, size(chunks[40:50]))
	}
	for _, chunk := range chunks[:50] {
		wantChunk(t, s, chunk)
	}
	if total, err := s.Size(t.Context(), digests); err != nil || total != size(chunks[:50]) {
		t.Errorf("Size = %d, %v; want %d", total, err, size(chunks[:50]))
	}
	wantMissing(t, s, nil, nil)
	if grown, err := s.Put(t.Context(), nil); grown != 0 || err != nil {
		t.Errorf("Put of nothing = %d, %v", grown, err)
	}
}

func testCorrupt(t *testing.T, s Opened, codec *images.Codec) {
	good, other := Sample(codec, 1), Sample(codec, 2)
	for name, bad := range map[string]images.Chunk{
		"another's content": {Digest: good.Digest, Sealed: other.Sealed},
		"no zstd":           {Digest: good.Digest, Sealed: []byte("garbage")},
		"nothing":           {Digest: good.Digest},
		"the zero digest":   {Sealed: codec.Seal(make([]byte, 512))},
		"too long":          {Digest: good.Digest, Sealed: make([]byte, images.MaxSealedBytes+1)},
	} {
		if _, err := s.Put(t.Context(), []images.Chunk{bad}); !errors.Is(err, images.ErrCorrupt) {
			t.Errorf("%s: Put: %v, want ErrCorrupt", name, err)
		}
	}
	wantMissing(t, s, []images.Digest{good.Digest}, []images.Digest{good.Digest})
	if _, err := s.Get(t.Context(), images.Digest{}); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("Get of the zero digest: %v", err)
	}
	// What was kept does not change when somebody sends the same content in another form.
	if _, err := s.Put(t.Context(), []images.Chunk{good}); err != nil {
		t.Fatal(err)
	}
	frame := append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, good.Sealed...) // a skippable frame before it
	if grown, err := s.Put(t.Context(), []images.Chunk{{Digest: good.Digest, Sealed: frame}}); err != nil || grown != 0 {
		t.Errorf("Put of the same content in another form = %d, %v", grown, err)
	}
	wantChunk(t, s, good)
}

// disk makes the manifest of a disk of whole chunks, and the chunks.
func disk(t *testing.T, codec *images.Codec, n int) (*images.Manifest, []images.Chunk) {
	t.Helper()
	list := make([]images.Digest, n+1)
	var chunks []images.Chunk
	for i := range n {
		plain := bytes.Repeat([]byte{byte(i + 1)}, images.ChunkBytes)
		list[i] = images.Sum(plain)
		chunks = append(chunks, images.Chunk{Digest: list[i], Sealed: codec.Seal(plain)})
	}
	manifest, err := images.NewManifest(uint64(n+1)*images.ChunkBytes, list)
	if err != nil {
		t.Fatal(err)
	}
	return manifest, chunks
}

func testManifests(t *testing.T, s Opened, codec *images.Codec) {
	manifest, chunks := disk(t, codec, 4)
	if _, err := s.GetManifest(t.Context(), manifest.Digest()); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("GetManifest of one that is not there: %v", err)
	}
	if _, err := s.Put(t.Context(), chunks[:3]); err != nil {
		t.Fatal(err)
	}
	if err := s.PutManifest(t.Context(), manifest); !errors.Is(err, images.ErrIncomplete) {
		t.Errorf("PutManifest with a chunk missing: %v", err)
	}
	if _, err := s.GetManifest(t.Context(), manifest.Digest()); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("a refused manifest was kept: %v", err)
	}
	if _, err := s.Put(t.Context(), chunks[3:]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.PutManifest(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.GetManifest(t.Context(), manifest.Digest())
	if err != nil || !bytes.Equal(got.Encoded(), manifest.Encoded()) {
		t.Errorf("GetManifest: %v", err)
	}
}

func testConcurrent(t *testing.T, s Opened, codec *images.Codec) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var total uint64
	for i := range 6 {
		wg.Go(func() {
			chunks, _ := samples(codec, i*4, i*4+12) // each overlaps its neighbours
			grown, err := s.Put(t.Context(), chunks)
			if err != nil {
				t.Errorf("Put: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			total += grown
		})
	}
	wg.Wait()
	chunks, digests := samples(codec, 0, 32)
	wantMissing(t, s, digests, nil)
	for _, chunk := range chunks {
		wantChunk(t, s, chunk)
	}
	if total != size(chunks) && (!s.Rough || total < size(chunks)) {
		t.Errorf("the store says that it grew by %d bytes, it has %d", total, size(chunks))
	}
}

func testCancelled(t *testing.T, s Opened, codec *images.Codec) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	chunks, digests := samples(codec, 0, 3)
	if _, err := s.Put(ctx, chunks); !errors.Is(err, context.Canceled) {
		t.Errorf("Put: %v", err)
	}
	if _, err := s.Missing(ctx, digests); !errors.Is(err, context.Canceled) {
		t.Errorf("Missing: %v", err)
	}
	if _, err := s.Get(ctx, digests[0]); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
}
