package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// errEnough ends a watch that has heard what it wanted.
var errEnough = errors.New("enough")

// watch collects batches until done says so.
func watch(ctx context.Context, t *testing.T, b store.Backend, kinds []v1.Kind, done func(store.Batch) bool) []store.Batch {
	t.Helper()
	var batches []store.Batch
	err := b.Watch(ctx, kinds, func(batch store.Batch) error {
		batches = append(batches, batch)
		if done(batch) {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("watch ended with %v after %d batches", err, len(batches))
	}
	return batches
}

// text writes batches down for comparison, leaving out the empty ones.
func text(batches []store.Batch) string {
	var out strings.Builder
	for _, batch := range batches {
		if !batch.Reset && len(batch.Changed)+len(batch.Deleted) == 0 {
			continue
		}
		var words []string
		for _, o := range batch.Changed {
			words = append(words, "+"+store.RefOf(o).String())
		}
		for _, ref := range batch.Deleted {
			words = append(words, "-"+ref.String())
		}
		slices.Sort(words)
		if batch.Reset {
			words = append([]string{"reset"}, words...)
		}
		fmt.Fprintf(&out, "[%s]", strings.Join(words, " "))
	}
	return out.String()
}

func testWatchOrder(ctx context.Context, t *testing.T, b store.Backend) {
	first := commit(ctx, t, b, store.Create(zone("a", "1")))
	commit(ctx, t, b, store.Create(zone("b", "1")))
	batches := watch(ctx, t, b, nil, func(batch store.Batch) bool {
		if batch.Reset {
			second := commit(ctx, t, b, changeZone("a", "2", first))
			commit(ctx, t, b, store.Op{Verb: store.VerbDelete, Ref: zoneRef("a"), Revision: second})
			commit(ctx, t, b, store.Create(zone("a", "new life")))
			commit(ctx, t, b, store.Create(zone("last", "1")), store.Op{Verb: store.VerbCheck, Ref: zoneRef("x")})
		}
		return strings.Contains(text([]store.Batch{batch}), "last")
	})
	if got, want := text(batches), "[reset +zone a +zone b][+zone a][-zone a][+zone a][+zone last]"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
	for i, batch := range batches {
		for _, o := range batch.Changed {
			if !batch.Reset && o.GetMeta().GetRevision() != batch.Revision || o.GetMeta().GetRevision() > batch.Revision {
				t.Errorf("batch %d of revision %d has an object of %d", i, batch.Revision, o.GetMeta().GetRevision())
			}
		}
		if i > 0 && batch.Revision <= batches[i-1].Revision && len(batch.Changed)+len(batch.Deleted) > 0 {
			t.Errorf("batch of revision %d after one of %d", batch.Revision, batches[i-1].Revision)
		}
	}
}

func testWatchKinds(ctx context.Context, t *testing.T, b store.Backend) {
	commit(ctx, t, b, store.Create(zone("a", "1")), store.Create(&v1.Pool{Meta: &v1.Meta{Name: "a"}}), store.Create(&v1.Host{Meta: &v1.Meta{Name: "a"}}))
	var last int64
	batches := watch(ctx, t, b, []v1.Kind{v1.Kind_KIND_POOL, v1.Kind_KIND_HOST}, func(batch store.Batch) bool {
		if batch.Reset {
			commit(ctx, t, b, store.Create(zone("b", "1")), store.Create(&v1.Pool{Meta: &v1.Meta{Name: "b"}}))
			last = commit(ctx, t, b, store.Create(zone("c", "1"))) // only the revision tells of it
		}
		return batch.Revision >= last
	})
	if got, want := text(batches), "[reset +host a +pool a][+pool b]"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
}

func testWatchSinkFails(ctx context.Context, t *testing.T, b store.Backend) {
	failure := errors.New("sink is full")
	err := b.Watch(ctx, nil, func(store.Batch) error { return failure })
	if !errors.Is(err, failure) {
		t.Errorf("watch gave %v, want the sink's error", err)
	}
	ending, cancel := context.WithCancel(ctx)
	defer cancel()
	err = b.Watch(ending, nil, func(store.Batch) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("watch gave %v after the end", err)
	}
}

// testWatchTransaction wants a large transaction in one batch.
func testWatchTransaction(ctx context.Context, t *testing.T, b store.Backend) {
	var ops []store.Op
	for i := range store.MaxOps {
		ops = append(ops, store.Create(zone(fmt.Sprintf("z%03d", i), strings.Repeat("x", 1500))))
	}
	batches := watch(ctx, t, b, nil, func(batch store.Batch) bool {
		if batch.Reset {
			commit(ctx, t, b, ops...)
		}
		return len(batch.Changed) > 0
	})
	if n := len(batches[len(batches)-1].Changed); n != store.MaxOps {
		t.Errorf("the first batch with changes has %d of %d", n, store.MaxOps)
	}
}

// testWatchCompacted holds a watch up until what it has not heard is gone.
func testWatchCompacted(ctx context.Context, t *testing.T, b store.Backend) {
	compactor, ok := b.(Compactor)
	if !ok {
		t.Skip("this backend does not compact on demand")
	}
	first := commit(ctx, t, b, store.Create(zone("a", "1")))
	commit(ctx, t, b, store.Create(zone("gone", "1")))
	resets := 0
	batches := watch(ctx, t, b, nil, func(batch store.Batch) bool {
		if batch.Reset {
			resets++
		}
		if resets == 1 && batch.Reset {
			second := commit(ctx, t, b, changeZone("a", "2", first))
			commit(ctx, t, b, changeZone("a", "3", second))
			gone, err := b.Get(ctx, zoneRef("gone"))
			if err != nil {
				t.Fatal(err)
			}
			commit(ctx, t, b, store.Delete(gone))
			if err := compactor.Compact(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if resets == 2 && batch.Reset {
			commit(ctx, t, b, store.Create(zone("last", "1")))
		}
		return resets == 2 && !batch.Reset && len(batch.Changed) > 0
	})
	if got, want := text(batches), "[reset +zone a +zone gone][reset +zone a][+zone last]"; got != want {
		t.Errorf("heard %s, want %s", got, want)
	}
}

// record is what writers know to have happened: each revision's changes, name to text ("" for deleted).
type record struct {
	mu        sync.Mutex
	revisions map[int64]map[string]string
}

func (r *record) add(revision int64, changes map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revisions[revision] = changes
}

// testWatchUnderWriters has writers race while watches come in, and compares what each watch heard with what was
// acknowledged: nothing missed, nothing twice, nothing torn, nothing else.
func testWatchUnderWriters(ctx context.Context, t *testing.T, b store.Backend) {
	const writers, commits, watchers = 4, 60, 4
	history := &record{revisions: map[int64]map[string]string{}}
	heard := make([][]store.Batch, watchers)
	started := make(chan struct{}, writers*commits)

	listeners, listening := errgroup.WithContext(ctx)
	for i := range watchers {
		listeners.Go(func() error {
			for range i * commits / 2 { // each comes in later than the one before
				select {
				case <-started:
				case <-listening.Done():
					return listening.Err()
				}
			}
			err := b.Watch(listening, nil, func(batch store.Batch) error {
				heard[i] = append(heard[i], batch)
				for _, o := range batch.Changed {
					if o.GetMeta().GetName() == "end" {
						return errEnough
					}
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				return fmt.Errorf("watch %d: %w", i, err)
			}
			return nil
		})
	}
	var writing errgroup.Group
	for w := range writers {
		writing.Go(func() error { return write(ctx, b, history, uint64(w), commits, started) })
	}
	if err := writing.Wait(); err != nil {
		t.Error(err)
	}
	last := commit(ctx, t, b, store.Create(zone("end", "end")))
	history.add(last, map[string]string{"end": "end"})
	if err := listeners.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, batches := range heard {
		if err := agree(history.revisions, batches); err != nil {
			t.Errorf("watch %d: %v", i, err)
		}
	}
}

// write commits random transactions over few objects; conflicts are part of it.
func write(ctx context.Context, b store.Backend, history *record, seed uint64, commits int, started chan<- struct{}) error {
	random := rand.New(rand.NewPCG(seed, 42))
	for done := 0; done < commits; {
		objects, _, err := b.List(ctx, v1.Kind_KIND_ZONE)
		if err != nil {
			return err
		}
		current := map[string]int64{}
		for _, o := range objects {
			current[o.GetMeta().GetName()] = o.GetMeta().GetRevision()
		}
		ops, changes := randomOps(random, current, fmt.Sprintf("writer %d, %d", seed, done))
		revision, err := b.Commit(ctx, store.Guard{}, ops)
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) {
			continue
		}
		if err != nil {
			return err
		}
		history.add(revision, changes)
		started <- struct{}{}
		done++
	}
	return nil
}

// randomOps makes one to three changes of different zones.
func randomOps(random *rand.Rand, current map[string]int64, text string) ([]store.Op, map[string]string) {
	var ops []store.Op
	changes := map[string]string{}
	for _, n := range random.Perm(12)[:1+random.IntN(3)] {
		name := fmt.Sprintf("z%d", n)
		revision, exists := current[name]
		switch {
		case !exists:
			ops = append(ops, store.Create(zone(name, text)))
			changes[name] = text
		case random.IntN(3) == 0:
			ops = append(ops, store.Op{Verb: store.VerbDelete, Ref: zoneRef(name), Revision: revision})
			changes[name] = ""
		default:
			ops = append(ops, changeZone(name, text, revision))
			changes[name] = text
		}
	}
	return ops, changes
}

// agree checks batches against the history.
func agree(history map[int64]map[string]string, batches []store.Batch) error {
	if len(batches) == 0 || !batches[0].Reset {
		return errors.New("does not begin with a reset")
	}
	state := map[string]string{}
	at := batches[0].Revision
	for _, revision := range sortedRevisions(history) {
		if revision <= at {
			apply(state, history[revision])
		}
	}
	if got := changesOf(batches[0]); fmt.Sprint(got) != fmt.Sprint(state) {
		return fmt.Errorf("reset at revision %d has %v, want %v", at, got, state)
	}
	missing := map[int64]bool{}
	for revision := range history {
		missing[revision] = revision > at
	}
	for _, batch := range batches[1:] {
		if batch.Reset || batch.Revision < at {
			return fmt.Errorf("reset %v, revision %d after %d", batch.Reset, batch.Revision, at)
		}
		got := changesOf(batch)
		if len(got) > 0 && (fmt.Sprint(got) != fmt.Sprint(history[batch.Revision]) || !missing[batch.Revision]) {
			return fmt.Errorf("revision %d brought %v, want %v, once", batch.Revision, got, history[batch.Revision])
		}
		if len(got) > 0 {
			missing[batch.Revision] = false
		}
		at = batch.Revision
	}
	for revision, missed := range missing {
		if missed {
			return fmt.Errorf("revision %d was not heard of: %v", revision, history[revision])
		}
	}
	return nil
}

func sortedRevisions(history map[int64]map[string]string) []int64 {
	var revisions []int64
	for revision := range history {
		revisions = append(revisions, revision)
	}
	slices.Sort(revisions)
	return revisions
}

func apply(state, changes map[string]string) {
	for name, text := range changes {
		if text == "" {
			delete(state, name)
			continue
		}
		state[name] = text
	}
}

func changesOf(batch store.Batch) map[string]string {
	changes := map[string]string{}
	for _, o := range batch.Changed {
		changes[o.GetMeta().GetName()] = o.(*v1.Zone).GetSpec().GetDisplayName()
	}
	for _, ref := range batch.Deleted {
		changes[ref.Name] = ""
	}
	return changes
}
