// Package push carries versions of images between files and a control plane: raw disks and bundles into it, bundles out of it.
//
// Here: the client's side of ImageService, whose part that takes chunks AgentService has too. Not here: cutting a disk into
// chunks (images/pack), what a bundle is (images/bundle), connecting and showing progress (cmd), the server's side (api,
// orchestrator/catalog). cmd, hostagent/build and tests call it.
package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/pack"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// messageBytes is how much goes into one message, far below what servers accept.
	messageBytes = 1 << 20
	// messageChunks is the most chunks that a message may hold.
	messageChunks = 64
	// manifestPiece is how much of a manifest goes into one message.
	manifestPiece = 512 << 10
)

// Disk sends what the control plane lacks of a raw disk and makes it a version of the image that header names. When the
// line breaks, calling it again goes on where it was. Errors of the control plane come as gRPC statuses.
func Disk(ctx context.Context, conn grpc.ClientConnInterface, codec *images.Codec, file *os.File, header *v1.VersionHeader,
	progress func(pack.Progress)) (*v1.CreateVersionResponse, error) {
	client := v1.NewImageServiceClient(conn)
	manifest, _, err := pack.Disk(ctx, file, codec, To(client), progress)
	if err != nil {
		return nil, err
	}
	return create(ctx, client, header, manifest)
}

func create(ctx context.Context, client v1.ImageServiceClient, header *v1.VersionHeader, manifest *images.Manifest) (*v1.CreateVersionResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream when sending fails
	stream, err := client.CreateVersion(ctx)
	if err != nil {
		return nil, fmt.Errorf("create version: %w", err)
	}
	rest := manifest.Encoded()
	for first := true; first || len(rest) > 0; first = false {
		piece := rest[:min(len(rest), manifestPiece)]
		rest = rest[len(piece):]
		request := &v1.CreateVersionRequest{Manifest: piece}
		if first {
			request.Header = header
		}
		if err := stream.Send(request); errors.Is(err, io.EOF) {
			break // the server has answered already: the answer says why
		} else if err != nil {
			return nil, fmt.Errorf("create version: %w", err)
		}
	}
	response, err := stream.CloseAndRecv()
	if err != nil {
		return nil, fmt.Errorf("create version: %w", err)
	}
	return response, nil
}

// Service is the part of ImageService, and of AgentService, that takes chunks in.
type Service interface {
	MissingChunks(ctx context.Context, in *v1.MissingChunksRequest, opts ...grpc.CallOption) (*v1.MissingChunksResponse, error)
	PutChunks(ctx context.Context, opts ...grpc.CallOption) (grpc.ClientStreamingClient[v1.PutChunksRequest, v1.PutChunksResponse], error)
}

// To gives chunks to a service.
func To(service Service) pack.Sink {
	return &sink{client: service}
}

// sink is a service as pack sees it.
type sink struct {
	client Service
}

func (s *sink) Missing(ctx context.Context, digests []images.Digest) ([]images.Digest, error) {
	response, err := s.client.MissingChunks(ctx, &v1.MissingChunksRequest{Digests: images.JoinDigests(digests)})
	if err != nil {
		return nil, err
	}
	return images.SplitDigests(response.GetDigests())
}

func (s *sink) Put(ctx context.Context, chunks []images.Chunk) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.PutChunks(ctx)
	if err != nil {
		return 0, err
	}
	for len(chunks) > 0 {
		var request *v1.PutChunksRequest
		request, chunks = message(chunks)
		if err := stream.Send(request); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
	}
	response, err := stream.CloseAndRecv()
	return response.GetStoredBytes(), err
}

// message puts as many chunks as fit into one message, at least one, and returns the rest.
func message(chunks []images.Chunk) (*v1.PutChunksRequest, []images.Chunk) {
	request := &v1.PutChunksRequest{}
	size := 0
	for len(chunks) > 0 && len(request.Chunks) < messageChunks && (size == 0 || size+len(chunks[0].Sealed) <= messageBytes) {
		request.Chunks = append(request.Chunks, &v1.Chunk{Digest: chunks[0].Digest[:], Zstd: chunks[0].Sealed})
		size += len(chunks[0].Sealed)
		chunks = chunks[1:]
	}
	return request, chunks
}
