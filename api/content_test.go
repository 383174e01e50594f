package api

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/chunkstore"
	v1 "daybreak/proto/daybreak/v1"
)

// counted is a store that counts what is read from it.
type counted struct {
	chunkstore.Store
	gets atomic.Int64
}

func (c *counted) Get(ctx context.Context, digest images.Digest) ([]byte, error) {
	c.gets.Add(1)
	return c.Store.Get(ctx, digest)
}

// memory is a store of chunks in memory, without manifests.
type memory struct {
	chunkstore.Store
	sealed map[images.Digest][]byte
}

func (m memory) Get(_ context.Context, digest images.Digest) ([]byte, error) {
	if sealed, ok := m.sealed[digest]; ok {
		return sealed, nil
	}
	return nil, images.ErrNotFound
}

// chunkStream keeps what a server sends.
type chunkStream struct {
	grpc.ServerStreamingServer[v1.GetChunksResponse]
	ctx  context.Context
	sent []*v1.Chunk
}

func (s *chunkStream) Context() context.Context { return s.ctx }

func (s *chunkStream) Send(response *v1.GetChunksResponse) error {
	s.sent = append(s.sent, response.GetChunk())
	return nil
}

// goods are a chunk, one that differs little from it, and one that has nothing of it, in a store.
func goods(t *testing.T, bandwidth int64) (c *content, store *counted, plain [3][]byte, digests [3]images.Digest) {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 2*images.ChunkBytes)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	plain[0], plain[2] = noise[:images.ChunkBytes], noise[images.ChunkBytes:]
	plain[1] = bytes.Clone(plain[0])
	copy(plain[1][5000:], "a patch")
	m := memory{sealed: map[images.Digest][]byte{}}
	for i := range plain {
		digests[i] = images.Sum(plain[i])
		m.sealed[digests[i]] = codec.Seal(plain[i])
	}
	store = &counted{Store: m}
	c, err = newContent(store, bandwidth)
	if err != nil {
		t.Fatal(err)
	}
	return c, store, plain, digests
}

func TestDeltasAreServed(t *testing.T) {
	c, _, plain, digests := goods(t, 0)
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		base  images.Digest
		delta bool
	}{
		"a base that helps":     {digests[0], true},
		"a base that does not":  {digests[2], false},
		"an unknown base":       {images.Sum([]byte("x")), false},
		"no base":               {images.Digest{}, false},
		"the chunk itself":      {digests[1], true},
		"a base that helps, #2": {digests[0], true},
	} {
		t.Run(name, func(t *testing.T) {
			stream := &chunkStream{ctx: t.Context()}
			request := &v1.GetChunksRequest{Digests: digests[1][:], Bases: test.base[:]}
			if err := c.GetChunks(request, stream); err != nil || len(stream.sent) != 1 {
				t.Fatalf("%d chunks, %v", len(stream.sent), err)
			}
			chunk := images.Chunk{Digest: digests[1], Sealed: stream.sent[0].GetZstd()}
			if delta := len(stream.sent[0].GetBase()) > 0; delta != test.delta {
				t.Fatalf("a delta: %v, want %v", delta, test.delta)
			}
			var got []byte
			if test.delta {
				if len(chunk.Sealed) > 500 {
					t.Errorf("the delta has %d bytes", len(chunk.Sealed))
				}
				chunk.Base = test.base
				base := plain[0]
				if test.base == digests[1] {
					base = plain[1]
				}
				got, err = codec.OpenDelta(nil, chunk, base)
			} else {
				got, err = codec.Open(nil, chunk)
			}
			if err != nil || !bytes.Equal(got, plain[1]) {
				t.Errorf("it does not open to the chunk: %v", err)
			}
		})
	}
	for _, bases := range [][]byte{digests[0][:5], append(digests[0][:], digests[0][:]...)} {
		if err := c.GetChunks(&v1.GetChunksRequest{Digests: digests[1][:], Bases: bases}, &chunkStream{ctx: t.Context()}); err == nil {
			t.Errorf("%d bytes of bases for one chunk were taken", len(bases))
		}
	}
}

// A hundred hosts do not cost a hundred times the work, whether they come together or one after the other.
func TestDeltasAreMadeOnce(t *testing.T) {
	c, store, _, digests := goods(t, 0)
	ask := func() {
		stream := &chunkStream{ctx: t.Context()}
		if err := c.GetChunks(&v1.GetChunksRequest{Digests: digests[1][:], Bases: digests[0][:]}, stream); err != nil {
			t.Error(err)
		}
	}
	var group sync.WaitGroup
	for range 50 {
		group.Go(ask)
	}
	group.Wait()
	for range 50 {
		ask()
	}
	if n := store.gets.Load(); n != 2 {
		t.Errorf("%d reads of the store for 100 hosts, want 2", n)
	}
}

func TestDeltasAreForgotten(t *testing.T) {
	c, _, _, _ := goods(t, 0)
	big := make([]byte, deltaMemory/8)
	for i := range 20 {
		c.deltas.keep(deltaKey{digest: images.Digest{byte(i)}}, big)
	}
	if len(c.deltas.known) != c.deltas.recent.Len() || c.deltas.size > deltaMemory || len(c.deltas.known) > 8 {
		t.Errorf("%d deltas of %d bytes are remembered", len(c.deltas.known), c.deltas.size)
	}
	if _, ok := c.deltas.find(deltaKey{digest: images.Digest{19}}); !ok {
		t.Error("the newest is not remembered")
	}
}

func TestImageBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond = 512 << 10
		c, _, _, digests := goods(t, perSecond)
		began := time.Now()
		var sent int
		for range 20 {
			stream := &chunkStream{ctx: t.Context()}
			if err := c.GetChunks(&v1.GetChunksRequest{Digests: digests[2][:]}, stream); err != nil {
				t.Fatal(err)
			}
			sent += len(stream.sent[0].GetZstd())
		}
		if least := float64(sent-bandwidthBurst) / perSecond; time.Since(began).Seconds() < least-0.1 {
			t.Errorf("%d bytes in %v, want at least %.1f s", sent, time.Since(began), least)
		}
	})
}
