package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func newPool(name string) *v1.Pool {
	return &v1.Pool{
		Meta: &v1.Meta{Name: name},
		Spec: &v1.PoolSpec{Image: "debian", Zone: "lgwan", Desktops: 3},
	}
}

func newDesktop(name, pool string) *v1.Desktop {
	return &v1.Desktop{
		Meta: &v1.Meta{Name: name},
		Spec: &v1.DesktopSpec{Pool: pool, Zone: "lgwan", Mac: "52:54:00:00:00:01", VmUuid: "6b1e5f0e-8d5b-4b6e-9a53-0c7f6a3f1d11"},
		Incarnation: &v1.Incarnation{
			Generation: 7, Image: "debian", Version: 1, Digest: strings.Repeat("a", 64), Desired: v1.DesiredState_DESIRED_STATE_READY,
		},
	}
}

// put writes past the owners' check and returns the object as stored.
func put[T store.Object](t *testing.T, b store.Backend, o T) T {
	t.Helper()
	if _, err := b.Commit(context.Background(), store.Guard{}, []store.Op{store.Create(o)}); err != nil {
		t.Fatal(err)
	}
	stored, err := b.Get(context.Background(), store.RefOf(o))
	if err != nil {
		t.Fatal(err)
	}
	return stored.(T)
}

func TestCommitGivesIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, memory := context.Background(), store.NewMemory()
		api := store.Open(memory, store.WriterAPI)
		given := newPool("sales")
		revision, err := api.Commit(ctx, store.Create(given))
		if err != nil {
			t.Fatal(err)
		}
		if given.Meta.Uid != "" || given.Meta.Revision != 0 {
			t.Errorf("the caller's object was changed: %v", given.Meta)
		}
		stored, err := store.Get[*v1.Pool](ctx, api, "sales")
		if err != nil {
			t.Fatal(err)
		}
		if len(stored.Meta.Uid) != 36 || stored.Meta.Revision != revision || !stored.Meta.Created.AsTime().Equal(time.Now()) {
			t.Errorf("identity not given: %v", stored.Meta)
		}
		fresh := newPool("sales") // as from a file: no uid, no time
		fresh.Spec.Desktops = 4
		fresh.Meta.Revision = revision
		fresh.Meta.Created = timestamppb.New(time.Unix(0, 0))
		time.Sleep(time.Hour)
		if _, err := api.Commit(ctx, store.Update(fresh)); err != nil {
			t.Fatal(err)
		}
		again, err := store.Get[*v1.Pool](ctx, api, "sales")
		if err != nil {
			t.Fatal(err)
		}
		if again.Meta.Uid != stored.Meta.Uid || !proto.Equal(again.Meta.Created, stored.Meta.Created) || again.Spec.Desktops != 4 {
			t.Errorf("identity lost or change not made: %v", again)
		}
	})
}

