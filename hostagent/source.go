package hostagent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// maxChunks in one call, by the service's contract.
const maxChunks = 256

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
func (s *remoteSource) Chunks(ctx context.Context, digests [][]byte, sink func(digest, zstd []byte) error) error {
	if len(digests) == 0 {
		return nil
	}
	if len(digests) > maxChunks {
		return fmt.Errorf("get chunks: %d at once, at most %d", len(digests), maxChunks)
	}
	client, err := s.now()
	if err != nil {
		return fmt.Errorf("get chunks: %w", err)
	}
	open, joined := map[string]bool{}, make([]byte, 0, len(digests)*images.DigestBytes)
	for _, digest := range digests {
		open[string(digest)] = true
		joined = append(joined, digest...)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.GetChunks(ctx, &v1.GetChunksRequest{Digests: joined})
	if err != nil {
		return fmt.Errorf("get chunks: %w", err)
	}
	for len(open) > 0 {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("get chunks: the server ended %d chunks short", len(open))
		}
		if err != nil {
			return fmt.Errorf("get chunks: %w", err)
		}
		chunk := answer.GetChunk()
		if !open[string(chunk.GetDigest())] {
			return errors.New("get chunks: the server sent one that was not asked for")
		}
		delete(open, string(chunk.GetDigest()))
		s.fetched.Add(float64(len(chunk.GetZstd())))
		if err := sink(chunk.GetDigest(), chunk.GetZstd()); err != nil {
			return err
		}
	}
	return nil
}
