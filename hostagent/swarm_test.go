package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// giver is a host or a store in a test: what it has, how fast it gives, how it misbehaves.
type giver struct {
	v1.AgentServiceClient
	per time.Duration // time a chunk takes

	mu    sync.Mutex
	has   map[images.Digest]bool
	given int
	asked int
	lies  bool
	hangs bool
	fails error
}

func (g *giver) GetChunks(ctx context.Context, request *v1.GetChunksRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[v1.GetChunksResponse], error) {
	digests, err := images.SplitDigests(request.GetDigests())
	if err != nil || len(digests) > maxChunks {
		return nil, fmt.Errorf("%d digests, %w", len(digests), err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.asked++
	return &giving{giver: g, ctx: ctx, left: digests}, g.fails
}

type giving struct {
	grpc.ServerStreamingClient[v1.GetChunksResponse]
	giver *giver
	ctx   context.Context
	left  []images.Digest
}

// Recv gives a chunk whose bytes are its digest.
func (s *giving) Recv() (*v1.GetChunksResponse, error) {
	g := s.giver
	for len(s.left) > 0 {
		digest := s.left[0]
		s.left = s.left[1:]
		g.mu.Lock()
		has, hangs, lies := g.has == nil || g.has[digest], g.hangs, g.lies
		g.mu.Unlock()
		if hangs {
			<-s.ctx.Done()
			return nil, s.ctx.Err()
		}
		if !has {
			continue
		}
		time.Sleep(g.per)
		g.mu.Lock()
		g.given++
		g.mu.Unlock()
		sealed := append([]byte(nil), digest[:]...)
		if lies {
			sealed[0] ^= 1
		}
		return &v1.GetChunksResponse{Chunk: &v1.Chunk{Digest: digest[:], Zstd: sealed}}, nil
	}
	return nil, io.EOF
}

// fleet is hosts that fetch the same version at the same time.
type fleet struct {
	t     *testing.T
	store *giver
	hosts []*giver
	wants []Want
}

func newFleet(t *testing.T, hosts, chunks int) *fleet {
	f := &fleet{t: t, store: &giver{}}
	for range hosts {
		f.hosts = append(f.hosts, &giver{has: map[images.Digest]bool{}})
	}
	for i := range chunks {
		f.wants = append(f.wants, Want{Digest: chunkNumber(i)})
	}
	return f
}

func hostNumber(i int) string { return fmt.Sprintf("kvm%02d", i) }

// fetch fetches as one of the hosts; complete says who has all.
func (f *fleet) fetch(me int, complete func(int) bool) (*swarm, error) {
	store := &remoteSource{fetched: testCounter(), fromPeers: testCounter()}
	store.use(f.store)
	var neighbours []neighbour
	for i, host := range f.hosts {
		neighbours = append(neighbours, neighbour{host: hostNumber(i), client: host, complete: complete(i), self: i == me})
	}
	s := newSwarm(store, neighbours, zerolog.Nop())
	mine := f.hosts[me]
	return s, s.Chunks(f.t.Context(), f.wants, func(chunk images.Chunk) error {
		if string(chunk.Sealed) != string(chunk.Digest[:]) {
			return fmt.Errorf("other bytes: %w", ErrCorrupt)
		}
		mine.mu.Lock()
		defer mine.mu.Unlock()
		if mine.has[chunk.Digest] {
			f.t.Errorf("a chunk came twice")
		}
		mine.has[chunk.Digest] = true
		return nil
	})
}

// together fetches as all hosts of a list at once.
func (f *fleet) together(hosts []int) {
	f.t.Helper()
	var group sync.WaitGroup
	for _, i := range hosts {
		group.Go(func() {
			time.Sleep(rand.N(time.Second))
			if _, err := f.fetch(i, func(int) bool { return false }); err != nil {
				f.t.Errorf("%s: %v", hostNumber(i), err)
			}
			if len(f.hosts[i].has) != len(f.wants) {
				f.t.Errorf("%s has %d of %d chunks", hostNumber(i), len(f.hosts[i].has), len(f.wants))
			}
		})
	}
	group.Wait()
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

// When all fetch at once the store sends everything once, and nobody gives much more than the others.
func TestSwarmTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 16, 2000)
		f.store.per = time.Millisecond
		for _, host := range f.hosts {
			host.per = time.Millisecond
		}
		f.together(upTo(16))
		if f.store.given != len(f.wants) {
			t.Errorf("the store gave %d chunks, want %d: each once", f.store.given, len(f.wants))
		}
		for i, host := range f.hosts {
			if host.given > 2*len(f.wants) {
				t.Errorf("%s gave %d chunks", hostNumber(i), host.given)
			}
		}
	})
}

