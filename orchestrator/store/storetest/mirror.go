package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// testWatchResetIsWhole changes objects of two kinds together, again and again, while watches begin: a Reset must have
// both as they were at one revision.
func testWatchResetIsWhole(ctx context.Context, t *testing.T, b store.Backend) {
	pool := func(image string) *v1.Pool {
		return &v1.Pool{Meta: &v1.Meta{Name: "a"}, Spec: &v1.PoolSpec{Image: image, Zone: "a"}}
	}
	revision := commit(ctx, t, b, store.Create(zone("a", "x0")), store.Create(pool("x0")))
	writing, stop := context.WithCancel(ctx)
	var writer errgroup.Group
	writer.Go(func() error {
		for n := 1; writing.Err() == nil; n++ {
			text := fmt.Sprintf("x%d", n)
			both := []store.Op{changeZone("a", text, revision), {Verb: store.VerbUpdate, Ref: store.RefOf(pool("")), Revision: revision, Object: pool(text)}}
			next, err := b.Commit(ctx, store.Guard{}, both)
			if err != nil {
				return err
			}
			revision = next
		}
		return nil
	})
	for range 50 {
		batches := watch(ctx, t, b, []v1.Kind{v1.Kind_KIND_ZONE, v1.Kind_KIND_POOL}, func(store.Batch) bool { return true })
		if len(batches) == 0 || len(batches[0].Changed) != 2 {
			t.Fatalf("heard %s", text(batches))
		}
		one, two := batches[0].Changed[0].GetMeta(), batches[0].Changed[1].GetMeta()
		if one.GetRevision() != two.GetRevision() || one.GetRevision() != batches[0].Revision {
			t.Errorf("a Reset at revision %d has objects of %d and %d", batches[0].Revision, one.GetRevision(), two.GetRevision())
		}
	}
	stop()
	if err := writer.Wait(); err != nil {
		t.Error(err)
	}
}

// testMirror wants every revision that Commit returns to reach a mirror, also one that the mirror's kinds have no part
// in, and one of a transaction that wrote nothing.
func testMirror(ctx context.Context, t *testing.T, b store.Backend) {
	running, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	m := store.NewMirror(b, v1.Kind_KIND_ZONE)
	group.Go(func() error { return m.Run(running) })
	for i, ops := range [][]store.Op{
		{store.Create(zone("a", "1"))},
		{store.Create(&v1.Pool{Meta: &v1.Meta{Name: "a"}})},
		{{Verb: store.VerbCheck, Ref: zoneRef("none")}},
		{store.Create(zone("b", "1")), store.Create(&v1.Pool{Meta: &v1.Meta{Name: "b"}})},
	} {
		if _, err := m.Wait(ctx, commit(ctx, t, b, ops...)); err != nil {
			t.Errorf("transaction %d: %v", i, err)
		}
	}
	if zones := store.All[*v1.Zone](m.View()); len(zones) != 2 {
		t.Errorf("mirror has %v", zones)
	}
	cancel()
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("mirror ended with %v", err)
	}
}
