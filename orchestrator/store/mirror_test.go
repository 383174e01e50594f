package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// mirrored runs a mirror in a bubble.
func mirrored(t *testing.T, b store.Backend, kinds ...v1.Kind) (*store.Mirror, context.Context) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m := store.NewMirror(b, kinds...)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("mirror ended with %v", err)
		}
	})
	return m, ctx
}

func TestMirrorFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		put(t, memory, newPool("sales"))
		m, ctx := mirrored(t, memory)
		if v := m.View(); v.Revision != 0 || len(store.All[*v1.Pool](v)) != 0 {
			t.Errorf("a view before the first sync: %d", v.Revision)
		}
		first, err := m.Wait(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		d := newDesktop("sales-1", "sales")
		d.Incarnation.Host = "kvm1"
		d = put(t, memory, d)
		second, err := m.Wait(ctx, d.Meta.Revision)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := store.Lookup[*v1.Desktop](first, "sales-1"); ok {
			t.Error("an older view changed")
		}
		if got, ok := store.Lookup[*v1.Desktop](second, "sales-1"); !ok || got.Meta.Revision != d.Meta.Revision {
			t.Errorf("got %v", got)
		}
		if n, m := len(second.DesktopsOfPool("sales")), len(second.DesktopsOnHost("kvm1")); n != 1 || m != 1 {
			t.Errorf("%d in pool, %d on host", n, m)
		}
		if n, m := len(second.DesktopsOfPool("sale")), len(second.DesktopsOnHost("")); n != 0 || m != 0 {
			t.Errorf("%d in no pool, %d on no host", n, m)
		}
	})
}

func TestMirrorOfSomeKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		m, ctx := mirrored(t, memory, v1.Kind_KIND_POOL)
		d := put(t, memory, newDesktop("sales-1", "sales"))
		v, err := m.Wait(ctx, d.Meta.Revision)
		if err != nil {
			t.Fatalf("a change of another kind must bring the revision: %v", err)
		}
		defer func() {
			if recover() == nil {
				t.Error("asked for a kind that is not mirrored, got an answer")
			}
		}()
		store.All[*v1.Desktop](v)
	})
}

func TestMirrorWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMirror(store.NewMemory())
		ctx, cancel := context.WithCancel(context.Background())
		go cancel()
		if _, err := m.Wait(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestMirrorSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		a := put(t, memory, newPool("a"))
		m, ctx := mirrored(t, memory)
		listen := func() (*[]string, func()) {
			calls := &[]string{}
			return calls, m.Subscribe(func(before, after *store.View, changed []store.Ref) {
				from := int64(0)
				if before != nil {
					from = before.Revision
				}
				*calls = append(*calls, fmt.Sprintf("%d-%d %v", from, after.Revision, changed))
			})
		}
		early, _ := listen()
		synctest.Wait()
		late, cancel := listen()
		b := put(t, memory, newPool("b"))
		if _, err := memory.Commit(ctx, store.Guard{}, []store.Op{store.Delete(a), store.Update(b)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		put(t, memory, newPool("c"))
		synctest.Wait()
		want := "[0-2 [pool a] 2-3 [pool b] 3-4 [pool b pool a]"
		if got := fmt.Sprint(*early); got != want+" 4-5 [pool c]]" {
			t.Errorf("early heard %s", got)
		}
		if got := fmt.Sprint(*late); got != want+"]" {
			t.Errorf("late heard %s", got)
		}
	})
}

// TestMirrorAfterReset lets a mirror lag behind a compaction and checks that its subscribers hear the difference only.
func TestMirrorAfterReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		kept, gone := put(t, memory, newPool("kept")), put(t, memory, newPool("gone"))
		m, ctx := mirrored(t, memory)
		var heard []string
		m.Subscribe(func(before, after *store.View, changed []store.Ref) {
			heard = append(heard, fmt.Sprint(changed))
			if before != nil {
				return
			}
			if _, err := memory.Commit(ctx, store.Guard{}, []store.Op{store.Delete(gone), store.Create(newPool("new"))}); err != nil {
				t.Error(err)
			}
			if err := memory.Compact(ctx); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if got := fmt.Sprint(heard); got != "[[pool gone pool kept] [pool new pool gone]]" {
			t.Errorf("heard %s", got)
		}
		if p, ok := store.Lookup[*v1.Pool](m.View(), "kept"); !ok || p != kept {
			t.Error("what did not change is not there")
		}
	})
}

