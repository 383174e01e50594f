package main

import (
	"context"
	"crypto/rand"
	"time"

	"golang.org/x/sync/errgroup"

	"daybreak/api"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/placement"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/rollout"
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
	pools := pool.New(h.mirror, rand.Reader, h.log, h.metrics)
	places := placement.New(h.mirror, h.log, h.metrics)
	staging := rollout.NewStaging(h.mirror, h.log)
	return &brain{
		claimer:  pool.NewClaimer(store.Open(backend, store.WriterPool), h.mirror),
		dispatch: sessions,
		explain: func(_ context.Context, name string) (*v1.ExplainResponse, error) {
			return pool.Explain(h.mirror.View(), time.Now(), name)
		},
		lead: func(ctx context.Context, guard store.Guard) error {
			as := func(writer store.Writer) *store.Store { return store.Open(backend, writer).Guarded(guard) }
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return sessions.Run(ctx, as(store.WriterDispatch), h.mirror) })
			group.Go(func() error { return pools.Run(ctx, as(store.WriterPool)) })
			group.Go(func() error { return places.Run(ctx, as(store.WriterPlacement)) })
			group.Go(func() error { return staging.Run(ctx, as(store.WriterRollout)) })
			return group.Wait()
		},
	}, nil
}
