package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// progressEvery is how often a watch looks whether somebody may wait for a revision that brought it nothing.
	progressEvery = 100 * time.Millisecond
	// retryFirst and retryMost bound the pause before a watch that broke begins anew.
	retryFirst, retryMost = 100 * time.Millisecond, 5 * time.Second
)

// errSink marks errors of the sink, which end a watch; all others end one attempt.
type errSink struct{ error }

// Watch implements store.Backend. While etcd cannot be reached it tries again, and then sends a Reset.
func (b *Backend) Watch(ctx context.Context, kinds []v1.Kind, sink func(store.Batch) error) error {
	pause := retryFirst
	for {
		f := &follower{backend: b, kinds: kinds, sink: sink}
		err := f.follow(ctx)
		var failed errSink
		switch {
		case errors.As(err, &failed):
			return failed.error
		case ctx.Err() != nil:
			return ctx.Err()
		case hopeless(err):
			return fmt.Errorf("watch etcd: %w", err)
		}
		b.metrics.restarts.Inc()
		if f.known > 0 {
			pause = retryFirst
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			b.log.Info().Int64("revision", f.known).Msg("watch lagged behind compaction; it begins anew")
			continue
		}
		b.log.Warn().Err(err).Dur("pause", pause).Msg("watch broke off; it begins anew")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause + rand.N(pause)):
		}
		pause = min(2*pause, retryMost)
	}
}

// follower is one attempt at a watch: everything at one revision, then every change after it.
type follower struct {
	backend *Backend
	kinds   []v1.Kind
	sink    func(store.Batch) error
	known   int64 // the revision that the sink knows; 0 before the first batch
}

func (f *follower) follow(ctx context.Context) error {
	if err := f.reset(ctx); err != nil {
		return err
	}
	// A stream of its own, so that a request for progress is not answered for the sake of other watches.
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "daybreak-watch", uuid.NewString()))
	defer cancel()
	events := f.backend.client.Watch(clientv3.WithRequireLeader(ctx), f.backend.prefix,
		clientv3.WithPrefix(), clientv3.WithRev(f.known+1))
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case answer, open := <-events:
			if !open {
				return errors.New("watch was closed")
			}
			if err := f.take(answer); err != nil {
				return err
			}
		case <-tick.C:
			if f.known < f.backend.newest.Load() {
				// Only hastens what comes anyway. If it cannot be sent, the watch itself will say so.
				_ = f.backend.client.RequestProgress(clientv3.WithRequireLeader(ctx))
			}
		}
	}
}

// reset sends everything there is.
func (f *follower) reset(ctx context.Context) error {
	b := f.backend
	prefixes := []string{b.prefix}
	if len(f.kinds) > 0 {
		prefixes = nil
		for _, kind := range f.kinds {
			prefixes = append(prefixes, b.prefix+store.KindName(kind)+"/")
		}
	}
	batch := store.Batch{Reset: true}
	for _, prefix := range prefixes {
		objects, revision, err := b.listAt(ctx, prefix, batch.Revision)
		if err != nil {
			return err
		}
		batch.Revision = revision
		batch.Changed = append(batch.Changed, objects...)
	}
	return f.send(batch)
}

func (f *follower) send(batch store.Batch) error {
	if err := f.sink(batch); err != nil {
		return errSink{err}
	}
	f.known = batch.Revision
	return nil
}

// take passes on what etcd sent: one batch a revision, so that a transaction is whole and no object is twice in one.
func (f *follower) take(answer clientv3.WatchResponse) error {
	if err := answer.Err(); err != nil {
		return err
	}
	if answer.IsProgressNotify() && answer.Header.Revision > f.known {
		return f.send(store.Batch{Revision: answer.Header.Revision})
	}
	for events := answer.Events; len(events) > 0; {
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
			n++
		}
		if err := f.send(f.batch(events[:n])); err != nil {
			return err
		}
		events = events[n:]
	}
	return nil
}

// batch makes one of the events of one revision.
func (f *follower) batch(events []*clientv3.Event) store.Batch {
	batch := store.Batch{Revision: events[0].Kv.ModRevision}
	for _, event := range events {
		ref, ok := f.backend.ref(event.Kv.Key)
		if !ok || len(f.kinds) > 0 && !slices.Contains(f.kinds, ref.Kind) {
			continue
		}
		if event.Type == mvccpb.Event_DELETE {
			batch.Deleted = append(batch.Deleted, ref)
			continue
		}
		if o := f.backend.decode(event.Kv); o != nil {
			batch.Changed = append(batch.Changed, o)
		}
	}
	return batch
}
