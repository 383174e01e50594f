package hostagent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/images"
)

// Times and limits of fetching from other hosts.
const (
	// peerStreams is how many peers give to one fetch at once. A host that many ask gives each a small part of its line: with
	// few streams some lines are crowded while others are idle, which is never made up for, since every chunk has to leave
	// its owner once for each of the others.
	peerStreams = 32
	// A peer is asked for firstBatch chunks at once, and for twice as many each time it gives some, up to peerBatch.
	firstBatch = 4
	peerBatch  = 32
	// alternates is how many peers are tried for a chunk before the store is.
	alternates = 3
	// A peer that does not have yet what is its to get is asked again after a while that doubles.
	minPeerWait = 100 * time.Millisecond
	maxPeerWait = 2 * time.Second
	// A peer from which nothing came for so long gives way to the next; longer where all are slow.
	minPatience = 15 * time.Second
	maxPatience = 2 * time.Minute
	// stall is how long a peer may keep silent in the midst of an answer.
	stall = 30 * time.Second
	// A peer that takes longer than slowChunk for a chunk, and slowFactor times as long as the others and the store, is left
	// alone: the disk of such a host is dying, or it means no good. Not before slowProof was spent on it: one that all ask at
	// once is slow for a while, too.
	slowChunk  = 5 * time.Second
	slowFactor = 10
	slowProof  = time.Minute
)

// neighbour is another host that gives chunks out; or this one, which stands for the store.
type neighbour struct {
	host     string
	client   chunkClient
	complete bool
	self     bool
}

// swarm fetches one version from other hosts and the store. It implements Source but for the manifest.
//
// Each chunk has an owner among those that fetch the version. The owner gets it from the store, the others get it from the
// owner; so the store sends every chunk about once, and every host gives out about as much as it gets. Hosts that have the
// version already take the store's place.
type swarm struct {
	store *remoteSource
	log   zerolog.Logger
	// neighbours in the order of their names, the same on every host, and their seeds.
	neighbours []neighbour
	seeds      []uint64
	anyWhole   bool
	began      time.Time

	mu sync.Mutex
	// lanes stand in the order of neighbours; the last one is the store's. Guarded by mu, like all that follows.
	lanes []*lane
	// open chunks did not come yet.
	open, delivered int
	failure         error
	// changed is closed, and made anew, when a worker may find something to do.
	changed chan struct{}
}

// lane is what is to be asked of one neighbour or of the store.
type lane struct {
	queue []errand
	batch int
	// width is how many calls there may be at once, busy how many there are.
	width, busy int
	// due is when to ask next, wait how long the pause was, heard when the last chunk came or the first was wanted.
	due   time.Time
	wait  time.Duration
	heard time.Time
	// got is how many chunks came, spent how long the calls took that brought them.
	got   int
	spent time.Duration
	// gone: it lied, stalled, drags or cannot be reached, and is left alone for the rest of the fetch.
	gone bool
}

// errand is a chunk and how many places it was looked for in vain.
type errand struct {
	want  Want
	owner int
	step  int
}

func newSwarm(store *remoteSource, neighbours []neighbour, log zerolog.Logger) *swarm {
	s := &swarm{store: store, log: log, neighbours: neighbours, began: time.Now(), changed: make(chan struct{})}
	for _, n := range neighbours {
		s.seeds = append(s.seeds, seedOf(n.host))
		s.anyWhole = s.anyWhole || n.complete
		s.lanes = append(s.lanes, &lane{batch: firstBatch, width: 1})
	}
	s.lanes = append(s.lanes, &lane{batch: maxChunks, width: storeStreams})
	return s
}

// route lists the lanes in which a chunk is looked for, in order.
func (s *swarm) route(chunk images.Digest, owner int) []int {
	last := len(s.lanes) - 1
	var route []int
	others := ranked(s.seeds, chunk, alternates-1, func(i int) bool { return i != owner })
	for _, i := range append([]int{owner}, others...) {
		if s.neighbours[i].self {
			// This host is the one to get it: from who has all, or from the store.
			break
		}
		route = append(route, i)
		if s.anyWhole {
			break
		}
	}
	if s.anyWhole {
		whole := func(i int) bool { return s.neighbours[i].complete && !slices.Contains(route, i) }
		route = append(route, ranked(s.seeds, chunk, alternates, whole)...)
	}
	return append(route, last)
}

// Chunks fetches chunks: see Source.
func (s *swarm) Chunks(ctx context.Context, wants []Want, sink func(images.Chunk) error) error {
	s.mu.Lock()
	s.open = len(wants)
	owners := owners(s.seeds, wants)
	for i, want := range wants {
		s.assign(errand{want: want, owner: owners[i]})
	}
	s.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	for range storeStreams + min(peerStreams, len(s.neighbours)) {
		group.Go(func() error { return s.work(ctx, sink) })
	}
	return group.Wait()
}

// assign puts an errand into the lane where it is to be tried next; the caller holds mu.
func (s *swarm) assign(e errand) {
	route := s.route(e.want.Digest, e.owner)
	for e.step < len(route)-1 && s.lanes[route[e.step]].gone {
		e.step++
	}
	lane := s.lanes[route[min(e.step, len(route)-1)]]
	if len(lane.queue) == 0 && lane.busy == 0 {
		lane.heard = time.Now()
	}
	lane.queue = append(lane.queue, e)
}

