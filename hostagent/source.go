package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/wire"
)

const (
	// maxChunks in one call, by the service's contract.
	maxChunks = 256
	// window is how many bytes may be on their way to this host on one connection. grpc begins with 64 KiB and does not raise
	// that where answers take ever longer, as they do once many hosts send at once: a host's own share came from the store
	// up to eight seconds late then, and all others waited for it.
	window = 2 << 20
	// storeStreams is how many calls for chunks one fetch has under way, so that one is checked while another travels.
	storeStreams = 2
)

// DialOptions are what every connection to the control plane or another host is to be made with, beside its credentials.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{wire.DialOption(), grpc.WithInitialWindowSize(window), grpc.WithInitialConnWindowSize(window)}
}

// errStalled: a peer said nothing more in the midst of an answer.
var errStalled = errors.New("the peer stalled")

// errNoSession: images come from the control plane, and there is no session with it now.
var errNoSession = errors.New("no session with the control plane")

// remoteSource gets content over whatever session there is. It implements Source.
type remoteSource struct {
	fetched, fromPeers prometheus.Counter
	// bandwidth limits what comes in, bytes a second; nil does not.
	bandwidth *rate.Limiter
	// shelf keeps what came for peers to ask for; nil when there are none.
	shelf *shelf

	mu     sync.Mutex
	client v1.AgentServiceClient
}

// use makes client the one to ask; nil when there is none.
func (s *remoteSource) use(client v1.AgentServiceClient) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = client
}

func (s *remoteSource) now() (v1.AgentServiceClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil, errNoSession
	}
	return s.client, nil
}

// Manifest implements Source.
func (s *remoteSource) Manifest(ctx context.Context, digest string) ([]byte, error) {
	client, err := s.now()
	if err != nil {
		return nil, fmt.Errorf("get manifest: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.GetManifest(ctx, &v1.GetManifestRequest{Digest: digest})
	if err != nil {
		return nil, fmt.Errorf("get manifest: %w", err)
	}
	var manifest []byte
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return manifest, nil
		}
		if err != nil {
			return nil, fmt.Errorf("get manifest: %w", err)
		}
		if len(manifest)+len(piece.GetPiece()) > images.MaxManifestBytes {
			return nil, fmt.Errorf("get manifest: it is larger than %d bytes", images.MaxManifestBytes)
		}
		manifest = append(manifest, piece.GetPiece()...)
		s.fetched.Add(float64(len(piece.GetPiece())))
	}
}

// Chunks implements Source. Only chunks that were asked for reach sink, each once.
func (s *remoteSource) Chunks(ctx context.Context, wants []Want, sink func(images.Chunk) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(storeStreams)
	for batch := range slices.Chunk(wants, maxChunks) {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			open, err := s.fromStore(ctx, batch, sink)
			if err == nil && len(open) > 0 {
				err = errShort(len(open))
			}
			return err
		})
	}
	return group.Wait()
}

func errShort(chunks int) error {
	return fmt.Errorf("get chunks: the server ended %d chunks short", chunks)
}

// fromStore asks the control plane for at most maxChunks chunks and returns those that it left out.
func (s *remoteSource) fromStore(ctx context.Context, wants []Want, sink func(images.Chunk) error) (map[images.Digest]Want, error) {
	client, err := s.now()
	if err != nil {
		return nil, fmt.Errorf("get chunks: %w", err)
	}
	return s.ask(ctx, client, false, wants, func(chunk images.Chunk) error {
		err := sink(chunk)
		if err == nil && s.shelf != nil {
			// It was just found to be right, and others will ask for it.
			s.shelf.put(chunk)
		}
		return err
	})
}

// chunkClient is what gives chunks out: the control plane or a peer.
type chunkClient interface {
	GetChunks(ctx context.Context, in *v1.GetChunksRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[v1.GetChunksResponse], error)
}

// sinkError is what the taker of a chunk said, as opposed to the giver.
type sinkError struct{ error }

func (e *sinkError) Unwrap() error { return e.error }

// ask makes one call for at most maxChunks chunks and returns those that the server left out.
func (s *remoteSource) ask(ctx context.Context, client chunkClient, peer bool, wants []Want, sink func(images.Chunk) error) (open map[images.Digest]Want, err error) {
	open = make(map[images.Digest]Want, len(wants))
	request := &v1.GetChunksRequest{}
	offers := false
	for _, want := range wants {
		open[want.Digest] = want
		request.Digests = append(request.Digests, want.Digest[:]...)
		request.Bases = append(request.Bases, want.Base[:]...)
		offers = offers || !want.Base.IsZero()
	}
	if !offers {
		request.Bases = nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := client.GetChunks(ctx, request)
	if err != nil {
		return open, fmt.Errorf("get chunks: %w", err)
	}
	counter := s.fetched
	if peer {
		counter = s.fromPeers
	}
	for len(open) > 0 {
		answer, err := receive(stream, peer, cancel)
		if errors.Is(err, io.EOF) {
			return open, nil
		}
		if err != nil {
			return open, fmt.Errorf("get chunks: %w", first(context.Cause(ctx), err))
		}
		chunk, err := expected(answer.GetChunk(), open)
		if err != nil {
			return open, fmt.Errorf("get chunks: %w", err)
		}
		counter.Add(float64(len(chunk.Sealed)))
		if err := spend(ctx, s.bandwidth, len(chunk.Sealed)); err != nil {
			return open, fmt.Errorf("get chunks: %w", err)
		}
		if err := sink(chunk); err != nil {
			return open, &sinkError{err}
		}
		delete(open, chunk.Digest)
	}
	return open, nil
}

// receive waits for the next chunk, of a peer not for ever: the control plane may be slow because it is busy with others,
// and its connection is watched by the session.
func receive(stream grpc.ServerStreamingClient[v1.GetChunksResponse], peer bool, cancel context.CancelCauseFunc) (*v1.GetChunksResponse, error) {
	if peer {
		late := time.AfterFunc(stall, func() { cancel(errStalled) })
		defer late.Stop()
	}
	return stream.Recv()
}

// spend waits until so many bytes may have come in or gone out.
func spend(ctx context.Context, bandwidth *rate.Limiter, bytes int) error {
	if bandwidth == nil {
		return nil
	}
	return bandwidth.WaitN(ctx, min(bytes, bandwidth.Burst()))
}

// newBandwidth makes a limit on bytes a second; 0 means none.
func newBandwidth(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), images.MaxSealedBytes)
}

// expected reads a chunk that came and says what is wrong with it without looking at its content.
func expected(chunk *v1.Chunk, open map[images.Digest]Want) (images.Chunk, error) {
	if len(chunk.GetDigest()) != images.DigestBytes || len(chunk.GetBase()) != 0 && len(chunk.GetBase()) != images.DigestBytes {
		return images.Chunk{}, fmt.Errorf("the server sent one with a bad digest: %w", ErrCorrupt)
	}
	c := images.Chunk{Digest: images.Digest(chunk.GetDigest()), Sealed: chunk.GetZstd()}
	if len(chunk.GetBase()) != 0 {
		c.Base = images.Digest(chunk.GetBase())
	}
	want, ok := open[c.Digest]
	if !ok {
		return c, fmt.Errorf("the server sent one that was not asked for: %w", ErrCorrupt)
	}
	if !c.Base.IsZero() && c.Base != want.Base {
		return c, fmt.Errorf("the server sent a delta that was not asked for: %w", ErrCorrupt)
	}
	return c, nil
}
