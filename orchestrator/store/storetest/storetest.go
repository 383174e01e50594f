// Package storetest is the contract of store.Backend as a test suite, to be run on every backend.
//
// Here: Run and what it checks; Mirror, by which tests of other rooms read a backend. Not here: tests of handles, owners and mirrors, which do not differ between backends.
// Tests call it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Compactor is offered by a backend under test that can forget its history on demand.
type Compactor interface {
	Compact(ctx context.Context) error
}

// Elector is offered by a backend under test that can hold an election on demand: the guard returned holds until the
// next call.
type Elector interface {
	Elect(ctx context.Context) (store.Guard, error)
}

// patience bounds every wait of the suite; it is only ever used up by a failure.
const patience = 30 * time.Second

// Run checks a backend. open returns an empty one for each test.
func Run(t *testing.T, open func(t *testing.T) store.Backend) {
	for _, check := range []struct {
		name string
		run  func(ctx context.Context, t *testing.T, b store.Backend)
	}{
		{"Create", testCreate},
		{"Update", testUpdate},
		{"Delete", testDelete},
		{"Check", testCheck},
		{"AllOrNothing", testAllOrNothing},
		{"BlamesEveryOp", testBlamesEveryOp},
		{"Form", testForm},
		{"Bounds", testBounds},
		{"Isolation", testIsolation},
		{"Fetch", testFetch},
		{"List", testList},
		{"Guard", testGuard},
		{"ContextEnds", testContextEnds},
		{"Model", testModel},
		{"WatchOrder", testWatchOrder},
		{"WatchKinds", testWatchKinds},
		{"WatchSinkFails", testWatchSinkFails},
		{"WatchTransaction", testWatchTransaction},
		{"WatchCompacted", testWatchCompacted},
		{"WatchUnderWriters", testWatchUnderWriters},
		{"WatchResetIsWhole", testWatchResetIsWhole},
		{"Mirror", testMirror},
	} {
		t.Run(check.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			check.run(ctx, t, open(t))
		})
	}
}

// zone returns a valid object whose spec is told apart by text.
func zone(name, text string) *v1.Zone {
	return &v1.Zone{Meta: &v1.Meta{Name: name}, Spec: &v1.ZoneSpec{DisplayName: text}}
}

func zoneRef(name string) store.Ref {
	return store.Ref{Kind: v1.Kind_KIND_ZONE, Name: name}
}

// changeZone makes an Op that replaces a zone at a revision.
func changeZone(name, text string, revision int64) store.Op {
	return store.Op{Verb: store.VerbUpdate, Ref: zoneRef(name), Revision: revision, Object: zone(name, text)}
}

func commit(ctx context.Context, t *testing.T, b store.Backend, ops ...store.Op) int64 {
	t.Helper()
	revision, err := b.Commit(ctx, store.Guard{}, ops)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return revision
}

// refuse commits and wants a certain error.
func refuse(ctx context.Context, t *testing.T, b store.Backend, want error, ops ...store.Op) error {
	t.Helper()
	_, err := b.Commit(ctx, store.Guard{}, ops)
	if !errors.Is(err, want) {
		t.Errorf("commit gave %v, want %v", err, want)
	}
	return err
}

// wantZone checks a zone's text and revision; text "" wants it absent.
func wantZone(ctx context.Context, t *testing.T, b store.Backend, name, text string, revision int64) {
	t.Helper()
	o, err := b.Get(ctx, zoneRef(name))
	if text == "" {
		if !errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), name) {
			t.Errorf("get of zone %s gave %v, %v, want %v with its name", name, o, err, store.ErrNotFound)
		}
		return
	}
	if err != nil {
		t.Errorf("get: %v", err)
		return
	}
	z := o.(*v1.Zone)
	if z.Spec.GetDisplayName() != text || z.Meta.GetRevision() != revision || z.Meta.GetName() != name {
		t.Errorf("zone %s is %q at revision %d, want %q at %d", z.Meta.GetName(), z.Spec.GetDisplayName(), z.Meta.GetRevision(), text, revision)
	}
}

