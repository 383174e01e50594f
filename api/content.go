package api

import (
	"context"

	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/chunkstore"
	v1 "daybreak/proto/daybreak/v1"
)

// manifestPiece is how much of a manifest goes into one message.
const manifestPiece = 1 << 20

// content is the part of AgentService that gives out what versions are made of.
type content struct {
	chunks chunkstore.Store
}

// GetManifest streams a version's manifest in pieces.
func (c content) GetManifest(request *v1.GetManifestRequest, stream grpc.ServerStreamingServer[v1.GetManifestResponse]) error {
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
		if err := stream.Send(&v1.GetManifestResponse{Piece: piece}); err != nil {
			return err
		}
		rest = rest[len(piece):]
	}
	return nil
}

// GetChunks streams the chunks asked for.
func (c content) GetChunks(request *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	digests, err := images.SplitDigests(request.GetDigests())
	if err != nil {
		return err
	}
	for _, digest := range digests {
		if err := c.send(stream.Context(), digest, stream); err != nil {
			return err
		}
	}
	return nil
}

func (c content) send(ctx context.Context, digest images.Digest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	sealed, err := c.chunks.Get(ctx, digest)
	if err != nil {
		return err
	}
	return stream.Send(&v1.GetChunksResponse{Chunk: &v1.Chunk{Digest: digest[:], Zstd: sealed}})
}