func TestCommitRefuses(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	pool := put(t, memory, newPool("sales"))
	placed := newDesktop("sales-1", "sales")
	placed.Incarnation.Host = "kvm1"
	placed = put(t, memory, placed)
	doomed := newPool("doomed")
	doomed.Meta.Deletion = &v1.Deletion{By: "admin"}
	doomed = put(t, memory, doomed)

	changed := func(d *v1.Desktop, change func(*v1.Desktop)) store.Op {
		d = proto.CloneOf(d)
		change(d)
		return store.Update(d)
	}
	changedPool := func(p *v1.Pool, change func(*v1.Pool)) store.Op {
		p = proto.CloneOf(p)
		change(p)
		return store.Update(p)
	}
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = store.Update(pool)
	}
	huge := newPool("huge")
	huge.Spec.Readiness = &v1.Readiness{Probe: []string{strings.Repeat("x", 300<<10)}}

	for _, row := range []struct {
		name   string
		writer store.Writer
		ops    []store.Op
		want   error
		says   string
	}{
		{"create another's kind", store.WriterPool, []store.Op{store.Create(newPool("x"))}, store.ErrNotOwner, "create pool x: pool may not create it"},
		{"delete another's kind", store.WriterAPI, []store.Op{store.Delete(pool)}, store.ErrNotOwner, "delete pool sales"},
		{"create with a foreign field", store.WriterPool, []store.Op{store.Create(func() store.Object {
			d := newDesktop("x", "sales")
			d.Incarnation.Host = "kvm1"
			return d
		}())}, store.ErrNotOwner, "incarnation.host"},
		{"a foreign field", store.WriterAPI, []store.Op{changedPool(pool, func(p *v1.Pool) { p.Status = &v1.PoolStatus{} })}, store.ErrNotOwner, "api would change status"},
		{"a new life that is placed already", store.WriterPool, []store.Op{changed(placed, func(d *v1.Desktop) { d.Incarnation.Generation = 8 })}, store.ErrNotOwner, "incarnation.host"},
		{"a lower generation", store.WriterPool, []store.Op{changed(placed, func(d *v1.Desktop) {
			d.Incarnation.Generation, d.Incarnation.Host = 6, ""
		})}, store.ErrInvalid, "generations only rise"},
		{"another place for the same life", store.WriterPlacement, []store.Op{changed(placed, func(d *v1.Desktop) { d.Incarnation.Host = "kvm2" })}, store.ErrInvalid, "needs a new generation"},
		{"a deletion taken back", store.WriterAPI, []store.Op{changedPool(doomed, func(p *v1.Pool) { p.Meta.Deletion = nil })}, store.ErrInvalid, "cannot be taken back"},
		{"a broken rule", store.WriterAPI, []store.Op{changedPool(pool, func(p *v1.Pool) { p.Spec.Desktops = 9999 })}, store.ErrInvalid,
			"update pool sales: spec.desktops: must be at most 5000: invalid object"},
		{"two broken rules", store.WriterAPI, []store.Op{changedPool(pool, func(p *v1.Pool) { p.Spec.Desktops, p.Spec.Zone = 9999, "Zone" })}, store.ErrInvalid, "; spec."},
		{"a stale revision", store.WriterAPI, []store.Op{changedPool(pool, func(p *v1.Pool) { p.Meta.Revision--; p.Spec.Desktops = 9 })}, store.ErrConflict, "update pool sales"},
		{"no revision", store.WriterAPI, []store.Op{changedPool(pool, func(p *v1.Pool) { p.Meta.Revision = 0 })}, store.ErrInvalid, "needs the revision"},
		{"one object twice", store.WriterAPI, []store.Op{store.Update(pool), store.Check(pool)}, store.ErrInvalid, "twice"},
		{"too many steps", store.WriterAPI, many, store.ErrInvalid, "at most 512"},
		{"too large", store.WriterAPI, []store.Op{store.Create(huge)}, store.ErrInvalid, "at most 262144"},
		{"another object than named", store.WriterAPI, []store.Op{{Verb: store.VerbCreate, Ref: store.RefOf(pool), Object: newPool("y")}}, store.ErrInvalid, "the object given is pool y"},
		{"no object", store.WriterAPI, []store.Op{{Verb: store.VerbCreate, Ref: store.RefOf(pool), Object: (*v1.Pool)(nil)}}, store.ErrInvalid, "no object"},
		{"one bad of two", store.WriterAPI, []store.Op{store.Create(newPool("good")), store.Delete(pool)}, store.ErrNotOwner, "delete pool sales"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := store.Open(memory, row.writer).Commit(ctx, row.ops...)
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v, want %v saying %q", err, row.want, row.says)
			}
		})
	}
	if _, err := memory.Get(ctx, store.Ref{Kind: v1.Kind_KIND_POOL, Name: "good"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("part of a refused transaction was written: %v", err)
	}
}

// TestUnknownFields has an object that a later version wrote pass through this one.
func TestUnknownFields(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	extend := func(m proto.Message) {
		m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1))
	}
	later := newPool("sales")
	extend(later)
	extend(later.Spec)
	put(t, memory, later)
	api := store.Open(memory, store.WriterAPI)
	p, err := store.Modify(ctx, api, "sales", func(p *v1.Pool) error { p.Spec.Desktops++; return nil })
	if err != nil || len(p.ProtoReflect().GetUnknown()) == 0 || len(p.Spec.ProtoReflect().GetUnknown()) == 0 {
		t.Errorf("what this version does not know was lost: %v, %v", p, err)
	}
	drop := proto.CloneOf(p)
	drop.ProtoReflect().SetUnknown(nil)
	if _, err := api.Commit(ctx, store.Update(drop)); !errors.Is(err, store.ErrNotOwner) {
		t.Errorf("a field without a known owner was dropped: %v", err)
	}
	mine := proto.CloneOf(p)
	mine.Spec.ProtoReflect().SetUnknown(nil)
	if _, err := api.Commit(ctx, store.Update(mine)); err != nil {
		t.Errorf("within what the writer owns it may: %v", err)
	}
}

func TestCommitLifeOfADesktop(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	step := func(w store.Writer, change func(*v1.Desktop)) {
		t.Helper()
		_, err := store.Modify(ctx, store.Open(memory, w), "sales-1", func(d *v1.Desktop) error {
			change(d)
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", w, err)
		}
	}
	if _, err := store.Open(memory, store.WriterPool).Commit(ctx, store.Create(newDesktop("sales-1", "sales"))); err != nil {
		t.Fatal(err)
	}
	step(store.WriterPlacement, func(d *v1.Desktop) { d.Incarnation.UnplacedReason = "no host" })
	step(store.WriterPlacement, func(d *v1.Desktop) { d.Incarnation.UnplacedReason, d.Incarnation.Host = "", "kvm1" })
	step(store.WriterDispatch, func(d *v1.Desktop) {
		d.Status = &v1.DesktopStatus{Generation: 7, State: v1.DesktopState_DESKTOP_STATE_READY}
	})
	step(store.WriterPool, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED })
	step(store.WriterPool, func(d *v1.Desktop) {
		d.Incarnation = newDesktop("", "").Incarnation
		d.Incarnation.Generation = 8
	})
	step(store.WriterPlacement, func(d *v1.Desktop) { d.Incarnation.Host = "kvm2" })
	step(store.WriterAPI, func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{By: "admin"} })
	pool := store.Open(memory, store.WriterPool)
	d, err := store.Get[*v1.Desktop](ctx, pool, "sales-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Commit(ctx, store.Delete(d)); err != nil {
		t.Fatal(err)
	}
}

