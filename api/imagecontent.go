package api

import (
	"google.golang.org/grpc"

	v1 "daybreak/proto/daybreak/v1"
)

// GetManifest streams a version's manifest in pieces, for bundles.
func (s *imageService) GetManifest(request *v1.GetManifestRequest, stream grpc.ServerStreamingServer[v1.GetManifestResponse]) error {
	return s.content.GetManifest(request, stream)
}

// GetChunks streams the chunks asked for, for bundles, logs and lists of packages.
func (s *imageService) GetChunks(request *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	return s.content.GetChunks(request, stream)
}
