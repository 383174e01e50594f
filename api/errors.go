package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/api/pki"
	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator/build"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
)

// maybe is what a caller must know when the outcome is not known.
const maybe = "the change may or may not have been applied: look with \"daybreak get\" before you try again"

// codeOf maps the sentinels of every room that services call to gRPC codes. First match wins.
func codeOf(err error) codes.Code {
	for _, row := range []struct {
		sentinel error
		code     codes.Code
	}{
		{store.ErrUnknownOutcome, codes.Unknown},
		{store.ErrNotFound, codes.NotFound},
		{store.ErrExists, codes.AlreadyExists},
		{store.ErrConflict, codes.Aborted},
		{store.ErrNotLeader, codes.Unavailable},
		{store.ErrInvalid, codes.InvalidArgument},
		{store.ErrBroken, codes.DataLoss},
		{pki.ErrRequest, codes.InvalidArgument},
		{catalog.ErrRefused, codes.FailedPrecondition},
		{rollout.ErrRefused, codes.FailedPrecondition},
		{build.ErrInvalid, codes.InvalidArgument},
		{build.ErrRefused, codes.FailedPrecondition},
		{build.ErrBusy, codes.ResourceExhausted},
		{build.ErrStopping, codes.Unavailable},
		{build.ErrNotBuilding, codes.PermissionDenied},
		{build.ErrTooMuch, codes.ResourceExhausted},
		{build.ErrFailed, codes.Aborted},
		{images.ErrNotFound, codes.NotFound},
		{images.ErrInvalid, codes.InvalidArgument},
		{images.ErrIncomplete, codes.FailedPrecondition},
		{images.ErrCorrupt, codes.DataLoss},
		{images.ErrFull, codes.ResourceExhausted},
		{chunkstore.ErrForeign, codes.FailedPrecondition},
		{chunkstore.ErrDenied, codes.FailedPrecondition},
		{chunkstore.ErrUnreachable, codes.FailedPrecondition}, // Unavailable would say that it is us
		{pool.ErrNoneReady, codes.ResourceExhausted},
		{pool.ErrNotClaimed, codes.NotFound},
		{pool.ErrPoolDeleted, codes.FailedPrecondition},
		{pool.ErrUserLimit, codes.FailedPrecondition},
		{pool.ErrRequestUsed, codes.FailedPrecondition},
		{pool.ErrQueueFull, codes.ResourceExhausted},
		{pool.ErrWaitEnded, codes.Aborted},
		{pool.ErrDesktopFailed, codes.FailedPrecondition},
		{pool.ErrNoRestart, codes.FailedPrecondition},
		{pool.ErrNoDeferral, codes.FailedPrecondition},
		{dispatch.ErrUnreachable, codes.Unavailable},
		{dispatch.ErrBusy, codes.ResourceExhausted},
		{dispatch.ErrNotRunning, codes.FailedPrecondition},
		{dispatch.ErrRefused, codes.FailedPrecondition},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
	} {
		if errors.Is(err, row.sentinel) {
			return row.code
		}
	}
	return codes.Internal
}

// toStatus is what goes over the wire for an error. A status stays as it is; an error that nobody foresaw is shown as
// internal without its text, which may speak of things that are not the caller's. changes says that the call may have
// changed something before it failed.
func toStatus(err error, changes bool) error {
	if err == nil {
		return nil
	}
	if made, ok := status.FromError(err); ok {
		return made.Err()
	}
	code := codeOf(err)
	switch {
	case code == codes.Internal:
		return status.Error(code, "the server failed; its log says why")
	case code == codes.Unknown, changes && code == codes.DeadlineExceeded, changes && code == codes.Canceled:
		return status.Errorf(code, "%v: %s", err, maybe)
	}
	return status.Error(code, err.Error())
}
