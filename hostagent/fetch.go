package hostagent

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
)

// maxFetches is how many bases are fetched at once. Each is fetched once, however many desktops wait for it.
const maxFetches = 2

// progressStep in percent: every desktop that waits for the base reports each step.
const progressStep = 10

// fetchState is how far a base is.
type fetchState struct {
	done    bool
	running bool
	percent uint32
	trouble trouble
}

// fetcher brings bases to the host: those that desktops wait for, and those wanted ahead of their use.
type fetcher struct {
	disks Disks
	// source finds who gives out a version, and what to call when it was fetched.
	source func(ctx context.Context, digest string) (source Source, done func())
	log    zerolog.Logger
	// news is called with a digest when its fetch ended or came a step further.
	news func(digest string)
	// wake makes run look again.
	wake chan struct{}

	mu     sync.Mutex
	wanted map[string]bool
	asked  map[string]bool
	// mending are bases that were found damaged and are not there again.
	mending map[string]bool
	// told: the control plane has said what is wanted.
	told  bool
	bases map[string]*baseFetch
}

type baseFetch struct {
	fetchState
	failures int
}

func newFetcher(disks Disks, source func(context.Context, string) (Source, func()), log zerolog.Logger, news func(string)) *fetcher {
	return &fetcher{
		disks: disks, source: source, log: log, news: news, wake: make(chan struct{}, 1),
		wanted: map[string]bool{}, asked: map[string]bool{}, mending: map[string]bool{}, bases: map[string]*baseFetch{},
	}
}

// found takes in which bases lie on the host. One that did and does not any more, since it is damaged or gone, is compared or
// fetched anew as soon as it is wanted.
func (f *fetcher) found(digests []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := map[string]bool{}
	for _, digest := range digests {
		there[digest] = true
		if base := f.base(digest); !base.running {
			*base = baseFetch{fetchState: fetchState{done: true}}
			delete(f.mending, digest)
		}
	}
	for digest, base := range f.bases {
		if base.done && !base.running && !there[digest] {
			base.done = false
			f.signal()
		}
	}
}

func (f *fetcher) base(digest string) *baseFetch {
	base, ok := f.bases[digest]
	if !ok {
		base = &baseFetch{}
		f.bases[digest] = base
	}
	return base
}

// want replaces the set of bases that the host shall hold ahead of their use.
func (f *fetcher) want(digests []string) {
	f.mu.Lock()
	f.wanted, f.told = map[string]bool{}, true
	for _, digest := range digests {
		f.wanted[digest] = true
	}
	f.mu.Unlock()
	f.signal()
}

// ask begins to fetch a base for a desktop.
func (f *fetcher) ask(digest string) {
	f.mu.Lock()
	f.asked[digest] = true
	f.mu.Unlock()
	f.signal()
}

func (f *fetcher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// lost is told when a base that was there is not there any more.
func (f *fetcher) lost(digest string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if base := f.base(digest); !base.running {
		base.done = false
	}
}

// state says how far a base is. One that was asked for and waits for its turn counts as running.
func (f *fetcher) state(digest string) fetchState {
	f.mu.Lock()
	defer f.mu.Unlock()
	state := f.base(digest).fetchState
	state.running = state.running || f.asked[digest] && !state.done
	return state
}

// run fetches until ctx ends.
func (f *fetcher) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, maxFetches)
	for {
		digests, next := f.due(time.Now())
		for _, digest := range digests {
			group.Go(func() error {
				select {
				case slots <- struct{}{}:
				case <-ctx.Done():
					return ctx.Err()
				}
				defer func() { <-slots }()
				f.fetch(ctx, digest)
				return nil
			})
		}
		if !sleepUntil(ctx, next, f.wake) {
			return group.Wait()
		}
	}
}

// due marks as running, and returns, the bases to be fetched now, and says when the next will be due.
func (f *fetcher) due(now time.Time) (digests []string, next time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, set := range []map[string]bool{f.asked, f.wanted, f.mending} {
		for digest := range set {
			base := f.base(digest)
			switch {
			case base.done:
				delete(f.asked, digest)
			case base.running:
			case now.Before(base.trouble.next):
				next = earlier(next, base.trouble.next)
			default:
				base.running, base.percent = true, 0
				digests = append(digests, digest)
			}
		}
	}
	return digests, next
}

func (f *fetcher) fetch(ctx context.Context, digest string) {
	source, done := f.source(ctx, digest)
	defer done()
	err := f.disks.EnsureBase(ctx, digest, source, func(percent uint32) {
		percent -= percent % progressStep
		f.mu.Lock()
		base := f.base(digest)
		moved := percent > base.percent && percent <= 100
		if moved {
			base.percent = percent
		}
		f.mu.Unlock()
		if moved {
			f.news(digest)
		}
	})
	f.mu.Lock()
	base := f.base(digest)
	base.running = false
	delete(f.asked, digest)
	if err == nil {
		delete(f.mending, digest)
		*base = baseFetch{fetchState: fetchState{done: true}}
	} else {
		base.failures++
		base.trouble = base.trouble.grow(time.Now(), base.failures, err)
	}
	f.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		f.log.Warn().Err(err).Str("digest", digest).Msg("image not fetched; it will be tried again")
	}
	f.news(digest)
	f.signal()
}
