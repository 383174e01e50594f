package libvirt

import (
	"context"
	"fmt"
	"sync"
	"time"

	"daybreak/hostagent"
)

// gate lets a few calls run at once that may never come back. A call whose time is up is given up, not ended: C code
// cannot be. It keeps its place, so that there are never more goroutines than places, and when all places are held by
// calls that were given up, further ones fail at once.
type gate struct {
	// places holds the numbers of those that are free.
	places chan int

	mu sync.Mutex
	// hung counts the calls that were given up and have not come back. Guarded by mu.
	hung int
	// busy holds the calls under way that exclude others, by key. Guarded by mu.
	busy map[string]*running
}

// running is a call under way.
type running struct {
	place int
	back  chan struct{} // closed when it has come back
	hung  bool          // given up; guarded by the gate's mu
}

func newGate(places int) *gate {
	g := &gate{places: make(chan int, places), busy: map[string]*running{}}
	for place := range places {
		g.places <- place
	}
	return g
}

// do runs call, which has the place it is told to itself, and waits for it until ctx ends, at most for timeout. Calls with
// the same key, if not empty, run one after another; behind one that was given up nothing waits.
func (g *gate) do(ctx context.Context, timeout time.Duration, key, what string, call func(place int) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	mine, err := g.enter(ctx, key, what)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		err := call(mine.place)
		g.leave(key, mine)
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
	}
	g.mu.Lock()
	select {
	case <-mine.back: // just in time
		g.mu.Unlock()
		return <-result
	default:
	}
	mine.hung = true
	g.hung++
	g.mu.Unlock()
	return late(ctx, what)
}

// unblock does nothing unless a call of that key was given up and has not come back. Then it runs free, which is to end
// what that call hangs on, and waits for the call to come back, until ctx ends. What free found out is no news of the call:
// unless that came back, the outcome is unknown.
func (g *gate) unblock(ctx context.Context, key, what string, free func() error) error {
	g.mu.Lock()
	other := g.busy[key]
	stuck := other != nil && other.hung
	g.mu.Unlock()
	if !stuck {
		return nil
	}
	if err := free(); err != nil {
		return fmt.Errorf("%s: an earlier call has not come back, and cannot be freed (%v): %w", what, err, hostagent.ErrTimeout)
	}
	select {
	case <-other.back:
		return nil
	case <-ctx.Done():
		return late(ctx, what)
	}
}

// enter waits for a place, and for others with the same key.
func (g *gate) enter(ctx context.Context, key, what string) (*running, error) {
	mine := &running{back: make(chan struct{})}
	for key != "" {
		g.mu.Lock()
		other := g.busy[key]
		if other == nil {
			g.busy[key] = mine
			g.mu.Unlock()
			break
		}
		hung := other.hung
		g.mu.Unlock()
		if hung {
			return nil, fmt.Errorf("%s: an earlier call has not come back: %w", what, hostagent.ErrTimeout)
		}
		select {
		case <-other.back:
		case <-ctx.Done():
			return nil, late(ctx, what)
		}
	}
	var err error
	if mine.place, err = g.take(ctx, what); err != nil {
		g.forget(key, mine)
		return nil, err
	}
	return mine, nil
}

func (g *gate) take(ctx context.Context, what string) (place int, err error) {
	g.mu.Lock()
	broken := g.hung == cap(g.places)
	g.mu.Unlock()
	if broken {
		return 0, fmt.Errorf("%s: %d earlier calls have not come back: %w", what, cap(g.places), hostagent.ErrTimeout)
	}
	select {
	case place := <-g.places:
		return place, nil
	case <-ctx.Done():
		return 0, late(ctx, what)
	}
}

// forget takes a call that did not begin off the list.
func (g *gate) forget(key string, mine *running) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy[key] == mine {
		delete(g.busy, key)
	}
	close(mine.back)
}

// leave gives the place back when the call has.
func (g *gate) leave(key string, mine *running) {
	g.forget(key, mine)
	g.mu.Lock()
	if mine.hung {
		g.hung--
	}
	g.mu.Unlock()
	g.places <- mine.place
}

// late says that the time is up. A caller who gave up is told so by ctx's own error; it is a timeout all the same, since
// what was begun may go on.
func late(ctx context.Context, what string) error {
	return fmt.Errorf("%s: %w: %w", what, hostagent.ErrTimeout, ctx.Err())
}
