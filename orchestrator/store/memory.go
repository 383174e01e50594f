package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// history is how many transactions the memory backend remembers for watches that lag.
const history = 4096

// Memory is the backend of tests and the simulator: nothing outlives it. It starts no goroutine and uses nothing of the
// operating system, so it works in a testing/synctest bubble (make it inside).
type Memory struct {
	mu       sync.Mutex
	revision int64
	objects  map[Ref]Object
	guards   map[string]int64
	log      []Batch       // the newest transactions, one each, without a hole
	moved    chan struct{} // closed and made anew at every transaction
}

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{revision: 1, objects: map[Ref]Object{}, guards: map[string]int64{}, moved: make(chan struct{})}
}

// SetGuard makes writes with this guard pass, and those with an older revision of its key fail: what an election does
// in etcd.
func (m *Memory) SetGuard(g Guard) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guards[g.Key] = g.Revision
}

// Compact forgets all history: watches that have not seen everything get a Reset.
func (m *Memory) Compact(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = nil
	return nil
}

// Get implements Backend.
func (m *Memory) Get(ctx context.Context, ref Ref) (Object, error) {
	objects, err := m.Fetch(ctx, []Ref{ref})
	if err != nil {
		return nil, err
	}
	if objects[0] == nil {
		return nil, fmt.Errorf("get %s: %w", ref, ErrNotFound)
	}
	return objects[0], nil
}

// Fetch implements Backend.
func (m *Memory) Fetch(ctx context.Context, refs []Ref) ([]Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read objects: %w", err)
	}
	if len(refs) > MaxOps {
		return nil, fmt.Errorf("read %d objects at once, at most %d are allowed: %w", len(refs), MaxOps, ErrInvalid)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	objects := make([]Object, len(refs))
	for i, ref := range refs {
		objects[i] = m.objects[ref]
	}
	return objects, nil
}

// List implements Backend.
func (m *Memory) List(ctx context.Context, kind v1.Kind) ([]Object, int64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", KindName(kind), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sorted([]v1.Kind{kind}), m.revision, nil
}

// sorted returns the objects of the kinds, or all, by kind and name. The caller holds mu.
func (m *Memory) sorted(kinds []v1.Kind) []Object {
	var objects []Object
	for ref, o := range m.objects {
		if wanted(kinds, ref.Kind) {
			objects = append(objects, o)
		}
	}
	slices.SortFunc(objects, func(a, b Object) int {
		return cmp.Or(cmp.Compare(KindOf(a), KindOf(b)), cmp.Compare(a.GetMeta().GetName(), b.GetMeta().GetName()))
	})
	return objects
}

func wanted(kinds []v1.Kind, kind v1.Kind) bool {
	return len(kinds) == 0 || slices.Contains(kinds, kind)
}

// Commit implements Backend.
func (m *Memory) Commit(ctx context.Context, guard Guard, ops []Op) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	ready, err := Prepare(ops, time.Now())
	if err != nil {
		return 0, err
	}
	if err := storable(ready); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if guard != (Guard{}) && (guard.Revision == 0 || m.guards[guard.Key] != guard.Revision) {
		return 0, fmt.Errorf("commit as leader %s: %w", guard.Key, ErrNotLeader)
	}
	if failed := m.verify(ready); len(failed) > 0 {
		return 0, joined(failed)
	}
	return m.apply(ready), nil
}

// storable refuses what could not be written down: text that is not UTF-8.
func storable(ops []Op) error {
	for _, op := range ops {
		if op.Object == nil {
			continue
		}
		if _, err := Encode(op.Object); err != nil {
			return &OpError{Op: op, Err: err}
		}
	}
	return nil
}

// verify returns the ops whose expectations do not hold. The caller holds mu.
func (m *Memory) verify(ops []Op) (failed []*OpError) {
	for _, op := range ops {
		current, exists := m.objects[op.Ref]
		revision := int64(0)
		if exists {
			revision = current.GetMeta().GetRevision()
		}
		switch {
		case op.Verb == VerbCreate && exists:
			failed = append(failed, &OpError{Op: op, Err: ErrExists})
		case op.Verb != VerbCreate && revision != op.Revision:
			failed = append(failed, &OpError{Op: op, Err: ErrConflict})
		}
	}
	return failed
}

// apply writes verified ops as one revision. The caller holds mu.
func (m *Memory) apply(ops []Op) int64 {
	batch := Batch{Revision: m.revision + 1}
	for _, op := range ops {
		switch op.Verb {
		case VerbCreate, VerbUpdate:
			op.Object.GetMeta().Revision = batch.Revision
			m.objects[op.Ref] = op.Object
			batch.Changed = append(batch.Changed, op.Object)
		case VerbDelete:
			delete(m.objects, op.Ref)
			batch.Deleted = append(batch.Deleted, op.Ref)
		case VerbCheck:
		}
	}
	if len(batch.Changed)+len(batch.Deleted) == 0 {
		return m.revision
	}
	m.revision = batch.Revision
	m.log = append(m.log, batch)
	if len(m.log) >= 2*history {
		m.log = slices.Clone(m.log[len(m.log)-history:])
	}
	close(m.moved)
	m.moved = make(chan struct{})
	return m.revision
}

// Watch implements Backend.
func (m *Memory) Watch(ctx context.Context, kinds []v1.Kind, sink func(Batch) error) error {
	known := int64(0) // nothing: the first batch is a Reset
	for {
		batches, moved := m.since(known, kinds)
		for _, batch := range batches {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := sink(batch); err != nil {
				return err
			}
			known = batch.Revision
		}
		if len(batches) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

// since returns what a watch that knows a revision has yet to hear, and the channel that tells of more.
func (m *Memory) since(known int64, kinds []v1.Kind) ([]Batch, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	missing := int(m.revision - known)
	if known == 0 || missing > len(m.log) {
		return []Batch{{Reset: true, Revision: m.revision, Changed: m.sorted(kinds)}}, m.moved
	}
	batches := make([]Batch, 0, missing)
	for _, batch := range m.log[len(m.log)-missing:] {
		batches = append(batches, only(batch, kinds))
	}
	return batches, m.moved
}

// only returns the part of a batch that is of the kinds.
func only(batch Batch, kinds []v1.Kind) Batch {
	if len(kinds) == 0 {
		return batch
	}
	part := Batch{Revision: batch.Revision}
	for _, o := range batch.Changed {
		if wanted(kinds, KindOf(o)) {
			part.Changed = append(part.Changed, o)
		}
	}
	for _, ref := range batch.Deleted {
		if wanted(kinds, ref.Kind) {
			part.Deleted = append(part.Deleted, ref)
		}
	}
	return part
}