func testCreate(ctx context.Context, t *testing.T, b store.Backend) {
	before := time.Now()
	first := commit(ctx, t, b, store.Create(zone("juumin", "住民情報系 🏢")))
	wantZone(ctx, t, b, "juumin", "住民情報系 🏢", first)
	err := refuse(ctx, t, b, store.ErrExists, store.Create(zone("juumin", "again")))
	if err != nil && !strings.Contains(err.Error(), "zone juumin") {
		t.Errorf("error does not name the object: %v", err)
	}
	wantZone(ctx, t, b, "juumin", "住民情報系 🏢", first)

	o, err := b.Get(ctx, zoneRef("juumin"))
	if err != nil {
		t.Fatal(err)
	}
	meta := o.GetMeta()
	if created := meta.GetCreated().AsTime(); len(meta.GetUid()) != 36 || created.Before(before.Add(-time.Second)) || created.After(time.Now().Add(time.Second)) {
		t.Errorf("uid or time of creation missing: %v", meta)
	}
	given := zone("given", "x")
	given.Meta.Uid = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
	second := commit(ctx, t, b, store.Create(given))
	if second <= first {
		t.Errorf("revision went from %d to %d", first, second)
	}
	if o, err := b.Get(ctx, zoneRef("given")); err != nil || o.GetMeta().GetUid() != given.Meta.Uid {
		t.Errorf("a uid that was given is gone: %v, %v", o, err)
	}
}

func testUpdate(ctx context.Context, t *testing.T, b store.Backend) {
	first := commit(ctx, t, b, store.Create(zone("a", "1")))
	second := commit(ctx, t, b, changeZone("a", "2", first))
	wantZone(ctx, t, b, "a", "2", second)
	refuse(ctx, t, b, store.ErrConflict, changeZone("a", "3", first))
	refuse(ctx, t, b, store.ErrConflict, changeZone("a", "3", second+1))
	refuse(ctx, t, b, store.ErrConflict, changeZone("none", "3", second))
	refuse(ctx, t, b, store.ErrInvalid, changeZone("a", "3", 0))
	wantZone(ctx, t, b, "a", "2", second)
	other := commit(ctx, t, b, store.Create(zone("b", "1")))
	third := commit(ctx, t, b, changeZone("a", "3", second))
	if third <= other {
		t.Errorf("revisions %d, then %d", other, third)
	}
	wantZone(ctx, t, b, "b", "1", other)
}

func testDelete(ctx context.Context, t *testing.T, b store.Backend) {
	remove := func(revision int64) store.Op {
		return store.Op{Verb: store.VerbDelete, Ref: zoneRef("a"), Revision: revision}
	}
	first := commit(ctx, t, b, store.Create(zone("a", "1")))
	second := commit(ctx, t, b, changeZone("a", "2", first))
	refuse(ctx, t, b, store.ErrConflict, remove(first))
	refuse(ctx, t, b, store.ErrInvalid, remove(0))
	wantZone(ctx, t, b, "a", "2", second)
	if third := commit(ctx, t, b, remove(second)); third <= second {
		t.Errorf("revisions %d, then %d", second, third)
	}
	wantZone(ctx, t, b, "a", "", 0)
	refuse(ctx, t, b, store.ErrConflict, remove(second))
	again := commit(ctx, t, b, store.Create(zone("a", "new life")))
	refuse(ctx, t, b, store.ErrConflict, changeZone("a", "from the old life", second))
	wantZone(ctx, t, b, "a", "new life", again)
}

func testCheck(ctx context.Context, t *testing.T, b store.Backend) {
	check := func(name string, revision int64) store.Op {
		return store.Op{Verb: store.VerbCheck, Ref: zoneRef(name), Revision: revision}
	}
	first := commit(ctx, t, b, store.Create(zone("a", "1")))
	commit(ctx, t, b, check("a", first), check("none", 0), store.Create(zone("b", "1")))
	refuse(ctx, t, b, store.ErrConflict, check("a", first-1), store.Create(zone("c", "1")))
	refuse(ctx, t, b, store.ErrConflict, check("a", 0), store.Create(zone("c", "1")))
	refuse(ctx, t, b, store.ErrConflict, check("none", first), store.Create(zone("c", "1")))
	wantZone(ctx, t, b, "c", "", 0)
	last := commit(ctx, t, b, store.Create(zone("c", "1")))
	if revision := commit(ctx, t, b, check("a", first)); revision < last {
		t.Errorf("a transaction that writes nothing gave revision %d, the store is at %d", revision, last)
	}
	wantZone(ctx, t, b, "a", "1", first)
}