// work does errands until there are none left.
func (s *swarm) work(ctx context.Context, sink func(images.Chunk) error) error {
	for {
		number, errands, next, changed := s.next(time.Now())
		switch {
		case errands != nil:
			s.run(ctx, number, errands, sink)
		case changed == nil:
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.failure
		case !sleepUntil(ctx, next, changed) && ctx.Err() != nil:
			return ctx.Err()
		}
	}
}

// next takes errands out of a lane whose turn it is, the store's first. Without any it says when to look again; without
// a channel there is nothing left to do.
func (s *swarm) next(now time.Time) (number int, errands []errand, again time.Time, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil || s.open == 0 {
		return 0, nil, again, nil
	}
	found := -1
	for i := len(s.lanes) - 1; i >= 0; i-- {
		lane := s.lanes[i]
		switch {
		case len(lane.queue) == 0 || lane.busy == lane.width:
		case now.Before(lane.due):
			again = earlier(again, lane.due)
		case found < 0 || found < len(s.lanes)-1 && lane.due.Before(s.lanes[found].due):
			found = i
		}
	}
	if found < 0 {
		return 0, nil, again, s.changed
	}
	lane := s.lanes[found]
	n := min(lane.batch, len(lane.queue))
	errands, lane.queue = lane.queue[:n:n], lane.queue[n:]
	lane.busy++
	return found, errands, again, nil
}

// run does errands with one call, and sees to what is left of them.
func (s *swarm) run(ctx context.Context, number int, errands []errand, sink func(images.Chunk) error) {
	wants := make([]Want, len(errands))
	for i, e := range errands {
		wants[i] = e.want
	}
	var open map[images.Digest]Want
	var err error
	asked := time.Now()
	if number == len(s.lanes)-1 {
		if open, err = s.store.fromStore(ctx, wants, sink); err == nil && len(open) > 0 {
			err = errShort(len(open))
		}
	} else {
		open, err = s.store.ask(ctx, s.neighbours[number].client, true, wants, sink)
	}
	left := errands[:0]
	for _, e := range errands {
		if _, isOpen := open[e.want.Digest]; isOpen {
			left = append(left, e)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	lane, now := s.lanes[number], time.Now()
	lane.busy--
	came := len(errands) - len(left)
	s.open -= came
	s.delivered += came
	if came > 0 {
		lane.came(came, asked, now)
	}
	// Asked last: the others have their turn first.
	lane.due = now
	var refused *sinkError
	switch {
	case err != nil && (ctx.Err() != nil || number == len(s.lanes)-1 || errors.As(err, &refused) && !errors.Is(err, ErrCorrupt)):
		s.failure = first(s.failure, err)
	case err != nil && status.Code(err) != codes.ResourceExhausted:
		s.log.Warn().Err(err).Str("peer", s.neighbours[number].host).Msg("a peer is left alone for the rest of this fetch")
		lane.gone = true
		s.moveOn(lane, left)
	case s.drags(lane):
		s.log.Warn().Stringer("per_chunk", lane.spent/time.Duration(lane.got)).Str("peer", s.neighbours[number].host).
			Msg("a peer is much slower than the others, and is left alone for the rest of this fetch")
		lane.gone = true
		s.moveOn(lane, left)
	case len(left) > 0:
		lane.wait = min(max(2*lane.wait, minPeerWait), maxPeerWait)
		lane.due = now.Add(lane.wait)
		if now.Sub(lane.heard) > s.patience(now) {
			s.log.Info().Str("peer", s.neighbours[number].host).Int("chunks", len(left)+len(lane.queue)).Msg("a peer does not have its share; others are asked")
			s.moveOn(lane, left)
		} else {
			lane.queue = append(left, lane.queue...)
		}
	}
}

// came notes that a call brought chunks; the caller holds the swarm's mu.
func (l *lane) came(chunks int, asked, now time.Time) {
	l.heard, l.wait = now, 0
	l.got += chunks
	l.spent += now.Sub(asked)
	if l.batch < peerBatch {
		l.batch *= 2
	}
}

// moveOn sends all that waits in a lane to where it is tried next; the caller holds mu.
func (s *swarm) moveOn(lane *lane, left []errand) {
	errands := append(left, lane.queue...)
	lane.queue = nil
	for _, e := range errands {
		e.step++
		s.assign(e)
	}
}

// drags says whether a lane takes so long for its chunks that the others and the store have them long before; the caller holds mu.
func (s *swarm) drags(lane *lane) bool {
	if lane.got == 0 || lane.spent < slowProof || lane == s.lanes[len(s.lanes)-1] {
		return false
	}
	own, others, got := lane.spent/time.Duration(lane.got), time.Duration(0), 0
	for _, other := range s.lanes {
		if other != lane {
			others, got = others+other.spent, got+other.got
		}
	}
	return own > slowChunk && got > 0 && own > slowFactor*(others/time.Duration(got))
}

// patience grows with the time that passes between two chunks of a lane; the caller holds mu.
func (s *swarm) patience(now time.Time) time.Duration {
	gap := now.Sub(s.began) * time.Duration(len(s.lanes)) / time.Duration(s.delivered+1)
	return min(minPatience+4*gap, maxPatience)
}

// wake makes all workers look; the caller holds mu.
func (s *swarm) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// good lists the neighbours that were not left alone.
func (s *swarm) good() []neighbour {
	s.mu.Lock()
	defer s.mu.Unlock()
	var good []neighbour
	for i, n := range s.neighbours {
		if !s.lanes[i].gone {
			good = append(good, n)
		}
	}
	return good
}

func first(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
