package hostagent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// line is a machine's connection to the others: all that it sends and receives shares it, in small parts.
type line struct {
	up, down *rate.Limiter
	sent     atomic.Int64
}

const (
	segment   = 16 << 10
	partBytes = 128 << 10 // of a chunk: less to move than a real one has
)

func newLine(bytesPerSecond int) *line {
	limit := func() *rate.Limiter { return rate.NewLimiter(rate.Limit(bytesPerSecond), segment) }
	return &line{up: limit(), down: limit()}
}

// lineConn is an end of a connection.
type lineConn struct {
	net.Conn
	line *line
}

func (c lineConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), segment)])
	_ = c.line.down.WaitN(context.Background(), n)
	return n, err
}

func (c lineConn) Write(p []byte) (written int, err error) {
	for written < len(p) && err == nil {
		part := p[written:min(len(p), written+segment)]
		_ = c.line.up.WaitN(context.Background(), len(part))
		var n int
		n, err = c.Conn.Write(part)
		c.line.sent.Add(int64(n))
		written += n
	}
	return written, err
}

type lineListener struct {
	*bufconn.Listener
	line *line
}

func (l lineListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return lineConn{conn, l.line}, err
}

// station is a host, or the control plane, with the real service behind a line.
type station struct {
	*line
	listener *bufconn.Listener
	service  *peerService
	server   *grpc.Server
}

// nothing is the disks of a host whose chunks all lie on its shelf.
type nothing struct{ Disks }

func (nothing) Chunk(context.Context, images.Digest) ([]byte, error) { return nil, ErrNotFound }

// storeService gives chunks out as the control plane.
type storeService struct {
	v1.UnimplementedAgentServiceServer
	from *peerService
}

func (s storeService) GetChunks(request *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	return s.from.GetChunks(request, stream)
}

func testCounter() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
}

func newStation(bytesPerSecond int) *station {
	s := &station{line: newLine(bytesPerSecond), listener: bufconn.Listen(2 * segment)}
	s.service = &peerService{disks: nothing{}, shelf: newShelf(), calls: make(chan struct{}, maxPeerCalls), given: testCounter(), log: zerolog.Nop()}
	s.server = newPeerServer(insecure.NewCredentials(), s.service)
	return s
}

// dial connects to another station, over both their lines.
func (s *station) dial(to *station) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:x", append(DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			conn, err := to.listener.DialContext(ctx)
			return lineConn{conn, s.line}, err
		}))...)
}

// fetch gets all chunks, as the host at that place.
func (s *station) fetch(ctx context.Context, hosts []*station, store *station, wants []Want) error {
	conn, err := s.dial(store)
	if err != nil {
		return err
	}
	defer conn.Close()
	source := &remoteSource{fetched: testCounter(), fromPeers: testCounter(), shelf: s.service.shelf}
	source.use(v1.NewAgentServiceClient(conn))
	var neighbours []neighbour
	for i, host := range hosts {
		conn, err := s.dial(host)
		if err != nil {
			return err
		}
		defer conn.Close()
		neighbours = append(neighbours, neighbour{host: hostNumber(i), client: v1.NewPeerServiceClient(conn), self: host == s})
	}
	var came sync.Map
	err = newSwarm(source, neighbours, zerolog.Nop()).Chunks(ctx, wants, func(chunk images.Chunk) error {
		if _, twice := came.LoadOrStore(chunk.Digest, true); twice || len(chunk.Sealed) != partBytes {
			return fmt.Errorf("a chunk of %d bytes came, twice: %v", len(chunk.Sealed), twice)
		}
		return nil
	})
	for _, want := range wants {
		if _, ok := came.Load(want.Digest); err == nil && !ok {
			err = io.ErrUnexpectedEOF
		}
	}
	return err
}

// With lines of one speed for all, the last host has everything soon after one line could have carried it once. The calls
// are the real ones, and every line is shared by what goes over it at the same time: to get a whole chunk from a host that
// many ask takes as long as giving it to all of them, and an answer waits behind what others send.
func TestFanoutMakespan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hosts, chunks, perSecond = 32, 256, 512 << 10
		store := newStation(perSecond)
		store.service.calls = make(chan struct{}, hosts*storeStreams)
		v1.RegisterAgentServiceServer(store.server, storeService{from: store.service})
		wants := make([]Want, chunks)
		for i := range wants {
			wants[i].Digest = chunkNumber(i)
			store.service.shelf.put(images.Chunk{Digest: wants[i].Digest, Sealed: make([]byte, partBytes)})
		}
		stations := []*station{store}
		for range hosts {
			stations = append(stations, newStation(perSecond))
		}
		var servers, fetches sync.WaitGroup
		for _, s := range stations {
			servers.Go(func() { _ = s.server.Serve(lineListener{s.listener, s.line}) })
		}
		began := time.Now()
		for _, s := range stations[1:] {
			fetches.Go(func() {
				time.Sleep(rand.N(time.Second))
				if err := s.fetch(t.Context(), stations[1:], store, wants); err != nil {
					t.Error(err)
				}
			})
		}
		fetches.Wait()
		const size = chunks * partBytes
		ratio, images := time.Since(began).Seconds()/(size/perSecond), float64(store.sent.Load())/size
		t.Logf("%.2f times the time of one line; the store sent %.2f images", ratio, images)
		if ratio > 1.3 || images > 1.1 {
			t.Error("too slow, or the store sent too much")
		}
		for _, s := range stations {
			s.server.Stop()
		}
		servers.Wait()
	})
}
