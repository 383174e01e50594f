package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// maxChunks in one call, by the service's contract.
	maxChunks = 256
	// storeStreams is how many calls for chunks one fetch has under way, so that one is checked while another travels.
	storeStreams = 2
)

// errNoSession: images come from the control plane, and there is no session with it now.
var errNoSession = errors.New("no session with the control plane")

// remoteSource gets content over whatever session there is. It implements Source.
type remoteSource struct {
	fetched prometheus.Counter

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
			client, err := s.now()
			if err != nil {
				return fmt.Errorf("get chunks: %w", err)
			}
			open, err := s.ask(ctx, client, batch, sink)
			if err == nil && len(open) > 0 {
				err = fmt.Errorf("get chunks: the server ended %d chunks short", len(open))
			}
			return err
		})
	}
	return group.Wait()
}

// chunkClient is what gives chunks out: the control plane or a peer.
type chunkClient interface {
	GetChunks(ctx context.Context, in *v1.GetChunksRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[v1.GetChunksResponse], error)
}

// ask makes one call for at most maxChunks chunks and returns those that the server left out.
func (s *remoteSource) ask(ctx context.Context, client chunkClient, wants []Want, sink func(images.Chunk) error) (open map[images.Digest]Want, err error) {
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.GetChunks(ctx, request)
	if err != nil {
		return open, fmt.Errorf("get chunks: %w", err)
	}
	for len(open) > 0 {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return open, nil
		}
		if err != nil {
			return open, fmt.Errorf("get chunks: %w", err)
		}
		chunk, err := expected(answer.GetChunk(), open)
		if err != nil {
			return open, fmt.Errorf("get chunks: %w", err)
		}
		s.fetched.Add(float64(len(chunk.Sealed)))
		if err := sink(chunk); err != nil {
			return open, err
		}
		delete(open, chunk.Digest)
	}
	return open, nil
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
