package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// errWaitAgain: the place in the queue stays for a minute and a half.
var errWaitAgain = status.Error(codes.Unavailable, "this daybreakd is shutting down: wait again, the place in the queue is kept for a moment")

// Claimer binds desktops to users; orchestrator/pool has the real one.
type Claimer interface {
	Claim(ctx context.Context, pool, user, requestID string, now time.Time) (*v1.Desktop, error)
	// Wait claims, and waits in the queue when no desktop is ready; tell hears how far that is, and last of the desktop READY. The
	// place in the queue outlives the end of ctx for a while, or until Release.
	Wait(ctx context.Context, pool, user, requestID string, tell func(*v1.WaitResponse) error) error
	// Keep says that the user's desktop is busy for a time; 0 takes that back.
	Keep(ctx context.Context, pool, user string, busy time.Duration, now time.Time) (*v1.Desktop, error)
	// Release ends a claim, with a request id only one of that request; desktop is empty when the user only waited.
	Release(ctx context.Context, pool, user, requestID string) (desktop string, err error)
	// Defer puts a restart off that was announced to the user, and returns how often that is possible again.
	Defer(ctx context.Context, pool, user string, now time.Time) (desktop *v1.Desktop, left uint32, err error)
}

// checkUser refuses a name that looks like another's: with the space of a careless paste the same person would be two users.
func checkUser(user string) error {
	if strings.TrimSpace(user) == user {
		return nil
	}
	return invalid(mistake{"user", fmt.Sprintf("%s begins or ends with a space: leave it out", rules.Quoted(user))})
}

// claimService gives desktops to users and takes them back.
type claimService struct {
	v1.UnimplementedClaimServiceServer
	claims  Claimer
	closing <-chan struct{}
}

// Claim binds a ready desktop of the pool to the user.
func (s *claimService) Claim(ctx context.Context, request *v1.ClaimRequest) (*v1.ClaimResponse, error) {
	if err := checkUser(request.GetUser()); err != nil {
		return nil, err
	}
	desktop, err := s.claims.Claim(ctx, request.GetPool(), request.GetUser(), request.GetRequestId(), time.Now())
	if err != nil {
		return nil, err
	}
	return &v1.ClaimResponse{Desktop: desktop}, nil
}

// Wait claims a desktop and streams how far that is.
func (s *claimService) Wait(request *v1.ClaimRequest, stream grpc.ServerStreamingServer[v1.WaitResponse]) error {
	if err := checkUser(request.GetUser()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	group, ctx := errgroup.WithContext(ctx)
	done := errors.New("done")
	group.Go(func() error {
		if err := s.claims.Wait(ctx, request.GetPool(), request.GetUser(), request.GetRequestId(), stream.Send); err != nil {
			return err
		}
		return done // and nobody need look for the end any more
	})
	group.Go(func() error {
		select {
		case <-s.closing:
			cancel(errWaitAgain)
		case <-ctx.Done():
		}
		return nil
	})
	err := group.Wait()
	switch {
	case errors.Is(err, done):
		return nil
	case errors.Is(context.Cause(ctx), errWaitAgain):
		return errWaitAgain
	}
	return err
}

// Keep says that a held desktop is busy.
func (s *claimService) Keep(ctx context.Context, request *v1.KeepRequest) (*v1.KeepResponse, error) {
	desktop, err := s.claims.Keep(ctx, request.GetPool(), request.GetUser(), request.GetBusyFor().AsDuration(), time.Now())
	if err != nil {
		return nil, err
	}
	return &v1.KeepResponse{Desktop: desktop}, nil
}

// Release ends the user's claim.
func (s *claimService) Release(ctx context.Context, request *v1.ReleaseRequest) (*v1.ReleaseResponse, error) {
	desktop, err := s.claims.Release(ctx, request.GetPool(), request.GetUser(), request.GetRequestId())
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
