package main

import (
	"context"
	"crypto/rand"
	"time"

	"daybreak/api"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator"
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

func newBrain(h *house, backend store.Backend, chunks chunkstore.Store, cluster etcdstore.Cluster) (*brain, error) {
	leader := func() string { return h.leader(context.Background()) }
	sessions, err := dispatch.NewServer(dispatch.Config{Epoch: cluster.Epoch, Grace: h.options.HostGrace, Leader: leader}, api.HostOf, h.log, h.metrics)
	if err != nil {
		return nil, err
	}
	loops := orchestrator.New(orchestrator.Deps{
		Backend: backend, Mirror: h.mirror, Dispatch: sessions, Chunks: chunks, Cluster: cluster.ID, Entropy: rand.Reader, Log: h.log, Metrics: h.metrics,
	})
	return &brain{
		claimer:  pool.NewClaimer(store.Open(backend, store.WriterPool), h.mirror),
		dispatch: sessions,
		explain: func(ctx context.Context, name string) (*v1.ExplainResponse, error) {
			// Whoever asks about what they have just applied is not to hear that there is no such thing.
			_, revision, err := backend.List(ctx, v1.Kind_KIND_ZONE)
			if err != nil {
				return nil, err
			}
			view, err := h.mirror.Wait(ctx, revision)
			if err != nil {
				return nil, err
			}
			return orchestrator.Explain(view, time.Now(), name)
		},
		lead: loops.Lead,
	}, nil
}
