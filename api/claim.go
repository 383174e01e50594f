package api

import (
	"context"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// Claimer binds desktops to users; orchestrator/pool has the real one.
type Claimer interface {
	Claim(ctx context.Context, pool, user, requestID string, now time.Time) (*v1.Desktop, error)
	Release(ctx context.Context, pool, user string) (desktop string, err error)
	// Defer puts a restart off that was announced to the user, and returns how often that is possible again.
	Defer(ctx context.Context, pool, user string, now time.Time) (desktop *v1.Desktop, left uint32, err error)
}

// claimService gives desktops to users and takes them back.
type claimService struct {
	v1.UnimplementedClaimServiceServer
	claims Claimer
}

// Claim binds a ready desktop of the pool to the user.
func (s *claimService) Claim(ctx context.Context, request *v1.ClaimRequest) (*v1.ClaimResponse, error) {
	desktop, err := s.claims.Claim(ctx, request.GetPool(), request.GetUser(), request.GetRequestId(), time.Now())
	if err != nil {
		return nil, err
	}
	return &v1.ClaimResponse{Desktop: desktop}, nil
}

// Release ends the user's claim.
func (s *claimService) Release(ctx context.Context, request *v1.ReleaseRequest) (*v1.ReleaseResponse, error) {
	desktop, err := s.claims.Release(ctx, request.GetPool(), request.GetUser())
	if err != nil {
		return nil, err
	}
	return &v1.ReleaseResponse{Desktop: desktop}, nil
}

// Defer puts a restart off that a rollout announced.
func (s *claimService) Defer(ctx context.Context, request *v1.DeferRequest) (*v1.DeferResponse, error) {
	desktop, left, err := s.claims.Defer(ctx, request.GetPool(), request.GetUser(), time.Now())
	if err != nil {
		return nil, err
	}
	return &v1.DeferResponse{Desktop: desktop, Left: left}, nil
}
