package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxTries bounds how often a write is decided anew because others wrote the same object.
const maxTries = 10

// batch is what reports and silence want written, gathered while the writer is busy. done is closed, and err set, when
// it is durable or will not be.
type batch struct {
	desktops map[string]change
	hosts    map[string]struct{}
	done     chan struct{}
	err      error
}

func newBatch() *batch {
	return &batch{desktops: map[string]change{}, hosts: map[string]struct{}{}, done: make(chan struct{})}
}

func (b *batch) finish(err error) {
	b.err = err
	close(b.done)
}

// change is the newest word about one desktop's status.
type change struct {
	host, uid string
	status    *v1.DesktopStatus
	// lost, when set, is when the host was found silent; there is no status then.
	lost *timestamppb.Timestamp
}

func (c change) apply(d *v1.Desktop) (*v1.DesktopStatus, outcome) {
	if c.lost != nil {
		return lose(d, c.host, c.lost, "host "+c.host+" is not heard; the desktop may well run there")
	}
	return advance(d, c.host, c.uid, c.status)
}

// enqueue replaces what waits to be written of a desktop. The caller holds mu.
func (t *term) enqueue(desktop string, c change) {
	t.open.desktops[desktop] = c
	t.wakeWriter()
}

func (t *term) wakeWriter() {
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// write is the one writer of Desktop.status and Host.status: it commits batch after batch until ctx ends or somebody
// else leads. A batch that fails for another reason fails its reports, which come again.
func (t *term) write(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.ready:
		}
		t.mu.Lock()
		b := t.open
		t.open = newBatch()
		t.mu.Unlock()
		revision, notices, err := t.commit(ctx, b)
		b.finish(err)
		for _, n := range notices {
			t.event(ctx, time.Now(), n)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, store.ErrNotLeader):
			return err
		case err != nil:
			t.log.Error().Err(err).Int("desktops", len(b.desktops)).Msg("statuses not stored")
		}
		// What is decided next is decided on what was just written.
		if _, err := t.mirror.Wait(ctx, revision); err != nil {
			return err
		}
	}
}

// edit is one object to write. decide returns what it should be, nil when it is right as it is.
type edit struct {
	ref    store.Ref
	base   store.Object // as it was read
	decide func(store.Object) store.Object
}

// edits lists what a batch asks for, on what the mirror has.
func (t *term) edits(b *batch) []edit {
	view := t.mirror.View()
	var edits []edit
	for name, c := range b.desktops {
		if d, ok := store.Lookup[*v1.Desktop](view, name); ok {
			edits = append(edits, edit{store.RefOf(d), d, func(o store.Object) store.Object { return t.editDesktop(o.(*v1.Desktop), c) }})
		}
	}
	for name := range b.hosts {
		if h, ok := store.Lookup[*v1.Host](view, name); ok {
			edits = append(edits, edit{store.RefOf(h), h, func(o store.Object) store.Object { return t.editHost(o.(*v1.Host)) }})
		}
	}
	return edits
}

func (t *term) editDesktop(d *v1.Desktop, c change) store.Object {
	next, what := c.apply(d)
	switch what {
	case outcomeChanged:
		changed := proto.CloneOf(d)
		changed.Status = next
		return changed
	case outcomeForeign:
		t.metrics.ignored.WithLabelValues("foreign").Inc()
	case outcomeBackward:
		t.metrics.ignored.WithLabelValues("backward").Inc()
		t.log.Warn().Str("desktop", d.GetMeta().GetName()).Str("host", c.host).Stringer("stored", d.GetStatus().GetState()).
			Stringer("reported", c.status.GetState()).Msg("reported state would go back")
	case outcomeSame:
	}
	return nil
}

func (t *term) editHost(h *v1.Host) store.Object {
	now := time.Now()
	t.mu.Lock()
	p := t.peer(h.GetMeta().GetName(), now)
	next, worth := hostStatus(h.GetStatus(), p.facts, now, p.usageWritten)
	if worth {
		p.usageWritten = now
	}
	t.mu.Unlock()
	if !worth {
		return nil
	}
	changed := proto.CloneOf(h)
	changed.Status = next
	return changed
}

// commit writes a batch and returns the revision to wait for and the events to tell. What others changed meanwhile is
// read and decided again.
func (t *term) commit(ctx context.Context, b *batch) (revision int64, notices []notice, err error) {
	todo := t.edits(b)
	for try := 1; len(todo) > 0; try++ {
		if try > maxTries {
			return revision, notices, fmt.Errorf("write %s: others were quicker %d times: %w", todo[0].ref, maxTries, store.ErrConflict)
		}
		var ops []store.Op
		var part []edit
		for _, e := range todo {
			if next := e.decide(e.base); next != nil {
				ops, part = append(ops, store.Update(next)), append(part, e)
			}
		}
		at, failed, err := t.store.CommitEach(ctx, ops)
		revision = max(revision, at)
		if err != nil {
			return revision, notices, err
		}
		if done := len(ops) - len(failed); done > 0 {
			t.metrics.batch.Observe(float64(done))
		}
		refused := t.refused(failed)
		todo = nil
		for i, e := range part {
			switch again, bad := refused[e.ref]; {
			case !bad:
				notices = append(notices, tell(e.base, ops[i].Object)...)
			case again:
				todo = append(todo, e)
			}
		}
		if todo, err = t.reread(ctx, todo); err != nil {
			return revision, notices, err
		}
	}
	return revision, notices, nil
}

// refused says of each write that failed whether it is worth another try.
func (t *term) refused(failed []*store.OpError) map[store.Ref]bool {
	refused := map[store.Ref]bool{}
	for _, f := range failed {
		refused[f.Op.Ref] = errors.Is(f, store.ErrConflict)
		if !refused[f.Op.Ref] {
			t.metrics.ignored.WithLabelValues("invalid").Inc()
			t.log.Error().Err(f).Msg("status cannot be stored")
		}
	}
	return refused
}

// reread gets the newest of what changed under our hands. What is gone needs no status.
func (t *term) reread(ctx context.Context, edits []edit) ([]edit, error) {
	var found []edit
	for _, e := range edits {
		o, err := t.store.Get(ctx, e.ref)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		e.base = o
		found = append(found, e)
	}
	return found, nil
}

// tell finds what people should hear of in a write.
func tell(before, after store.Object) []notice {
	switch after := after.(type) {
	case *v1.Desktop:
		return tellDesktop(before.(*v1.Desktop), after)
	case *v1.Host:
		return tellHost(before.(*v1.Host), after)
	}
	return nil
}
