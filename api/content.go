package api

import (
	"bytes"
	"context"
	"fmt"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/chunkstore"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// manifestPiece is how much of a manifest goes into one message.
	manifestPiece = 1 << 20
	// bandwidthBurst is how much goes out at once where the bandwidth is limited: the largest message.
	bandwidthBurst = manifestPiece
)

// content gives out what versions are made of.
type content struct {
	chunks chunkstore.Store
	deltas *deltas
	// bandwidth limits what goes out to all callers together, bytes.
	bandwidth *rate.Limiter
}

// newContent gives out of a store at most so many bytes a second; 0 means as many as there may be.
func newContent(chunks chunkstore.Store, bytesPerSecond int64) (*content, error) {
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	limit := rate.Inf
	if bytesPerSecond > 0 {
		limit = rate.Limit(bytesPerSecond)
	}
	return &content{chunks: chunks, deltas: newDeltas(chunks, codec), bandwidth: rate.NewLimiter(limit, bandwidthBurst)}, nil
}

// GetManifest streams a version's manifest in pieces.
func (c *content) GetManifest(request *v1.GetManifestRequest, stream grpc.ServerStreamingServer[v1.GetManifestResponse]) error {
	digest, err := images.ParseDigest(request.GetDigest())
	if err != nil {
		return err
	}
	manifest, err := c.chunks.GetManifest(stream.Context(), digest)
	if err != nil {
		return err
	}
	for rest := manifest.Encoded(); len(rest) > 0; {
		piece := rest[:min(len(rest), manifestPiece)]
		if err := c.bandwidth.WaitN(stream.Context(), len(piece)); err != nil {
			return err
		}
		if err := stream.Send(&v1.GetManifestResponse{Piece: piece}); err != nil {
			return err
		}
		rest = rest[len(piece):]
	}
	return nil
}

// GetChunks streams the chunks asked for, as deltas to those that the caller offers where that is less.
func (c *content) GetChunks(request *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	digests, err := images.SplitDigests(request.GetDigests())
	if err != nil {
		return err
	}
	bases, err := images.SplitDigests(request.GetBases())
	if err != nil {
		return err
	}
	if len(bases) == 0 {
		bases = make([]images.Digest, len(digests))
	}
	if len(bases) != len(digests) {
		return fmt.Errorf("get chunks: %d bases for %d chunks: %w", len(bases), len(digests), images.ErrInvalid)
	}
	for i, digest := range digests {
		chunk, err := c.chunk(stream.Context(), digest, bases[i])
		if err != nil {
			return err
		}
		if err := c.bandwidth.WaitN(stream.Context(), min(len(chunk.GetZstd()), bandwidthBurst)); err != nil {
			return err
		}
		if err := stream.Send(&v1.GetChunksResponse{Chunk: chunk}); err != nil {
			return err
		}
	}
	return nil
}

// chunk returns a chunk as it goes out.
func (c *content) chunk(ctx context.Context, digest, base images.Digest) (*v1.Chunk, error) {
	if !base.IsZero() {
		delta, err := c.deltas.get(ctx, digest, base)
		if err != nil {
			return nil, err
		}
		if delta != nil {
			return &v1.Chunk{Digest: digest[:], Zstd: delta, Base: bytes.Clone(base[:])}, nil
		}
	}
	sealed, err := c.chunks.Get(ctx, digest)
	if err != nil {
		return nil, err
	}
	return &v1.Chunk{Digest: digest[:], Zstd: sealed}, nil
}