func testAllOrNothing(ctx context.Context, t *testing.T, b store.Backend) {
	first := commit(ctx, t, b, store.Create(zone("a", "1")), store.Create(zone("b", "1")), store.Create(zone("c", "1")))
	for _, name := range []string{"a", "b", "c"} {
		wantZone(ctx, t, b, name, "1", first)
	}
	second := commit(ctx, t, b, changeZone("a", "2", first), store.Op{Verb: store.VerbDelete, Ref: zoneRef("b"), Revision: first})
	wantZone(ctx, t, b, "a", "2", second)
	wantZone(ctx, t, b, "b", "", 0)
	refuse(ctx, t, b, store.ErrConflict,
		store.Create(zone("d", "1")), changeZone("c", "2", first), changeZone("a", "3", first))
	wantZone(ctx, t, b, "a", "2", second)
	wantZone(ctx, t, b, "c", "1", first)
	wantZone(ctx, t, b, "d", "", 0)
	// One name in two kinds is two objects.
	pool := &v1.Pool{Meta: &v1.Meta{Name: "a"}, Spec: &v1.PoolSpec{Image: "debian", Zone: "a"}}
	third := commit(ctx, t, b, store.Create(pool))
	wantZone(ctx, t, b, "a", "2", second)
	if o, err := b.Get(ctx, store.RefOf(pool)); err != nil || o.GetMeta().GetRevision() != third {
		t.Errorf("pool a: %v, %v", o, err)
	}
}

// testBlamesEveryOp wants an OpError for each op that failed and for no other.
func testBlamesEveryOp(ctx context.Context, t *testing.T, b store.Backend) {
	first := commit(ctx, t, b, store.Create(zone("a", "1")), store.Create(zone("b", "1")), store.Create(zone("c", "1")))
	err := refuse(ctx, t, b, store.ErrConflict,
		store.Create(zone("a", "2")), changeZone("b", "2", first), changeZone("c", "2", first-1), store.Create(zone("d", "1")))
	got := map[string]error{}
	collect(err, got)
	if len(got) != 2 || !errors.Is(got["a"], store.ErrExists) || !errors.Is(got["c"], store.ErrConflict) {
		t.Errorf("blamed %v, want a (exists) and c (conflict)", got)
	}
}

// collect gathers the OpErrors of an error by name.
func collect(err error, found map[string]error) {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range several.Unwrap() {
			collect(one, found)
		}
		return
	}
	var one *store.OpError
	if errors.As(err, &one) {
		found[one.Op.Ref.Name] = one
	}
}

// testIsolation changes an object after it was committed: what is stored must not change with it.
func testIsolation(ctx context.Context, t *testing.T, b store.Backend) {
	z := zone("a", "1")
	revision := commit(ctx, t, b, store.Create(z))
	if z.Meta.Revision != 0 || z.Meta.Uid != "" || z.Meta.Created != nil {
		t.Errorf("the caller's object was changed: %v", z.Meta)
	}
	z.Spec.DisplayName = "2"
	wantZone(ctx, t, b, "a", "1", revision)
}

