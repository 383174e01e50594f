package placement

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// story runs the controller on a memory store in a bubble.
func story(t *testing.T, tell func(memory *store.Memory, mirror *store.Mirror)) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		mirror := store.NewMirror(memory)
		controller := New(mirror, zerolog.New(zerolog.NewTestWriter(t)), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return mirror.Run(ctx) })
		group.Go(func() error { return controller.Run(ctx, store.Open(memory, store.WriterPlacement)) })
		tell(memory, mirror)
		cancel()
		if err := group.Wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

func put(t *testing.T, memory *store.Memory, w store.Writer, objects ...store.Object) {
	t.Helper()
	var ops []store.Op
	for _, o := range objects {
		ops = append(ops, store.Create(o))
	}
	if _, err := store.Open(memory, w).Commit(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func places(mirror *store.Mirror) map[string]int {
	counts := map[string]int{}
	for _, d := range store.All[*v1.Desktop](mirror.View()) {
		counts[d.Incarnation.Host]++
	}
	return counts
}

func TestStory(t *testing.T) {
	story(t, func(memory *store.Memory, mirror *store.Mirror) {
		put(t, memory, store.WriterRollout, image())
		for i := range 20 {
			put(t, memory, store.WriterPool, newDesktop(fmt.Sprintf("a-%d", i)))
		}
		for _, d := range store.All[*v1.Desktop](mirror.View()) {
			if d.Incarnation.UnplacedReason != "no host fits: there is none, enrol one first" {
				t.Fatalf("%s: %q", d.Meta.Name, d.Incarnation.UnplacedReason)
			}
		}
		ctx := t.Context()
		h1 := newHost("h1")
		put(t, memory, store.WriterAPI, &v1.Host{Meta: h1.Meta, Spec: h1.Spec})
		if _, err := store.Modify(ctx, store.Open(memory, store.WriterDispatch), "h1", func(h *v1.Host) error {
			h.Status = h1.Status
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := places(mirror); got["h1"] != 7 || got[""] != 13 {
			t.Errorf("with one host of 7680 MiB: %v", got)
		}
		d, _ := store.Lookup[*v1.Desktop](mirror.View(), "a-9")
		if got := d.Incarnation.UnplacedReason; got != "no host fits: 1 host lacks memory (needs 1024 MiB, 512 free)" {
			t.Errorf("a-9: %q", got)
		}
		// Room is made: one that was placed goes.
		gone, _ := store.Lookup[*v1.Desktop](mirror.View(), "a-0")
		if gone.Incarnation.Host == "" {
			t.Fatal("a-0 has no host")
		}
		if _, err := store.Open(memory, store.WriterPool).Commit(ctx, store.Delete(gone)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if got := places(mirror); got["h1"] != 7 || got[""] != 12 {
			t.Errorf("after one went: %v", got)
		}
	})
}

// rival changes a host in the moment before a placement on it is committed.
type rival struct {
	store.Backend
	t    *testing.T
	done bool
}

func (r *rival) Commit(ctx context.Context, g store.Guard, ops []store.Op) (int64, error) {
	if !r.done && ops[0].Verb == store.VerbCheck {
		r.done = true
		if _, err := store.Modify(ctx, store.Open(r.Backend, store.WriterAPI), "h1", func(h *v1.Host) error {
			h.Spec = &v1.HostSpec{Unschedulable: true}
			return nil
		}); err != nil {
			r.t.Error(err)
		}
	}
	return r.Backend.Commit(ctx, g, ops)
}

// A host that changes between decision and commit is not used on old knowledge.
func TestStaleHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		for _, o := range []store.Object{image(), newHost("h1"), newDesktop("a-1")} {
			if _, err := memory.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(o)}); err != nil {
				t.Fatal(err)
			}
		}
		mirror := store.NewMirror(memory)
		controller := New(mirror, zerolog.Nop(), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return mirror.Run(ctx) })
		group.Go(func() error {
			return controller.Run(ctx, store.Open(&rival{Backend: memory, t: t}, store.WriterPlacement))
		})
		time.Sleep(time.Second)
		d, _ := store.Lookup[*v1.Desktop](mirror.View(), "a-1")
		if d.Incarnation.Host != "" || !strings.Contains(d.Incarnation.UnplacedReason, "is unschedulable") {
			t.Errorf("placed on what the host was: %v", d.Incarnation)
		}
		cancel()
		_ = group.Wait()
	})
}
