package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// hostDirectory knows which hosts belong to the cluster: a certificate of one that was deleted is refused.
type hostDirectory struct {
	store  *store.Store
	mirror *store.Mirror
}

// checkHost asks the mirror, which costs nothing, and the store itself before it refuses: the mirror may not have heard
// yet of a host that has just enrolled.
func (d hostDirectory) checkHost(ctx context.Context, name, uid string) error {
	if host, ok := store.Lookup[*v1.Host](d.mirror.View(), name); ok && host.GetMeta().GetUid() == uid {
		return nil
	}
	host, err := store.Get[*v1.Host](ctx, d.store, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err != nil || host.GetMeta().GetUid() != uid {
		return status.Errorf(codes.Unauthenticated, "host %s was removed from the cluster: enrol it again with a new token", name)
	}
	return nil
}
