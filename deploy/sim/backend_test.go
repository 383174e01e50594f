package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// trouble is how the store misbehaves now, as shares of 1.
type trouble struct {
	// stale: writes are refused as if somebody else had been quicker.
	stale float64
	// unknown: nobody can say whether a write was done; half of them were.
	unknown float64
	// down: nothing is answered for a while, and then refused.
	down bool
	// lag is how late mirrors hear of changes.
	lag time.Duration
}

var errNoQuorum = errors.New("the store has no quorum")

// troubled is one store as the control plane sees it, good and bad days included.
type troubled struct {
	*store.Memory

	mu      sync.Mutex
	rng     *rand.Rand
	trouble trouble
	// careless is slow, and forgets to compare revisions: a planted bug.
	careless bool
}

func (b *troubled) set(change func(*trouble)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.trouble)
}

// roll draws what goes wrong with one write.
func (b *troubled) roll() (stale, unknown, done, down, careless bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.rng.Float64() < b.trouble.stale, b.rng.Float64() < b.trouble.unknown, b.rng.IntN(2) == 0, b.trouble.down, b.careless
}

func (b *troubled) now() trouble {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.trouble
}

func (b *troubled) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	stale, unknown, done, down, careless := b.roll()
	if careless {
		time.Sleep(100 * time.Millisecond)
		ops = b.blind(ctx, ops)
	}
	switch {
	case down:
		return 0, b.hang(ctx)
	case stale && changes(ops):
		var refused []error
		for _, op := range ops {
			if op.Verb != store.VerbCreate {
				refused = append(refused, &store.OpError{Op: op, Err: store.ErrConflict})
			}
		}
		return 0, errors.Join(refused...)
	case unknown:
		if done {
			if revision, err := b.Memory.Commit(ctx, guard, ops); err != nil {
				return revision, err
			}
		}
		return 0, store.ErrUnknownOutcome
	}
	return b.Memory.Commit(ctx, guard, ops)
}

func changes(ops []store.Op) bool {
	for _, op := range ops {
		if op.Verb != store.VerbCreate {
			return true
		}
	}
	return false
}

// blind makes every write name the newest revision, whatever it was decided on.
func (b *troubled) blind(ctx context.Context, ops []store.Op) []store.Op {
	var out []store.Op
	for _, op := range ops {
		if current, err := b.Memory.Get(ctx, op.Ref); err == nil && op.Verb != store.VerbCreate {
			op.Revision = current.GetMeta().GetRevision()
		}
		out = append(out, op)
	}
	return out
}

// hang is a call to a store that does not answer.
func (b *troubled) hang(ctx context.Context) error {
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errNoQuorum
	}
}

func (b *troubled) Get(ctx context.Context, ref store.Ref) (store.Object, error) {
	if b.now().down {
		return nil, b.hang(ctx)
	}
	return b.Memory.Get(ctx, ref)
}

func (b *troubled) Fetch(ctx context.Context, refs []store.Ref) ([]store.Object, error) {
	if b.now().down {
		return nil, b.hang(ctx)
	}
	return b.Memory.Fetch(ctx, refs)
}

func (b *troubled) List(ctx context.Context, kind v1.Kind) ([]store.Object, int64, error) {
	if b.now().down {
		return nil, 0, b.hang(ctx)
	}
	return b.Memory.List(ctx, kind)
}

// Watch delivers late when there is lag. What comes within one lag comes in order all the same.
func (b *troubled) Watch(ctx context.Context, kinds []v1.Kind, sink func(store.Batch) error) error {
	return b.Memory.Watch(ctx, kinds, func(batch store.Batch) error {
		if lag := b.now().lag; lag > 0 {
			timer := time.NewTimer(lag)
			defer timer.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
		}
		return sink(batch)
	})
}
