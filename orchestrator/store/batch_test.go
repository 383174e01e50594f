package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// counting counts the transactions that reach a backend, and may come before one.
type counting struct {
	*store.Memory
	commits int
	before  func(n int)
	fail    error
}

func (c *counting) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	c.commits++
	if c.before != nil {
		c.before(c.commits)
	}
	if c.fail != nil {
		return 0, c.fail
	}
	return c.Memory.Commit(ctx, guard, ops)
}

func statusOps(t *testing.T, memory *store.Memory, n int) []store.Op {
	t.Helper()
	ops := make([]store.Op, n)
	for i := range ops {
		d := proto.CloneOf(put(t, memory, newDesktop(fmt.Sprintf("d-%d", i), "sales")))
		d.Status = &v1.DesktopStatus{Generation: 7, State: v1.DesktopState_DESKTOP_STATE_READY}
		ops[i] = store.Update(d)
	}
	return ops
}

func ready(t *testing.T, memory *store.Memory) (names []string) {
	t.Helper()
	desktops, _, err := store.List[*v1.Desktop](context.Background(), store.Open(memory, store.WriterDispatch))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range desktops {
		if d.Status.GetState() == v1.DesktopState_DESKTOP_STATE_READY {
			names = append(names, d.Meta.Name)
		}
	}
	return names
}

func TestCommitEach(t *testing.T) {
	ctx := context.Background()
	b := &counting{Memory: store.NewMemory()}
	ops := statusOps(t, b.Memory, 300)
	b.commits = 0
	revision, failed, err := store.Open(b, store.WriterDispatch).CommitEach(ctx, ops)
	if err != nil || len(failed) > 0 || b.commits != 3 || len(ready(t, b.Memory)) != 300 {
		t.Fatalf("%d commits, %d failed, %d ready, %v", b.commits, len(failed), len(ready(t, b.Memory)), err)
	}
	if newest, err := b.Get(ctx, ops[299].Ref); err != nil || newest.GetMeta().GetRevision() != revision {
		t.Errorf("revision %d returned, the last object has %v", revision, newest.GetMeta())
	}
	if revision, failed, err := store.Open(b, store.WriterDispatch).CommitEach(ctx, nil); revision != 0 || failed != nil || err != nil {
		t.Errorf("of nothing: %d, %v, %v", revision, failed, err)
	}
}

// TestCommitEachWithBadOps mixes in every kind of refusal, some of them visible only to the backend.
func TestCommitEachWithBadOps(t *testing.T) {
	ctx := context.Background()
	b := &counting{Memory: store.NewMemory()}
	ops := statusOps(t, b.Memory, 20)
	b.commits = 0
	touch := func(i int) {
		current, err := b.Get(ctx, ops[i].Ref)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Memory.Commit(ctx, store.Guard{}, []store.Op{store.Update(current)}); err != nil {
			t.Fatal(err)
		}
	}
	b.before = func(n int) { // after the handle has looked
		if n == 1 {
			touch(3)
			touch(4)
		}
		if n == 2 {
			touch(5)
		}
	}
	touch(0) // before the handle looks
	ops[1].Object.(*v1.Desktop).Spec.Pool = "stolen"
	ops[2].Object.(*v1.Desktop).Status.Message = strings.Repeat("x", 2000)
	ops = append(ops, ops[7])

	_, failed, err := store.Open(b, store.WriterDispatch).CommitEach(ctx, ops)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]error{
		"d-0": store.ErrConflict, "d-1": store.ErrNotOwner, "d-2": store.ErrInvalid, "d-3": store.ErrConflict,
		"d-4": store.ErrConflict, "d-5": store.ErrConflict, "d-7": store.ErrInvalid,
	}
	for _, f := range failed {
		if !errors.Is(f, want[f.Op.Ref.Name]) || want[f.Op.Ref.Name] == nil {
			t.Errorf("%s: %v", f.Op.Ref, f)
		}
		delete(want, f.Op.Ref.Name)
	}
	if len(want) > 0 {
		t.Errorf("not reported: %v", want)
	}
	if names := ready(t, b.Memory); len(names) != 14 || !slices.Contains(names, "d-7") || b.commits != 3 {
		t.Errorf("ready: %v, in %d commits", names, b.commits)
	}
}

