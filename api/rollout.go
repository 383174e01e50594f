package api

import (
	"context"
	"time"

	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

// rolloutService steers the move of pools between versions.
type rolloutService struct {
	v1.UnimplementedRolloutServiceServer
	steward *rollout.Steward
}

func rolloutResponse(r *v1.Rollout, err error) (*v1.RolloutResponse, error) {
	if err != nil {
		return nil, err
	}
	return &v1.RolloutResponse{Rollout: r}, nil
}

// Start moves a pool to the version that it should run, also if that was given up before.
func (s *rolloutService) Start(ctx context.Context, request *v1.StartRolloutRequest) (*v1.RolloutResponse, error) {
	return rolloutResponse(s.steward.Start(ctx, time.Now(), request.GetPool(), callerOf(ctx).Name))
}

// RollBack takes the newest rollout of a pool back.
func (s *rolloutService) RollBack(ctx context.Context, request *v1.RollBackRequest) (*v1.RolloutResponse, error) {
	return rolloutResponse(s.steward.RollBack(ctx, time.Now(), request.GetPool(), callerOf(ctx).Name, request.GetReason()))
}

// Pause keeps a rollout from taking further desktops out of service.
func (s *rolloutService) Pause(ctx context.Context, request *v1.PauseRolloutRequest) (*v1.RolloutResponse, error) {
	return rolloutResponse(s.steward.Pause(ctx, time.Now(), request.GetPool(), callerOf(ctx).Name))
}

// Resume lets a paused or halted rollout go on.
func (s *rolloutService) Resume(ctx context.Context, request *v1.ResumeRolloutRequest) (*v1.RolloutResponse, error) {
	return rolloutResponse(s.steward.Resume(ctx, time.Now(), request.GetPool(), callerOf(ctx).Name))
}
