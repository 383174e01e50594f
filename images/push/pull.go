package push

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/bundle"
	v1 "daybreak/proto/daybreak/v1"
)

// Manifest gets a version's manifest and checks that it is the one that was asked for.
func Manifest(ctx context.Context, conn grpc.ClientConnInterface, digest string) (*images.Manifest, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := v1.NewImageServiceClient(conn).GetManifest(ctx, &v1.GetManifestRequest{Digest: digest})
	if err != nil {
		return nil, fmt.Errorf("get manifest: %w", err)
	}
	var encoded bytes.Buffer
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("get manifest: %w", err)
		}
		if encoded.Len()+len(piece.GetPiece()) > images.MaxManifestBytes {
			return nil, fmt.Errorf("get manifest: more than %d bytes came: %w", images.MaxManifestBytes, images.ErrCorrupt)
		}
		encoded.Write(piece.GetPiece())
	}
	manifest, err := images.Parse(encoded.Bytes())
	if err != nil {
		return nil, fmt.Errorf("get manifest: %w", err)
	}
	if manifest.Digest().String() != digest {
		return nil, fmt.Errorf("get manifest: what came is %s, not %s: %w", manifest.Digest(), digest, images.ErrCorrupt)
	}
	return manifest, nil
}

// From gives out the chunks of a control plane, as they come: who takes them checks them.
func From(conn grpc.ClientConnInterface) bundle.Source {
	return &source{client: v1.NewImageServiceClient(conn)}
}

type source struct {
	client v1.ImageServiceClient
}

// Chunks implements bundle.Source.
func (s *source) Chunks(ctx context.Context, digests []images.Digest, take func(images.Chunk) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.GetChunks(ctx, &v1.GetChunksRequest{Digests: images.JoinDigests(digests)})
	if err != nil {
		return fmt.Errorf("get chunks: %w", err)
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("get chunks: %w", err)
		}
		chunk := answer.GetChunk()
		if len(chunk.GetDigest()) != images.DigestBytes || len(chunk.GetBase()) > 0 {
			return fmt.Errorf("get chunks: an answer that is no chunk came: %w", images.ErrCorrupt)
		}
		if err := take(images.Chunk{Digest: images.Digest(chunk.GetDigest()), Sealed: chunk.GetZstd()}); err != nil {
			return fmt.Errorf("get chunks: %w", err)
		}
	}
}
