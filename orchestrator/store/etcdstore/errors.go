package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
)

// readError gives an error of a read its words, and keeps the end of a context recognisable.
func readError(ctx context.Context, doing string, err error) error {
	if ended := ctx.Err(); ended != nil {
		return fmt.Errorf("%s: %w", doing, ended)
	}
	return fmt.Errorf("%s from etcd: %w", doing, err)
}

// commitError tells errors after which nothing was written from those after which nobody knows.
func commitError(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrTooManyOps):
		return fmt.Errorf("commit: etcd allows fewer steps in a transaction than the %d that Daybreak needs: start it with --max-txn-ops=1024: %w", store.MaxOps+1, err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		// The transaction that reaches the quota is carried out and answered with this error all the same.
		return fmt.Errorf("commit: etcd's database has reached its quota and takes only reads and deletes "+
			"(an embedded etcd frees what it can every minute; a cluster must be compacted, defragmented and its NOSPACE alarm disarmed): %w: %w",
			store.ErrUnknownOutcome, err)
	}
	switch code(err) {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition:
		return fmt.Errorf("commit: etcd refused it: %w", err)
	}
	return fmt.Errorf("commit: %w: %w", store.ErrUnknownOutcome, err)
}

// hopeless reports whether asking etcd again cannot help.
func hopeless(err error) bool {
	switch code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	return false
}

func code(err error) codes.Code {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code()
	}
	return status.Code(err)
}
