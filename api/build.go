package api

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/images"
	"daybreak/orchestrator/build"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// newRelay makes the relay for builds; nil when there are no hosts to build on.
func (s *Server) newRelay(config Config, intake *catalog.Intake, objects *store.Store) (*build.Relay, error) {
	if config.Sessions == nil {
		return nil, nil
	}
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	return build.NewRelay(build.Deps{
		Call: config.Sessions, Intake: intake, Chunks: config.Chunks, Codec: codec, Objects: objects,
		Mirror: config.Mirror, Closing: s.closing, Log: config.Log,
	}), nil
}

// Build makes a version by a patch, or checks one, on a host.
func (s *imageService) Build(stream build.People) error {
	if s.builds == nil {
		return errNoBuilds
	}
	err := s.builds.Build(callerOf(stream.Context()).Name, stream)
	if errors.Is(err, store.ErrNotLeader) {
		return status.Errorf(codes.Unavailable, "this daybreakd does not lead and has no agents: ask the one that does (%s): %v",
			s.cluster.leader(stream.Context()), err)
	}
	if errors.Is(err, dispatch.ErrUnreachable) {
		return status.Error(codes.FailedPrecondition, err.Error()) // it is not this server that cannot be reached
	}
	return err
}

// Seal tells the interactive build of an image that its admin is done.
func (s *imageService) Seal(_ context.Context, request *v1.SealRequest) (*v1.SealResponse, error) {
	if s.builds == nil {
		return nil, errNoBuilds
	}
	return &v1.SealResponse{}, s.builds.Seal(request.GetImage())
}

// errNoBuilds: this control plane was made without sessions, so that no host could be called.
var errNoBuilds = status.Error(codes.Unimplemented, "this control plane has no hosts to build on")

// Build is the agent's end of a build.
func (s *agentService) Build(stream build.Agent) error {
	host, err := HostOf(stream.Context())
	if err != nil {
		return err
	}
	return s.builds.Serve(host, stream)
}

// MissingChunks says which of the chunks of a build the store lacks.
func (s *agentService) MissingChunks(ctx context.Context, request *v1.MissingChunksRequest) (*v1.MissingChunksResponse, error) {
	host, err := HostOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.builds.Admit(host, 0); err != nil {
		return nil, err
	}
	return missingChunks(ctx, s.chunks, request)
}

// PutChunks stores the chunks of a build.
func (s *agentService) PutChunks(stream grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse]) error {
	host, err := HostOf(stream.Context())
	if err != nil {
		return err
	}
	return putChunks(stream, s.chunks, func(group []images.Chunk) error {
		var size int64
		for _, chunk := range group {
			size += int64(len(chunk.Sealed))
		}
		return s.builds.Admit(host, size)
	})
}
