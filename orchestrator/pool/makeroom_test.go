package pool

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Whoever comes back to a desktop that sleeps on a full host gets the place of a spare there, of which there is one less for
// each of them and no more, however long it takes to end.
func TestRoomForWhoComesBack(t *testing.T) {
	w := newWorld(8)
	withSchedule("UTC", office(), 4)(w)
	w.until(t, "2027-04-05 09:00")
	if ready, _, _ := w.standing(); ready != 8 {
		t.Fatalf("%d are ready", ready)
	}
	sleeper := w.names()[0]
	host := w.desktops[sleeper].Incarnation.Host
	w.claim(sleeper, "taro")
	w.change(sleeper, func(d *v1.Desktop) {
		d.Status.State = v1.DesktopState_DESKTOP_STATE_SUSPENDED // and is told to run again
	})
	if a := Decide(w.now, w.snapshot()); len(a.Retire) != 0 {
		t.Fatalf("%v end where there is room", changedNames(a.Retire))
	}
	other := &v1.Desktop{} // a life that took the sleeper's place meanwhile
	for _, name := range w.names()[1:] {
		if w.desktops[name].Incarnation.Host != host {
			other = w.desktops[name]
		}
	}
	w.change(other.Meta.Name, func(d *v1.Desktop) { d.Incarnation.Host = host })
	for range 3 {
		a := Decide(w.now, w.snapshot())
		w.commit(a)
		w.revision++
	}
	ending := 0
	for _, name := range w.names() {
		d := w.desktops[name]
		if d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_DELETED {
			continue
		}
		if ending++; d.Claim != nil || d.Incarnation.Host != host {
			t.Errorf("%s on %s ends for a place on %s", name, d.Incarnation.Host, host)
		}
	}
	if ending != 1 {
		t.Errorf("%d end for one who came back", ending)
	}
}

// The place on a full host is that of the spare which is needed least, whichever pool has it, also one without a schedule; and people are told.
func TestSparesOfOtherPoolsMakeRoom(t *testing.T) {
	story(t, func(h *house) {
		h.open(4, 2, nil)
		h.edit(func(p *v1.Pool) { p.Spec.MinReady = 1 })
		for i, name := range []string{"counter", "desk"} {
			w := newWorld(uint32(2 - i))
			w.pool.Meta = &v1.Meta{Name: name}
			h.create(w.pool, store.WriterAPI)
		}
		time.Sleep(5 * time.Minute)
		taro, err := h.claimer.Claim(t.Context(), "sales", "taro", "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		name := taro.GetMeta().GetName()
		put := func(writer store.Writer, change func(*v1.Desktop)) {
			if _, err := store.Modify(t.Context(), store.Open(h.memory, writer), name, func(d *v1.Desktop) error { change(d); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		put(store.WriterPool, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_SUSPENDED })
		put(store.WriterDispatch, func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_SUSPENDED })
		time.Sleep(time.Minute + time.Second/2) // between two looks of the host's
		if got := h.words(ReasonMadeElsewhere); len(got) != 0 {
			t.Fatalf("while nobody waits: %q", got)
		}
		put(store.WriterPool, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_READY })
		synctest.Wait()
		if got := h.words(ReasonMadeElsewhere); len(got) != 1 || !strings.Contains(got[0], "which nobody used, makes room on host h1, where taro waits for the memory of "+name) {
			t.Errorf("told %q", got)
		}
		ending, _ := store.Lookup[*v1.Desktop](h.mirror.View(), "counter-2")
		if ending.GetIncarnation().GetDesired() != v1.DesiredState_DESIRED_STATE_DELETED {
			t.Errorf("counter-2, of which there are two, goes on: %v", h.words(ReasonMadeElsewhere))
		}
		h.explains(name, "is being woken", "it waits for memory there: host h1 has promised 1009 MiB more than it has; counter-2, which nobody uses, makes room")
	})
}

// Memory that two loops promised at once is given back by who has not begun, if there is some elsewhere.
func TestMemoryThatWasPromisedTwice(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1.Desktop)
		seats  uint32
		ends   int
	}{
		{"is about to start", nil, 7, 1},
		{"runs", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_READY }, 7, 0},
		{"has nowhere to go", nil, 8, 0},
	} {
		w := newWorld(c.seats)
		withSchedule("UTC", office(), 4)(w)
		w.until(t, "2027-04-05 09:00")
		second := w.names()[1]
		other := w.desktops[second].Incarnation.Host
		w.change(second, func(d *v1.Desktop) {
			d.Incarnation.Host = w.desktops[w.names()[0]].Incarnation.Host
			d.Status.State = v1.DesktopState_DESKTOP_STATE_PREPARED
			if c.change != nil {
				c.change(d)
			}
		})
		if c.seats == 8 { // a life that took its place meanwhile
			w.desktops["other-1"] = proto.CloneOf(w.desktops[w.names()[0]])
			w.change("other-1", func(d *v1.Desktop) { d.Meta.Name, d.Incarnation.Host = "other-1", other })
			w.pool.Spec.Desktops++
		}
		a := Decide(w.now, w.snapshot())
		if len(a.Retire) != c.ends {
			t.Errorf("one that %s: %v end", c.name, changedNames(a.Retire))
		}
		for _, change := range a.Retire {
			if !strings.Contains(change.Message, "which promised the same memory twice; host "+other+" has room for it") {
				t.Errorf("told %q", change.Message)
			}
		}
	}
}