// TestViewAgainstScan compares the view's indexes with a plain scan over many random changes.
func TestViewAgainstScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		m, ctx := mirrored(t, memory)
		random := rand.New(rand.NewPCG(1, 2))
		pools, hosts := []string{"a", "ab", "b"}, []string{"", "h", "h1", "h2"}
		for range 3000 {
			name := fmt.Sprintf("d-%d", random.IntN(500))
			d := newDesktop(name, pools[random.IntN(len(pools))])
			d.Incarnation.Host = hosts[random.IntN(len(hosts))]
			op := store.Create(d)
			if old, err := memory.Get(ctx, store.RefOf(d)); err == nil {
				op.Verb, op.Revision = store.VerbUpdate, old.GetMeta().GetRevision()
				if random.IntN(3) == 0 {
					op = store.Delete(old)
				}
			}
			if _, err := memory.Commit(ctx, store.Guard{}, []store.Op{op}); err != nil {
				t.Fatal(err)
			}
			if random.IntN(100) == 0 {
				synctest.Wait()
				checkView(t, memory, m.View(), pools, hosts)
			}
		}
	})
}

func checkView(t *testing.T, memory *store.Memory, v *store.View, pools, hosts []string) {
	t.Helper()
	objects, revision, err := memory.List(context.Background(), v1.Kind_KIND_DESKTOP)
	if err != nil || revision != v.Revision {
		t.Fatalf("view at %d, store at %d: %v", v.Revision, revision, err)
	}
	matching := func(keep func(*v1.Desktop) bool) (found []*v1.Desktop) {
		for _, o := range objects {
			if d := o.(*v1.Desktop); keep(d) {
				found = append(found, d)
			}
		}
		return found
	}
	same := func(got, want []*v1.Desktop) {
		t.Helper()
		if !slices.Equal(got, want) {
			t.Fatalf("revision %d: %d desktops, want %d", revision, len(got), len(want))
		}
	}
	same(store.All[*v1.Desktop](v), matching(func(*v1.Desktop) bool { return true }))
	for _, pool := range pools {
		same(v.DesktopsOfPool(pool), matching(func(d *v1.Desktop) bool { return d.Spec.Pool == pool }))
	}
	for _, host := range hosts[1:] {
		same(v.DesktopsOnHost(host), matching(func(d *v1.Desktop) bool { return d.Incarnation.Host == host }))
	}
	for _, o := range objects {
		if got, ok := store.Lookup[*v1.Desktop](v, o.GetMeta().GetName()); !ok || !proto.Equal(got, o) {
			t.Fatalf("lookup of %s gives %v", o.GetMeta().GetName(), got)
		}
	}
}

func BenchmarkViewPerCommit(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	memory := store.NewMemory()
	revisions := map[string]int64{}
	commit := func(i int) int64 {
		d := newDesktop(fmt.Sprintf("d-%d", i%20000), "sales")
		op := store.Create(d)
		if r := revisions[d.Meta.Name]; r > 0 {
			op.Verb, op.Revision = store.VerbUpdate, r
		}
		revision, err := memory.Commit(ctx, store.Guard{}, []store.Op{op})
		if err != nil {
			b.Fatal(err)
		}
		revisions[d.Meta.Name] = revision
		return revision
	}
	for i := range 20000 {
		commit(i)
	}
	m := store.NewMirror(memory)
	go func() { _ = m.Run(ctx) }()
	for i := 0; b.Loop(); i++ {
		if _, err := m.Wait(ctx, commit(i)); err != nil {
			b.Fatal(err)
		}
	}
}
