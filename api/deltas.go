package api

import (
	"container/list"
	"context"
	"runtime"
	"sync"

	"golang.org/x/sync/singleflight"

	"daybreak/images"
	"daybreak/images/chunkstore"
)

const (
	// deltaMemory bounds what is kept of deltas, bytes: those of some patches, since all hosts ask for the same ones at about
	// the same time.
	deltaMemory = 64 << 20
	// deltaOverhead is about what an entry takes beside its bytes.
	deltaOverhead = 512
	// deltaWorth: a delta must save one part in so many.
	deltaWorth = 16
)

// deltas makes the differences between chunks, each once for all hosts that ask for it while it is remembered. Safe for
// concurrent use.
type deltas struct {
	chunks chunkstore.Store
	codec  *images.Codec
	// slots bound the CPU that goes into it: the control plane has other things to do.
	slots   chan struct{}
	flights singleflight.Group

	mu     sync.Mutex
	known  map[deltaKey]*list.Element
	recent list.List // of *delta, newest first
	size   int
}

type deltaKey struct{ digest, base images.Digest }

// delta is a difference; sealed is nil where the whole chunk is less, or where there is no telling.
type delta struct {
	key    deltaKey
	sealed []byte
}

func newDeltas(chunks chunkstore.Store, codec *images.Codec) *deltas {
	return &deltas{
		chunks: chunks, codec: codec, slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), known: map[deltaKey]*list.Element{},
	}
}

// get returns the delta of a chunk to another one, nil when the whole chunk is to be sent.
func (d *deltas) get(ctx context.Context, digest, base images.Digest) ([]byte, error) {
	key := deltaKey{digest, base}
	if sealed, ok := d.find(key); ok {
		return sealed, nil
	}
	// It is made for all that wait for it: that one of them goes away must not end it.
	made := d.flights.DoChan(string(digest[:])+string(base[:]), func() (any, error) {
		d.slots <- struct{}{}
		defer func() { <-d.slots }()
		sealed := d.make(context.WithoutCancel(ctx), key)
		d.keep(key, sealed)
		return sealed, nil
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-made:
		return result.Val.([]byte), nil
	}
}

// make compares both chunks. A base that the store lacks, or a chunk that cannot be opened, makes no delta: what is sent then is
// what would be sent without any, and the host says what is wrong with it. One that opens to other bytes can make a wrong delta.
// The host finds that out, as it does with whatever is sent, and asks for the chunk whole: digests are compared once, there.
func (d *deltas) make(ctx context.Context, key deltaKey) []byte {
	sealed, err := d.chunks.Get(ctx, key.digest)
	if err != nil {
		return nil
	}
	sealedBase, err := d.chunks.Get(ctx, key.base)
	if err != nil {
		return nil
	}
	delta, err := d.codec.Diff(sealed, sealedBase)
	if err != nil {
		return nil
	}
	// A few bytes less are not worth the host's reading of its base.
	if len(delta) > len(sealed)/deltaWorth*(deltaWorth-1) {
		return nil
	}
	return delta
}

func (d *deltas) find(key deltaKey) (sealed []byte, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	element, ok := d.known[key]
	if !ok {
		return nil, false
	}
	d.recent.MoveToFront(element)
	return element.Value.(*delta).sealed, true
}

func (d *deltas) keep(key deltaKey, sealed []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.known[key]; ok {
		return
	}
	d.known[key] = d.recent.PushFront(&delta{key, sealed})
	d.size += len(sealed) + deltaOverhead
	for d.size > deltaMemory {
		oldest := d.recent.Remove(d.recent.Back()).(*delta)
		delete(d.known, oldest.key)
		d.size -= len(oldest.sealed) + deltaOverhead
	}
}
