package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// mortal is a store that its leader writes to so many times before it is killed.
type mortal struct {
	*store.Memory
	left int
}

var errKilled = errors.New("killed")

func (m *mortal) Commit(ctx context.Context, g store.Guard, ops []store.Op) (int64, error) {
	if m.left == 0 {
		return 0, errKilled
	}
	m.left--
	return m.Memory.Commit(ctx, g, ops)
}

// Wherever a leader is killed in a round, the next one knows of each failure whose life was told to end, and of each life
// that was begun.
func TestKilledLeaderForgetsNoFailure(t *testing.T) {
	finished := false
	for writes := 0; !finished; writes++ {
		w := settled(t, 12)
		w.pool.Spec.MaxUnavailable = 12
		for _, name := range []string{"sales-1", "sales-2"} {
			w.change(name, func(d *v1.Desktop) { d.Status.Times = nil })
			w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "no")
		}
		w.report("sales-3", v1.DesktopState_DESKTOP_STATE_DELETED, "")
		backend := &mortal{Memory: store.NewMemory(), left: -1}
		objects := []store.Object{w.pool}
		for _, name := range w.names() {
			objects = append(objects, w.desktops[name])
		}
		for _, o := range objects {
			if _, err := backend.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(o)}); err != nil {
				t.Fatal(err)
			}
		}
		snapshot := w.snapshot()
		var err error
		if snapshot.Desktops, _, err = store.List[*v1.Desktop](t.Context(), store.Open(backend, store.WriterPool)); err != nil {
			t.Fatal(err)
		}
		actions := Decide(w.now, snapshot)
		if len(actions.Retire) != 2 || len(actions.Renew) != 1 {
			t.Fatalf("retired %v, renewed %v", changedNames(actions.Retire), changedNames(actions.Renew))
		}
		controller := New(nil, rand.NewChaCha8([32]byte{1}), zerolog.Nop(), prometheus.NewRegistry())
		leader := &term{Controller: controller, store: store.Open(backend, store.WriterPool)}
		backend.left = writes
		_, quicker, err := leader.commit(t.Context(), w.now, w.pool, actions)
		if err != nil && !errors.Is(err, errKilled) || quicker {
			t.Fatal(quicker, err)
		}
		finished = err == nil
		checkTold(t, backend.Memory, w)
	}
}

// Wherever a leader is killed while it creates or wakes many, each that was is told of, once.
func TestKilledLeaderTellsOfMany(t *testing.T) {
	const seats = 300
	w, transactions := settled(t, seats), 0
	for writes, finished := 0, false; !finished; writes++ {
		backend := &mortal{Memory: store.NewMemory(), left: writes}
		leader := &term{Controller: New(nil, rand.NewChaCha8([32]byte{1}), zerolog.Nop(), prometheus.NewRegistry()), store: store.Open(backend, store.WriterPool)}
		var creations, wakes Actions
		for _, name := range w.names() {
			d := proto.CloneOf(w.desktops[name])
			d.Meta, d.Status = &v1.Meta{Name: name}, nil
			d.Incarnation.Host, d.Incarnation.Desired = "", v1.DesiredState_DESIRED_STATE_PREPARED
			creations.Create = append(creations.Create, Change{Desktop: d})
			wakes.Wake = append(wakes.Wake, Change{Desktop: d, Reason: ReasonWarmed, Message: "300 are wanted"})
		}
		_, _, err := leader.commit(t.Context(), w.now, w.pool, creations)
		if err == nil {
			for i, change := range wakes.Wake {
				stored, lost := store.Get[*v1.Desktop](t.Context(), leader.store, change.Desktop.Meta.Name)
				if lost != nil {
					t.Fatal(lost)
				}
				wakes.Wake[i].Desktop = toStart(stored, w.now)
			}
			_, _, err = leader.commit(t.Context(), w.now, w.pool, wakes)
		}
		if finished = err == nil; !finished && !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		transactions = writes
		desktops, _, _ := store.List[*v1.Desktop](t.Context(), leader.store)
		events, _, _ := store.List[*v1.Event](t.Context(), leader.store)
		made, woken, toldMade, toldWoken := len(desktops), 0, 0, 0
		for _, d := range desktops {
			if d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_READY {
				woken++
			}
		}
		for _, e := range events {
			var n int
			if _, err := fmt.Sscanf(e.GetMessage(), "%d", &n); err != nil {
				t.Fatal(e.GetMessage(), err)
			}
			if e.GetReason() == ReasonCreated {
				toldMade += n
			} else {
				toldWoken += n
			}
		}
		if made != toldMade || woken != toldWoken {
			t.Errorf("after %d writes %d desktops were made and %d woken, and of %d and %d is told", writes, made, woken, toldMade, toldWoken)
		}
	}
	if transactions != 6 {
		t.Errorf("%d transactions, want three for each round", transactions)
	}
}

// checkTold wants an event for every desktop that is not as it was.
func checkTold(t *testing.T, memory *store.Memory, w *world) {
	t.Helper()
	handle := store.Open(memory, store.WriterPool)
	desktops, _, err := store.List[*v1.Desktop](t.Context(), handle)
	if err != nil {
		t.Fatal(err)
	}
	events, _, err := store.List[*v1.Event](t.Context(), handle)
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]*v1.Event{}
	for _, event := range events {
		told[event.GetSubject()] = event
	}
	for _, d := range desktops {
		name := d.GetMeta().GetName()
		event, inc, before := told[name], d.GetIncarnation(), w.desktops[name].GetIncarnation()
		switch {
		case inc.GetGeneration() != before.GetGeneration() && event.GetReason() != ReasonRenewed:
			t.Errorf("%s began anew, and nothing tells of it", name)
		case inc.GetDesired() != before.GetDesired() && event.GetMeta().GetLabels()[attemptLabel] != store.Attempt(before):
			t.Errorf("%s was told to end, and nothing tells that it failed", name)
		}
	}
}
