// Package reconcile is the one keyed loop that every policy runs in: a queue of names, each worked on by one function
// that loads, decides and commits.
//
// Here: de-duplication, holding back a key while it is in work, retry with back-off, "see me again in T", and
// at once when the clock was set. Not here: what the keys mean, stores. Any loop of the orchestrator may call it.
//
// An event never acts, it only adds a key; so a restart, which adds every key, is the same path as steady state. A panic
// in the function is not caught: it ends the process.
package reconcile

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// The wait after a failure doubles from the first to the longest, give or take a fifth.
const (
	firstBackoff   = 100 * time.Millisecond
	longestBackoff = 30 * time.Second
)

// A clock that was set is noticed within clockCheck, when it differs by more than clockSlack from the time that has passed.
const (
	clockCheck = time.Minute
	clockSlack = 2 * time.Second
)

// Loop works on one key at a time.
type Loop struct {
	log zerolog.Logger
	do  func(ctx context.Context, key string) (again time.Duration, err error)

	wake chan struct{} // holds one token when there may be something to do

	clock     func() time.Time // what the machine's clock says
	passed    time.Time        // monotonic, when clockSaid was read
	clockSaid time.Time

	mu       sync.Mutex
	ready    []string // in order of arrival, each key once
	isReady  map[string]bool
	inWork   string
	working  bool
	merged   bool // the key in work was added again meanwhile
	due      map[string]time.Time
	failures map[string]int
}

// New makes a loop. do brings the thing named key nearer to what is wanted. It returns an error to be called again after
// a back-off, or again > 0 to be called again after that time at the latest, and soon after the clock was set: it may wait
// for a time of day. It must be idempotent.
func New(name string, log zerolog.Logger, do func(ctx context.Context, key string) (again time.Duration, err error)) *Loop {
	return &Loop{
		log:      log.With().Str("loop", name).Logger(),
		do:       do,
		wake:     make(chan struct{}, 1),
		clock:    func() time.Time { return time.Now().Round(0) },
		isReady:  map[string]bool{},
		due:      map[string]time.Time{},
		failures: map[string]int{},
	}
}

// Add queues keys. It may be called from any goroutine and never blocks. A key that is queued already stays where it is;
// one in work is worked on once more afterwards; one that waits for a retry is taken at once, for something changed.
func (l *Loop) Add(keys ...string) {
	l.mu.Lock()
	for _, key := range keys {
		l.add(key)
	}
	l.mu.Unlock()
	l.poke()
}

func (l *Loop) add(key string) {
	if l.working && key == l.inWork {
		l.merged = true
		return
	}
	delete(l.due, key)
	if !l.isReady[key] {
		l.isReady[key] = true
		l.ready = append(l.ready, key)
	}
}

func (l *Loop) poke() {
	select {
	case l.wake <- struct{}{}:
	default: // a token is there already
	}
}

// Run works until ctx ends and returns nil then. It must be called once.
func (l *Loop) Run(ctx context.Context) error {
	timer := time.NewTimer(clockCheck)
	defer timer.Stop()
	l.passed, l.clockSaid = time.Now(), l.clock()
	for ctx.Err() == nil {
		l.followClock()
		key, wait, found := l.next(time.Now())
		if found {
			again, err := l.do(ctx, key)
			if ctx.Err() != nil {
				return nil
			}
			l.done(key, again, err)
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-timer.C:
		}
	}
	return nil
}

// followClock makes everything due that waits for a time, when the clock was set since it was called last. Timers do not follow the clock.
// What waits after a failure goes on waiting.
func (l *Loop) followClock() {
	now, says := time.Now(), l.clock()
	step := says.Sub(l.clockSaid) - now.Sub(l.passed)
	l.passed, l.clockSaid = now, says
	if step.Abs() <= clockSlack {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.due {
		if l.failures[key] == 0 {
			l.add(key)
		}
	}
}

// next takes the oldest ready key into work, or says how long to sleep: nothing will be due before.
func (l *Loop) next(now time.Time) (key string, wait time.Duration, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait = clockCheck
	for key, at := range l.due {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		l.add(key)
	}
	if len(l.ready) == 0 {
		return "", wait, false
	}
	key, l.ready = l.ready[0], l.ready[1:]
	delete(l.isReady, key)
	l.inWork, l.working, l.merged = key, true, false
	return key, 0, true
}

// done puts the key where its outcome says: the queue's end, a time, or nowhere.
func (l *Loop) done(key string, again time.Duration, err error) {
	wait := again
	l.mu.Lock()
	if err != nil {
		l.failures[key]++
		wait = backoff(l.failures[key], rand.Float64())
	} else {
		delete(l.failures, key)
	}
	failures := l.failures[key]
	l.working = false
	if wait > 0 {
		l.due[key] = time.Now().Add(wait)
	}
	// After a failure even a merged key waits: it would fail again, and a busy neighbour would make that a spin.
	if l.merged && err == nil {
		l.add(key)
	}
	l.mu.Unlock()
	if err != nil {
		l.log.Warn().Err(err).Str("key", key).Int("failures", failures).Dur("again_in", wait).Msg("reconcile failed")
	}
}

// backoff is the wait after the nth failure in a row; chance in [0,1) spreads it.
func backoff(n int, chance float64) time.Duration {
	wait := longestBackoff
	if n < 10 {
		wait = min(firstBackoff<<(n-1), longestBackoff)
	}
	return time.Duration(float64(wait) * (0.8 + 0.4*chance))
}
