package pool

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// line is a daybreakd's way to the store: its watch can be held up, the store be out of its reach, and the answers to some of its commits
// get lost.
type line struct {
	store.Backend
	mu     sync.Mutex
	random *rand.Rand
	open   chan struct{} // closed while the watch gets through
	dead   bool          // nothing else gets through either
	// committed is told what was written, whatever the answer.
	committed func([]store.Op)
}

var errUnreachable = errors.New("the store is out of reach")

func newLine(b store.Backend, seed uint64) *line {
	l := &line{Backend: b, random: rand.New(rand.NewPCG(seed, 7)), open: make(chan struct{}), committed: func([]store.Op) {}}
	close(l.open)
	return l
}

func (l *line) chance(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n) == 0
}

// cut holds the watch up until the returned function is called, or everything.
func (l *line) cut(everything bool) (mend func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shut := make(chan struct{})
	l.open, l.dead = shut, everything
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dead = false
		close(shut)
	}
}

func (l *line) reach() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errUnreachable
	}
	return nil
}

func (l *line) Get(ctx context.Context, ref store.Ref) (store.Object, error) {
	if err := l.reach(); err != nil {
		return nil, err
	}
	return l.Backend.Get(ctx, ref)
}

func (l *line) Fetch(ctx context.Context, refs []store.Ref) ([]store.Object, error) {
	if err := l.reach(); err != nil {
		return nil, err
	}
	return l.Backend.Fetch(ctx, refs)
}

func (l *line) List(ctx context.Context, kind v1.Kind) ([]store.Object, int64, error) {
	if err := l.reach(); err != nil {
		return nil, 0, err
	}
	return l.Backend.List(ctx, kind)
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
	if l.reach() != nil || l.chance(20) {
		return 0, store.ErrUnknownOutcome
	}
	revision, err := l.Backend.Commit(ctx, g, ops)
	if err == nil {
		l.committed(ops)
	}
	if err == nil && (l.reach() != nil || l.chance(20)) {
		return 0, store.ErrUnknownOutcome
	}
	return revision, err
}

// site is a daybreakd until it dies; ctx ends with it.
type site struct {
	*Claimer
	ctx  context.Context
	kill context.CancelFunc
}

func newSite(t *testing.T, l *line) *site {
	s := &site{Claimer: NewClaimer(store.Open(l, store.WriterPool), storetest.Mirror(t, l))}
	s.ctx, s.kill = context.WithCancel(t.Context())
	return s
}

// site returns the daybreakd on a line.
func (tr *trial) site(i int) *site {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.sites[i%len(tr.sites)]
}

// die ends the daybreakds in turn, in the midst of whatever they do; another begins in the place of each, and knows nothing.
func (tr *trial) die(ctx context.Context, t *testing.T) {
	for i := 0; sleep(ctx, 40*time.Millisecond); i++ {
		next := newSite(t, tr.lines[i%len(tr.lines)])
		tr.mu.Lock()
		gone := tr.sites[i%len(tr.sites)]
		tr.sites[i%len(tr.sites)] = next
		tr.deaths++
		tr.mu.Unlock()
		gone.kill()
	}
}

// sleep returns false when ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// lead serves the queues until ctx ends, by one daybreakd after the other. A leader that is deposed does not know it for a while.
func (tr *trial) lead(ctx context.Context) {
	var leaders sync.WaitGroup
	defer leaders.Wait()
	for i := 0; ctx.Err() == nil; i++ {
		at := tr.site(i)
		own := store.Open(tr.lines[i%len(tr.lines)], store.WriterPool)
		memory, elects := tr.backend.(*store.Memory)
		if elects {
			guard := store.Guard{Key: "leader", Revision: int64(i + 1)}
			memory.SetGuard(guard)
			own = own.Guarded(guard)
		}
		reign, end := context.WithCancel(ctx)
		stop := context.AfterFunc(at.ctx, end)
		leaders.Go(func() {
			defer stop()
			lead := &term{Controller: &Controller{mirror: at.mirror}, store: own}
			for reign.Err() == nil {
				for _, pool := range trialPools {
					_, _ = lead.serve(reign, pool) // what failed is tried again
				}
				sleep(reign, time.Millisecond)
			}
		})
		sleep(reign, 30*time.Millisecond)
		if !elects { // without an election there is one at a time
			end()
			leaders.Wait()
			continue
		}
		leaders.Go(func() {
			defer end()
			sleep(reign, 10*time.Millisecond)
		})
	}
}

// partitions cut one line after the other, every fourth time from everything.
func (tr *trial) partitions(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		mend := tr.lines[i%len(tr.lines)].cut(i%4 == 0)
		sleep(ctx, 15*time.Millisecond)
		mend()
		sleep(ctx, 5*time.Millisecond)
	}
}
