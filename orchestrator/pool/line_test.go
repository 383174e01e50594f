package pool

import (
	"context"
	"math/rand/v2"
	"sync"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// line is a daybreakd's way to the store: its watch can be held up, and the answers to some of its commits get lost.
type line struct {
	store.Backend
	mu     sync.Mutex
	random *rand.Rand
	open   chan struct{} // closed while the watch gets through
}

func newLine(b store.Backend, seed uint64) *line {
	l := &line{Backend: b, random: rand.New(rand.NewPCG(seed, 7)), open: make(chan struct{})}
	close(l.open)
	return l
}

func (l *line) chance(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n) == 0
}

// cut holds the watch up until the returned function is called.
func (l *line) cut() (mend func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shut := make(chan struct{})
	l.open = shut
	return func() { close(shut) }
}

func (l *line) Watch(ctx context.Context, kinds []v1.Kind, sink func(store.Batch) error) error {
	return l.Backend.Watch(ctx, kinds, func(batch store.Batch) error {
		l.mu.Lock()
		open := l.open
		l.mu.Unlock()
		select {
		case <-open:
		case <-ctx.Done():
			return ctx.Err()
		}
		return sink(batch)
	})
}

func (l *line) Commit(ctx context.Context, g store.Guard, ops []store.Op) (int64, error) {
	if l.chance(20) {
		return 0, store.ErrUnknownOutcome
	}
	revision, err := l.Backend.Commit(ctx, g, ops)
	if err == nil && l.chance(20) {
		return 0, store.ErrUnknownOutcome
	}
	return revision, err
}
