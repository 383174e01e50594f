// Package orchestrator is the brain: it wires the loops that keep every pool warm, and starts them while this daybreakd
// leads.
//
// Here: which loops there are, their handles on the store, and the explanation that several of them share. Not here: what
// they decide (the rooms below), the election (store/etcdstore), anything that people or agents call (api, dispatch). cmd
// makes one Orchestrator and lets the election call Lead.
package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/images/chunkstore"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/placement"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Deps is what the loops work with.
type Deps struct {
	// Backend is the store; each loop opens a handle of its own on it.
	Backend store.Backend
	// Mirror of all kinds. It runs for the whole life of the process, leading or not.
	Mirror *store.Mirror
	// Dispatch serves agents, and refuses them while this daybreakd does not lead.
	Dispatch *dispatch.Server
	// Chunks is the image store of the cluster that Cluster names. May be nil: its garbage is not collected then.
	Chunks  chunkstore.Store
	Cluster string
	// Entropy gives identities to desktops: crypto/rand.Reader.
	Entropy io.Reader
	Log     zerolog.Logger
	Metrics prometheus.Registerer
}

// Orchestrator is the wired house. It may lead several times, one after the other.
type Orchestrator struct {
	deps      Deps
	pools     *pool.Controller
	placement *placement.Controller
	staging   *rollout.Staging
	rollouts  *rollout.Controller
}

// New wires the loops; nothing runs before Lead.
func New(deps Deps) *Orchestrator {
	return &Orchestrator{
		deps:      deps,
		pools:     pool.New(deps.Mirror, deps.Entropy, deps.Log, deps.Metrics),
		placement: placement.New(deps.Mirror, deps.Log, deps.Metrics),
		staging:   rollout.NewStaging(deps.Mirror, deps.Log),
		rollouts:  rollout.NewController(deps.Mirror, deps.Log),
	}
}

// Lead runs every loop until ctx ends, and then returns nil, or until one fails, which ends all. Everything they write
// holds only while the guard's leadership does. Its signature is the one that etcdstore.Lead calls.
func (o *Orchestrator) Lead(ctx context.Context, guard store.Guard) error {
	// What the mirror knows may be older than what the last leader wrote: begin at the newest.
	_, revision, err := o.deps.Backend.List(ctx, v1.Kind_KIND_ZONE)
	if err == nil {
		_, err = o.deps.Mirror.Wait(ctx, revision)
	}
	if err != nil {
		return fmt.Errorf("begin to lead: %w", err)
	}
	open := func(w store.Writer) *store.Store { return store.Open(o.deps.Backend, w).Guarded(guard) }
	if err := o.deps.Dispatch.Begin(ctx, open(store.WriterDispatch), o.deps.Mirror); err != nil {
		return fmt.Errorf("begin to lead: %w", err)
	}
	group, within := errgroup.WithContext(ctx)
	group.Go(func() error { return o.deps.Dispatch.Run(within, open(store.WriterDispatch), o.deps.Mirror) })
	group.Go(func() error { return o.pools.Run(within, open(store.WriterPool)) })
	group.Go(func() error { return o.placement.Run(within, open(store.WriterPlacement)) })
	group.Go(func() error { return o.staging.Run(within, open(store.WriterRollout)) })
	group.Go(func() error { return o.rollouts.Run(within, open(store.WriterRollout)) })
	if o.deps.Chunks != nil {
		collector := catalog.NewCollector(o.deps.Chunks, o.deps.Cluster, o.deps.Log)
		group.Go(func() error { return collector.Run(within, open(store.WriterRollout)) })
	}
	o.deps.Log.Info().Int64("term", guard.Revision).Msg("leading")
	err = group.Wait()
	o.deps.Log.Info().Int64("term", guard.Revision).Msg("no longer leading")
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// Explain says in plain sentences why a pool, a desktop or a host is as it is, and why a desktop is where it is. A name that several
// have means the first of these. store.ErrNotFound when there is none of that name.
func Explain(view *store.View, now time.Time, name string) (*v1.ExplainResponse, error) {
	answer, err := pool.Explain(view, now, name)
	if host := placement.ExplainHost(view, now, name); errors.Is(err, store.ErrNotFound) && host != "" {
		return &v1.ExplainResponse{Summary: host}, nil
	}
	if err != nil {
		return nil, err
	}
	if p, isPool := store.Lookup[*v1.Pool](view, name); isPool {
		answer.Details = append(placement.LastChoices(view, now, p), answer.GetDetails()...)
	} else if place := placement.Explain(view, now, name); place != "" {
		answer.Details = append([]string{place}, answer.GetDetails()...)
	}
	return answer, nil
}