func testFetch(ctx context.Context, t *testing.T, b store.Backend) {
	revision := commit(ctx, t, b, store.Create(zone("a", "1")), store.Create(zone("b", "2")))
	objects, err := b.Fetch(ctx, []store.Ref{zoneRef("b"), zoneRef("none"), {Kind: v1.Kind_KIND_POOL, Name: "a"}, zoneRef("a"), zoneRef("b")})
	if err != nil || len(objects) != 5 {
		t.Fatalf("fetched %v, %v", objects, err)
	}
	for i, want := range []string{"b", "", "", "a", "b"} {
		if want == "" {
			if objects[i] != nil {
				t.Errorf("%d: got %v, want nil", i, objects[i])
			}
			continue
		}
		if objects[i].GetMeta().GetName() != want || objects[i].GetMeta().GetRevision() != revision {
			t.Errorf("%d: got %v, want %s at %d", i, objects[i], want, revision)
		}
	}
	if _, err := b.Fetch(ctx, make([]store.Ref, store.MaxOps+1)); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("of too many: %v", err)
	}
	if objects, err := b.Fetch(ctx, nil); len(objects) != 0 || err != nil {
		t.Errorf("of nothing: %v, %v", objects, err)
	}
}

// testList lists more objects than any page holds.
func testList(ctx context.Context, t *testing.T, b store.Backend) {
	if objects, revision, err := b.List(ctx, v1.Kind_KIND_ZONE); len(objects) != 0 || revision < 1 || err != nil {
		t.Errorf("of nothing: %v at %d, %v", objects, revision, err)
	}
	const many = 2400
	var last int64
	for from := 0; from < many; from += 400 {
		var ops []store.Op
		for i := from; i < from+400; i++ {
			ops = append(ops, store.Create(zone(fmt.Sprintf("z%04d", many-1-i), "1")))
		}
		last = commit(ctx, t, b, ops...)
	}
	last = commit(ctx, t, b, store.Create(&v1.Pool{Meta: &v1.Meta{Name: "a"}}), store.Create(&v1.Host{Meta: &v1.Meta{Name: "a"}}))
	objects, revision, err := b.List(ctx, v1.Kind_KIND_ZONE)
	if err != nil || len(objects) != many || revision < last {
		t.Fatalf("%d objects at revision %d, want %d at %d or later: %v", len(objects), revision, many, last, err)
	}
	for i, o := range objects {
		if want := fmt.Sprintf("z%04d", i); o.GetMeta().GetName() != want {
			t.Fatalf("object %d is %s, want %s", i, o.GetMeta().GetName(), want)
		}
	}
}

func testGuard(ctx context.Context, t *testing.T, b store.Backend) {
	elector, ok := b.(Elector)
	if !ok {
		t.Skip("this backend holds no elections on demand")
	}
	if _, err := b.Commit(ctx, store.Guard{Key: "nobody", Revision: 1}, []store.Op{store.Create(zone("a", "1"))}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("with a key that is not there: %v", err)
	}
	if _, err := b.Commit(ctx, store.Guard{Key: "nobody"}, []store.Op{store.Create(zone("a", "1"))}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("with a key that is not there, at revision 0: %v", err)
	}
	old, err := elector.Elect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := b.Commit(ctx, old, []store.Op{store.Create(zone("a", "1"))})
	if err != nil {
		t.Fatalf("as leader: %v", err)
	}
	next, err := elector.Elect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	// Both the leadership and the object are against it; that it leads no more is what the caller must know.
	if _, err := b.Commit(ctx, old, []store.Op{store.Create(zone("a", "2"))}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("as a leader that was: %v", err)
	}
	if _, err := b.Commit(ctx, old, []store.Op{store.Create(zone("b", "1"))}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("as a leader that was, with nothing else against it: %v", err)
	}
	wantZone(ctx, t, b, "a", "1", revision)
	wantZone(ctx, t, b, "b", "", 0)
	if _, err := b.Commit(ctx, next, []store.Op{changeZone("a", "2", revision)}); err != nil {
		t.Errorf("as the next leader: %v", err)
	}
}

func testContextEnds(ctx context.Context, t *testing.T, b store.Backend) {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := b.Commit(ended, store.Guard{}, []store.Op{store.Create(zone("a", "1"))}); err == nil {
		t.Error("commit after the end")
	}
	if _, err := b.Get(ended, zoneRef("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	if _, _, err := b.List(ended, v1.Kind_KIND_ZONE); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if err := b.Watch(ended, nil, func(store.Batch) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("watch: %v", err)
	}
}
