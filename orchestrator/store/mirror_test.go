package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
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
			d := newDesktop(fmt.Sprintf("d-%d", random.IntN(500)), pools[random.IntN(len(pools))])
			d.Incarnation.Host = hosts[random.IntN(len(hosts))]
			event := &v1.Event{
				Meta: &v1.Meta{Name: fmt.Sprintf("e-%d", random.IntN(500))}, Reason: "X",
				SubjectKind: []string{"pool", "desktop"}[random.IntN(2)], Subject: pools[random.IntN(len(pools))],
			}
			claim := &v1.Claim{
				Meta: &v1.Meta{Name: fmt.Sprintf("c-%d", random.IntN(500))}, Pool: pools[random.IntN(len(pools))], User: "u",
				Desktop: []string{"", "d-1"}[random.IntN(2)],
			}
			o := []store.Object{d, event, claim}[random.IntN(3)]
			op := store.Create(o)
			if old, err := memory.Get(ctx, store.RefOf(o)); err == nil {
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
	checkIndex(t, memory, v, store.All[*v1.Desktop](v), func(*v1.Desktop) bool { return true })
	checkIndex(t, memory, v, store.All[*v1.Event](v), func(*v1.Event) bool { return true })
	for _, pool := range pools {
		checkIndex(t, memory, v, v.DesktopsOfPool(pool), func(d *v1.Desktop) bool { return d.Spec.Pool == pool })
		checkIndex(t, memory, v, v.ClaimsWaiting(pool), func(c *v1.Claim) bool { return c.Pool == pool && c.Desktop == "" })
	}
	for _, host := range hosts[1:] {
		checkIndex(t, memory, v, v.DesktopsOnHost(host), func(d *v1.Desktop) bool { return d.Incarnation.Host == host })
	}
	for _, subject := range pools {
		for _, kind := range []v1.Kind{v1.Kind_KIND_POOL, v1.Kind_KIND_DESKTOP, v1.Kind_KIND_HOST} {
			checkIndex(t, memory, v, v.EventsAbout(store.Ref{Kind: kind, Name: subject}), func(e *v1.Event) bool {
				return e.Subject == subject && e.SubjectKind == store.KindName(kind)
			})
		}
	}
	for _, o := range store.All[*v1.Desktop](v) {
		if got, ok := store.Lookup[*v1.Desktop](v, o.GetMeta().GetName()); !ok || !proto.Equal(got, o) {
			t.Fatalf("lookup of %s gives %v", o.GetMeta().GetName(), got)
		}
	}
}

// checkIndex compares what a view gives with those of the store's objects that match.
func checkIndex[T store.Object](t *testing.T, memory *store.Memory, v *store.View, got []T, matches func(T) bool) {
	t.Helper()
	var zero T
	objects, revision, err := memory.List(context.Background(), store.KindOf(zero))
	if err != nil || revision != v.Revision {
		t.Fatalf("view at %d, store at %d: %v", v.Revision, revision, err)
	}
	var want []T
	for _, o := range objects {
		if matches(o.(T)) {
			want = append(want, o.(T))
		}
	}
	if !slices.EqualFunc(got, want, func(a, b T) bool { return store.Object(a) == store.Object(b) }) {
		t.Fatalf("revision %d: %d objects, want %d", revision, len(got), len(want))
	}
}

// Events since a time are those of it and after it, in their order, whatever lies in one moment.
func TestEventsSince(t *testing.T) {
	memory := store.NewMemory()
	first := time.Date(2027, 4, 5, 8, 0, 0, 999_999_999, time.UTC)
	for _, at := range []time.Time{first, first, first.Add(1), first.Add(time.Hour)} {
		if _, err := memory.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(store.NewEvent(at, newDesktop("sales-0", "sales"), "X", "", false))}); err != nil {
			t.Fatal(err)
		}
	}
	view, err := storetest.Mirror(t, memory).Wait(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[time.Time]int{{}: 4, first: 4, first.Add(1): 2, first.Add(2): 1, first.Add(time.Hour): 1, first.Add(2 * time.Hour): 0} {
		checkIndex(t, memory, view, view.EventsSince(at), func(e *v1.Event) bool { return !e.GetAt().AsTime().Before(at) })
		if got := len(view.EventsSince(at)); got != want {
			t.Errorf("%d events since %v, want %d", got, at, want)
		}
	}
}

// BenchmarkEventsAbout asks for the few events about one desktop among the many that a store keeps.
func BenchmarkEventsAbout(b *testing.B) {
	memory := store.NewMemory()
	desktop := newDesktop("sales-0", "sales")
	for i := range 20000 {
		subject := newDesktop(fmt.Sprintf("sales-%d", i%1000), "sales")
		event := store.NewEvent(time.Unix(int64(i), 0), subject, "DesktopReplaced", "", false)
		if _, err := memory.Commit(b.Context(), store.Guard{}, []store.Op{store.Create(event)}); err != nil {
			b.Fatal(err)
		}
	}
	m := store.NewMirror(memory)
	go func() { _ = m.Run(b.Context()) }()
	view, err := m.Wait(b.Context(), 0)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if n := len(view.EventsAbout(store.RefOf(desktop))); n != 20 {
			b.Fatalf("%d events about %s", n, desktop.Meta.Name)
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
