package storetest

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"daybreak/images"
	"daybreak/images/chunkstore"
)

// Memory is a store in memory whose clock the test moves.
type Memory struct {
	codec *images.Codec
	// Before, when set, is called with the name of the method before each call, and may make it fail.
	Before func(call string) error

	mu        sync.Mutex
	now       time.Time
	owner     string
	chunks    map[images.Digest]*held
	manifests map[images.Digest]*held
}

type held struct {
	data []byte
	time time.Time
}

// NewMemory makes an empty store.
func NewMemory(codec *images.Codec) *Memory {
	return &Memory{codec: codec, now: time.Unix(0, 0), chunks: map[images.Digest]*held{}, manifests: map[images.Digest]*held{}}
}

// Advance moves the clock on.
func (m *Memory) Advance(by time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(by)
}

func (m *Memory) begin(ctx context.Context, call string) (end func(), err error) {
	if m.Before != nil {
		if err := m.Before(call); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	return m.mu.Unlock, nil
}

// Missing is part of chunkstore.Store.
func (m *Memory) Missing(ctx context.Context, digests []images.Digest) (missing []images.Digest, err error) {
	end, err := m.begin(ctx, "Missing")
	if err != nil {
		return nil, err
	}
	defer end()
	return m.missing(digests), nil
}

func (m *Memory) missing(digests []images.Digest) (missing []images.Digest) {
	for _, digest := range digests {
		if chunk, here := m.chunks[digest]; here {
			chunk.time = m.now
		} else if !digest.IsZero() {
			missing = append(missing, digest)
		}
	}
	return missing
}

// Put is part of chunkstore.Store.
func (m *Memory) Put(ctx context.Context, chunks []images.Chunk) (grown uint64, err error) {
	end, err := m.begin(ctx, "Put")
	if err != nil {
		return 0, err
	}
	defer end()
	for _, chunk := range chunks {
		if _, err := m.codec.Open(nil, chunk); err != nil {
			return 0, err
		}
		if _, here := m.chunks[chunk.Digest]; !here {
			m.chunks[chunk.Digest] = &held{data: chunk.Sealed}
			grown += uint64(len(chunk.Sealed))
		}
		m.chunks[chunk.Digest].time = m.now
	}
	return grown, nil
}

// Get is part of chunkstore.Store.
func (m *Memory) Get(ctx context.Context, digest images.Digest) ([]byte, error) {
	end, err := m.begin(ctx, "Get")
	if err != nil {
		return nil, err
	}
	defer end()
	chunk, here := m.chunks[digest]
	if !here {
		return nil, fmt.Errorf("get chunk %s: %w", digest, images.ErrNotFound)
	}
	return chunk.data, nil
}

// Size is part of chunkstore.Store.
func (m *Memory) Size(ctx context.Context, digests []images.Digest) (total uint64, err error) {
	end, err := m.begin(ctx, "Size")
	if err != nil {
		return 0, err
	}
	defer end()
	for _, digest := range digests {
		if chunk, here := m.chunks[digest]; here {
			total += uint64(len(chunk.data))
		}
	}
	return total, nil
}

// PutManifest is part of chunkstore.Store.
func (m *Memory) PutManifest(ctx context.Context, manifest *images.Manifest) error {
	end, err := m.begin(ctx, "PutManifest")
	if err != nil {
		return err
	}
	defer end()
	for digest := range manifest.Chunks() {
		if len(m.missing([]images.Digest{digest})) > 0 {
			return fmt.Errorf("put manifest %s: %w", manifest.Digest(), images.ErrIncomplete)
		}
	}
	m.manifests[manifest.Digest()] = &held{data: manifest.Encoded(), time: m.now}
	return nil
}

// GetManifest is part of chunkstore.Store.
func (m *Memory) GetManifest(ctx context.Context, digest images.Digest) (*images.Manifest, error) {
	end, err := m.begin(ctx, "GetManifest")
	if err != nil {
		return nil, err
	}
	defer end()
	manifest, here := m.manifests[digest]
	if !here {
		return nil, fmt.Errorf("get manifest %s: %w", digest, images.ErrNotFound)
	}
	return images.Parse(manifest.data)
}

// List is part of chunkstore.Store.
func (m *Memory) List(ctx context.Context) iter.Seq2[chunkstore.Item, error] {
	return func(yield func(chunkstore.Item, error) bool) {
		items, err := m.list(ctx)
		if err != nil {
			yield(chunkstore.Item{}, err)
			return
		}
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

func (m *Memory) list(ctx context.Context) (items []chunkstore.Item, err error) {
	end, err := m.begin(ctx, "List")
	if err != nil {
		return nil, err
	}
	defer end()
	for _, manifests := range []bool{true, false} {
		for digest, held := range m.shelf(manifests) {
			items = append(items, chunkstore.Item{Digest: digest, Manifest: manifests, Bytes: uint64(len(held.data)), Age: m.now.Sub(held.time)})
		}
	}
	return items, nil
}

func (m *Memory) shelf(manifests bool) map[images.Digest]*held {
	if manifests {
		return m.manifests
	}
	return m.chunks
}

// Remove is part of chunkstore.Store.
func (m *Memory) Remove(ctx context.Context, items []chunkstore.Item, age time.Duration) (removed uint64, err error) {
	end, err := m.begin(ctx, "Remove")
	if err != nil {
		return 0, err
	}
	defer end()
	for _, item := range items {
		shelf := m.shelf(item.Manifest)
		if held, here := shelf[item.Digest]; here && m.now.Sub(held.time) >= age {
			removed += uint64(len(held.data))
			delete(shelf, item.Digest)
		}
	}
	return removed, nil
}

// Own is part of chunkstore.Store.
func (m *Memory) Own(ctx context.Context, owner string) error {
	end, err := m.begin(ctx, "Own")
	if err != nil {
		return err
	}
	defer end()
	if m.owner == "" {
		m.owner = owner
	}
	if m.owner != owner {
		return chunkstore.ErrForeign
	}
	return nil
}
