package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	v1 "daybreak/proto/daybreak/v1"
)

// Mirror is a consistent local copy that loops decide on. It may lag behind the store: a loop that committed at a
// revision Waits for it before it decides again on the same things.
type Mirror struct {
	backend Backend
	kinds   []v1.Kind

	view atomic.Pointer[View]

	mu    sync.Mutex
	moved chan struct{} // closed and made anew with every view

	telling     sync.Mutex // held while subscribers are called, so that each hears everything in order
	subscribers []*subscriber
}

type subscriber struct {
	fn   func(before, after *View, changed []Ref)
	gone atomic.Bool
}

// NewMirror returns a mirror of the kinds, of all if none is given.
func NewMirror(b Backend, kinds ...v1.Kind) *Mirror {
	if len(kinds) == 0 {
		kinds = Kinds()
	}
	m := &Mirror{backend: b, kinds: kinds, moved: make(chan struct{})}
	m.view.Store(emptyView(kinds))
	return m
}

// Run follows the store until ctx ends.
func (m *Mirror) Run(ctx context.Context) error {
	err := m.backend.Watch(ctx, m.kinds, func(batch Batch) error {
		m.take(batch)
		return nil
	})
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	return fmt.Errorf("mirror the store: %w", err)
}

// View returns the newest view. Before the first sync it is empty, with revision 0.
func (m *Mirror) View() *View {
	return m.view.Load()
}

// Wait returns a view that is at least at a revision, as soon as there is one. Revision 0 waits for the first sync.
func (m *Mirror) Wait(ctx context.Context, revision int64) (*View, error) {
	for {
		m.mu.Lock()
		moved, view := m.moved, m.view.Load()
		m.mu.Unlock()
		if view.Revision > 0 && view.Revision >= revision {
			return view, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for revision %d, mirror is at %d: %w", revision, view.Revision, ctx.Err())
		case <-moved:
		}
	}
}

// Subscribe has fn called after every change, in order, with the views before and after and the objects that differ.
// The first call has before nil and all objects; it comes at once if the mirror has synced. Later calls come in Run's
// goroutine and hold it up: fn must not block, and must not call Subscribe. After cancel no call begins.
func (m *Mirror) Subscribe(fn func(before, after *View, changed []Ref)) (cancel func()) {
	m.telling.Lock()
	defer m.telling.Unlock()
	s := &subscriber{fn: fn}
	m.subscribers = append(m.subscribers, s)
	if view := m.view.Load(); view.Revision > 0 {
		fn(nil, view, view.refs())
	}
	return func() { s.gone.Store(true) }
}

// take publishes the view after a batch and tells the subscribers.
func (m *Mirror) take(batch Batch) {
	m.telling.Lock()
	defer m.telling.Unlock()
	before := m.view.Load()
	after := before.with(batch)
	m.mu.Lock()
	m.view.Store(after)
	close(m.moved)
	m.moved = make(chan struct{})
	m.mu.Unlock()

	changed := differing(before, after, batch)
	if before.Revision == 0 {
		before = nil
	} else if len(changed) == 0 {
		return
	}
	m.tell(before, after, changed)
}

// tell calls the subscribers and forgets those that are gone. The caller holds telling.
func (m *Mirror) tell(before, after *View, changed []Ref) {
	kept := m.subscribers[:0]
	for _, s := range m.subscribers {
		if s.gone.Load() {
			continue
		}
		kept = append(kept, s)
		s.fn(before, after, changed)
	}
	clear(m.subscribers[len(kept):])
	m.subscribers = kept
}

// differing returns the objects that a batch changed. A Reset may repeat what was known: that does not count.
func differing(before, after *View, batch Batch) []Ref {
	if !batch.Reset {
		refs := make([]Ref, 0, len(batch.Changed)+len(batch.Deleted))
		for _, o := range batch.Changed {
			refs = append(refs, RefOf(o))
		}
		return append(refs, batch.Deleted...)
	}
	var refs []Ref
	for _, ref := range after.refs() {
		was, _ := before.get(ref)
		is, _ := after.get(ref)
		if was == nil || was.GetMeta().GetRevision() != is.GetMeta().GetRevision() {
			refs = append(refs, ref)
		}
	}
	for _, ref := range before.refs() {
		if _, still := after.get(ref); !still {
			refs = append(refs, ref)
		}
	}
	return refs
}
