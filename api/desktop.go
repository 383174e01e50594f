package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Explainer says in plain sentences why a pool, a desktop or a host is as it is.
type Explainer func(ctx context.Context, name string) (*v1.ExplainResponse, error)

// desktopService answers questions about running desktops.
type desktopService struct {
	v1.UnimplementedDesktopServiceServer
	explain  Explainer
	sessions Sessions
	cluster  Cluster
}

// Explain says why a pool, a desktop or a host is as it is.
func (s *desktopService) Explain(ctx context.Context, request *v1.ExplainRequest) (*v1.ExplainResponse, error) {
	return s.explain(ctx, request.GetName())
}

// Screenshot asks the desktop's host for a picture of its screen.
func (s *desktopService) Screenshot(ctx context.Context, request *v1.ScreenshotRequest) (*v1.ScreenshotResponse, error) {
	png, err := s.sessions.Screenshot(ctx, request.GetDesktop())
	if errors.Is(err, store.ErrNotLeader) {
		return nil, status.Errorf(codes.Unavailable, "this daybreakd does not lead and has no agents: ask the one that does (%s)", s.cluster.leader(ctx))
	}
	if err != nil {
		return nil, err
	}
	return &v1.ScreenshotResponse{Png: png}, nil
}
