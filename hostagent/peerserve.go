package hostagent

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/wire"
)

// What other hosts may ask of this one.
const (
	maxPeerConnections = 512
	maxPeerCalls       = 4 * peerStreams // of two fetches by every host, and some are more in demand than others
	maxPeerMessage     = 64 << 10
	// shelfBytes bounds the compressed chunks that are kept in memory for others to ask for.
	shelfBytes = 64 << 20
)

// Peers says how chunks travel between hosts. The zero value: they do not.
type Peers struct {
	// Host is this host's name, as in its certificate.
	Host string
	// Dial makes a connection to another host, as this one; it must hold only with that host's certificate. Nil: nothing is
	// fetched from other hosts.
	Dial func(host, address string) (*grpc.ClientConn, error)
	// Listener is where others may ask; Run closes it. Nil: nothing is given out.
	Listener net.Listener
	// Credentials must let in hosts only. Nil means that anybody may ask: tests only.
	Credentials credentials.TransportCredentials
	// Address is what others are told, host:port.
	Address string
	// Bandwidth is how many bytes a second are given out at most. 0: no limit.
	Bandwidth int64
}

// peerService gives out the chunks that this host has.
type peerService struct {
	v1.UnimplementedPeerServiceServer
	disks     Disks
	codec     *images.Codec
	shelf     *shelf
	calls     chan struct{}
	bandwidth *rate.Limiter
	given     prometheus.Counter
	log       zerolog.Logger
}

// servePeers serves until ctx ends.
func (a *Agent) servePeers(ctx context.Context) error {
	peers := a.cfg.Peers
	codec, err := images.NewCodec()
	if err != nil {
		return fmt.Errorf("serve other hosts: %w", err)
	}
	if peers.Credentials == nil {
		peers.Credentials = insecure.NewCredentials()
	}
	server := newPeerServer(peers.Credentials, &peerService{
		disks: a.disks, codec: codec, shelf: a.source.shelf, calls: make(chan struct{}, maxPeerCalls),
		bandwidth: newBandwidth(peers.Bandwidth), given: a.metrics.given, log: a.log,
	})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(netutil.LimitListener(peers.Listener, maxPeerConnections)); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve other hosts: %w", err)
	}
	return ctx.Err()
}

func newPeerServer(creds credentials.TransportCredentials, service *peerService) *grpc.Server {
	server := grpc.NewServer(wire.ServerOption(), grpc.Creds(creds), grpc.MaxRecvMsgSize(maxPeerMessage), grpc.MaxConcurrentStreams(4),
		grpc.MaxHeaderListSize(16<<10), grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 2 * time.Minute, Time: 20 * time.Second, Timeout: 10 * time.Second}))
	v1.RegisterPeerServiceServer(server, service)
	return server
}

// GetChunks streams those of the chunks that the host has now.
func (p *peerService) GetChunks(request *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	select {
	case p.calls <- struct{}{}:
		defer func() { <-p.calls }()
	default:
		return status.Error(codes.ResourceExhausted, "this host is busy with other hosts")
	}
	digests, err := images.SplitDigests(request.GetDigests())
	if err != nil || len(digests) > maxChunks {
		return status.Errorf(codes.InvalidArgument, "want at most %d digests (%v)", maxChunks, err)
	}
	bases, err := images.SplitDigests(request.GetBases())
	if err != nil || len(bases) != 0 && len(bases) != len(digests) {
		return status.Errorf(codes.InvalidArgument, "%d bases for %d chunks (%v)", len(bases), len(digests), err)
	}
	for i, digest := range digests {
		var base images.Digest
		if len(bases) > 0 {
			base = bases[i]
		}
		chunk, err := p.chunk(stream.Context(), digest, base)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			p.log.Warn().Err(err).Msg("a chunk could not be given to another host")
			return status.Error(codes.Unavailable, "this host cannot read its store now")
		}
		if err := spend(stream.Context(), p.bandwidth, len(chunk.Sealed)); err != nil {
			return err
		}
		answer := &v1.Chunk{Digest: digest[:], Zstd: chunk.Sealed}
		if !chunk.Base.IsZero() {
			answer.Base = bytes.Clone(chunk.Base[:])
		}
		if err := stream.Send(&v1.GetChunksResponse{Chunk: answer}); err != nil {
			return err
		}
		p.given.Add(float64(len(chunk.Sealed)))
	}
	return nil
}

// chunk finds a chunk: as it came from the store if that is not long ago, or out of a base.
func (p *peerService) chunk(ctx context.Context, digest, base images.Digest) (images.Chunk, error) {
	if chunk, ok := p.shelf.get(digest, base); ok {
		return chunk, nil
	}
	plain, err := p.disks.Chunk(ctx, digest)
	if err != nil {
		return images.Chunk{}, err
	}
	chunk := images.Chunk{Digest: digest, Sealed: p.codec.Seal(plain)}
	p.shelf.put(chunk)
	return chunk, nil
}

// shelf keeps chunks in their compressed form, the newest in use. Safe for concurrent use.
type shelf struct {
	mu     sync.Mutex
	known  map[images.Digest]*list.Element
	recent list.List // of images.Chunk, newest first
	size   int
}

func newShelf() *shelf { return &shelf{known: map[images.Digest]*list.Element{}} }

// get returns a chunk that stands alone, or is a delta to base.
func (s *shelf) get(digest, base images.Digest) (images.Chunk, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	element, ok := s.known[digest]
	if !ok {
		return images.Chunk{}, false
	}
	chunk := element.Value.(images.Chunk)
	if !chunk.Base.IsZero() && chunk.Base != base {
		return images.Chunk{}, false
	}
	s.recent.MoveToFront(element)
	return chunk, true
}

// put keeps a chunk whose content was checked. The caller must not change its bytes any more.
func (s *shelf) put(chunk images.Chunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if element, ok := s.known[chunk.Digest]; ok {
		s.drop(element)
	}
	s.known[chunk.Digest] = s.recent.PushFront(chunk)
	s.size += len(chunk.Sealed)
	for s.size > shelfBytes {
		s.drop(s.recent.Back())
	}
}

func (s *shelf) drop(element *list.Element) {
	chunk := s.recent.Remove(element).(images.Chunk)
	delete(s.known, chunk.Digest)
	s.size -= len(chunk.Sealed)
}
