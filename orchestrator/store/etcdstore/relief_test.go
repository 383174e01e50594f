package etcdstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// idle is start for a server that nobody runs, so that only the test relieves it.
func idle(t *testing.T, cfg EmbedConfig) *Server {
	t.Helper()
	cfg.Log = zerolog.Nop()
	s, err := Embedded(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// fill commits until the database is full and returns how many objects were acknowledged.
func fill(t *testing.T, b *Backend, op func(n int) store.Op) int {
	t.Helper()
	for n := range 200 {
		_, err := b.Commit(t.Context(), store.Guard{}, []store.Op{op(n)})
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrUnknownOutcome) || !strings.Contains(err.Error(), "quota") {
			t.Fatalf("after %d objects: %v", n, err)
		}
		return n
	}
	t.Fatal("the database is never full")
	return 0
}

func largeZone(n int) *v1.Zone {
	z := newZone(fmt.Sprintf("z%d", n))
	z.Spec.Description = strings.Repeat("x", 200<<10)
	return z
}

// TestFullOfObjects fills the database: what was acknowledged stays and can be read and deleted, and only then are
// writes taken again.
func TestFullOfObjects(t *testing.T) {
	t.Parallel()
	s := idle(t, EmbedConfig{Dir: t.TempDir(), QuotaBytes: 4 << 20, unsafeNoFsync: true})
	b := New(s.Client, "/daybreak", zerolog.Nop())
	n := fill(t, b, func(n int) store.Op { return store.Create(largeZone(n)) })
	zones, _, err := b.List(t.Context(), v1.Kind_KIND_ZONE)
	if err != nil || len(zones) != n && len(zones) != n+1 { // etcd may carry out the one that it says no to
		t.Errorf("listed %d of %d, %v", len(zones), n, err)
	}
	quota := s.quota
	s.quota = 1 << 20 // of what counts against the quota, some is always waste: be sure that the rest is too much
	if err := s.relieve(t.Context()); err == nil || !strings.Contains(err.Error(), "live data") {
		t.Errorf("nothing can be freed, but: %v", err)
	}
	s.quota = quota
	for _, z := range zones[2:] {
		if _, err := b.Commit(t.Context(), store.Guard{}, []store.Op{store.Delete(z)}); err != nil {
			t.Fatalf("delete when full: %v", err)
		}
	}
	if err := s.relieve(t.Context()); err != nil {
		t.Errorf("after deletions: %v", err)
	}
	create(t, b, "new")
}

// TestFullOfHistory fills the database by changing one object: a restart is enough to take writes again, and the one
// object is what it was.
func TestFullOfHistory(t *testing.T) {
	t.Parallel()
	cfg := EmbedConfig{Dir: t.TempDir(), QuotaBytes: 4 << 20, unsafeNoFsync: true}
	t.Run("fill", func(t *testing.T) {
		b := New(start(t, cfg).Client, "/daybreak", zerolog.Nop())
		fill(t, b, func(n int) store.Op {
			z := largeZone(1)
			if n == 0 {
				return store.Create(z)
			}
			current, err := b.Get(t.Context(), store.RefOf(z))
			if err != nil {
				t.Fatal(err)
			}
			z.Meta.Revision = current.GetMeta().GetRevision()
			return store.Update(z)
		})
	})
	s := idle(t, cfg)
	b := New(s.Client, "/daybreak", zerolog.Nop())
	if err := s.relieve(t.Context()); err != nil {
		t.Fatal(err)
	}
	create(t, b, "new")
	if o, err := b.Get(t.Context(), store.RefOf(largeZone(1))); err != nil || len(o.(*v1.Zone).Spec.Description) != 200<<10 {
		t.Errorf("the object is gone: %v", err)
	}
}
