package hosttest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"daybreak/hostagent"
	"daybreak/images"
)

// Image is a version's content in memory, given out as the control plane would. It counts what it gives, and can be told
// to give other things.
type Image struct {
	digest   string
	manifest []byte
	sealed   map[images.Digest][]byte

	mu sync.Mutex
	// Spoil changes a chunk on its way out when set; an error ends the call. Guarded by mu.
	spoil func(d images.Digest, sealed []byte) ([]byte, error)
	given int
}

var _ hostagent.Source = (*Image)(nil)

// NewImage packs size bytes of a disk. The size must be a multiple of 512.
func NewImage(t testing.TB, disk io.ReaderAt, size int64) *Image {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	im := &Image{sealed: map[images.Digest][]byte{}}
	var digests []images.Digest
	for at := int64(0); at < size; at += images.ChunkBytes {
		plain := make([]byte, min(images.ChunkBytes, size-at))
		if _, err := disk.ReadAt(plain, at); err != nil && err != io.EOF {
			t.Fatalf("read disk at %d: %v", at, err)
		}
		if images.AllZero(plain) {
			digests = append(digests, images.Digest{})
			continue
		}
		d := images.Sum(plain)
		im.sealed[d] = codec.Seal(plain)
		digests = append(digests, d)
	}
	m, err := images.NewManifest(uint64(size), digests)
	if err != nil {
		t.Fatal(err)
	}
	im.digest, im.manifest = m.Digest().String(), m.Encoded()
	return im
}

// Digest is the version's identity.
func (im *Image) Digest() string {
	return im.digest
}

// Spoil has every chunk go through change on its way out; nil gives them as they are.
func (im *Image) Spoil(change func(d images.Digest, sealed []byte) ([]byte, error)) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.spoil = change
}

// Given says how many chunks were given since the last call.
func (im *Image) Given() int {
	im.mu.Lock()
	defer im.mu.Unlock()
	n := im.given
	im.given = 0
	return n
}

// Manifest returns the manifest.
func (im *Image) Manifest(_ context.Context, digest string) ([]byte, error) {
	if digest != im.digest {
		return nil, fmt.Errorf("no version %s here", digest)
	}
	return im.manifest, nil
}

// Chunks gives chunks.
func (im *Image) Chunks(ctx context.Context, wants []hostagent.Want, sink func(images.Chunk) error) error {
	for _, want := range wants {
		if err := ctx.Err(); err != nil {
			return err
		}
		sealed, err := im.chunk(want.Digest)
		if err != nil {
			return err
		}
		if sealed == nil {
			continue
		}
		if err := sink(images.Chunk{Digest: want.Digest, Sealed: sealed}); err != nil {
			return fmt.Errorf("give chunk: %w", err)
		}
	}
	return nil
}

// chunk returns a chunk as it shall go out; nil leaves it out.
func (im *Image) chunk(d images.Digest) ([]byte, error) {
	im.mu.Lock()
	defer im.mu.Unlock()
	sealed, ok := im.sealed[d]
	if !ok {
		return nil, fmt.Errorf("no chunk %s here", d)
	}
	im.given++
	if im.spoil == nil {
		return sealed, nil
	}
	return im.spoil(d, append([]byte(nil), sealed...))
}
