package api

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator/build"
	"daybreak/orchestrator/catalog"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// groupChunks and groupBytes are how much of a stream is stored at a time: syncs cost less in groups.
	groupChunks = 128
	groupBytes  = 16 << 20
	// maxIntakes bounds the manifests that are held in memory at once.
	maxIntakes = 2
)

// imageService takes versions in.
type imageService struct {
	*versions
	chunks chunkstore.Store
	// builds is nil when there are no hosts to build on.
	builds  *build.Relay
	cluster Cluster
	// content is what goes out again.
	content *content
	// intakes has a token for each version that is being created.
	intakes chan struct{}
}

func newImageService(chunks chunkstore.Store, versions *versions, builds *build.Relay, cluster Cluster) *imageService {
	return &imageService{versions: versions, chunks: chunks, builds: builds, cluster: cluster, intakes: make(chan struct{}, maxIntakes)}
}

// MissingChunks says which of the chunks the store lacks.
func (s *imageService) MissingChunks(ctx context.Context, request *v1.MissingChunksRequest) (*v1.MissingChunksResponse, error) {
	return missingChunks(ctx, s.chunks, request)
}

func missingChunks(ctx context.Context, chunks chunkstore.Store, request *v1.MissingChunksRequest) (*v1.MissingChunksResponse, error) {
	digests, err := images.SplitDigests(request.GetDigests())
	if err != nil {
		return nil, err
	}
	missing, err := chunks.Missing(ctx, digests)
	return &v1.MissingChunksResponse{Digests: images.JoinDigests(missing)}, err
}

// PutChunks stores the chunks of a stream.
func (s *imageService) PutChunks(stream grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse]) error {
	return putChunks(stream, s.chunks, func([]images.Chunk) error { return nil })
}

// putChunks stores the chunks of a stream, group by group, each if admit has nothing against it.
func putChunks(stream grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse], chunks chunkstore.Store, admit func([]images.Chunk) error) error {
	response := &v1.PutChunksResponse{}
	for {
		group, err := receiveChunks(stream)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return err
		}
		if err := admit(group); err != nil {
			return err
		}
		grown, err := chunks.Put(stream.Context(), group)
		if err != nil {
			return err
		}
		response.Chunks += uint64(len(group))
		response.StoredBytes += grown
		if last {
			return stream.SendAndClose(response)
		}
	}
}

// receiveChunks collects messages until there is enough to store; io.EOF comes with the last of them.
func receiveChunks(stream grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse]) ([]images.Chunk, error) {
	var group []images.Chunk
	for size := 0; len(group) < groupChunks && size < groupBytes; {
		request, err := stream.Recv()
		if err != nil {
			return group, err
		}
		for _, chunk := range request.GetChunks() {
			group = append(group, images.Chunk{Digest: images.Digest(chunk.GetDigest()), Sealed: chunk.GetZstd()})
			size += len(chunk.GetZstd())
		}
	}
	return group, nil
}

// CreateVersion makes a draft of an image whose chunks are all in the store.
func (s *imageService) CreateVersion(stream grpc.ClientStreamingServer[v1.CreateVersionRequest, v1.CreateVersionResponse]) error {
	ctx := stream.Context()
	select {
	case s.intakes <- struct{}{}:
		defer func() { <-s.intakes }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d versions are being created already: try again in a moment", maxIntakes)
	}
	header, manifest, err := receiveManifest(stream)
	if err != nil {
		return err
	}
	version, existed, err := s.intake.CreateVersion(ctx, time.Now(), catalog.Draft{
		Image: header.GetImage(), Note: header.GetNote(), Parent: header.GetParent(), By: callerOf(ctx).Name, Manifest: manifest, Tell: true,
		OriginImage: header.GetOriginImage(), OriginSignatures: header.GetOriginSignatures(),
	})
	if err != nil {
		return err
	}
	return stream.SendAndClose(&v1.CreateVersionResponse{Version: version, Existed: existed})
}

func receiveManifest(stream grpc.ClientStreamingServer[v1.CreateVersionRequest, v1.CreateVersionResponse]) (*v1.VersionHeader, []byte, error) {
	var header *v1.VersionHeader
	var manifest []byte
	for first := true; ; first = false {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) && !first {
			return header, manifest, nil
		}
		if errors.Is(err, io.EOF) {
			return nil, nil, invalid(mistake{"header", "is needed: the stream ended without a message"})
		}
		if err != nil {
			return nil, nil, err
		}
		switch {
		case first && request.GetHeader() == nil:
			return nil, nil, invalid(mistake{"header", "is needed in the first message"})
		case first:
			header = request.GetHeader()
		case request.GetHeader() != nil:
			return nil, nil, invalid(mistake{"header", "belongs in the first message only"})
		}
		if len(manifest)+len(request.GetManifest()) > images.MaxManifestBytes {
			return nil, nil, invalid(mistake{"manifest", "is larger than any disk's can be"})
		}
		manifest = append(manifest, request.GetManifest()...)
	}
}

// Publish makes a draft ready and lets the image point to it.
func (s *imageService) Publish(ctx context.Context, request *v1.PublishRequest) (*v1.PublishResponse, error) {
	version, err := s.intake.Publish(ctx, time.Now(), request.GetImage(), request.GetVersion())
	if err != nil {
		return nil, err
	}
	return &v1.PublishResponse{Version: version}, nil
}
