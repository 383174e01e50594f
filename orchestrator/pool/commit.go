package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// commit writes what was decided and returns the revision to wait for. quicker: somebody else changed one of the objects
// meanwhile, so that the decision about it was dropped.
func (t *term) commit(ctx context.Context, now time.Time, pool *v1.Pool, a Actions) (revision int64, quicker bool, err error) {
	for _, held := range a.HeldBack {
		event := heldEvent(now, pool, held)
		if revision, err = t.store.Commit(ctx, store.Create(event)); err != nil {
			return 0, false, err
		}
		t.log.Warn().Str("pool", pool.GetMeta().GetName()).Str("subject", event.GetSubject()).Str("attempt", held.Attempt).
			Msg("creation of desktops is held back")
	}
	if writes := writesOf(now, a); len(writes) > 0 {
		written, quicker, err := t.commitDesktops(ctx, now, pool, writes)
		return max(revision, written), quicker, err
	}
	// Only when nothing else is to be done: the status of a round that changes things is old before it is written.
	op, needed := poolOp(pool, a)
	if !needed {
		return revision, false, nil
	}
	written, err := t.store.Commit(ctx, op)
	if errors.Is(err, store.ErrConflict) {
		return revision, true, nil
	}
	return max(revision, written), false, err
}

// heldEvent tells of a hold that begins.
func heldEvent(now time.Time, pool *v1.Pool, held HeldBack) *v1.Event {
	event := store.NewEvent(now, pool, ReasonHeldBack, held.Text, true)
	if held.Desktop != nil {
		event = store.NewEvent(now, held.Desktop, ReasonSeatHeldBack, held.Text, true)
	}
	event.Meta.Labels[attemptLabel] = held.Attempt
	return event
}

func poolOp(pool *v1.Pool, a Actions) (store.Op, bool) {
	if a.RemovePool {
		return store.Delete(pool), true
	}
	if proto.Equal(pool.GetStatus(), a.Status) {
		return store.Op{}, false
	}
	changed := proto.CloneOf(pool)
	changed.Status = a.Status
	return store.Update(changed), true
}

// write is one change of a round with the operations that make it: one transaction, or no change.
type write struct {
	change Change
	ops    []store.Op // the desktop first, then the event that tells of this change alone
}

// writesOf returns the writes of a round. A failure must not be forgotten that was answered by a new life, so what tells of
// a change is written with it.
func writesOf(now time.Time, a Actions) []write {
	var writes []write
	add := func(list []Change, op func(store.Object) store.Op) {
		for _, change := range list {
			w := write{change: change, ops: []store.Op{op(change.Desktop)}}
			if change.Reason != "" && !toldTogether(change) {
				event := store.NewEvent(now, change.Desktop, change.Reason, change.Message, change.Warning)
				if change.Attempt != "" {
					event.Meta.Labels[attemptLabel] = change.Attempt
				}
				w.ops = append(w.ops, store.Create(event))
			}
			writes = append(writes, w)
		}
	}
	add(a.Remove, store.Delete)
	add(slices.Concat(a.Amend, a.Retire, a.Renew, a.Wake, a.Cool), store.Update)
	add(a.Create, store.Create)
	return writes
}

// commitDesktops writes the changes, each by itself, and in each transaction the events that tell of many of those that are in it.
func (t *term) commitDesktops(ctx context.Context, now time.Time, pool *v1.Pool, writes []write) (revision int64, quicker bool, err error) {
	groups := make([][]store.Op, 0, len(writes))
	of := map[store.Ref]write{}
	for _, w := range writes {
		groups = append(groups, w.ops)
		of[w.ops[0].Ref] = w
	}
	revision, failed, err := t.store.CommitTold(ctx, groups, func(done []store.Op) []store.Op {
		var told []write
		for _, op := range done {
			if w, ok := of[op.Ref]; ok {
				told = append(told, w)
			}
		}
		return eventsOfAll(now, pool, told)
	})
	if err != nil {
		return revision, false, err
	}
	refused := map[store.Ref]bool{}
	for _, f := range failed {
		refused[f.Op.Ref] = true
		if !errors.Is(f, store.ErrConflict) && !errors.Is(f, store.ErrExists) {
			err = errors.Join(err, f)
		}
	}
	for _, w := range writes {
		if !slices.ContainsFunc(w.ops, func(op store.Op) bool { return refused[op.Ref] }) {
			t.metrics.changes.WithLabelValues(w.ops[0].Verb.String()).Inc()
		}
	}
	return revision, len(failed) > 0, err
}

// eventsOfAll tells what is done to many at once: one event for all desktops created, one for all woken and one for all cooled.
func eventsOfAll(now time.Time, pool *v1.Pool, done []write) []store.Op {
	var events []store.Op
	var created []string
	var together grouped
	for _, w := range done {
		if w.ops[0].Verb == store.VerbCreate {
			created = append(created, w.ops[0].Ref.Name)
		}
		together.take(w.change)
	}
	if len(created) > 0 {
		message := fmt.Sprintf("%s created: %s", plural(len(created), "desktop"), span(created))
		events = append(events, store.Create(store.NewEvent(now, pool, ReasonCreated, message, false)))
	}
	return append(events, together.events(now, pool)...)
}

func span(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return names[0] + " to " + names[len(names)-1]
}
