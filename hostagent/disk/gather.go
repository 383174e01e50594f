package disk

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// writeBehind is how many pieces are fetched until they are sent on their way to the disk.
const writeBehind = 32

// offer is a chunk of a seed that stands where a wanted one shall.
type offer struct {
	seed *seed
	i    int
}

// gathering is one turn of fetching what is missing.
type gathering struct {
	*assembly
	wants []hostagent.Want
	// places is where each chunk goes; the same content may stand in several.
	places map[images.Digest][]images.Piece
	offers map[images.Digest]offer

	// written counts pieces; flush says that there are writeBehind more.
	written atomic.Int64
	flush   chan struct{}

	mu sync.Mutex
	// open are those that did not come yet. Guarded by mu.
	open map[images.Digest]bool
	// refused is what was first wrong with what came: the source may say that in words of its own. Guarded by mu.
	refused error
}

// fetch gets what is still missing from the source, whole.
func (a *assembly) fetch(ctx context.Context, from hostagent.Source) error {
	return a.turn(ctx, from, a.gather(false, nil))
}

// turn gets from the source what was gathered.
func (a *assembly) turn(ctx context.Context, from hostagent.Source, g *gathering) error {
	if len(g.wants) == 0 {
		return nil
	}
	err := from.Chunks(ctx, g.wants, g.take)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		err = first(g.refused, err)
	} else if len(g.open) > 0 {
		err = fmt.Errorf("the source left out %d of %d chunks", len(g.open), len(g.wants))
	}
	if err != nil {
		return fmt.Errorf("fetch chunks: %w", err)
	}
	return nil
}

// first returns the first of two errors that is one.
func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// gather lists what is missing, but for some.
func (a *assembly) gather(offered bool, but picked) *gathering {
	g := &gathering{
		assembly: a, places: map[images.Digest][]images.Piece{}, offers: map[images.Digest]offer{},
		open: map[images.Digest]bool{}, flush: make(chan struct{}, 1),
	}
	for _, p := range a.missing() {
		if but[p.Index] {
			continue
		}
		if g.places[p.Digest] == nil {
			want := hostagent.Want{Digest: p.Digest}
			if offered {
				want.Base = g.offer(p)
			}
			g.wants = append(g.wants, want)
			g.open[p.Digest] = true
		}
		g.places[p.Digest] = append(g.places[p.Digest], p)
	}
	return g
}

// offer finds what the best seed has in the place of a piece; zero when that is nothing.
func (g *gathering) offer(p images.Piece) images.Digest {
	i := g.assembly.origin(p.Index)
	for _, seed := range g.seeds {
		if i >= seed.m.Len() {
			continue
		}
		if there := seed.m.Piece(i); !there.Zero() && there.Digest != p.Digest {
			g.offers[there.Digest] = offer{seed, i}
			return there.Digest
		}
	}
	return images.Digest{}
}

// take takes a chunk in. It is called from several goroutines at once.
func (g *gathering) take(chunk images.Chunk) error {
	g.mu.Lock()
	wanted := g.open[chunk.Digest]
	delete(g.open, chunk.Digest)
	g.mu.Unlock()
	err := fmt.Errorf("the source gave a chunk that nobody asked for: %w", hostagent.ErrCorrupt)
	if wanted {
		err = g.put(chunk)
	}
	if err != nil {
		g.mu.Lock()
		g.refused = first(g.refused, err)
		if wanted {
			g.open[chunk.Digest] = true
		}
		g.mu.Unlock()
	}
	return err
}

func (g *gathering) put(chunk images.Chunk) error {
	buf := g.store.buffers.Get().(*[images.OpenBytes]byte)
	defer g.store.buffers.Put(buf)
	if chunk.Base.IsZero() {
		plain, err := g.store.codec.Open(buf[:0], chunk)
		if err != nil {
			return fmt.Errorf("%w: %w", err, hostagent.ErrCorrupt)
		}
		return g.write(chunk.Digest, plain)
	}
	base, ok := g.offers[chunk.Base]
	if !ok {
		return fmt.Errorf("the source gave a delta to a chunk that was not offered: %w", hostagent.ErrCorrupt)
	}
	return g.putDelta(buf, chunk, base)
}

// putDelta writes what a delta makes of a seed's piece. What comes out is right or nothing is written, so the piece is compared
// only when it may be to blame: a delta to damaged bytes would look like a source that lies.
func (g *gathering) putDelta(buf *[images.OpenBytes]byte, chunk images.Chunk, base offer) error {
	there := g.store.buffers.Get().(*[images.OpenBytes]byte)
	defer g.store.buffers.Put(there)
	p := base.seed.m.Piece(base.i)
	_, err := base.seed.ReadAt(there[:p.Length], p.Offset)
	if err == nil {
		var plain []byte
		if plain, err = g.store.codec.OpenDelta(buf[:0], chunk, there[:p.Length]); err == nil {
			return g.write(chunk.Digest, plain)
		}
		if images.Sum(there[:p.Length]) == p.Digest {
			g.store.log.Warn().Err(err).Msg("a delta could not be read; the chunk is fetched whole")
			return nil
		}
	}
	g.store.damagedSeed(base.seed, base.i)
	return nil
}

// write puts a chunk wherever it belongs.
func (g *gathering) write(digest images.Digest, plain []byte) error {
	for _, p := range g.places[digest] {
		if len(plain) != p.Length {
			return fmt.Errorf("chunk %s has %d bytes where the disk has %d: %w", digest, len(plain), p.Length, errors.Join(images.ErrCorrupt, hostagent.ErrCorrupt))
		}
		if _, err := g.f.WriteAt(plain, p.Offset); err != nil {
			return fmt.Errorf("write piece %d: %w", p.Index, err)
		}
		g.store.used(g.room, uint64(p.Length))
		g.place(p)
		if g.written.Add(1)%writeBehind == 0 {
			select {
			case g.flush <- struct{}{}:
			default: // it is about to be done
			}
		}
	}
	return nil
}

// writeBack has the kernel write what came, while more comes, until ctx ends: the sync at the end has little to wait for then.
// It is a hint, and beside the fetch since it may take as long as the disk does.
func (g *gathering) writeBack(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.flush:
			_ = unix.SyncFileRange(int(g.f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
		}
	}
}