func TestGuard(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	guard := store.Guard{Key: "leader/1", Revision: 5}
	api := store.Open(memory, store.WriterAPI).Guarded(guard)
	if _, err := api.Commit(ctx, store.Create(newPool("a"))); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("before the election: %v", err)
	}
	memory.SetGuard(guard)
	if _, err := api.Commit(ctx, store.Create(newPool("a"))); err != nil {
		t.Errorf("as leader: %v", err)
	}
	memory.SetGuard(store.Guard{Key: guard.Key, Revision: 6})
	if _, err := api.Commit(ctx, store.Create(newPool("b"))); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("after another's election: %v", err)
	}
}

func TestModifyRetries(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	api := store.Open(memory, store.WriterAPI)
	put(t, memory, newPool("sales"))
	calls := 0
	rival := func(times int) func(p *v1.Pool) error {
		calls = 0
		return func(p *v1.Pool) error {
			if calls++; calls <= times {
				if _, err := store.Modify(ctx, store.Open(memory, store.WriterPool), "sales", func(p *v1.Pool) error {
					if p.Status == nil {
						p.Status = &v1.PoolStatus{}
					}
					p.Status.Ready++
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			p.Spec.Desktops = 42
			return nil
		}
	}
	p, err := store.Modify(ctx, api, "sales", rival(3))
	if err != nil || calls != 4 {
		t.Fatalf("%d calls, %v", calls, err)
	}
	stored, err := store.Get[*v1.Pool](ctx, api, "sales")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stored, p, protocmp.Transform()); diff != "" || p.Status.Ready != 3 {
		t.Errorf("returned and stored differ: %s", diff)
	}
	unchanged, err := store.Modify(ctx, api, "sales", func(*v1.Pool) error { return nil })
	if err != nil || unchanged.Meta.Revision != p.Meta.Revision {
		t.Errorf("a change of nothing was written: %v, %v", unchanged.GetMeta(), err)
	}
	_, err = store.Modify(ctx, api, "sales", rival(1000))
	if !errors.Is(err, nil) {
		t.Errorf("the same again is no change, so there is nothing to lose: %v", err)
	}
	always := rival(1000)
	_, err = store.Modify(ctx, api, "sales", func(p *v1.Pool) error {
		defer func() { p.Spec.Desktops = 43 }()
		return always(p)
	})
	if !errors.Is(err, store.ErrConflict) || calls != 10 {
		t.Errorf("a rival that is always quicker: %d calls, %v", calls, err)
	}
	if _, err := store.Modify(ctx, api, "none", func(*v1.Pool) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("modify of nothing: %v", err)
	}
}

func TestEvent(t *testing.T) {
	ctx, memory := context.Background(), store.NewMemory()
	s := store.Open(memory, store.WriterDispatch)
	subject := newDesktop("sales-3", "sales")
	at := time.Date(2026, 11, 23, 7, 50, 0, 5, time.FixedZone("JST", 9*3600))
	for i, message := range []string{"起動に失敗しました", strings.Repeat("長", 5000), "broken \xff bytes"} {
		if err := s.Event(ctx, at.Add(time.Duration(2-i)*time.Nanosecond), subject, "DesktopFailed", message, true); err != nil {
			t.Fatal(err)
		}
	}
	events, _, err := store.List[*v1.Event](ctx, s)
	if err != nil || len(events) != 3 {
		t.Fatal(len(events), err)
	}
	if e := events[2]; e.Message != "起動に失敗しました" || e.SubjectKind != "desktop" || e.Subject != "sales-3" || !e.Warning ||
		!strings.HasPrefix(e.Meta.Name, "20261122-225000-000000007-") {
		t.Errorf("newest is not last, or not whole: %v", e)
	}
	if n := len([]rune(events[1].Message)); n != 1024 {
		t.Errorf("message of %d characters", n)
	}
	forged := proto.CloneOf(events[0])
	forged.Message = "nothing happened"
	if _, err := s.Commit(ctx, store.Update(forged)); !errors.Is(err, store.ErrNotOwner) {
		t.Errorf("an event was rewritten: %v", err)
	}
}
