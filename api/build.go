package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "daybreak/proto/daybreak/v1"
)

// Build is the agent's end of a build.
func (s *agentService) Build(grpc.BidiStreamingServer[v1.BuildUpdate, v1.BuildTask]) error {
	return status.Error(codes.Unimplemented, "builds are not wired yet")
}

// MissingChunks says which of the chunks of a build the store lacks.
func (s *agentService) MissingChunks(context.Context, *v1.MissingChunksRequest) (*v1.MissingChunksResponse, error) {
	return nil, status.Error(codes.Unimplemented, "builds are not wired yet")
}

// PutChunks stores the chunks of a build.
func (s *agentService) PutChunks(grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse]) error {
	return status.Error(codes.Unimplemented, "builds are not wired yet")
}

// FindPeers names hosts that give a version's content out.
func (s *agentService) FindPeers(context.Context, *v1.FindPeersRequest) (*v1.FindPeersResponse, error) {
	return nil, status.Error(codes.Unimplemented, "peers are not wired yet")
}