// Hosts that never come, lie, hang or refuse cost the others little, and the store little.
func TestSwarmWithBadHosts(t *testing.T) {
	for name, spoil := range map[string]func(*giver){
		"does not fetch":             func(*giver) {},
		"lies":                       func(g *giver) { g.has, g.lies = nil, true },
		"hangs":                      func(g *giver) { g.hangs = true },
		"cannot be reached":          func(g *giver) { g.fails = status.Error(codes.Unavailable, "no route") },
		"gives a chunk now and then": func(g *giver) { g.has, g.per = nil, 20*time.Second },
		"is always busy":             func(g *giver) { g.fails = status.Error(codes.ResourceExhausted, "busy") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 8, 600)
				f.store.per = time.Millisecond
				spoil(f.hosts[3])
				spoil(f.hosts[5])
				began := time.Now()
				f.together([]int{0, 1, 2, 4, 6, 7})
				if most := len(f.wants) * 3 / 2; f.store.given > most {
					t.Errorf("the store gave %d chunks of %d, want at most %d", f.store.given, len(f.wants), most)
				}
				if took := time.Since(began); took > 4*maxPatience {
					t.Errorf("it took %v", took)
				}
				if name == "lies" || name == "cannot be reached" {
					if asked := f.hosts[3].asked; asked > 6*2 {
						t.Errorf("it was asked %d times by 6 hosts", asked)
					}
				}
			})
		})
	}
}

// Hosts that have all take the store's place.
func TestSwarmFromCompleteHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6, 500)
		f.hosts[2].has, f.hosts[4].has = nil, nil
		complete := func(i int) bool { return i == 2 || i == 4 }
		if _, err := f.fetch(0, complete); err != nil {
			t.Fatal(err)
		}
		if f.store.given != 0 {
			t.Errorf("the store gave %d chunks that other hosts have", f.store.given)
		}
		if a, b := f.hosts[2].given, f.hosts[4].given; a < 100 || b < 100 {
			t.Errorf("they gave %d and %d", a, b)
		}
		// One of them breaks: the other and the store are there.
		f.hosts[2].fails = errors.New("broken")
		if _, err := f.fetch(1, complete); err != nil || len(f.hosts[1].has) != len(f.wants) {
			t.Errorf("%d chunks, %v", len(f.hosts[1].has), err)
		}
	})
}

func TestSwarmEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3, 100)
		f.store.fails = errors.New("no store")
		if _, err := f.fetch(0, func(int) bool { return false }); err == nil || err.Error() != "get chunks: no store" {
			t.Errorf("without a store: %v", err)
		}
		f.store.fails, f.store.lies = nil, true
		if _, err := f.fetch(0, func(int) bool { return false }); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a store that lies: %v, want ErrCorrupt", err)
		}
		f.wants = nil
		if _, err := f.fetch(0, func(int) bool { return false }); err != nil {
			t.Errorf("nothing wanted: %v", err)
		}
	})
}

func TestShelf(t *testing.T) {
	s := newShelf()
	delta := images.Chunk{Digest: chunkNumber(1), Sealed: []byte("d"), Base: chunkNumber(0)}
	s.put(delta)
	for base, want := range map[images.Digest]bool{{}: false, chunkNumber(0): true, chunkNumber(2): false} {
		if _, ok := s.get(delta.Digest, base); ok != want {
			t.Errorf("a delta for a caller with base %s: %v, want %v", base, ok, want)
		}
	}
	s.put(images.Chunk{Digest: chunkNumber(1), Sealed: []byte("whole")})
	if got, ok := s.get(chunkNumber(1), chunkNumber(2)); !ok || string(got.Sealed) != "whole" {
		t.Errorf("got %q, %v", got.Sealed, ok)
	}
	big := make([]byte, shelfBytes/4)
	for i := range 10 {
		s.put(images.Chunk{Digest: chunkNumber(10 + i), Sealed: big})
	}
	if s.size > shelfBytes || len(s.known) != s.recent.Len() || len(s.known) > 4 {
		t.Errorf("%d chunks of %d bytes on the shelf", len(s.known), s.size)
	}
}