// TestCommitGroups: what belongs together is written together, or not at all, whoever refuses a part of it.
func TestCommitGroups(t *testing.T) {
	ctx := context.Background()
	b := &counting{Memory: store.NewMemory()}
	ops := statusOps(t, b.Memory, 150)
	b.commits = 0
	b.before = func(n int) {
		if n != 1 {
			return
		}
		current, err := b.Get(ctx, ops[5].Ref) // somebody is quicker, after the handle has looked
		if err == nil {
			_, err = b.Memory.Commit(ctx, store.Guard{}, []store.Op{store.Update(current)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ops[9].Object.(*v1.Desktop).Spec.Pool = "stolen"
	groups := [][]store.Op{}
	for i := 0; i < len(ops); i += 2 {
		groups = append(groups, ops[i:i+2])
	}
	groups = append(groups, []store.Op{ops[0]})
	_, failed, err := store.Open(b, store.WriterDispatch).CommitGroups(ctx, groups)
	if err != nil || len(failed) != 3 || b.commits != 3 {
		t.Fatalf("%d commits, failed %v, %v", b.commits, failed, err)
	}
	names := ready(t, b.Memory)
	for _, out := range []string{"d-4", "d-5", "d-8", "d-9"} {
		if slices.Contains(names, out) {
			t.Errorf("%s is written, and what belongs to it is not", out)
		}
	}
	if len(names) != 146 {
		t.Errorf("%d are written, want all others: 146", len(names))
	}
}

// TestCommitTold: what is told of a transaction is in it, and tells of just what it commits, whatever is refused.
func TestCommitTold(t *testing.T) {
	ctx := context.Background()
	b := &counting{Memory: store.NewMemory()}
	ops := statusOps(t, b.Memory, 200)
	b.commits = 0
	b.before = func(n int) {
		if n != 1 {
			return
		}
		current, err := b.Get(ctx, ops[5].Ref) // somebody is quicker, after the handle has looked
		if err == nil {
			_, err = b.Memory.Commit(ctx, store.Guard{}, []store.Op{store.Update(current)})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ops[9].Object.(*v1.Desktop).Spec.Pool = "stolen"
	groups := [][]store.Op{}
	for i := range ops {
		groups = append(groups, ops[i:i+1])
	}
	subject := &v1.Pool{Meta: &v1.Meta{Name: "sales"}}
	_, failed, err := store.Open(b, store.WriterDispatch).CommitTold(ctx, groups, func(done []store.Op) []store.Op {
		names := make([]string, 0, len(done))
		for _, op := range done {
			names = append(names, op.Ref.Name)
		}
		return []store.Op{store.Create(store.NewEvent(time.Unix(1, 0), subject, "Done", strings.Join(names, " "), false))}
	})
	if err != nil || len(failed) != 2 {
		t.Fatalf("failed %v, %v", failed, err)
	}
	events, _, err := store.List[*v1.Event](ctx, store.Open(b, store.WriterDispatch))
	if err != nil || len(events) != 2 {
		t.Fatal(len(events), "events for two transactions", err)
	}
	var told []string
	for _, e := range events {
		told = append(told, strings.Fields(e.GetMessage())...)
		for _, name := range strings.Fields(e.GetMessage()) {
			if d, err := b.Get(ctx, store.Ref{Kind: v1.Kind_KIND_DESKTOP, Name: name}); err != nil || d.GetMeta().GetRevision() != e.GetMeta().GetRevision() {
				t.Errorf("%s was not changed in the transaction that tells of it: %v", name, err)
			}
		}
	}
	if names := ready(t, b.Memory); len(told) != 198 || len(names) != 198 {
		t.Errorf("%d were told of, and %d are written", len(told), len(names))
	}
}

// An account that is refused keeps nothing from being done.
func TestCommitToldBadly(t *testing.T) {
	b := &counting{Memory: store.NewMemory()}
	ops := statusOps(t, b.Memory, 3)
	_, failed, err := store.Open(b, store.WriterDispatch).CommitTold(t.Context(), [][]store.Op{ops}, func([]store.Op) []store.Op {
		return []store.Op{store.Create(&v1.Pool{Meta: &v1.Meta{Name: "sales"}})}
	})
	if names := ready(t, b.Memory); err != nil || len(names) != 3 || len(failed) != 1 || !errors.Is(failed[0], store.ErrNotOwner) {
		t.Errorf("%d are written, failed %v, %v", len(names), failed, err)
	}
}

func TestCommitEachSplitsBySize(t *testing.T) {
	ctx := context.Background()
	b := &counting{Memory: store.NewMemory()}
	var ops []store.Op
	for i := range 10 {
		h := &v1.Host{Meta: &v1.Meta{Name: fmt.Sprintf("kvm%d", i)}}
		h = proto.CloneOf(put(t, b.Memory, h))
		h.Status = &v1.HostStatus{}
		for j := range 4000 {
			h.Status.KeptDisks = append(h.Status.KeptDisks, &v1.KeptDisk{Desktop: fmt.Sprintf("a-desktop-with-a-name-of-more-than-40-letters-%d", j)})
		}
		ops = append(ops, store.Update(h))
	}
	b.commits = 0
	_, failed, err := store.Open(b, store.WriterDispatch).CommitEach(ctx, ops)
	if err != nil || len(failed) > 0 || b.commits < 2 || b.commits > 5 {
		t.Errorf("%d commits, failed %v, %v", b.commits, failed, err)
	}
}

func TestCommitEachStops(t *testing.T) {
	b := &counting{Memory: store.NewMemory()}
	ops := statusOps(t, b.Memory, 200)
	b.commits, b.fail = 0, store.ErrUnknownOutcome
	_, _, err := store.Open(b, store.WriterDispatch).CommitEach(context.Background(), ops)
	if !errors.Is(err, store.ErrUnknownOutcome) || b.commits != 1 {
		t.Errorf("%d commits, %v", b.commits, err)
	}
	b.fail = nil
	_, _, err = store.Open(b, store.WriterDispatch).Guarded(store.Guard{Key: "x", Revision: 1}).CommitEach(context.Background(), ops)
	if !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("without leadership: %v", err)
	}
}
