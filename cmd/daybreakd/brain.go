package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/api"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/etcdstore"
	v1 "daybreak/proto/daybreak/v1"
)

// brain is the orchestrator's part.
type brain struct {
	claimer  *pool.Claimer
	dispatch *dispatch.Server
	explain  api.Explainer
	lead     func(ctx context.Context, guard store.Guard) error
}

func newBrain(h *house, backend store.Backend, cluster etcdstore.Cluster) (*brain, error) {
	leader := func() string { return h.leader(context.Background()) }
	sessions, err := dispatch.NewServer(dispatch.Config{Epoch: cluster.Epoch, Grace: h.options.HostGrace, Leader: leader}, api.HostOf, h.log, h.metrics)
	if err != nil {
		return nil, err
	}
	return &brain{
		claimer:  pool.NewClaimer(store.Open(backend, store.WriterPool), h.mirror),
		dispatch: sessions,
		explain: func(context.Context, string) (*v1.ExplainResponse, error) {
			return nil, status.Error(codes.Unimplemented, "this daybreakd cannot explain yet")
		},
		lead: func(ctx context.Context, guard store.Guard) error {
			return sessions.Run(ctx, store.Open(backend, store.WriterDispatch).Guarded(guard), h.mirror)
		},
	}, nil
}
