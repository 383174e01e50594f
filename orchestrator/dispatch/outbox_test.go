package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// inView makes a view that has these desktops.
func inView(t *testing.T, desktops ...*v1.Desktop) *store.View {
	t.Helper()
	var view *store.View
	synctest.Test(t, func(t *testing.T) {
		h := newBareTerm(t, func() error { return nil })
		defer h.end()
		for _, d := range desktops {
			put(&h.house, d)
		}
		synctest.Wait()
		view = h.mirror.View()
	})
	return view
}

func TestOutboxSplits(t *testing.T) {
	var objects []*v1.Desktop
	for i := range 2500 {
		objects = append(objects, newDesktop(fmt.Sprint("d", i), "h1", int64(1+i)))
	}
	view := inView(t, objects...)
	o := newOutbox("h1", 0)
	first := o.messages(view, newNews())
	if len(first) != 1 || !first[0].GetComplete() || len(first[0].GetSet()) != 2500 {
		t.Fatalf("%d messages, the first with %d", len(first), len(first[0].GetSet()))
	}
	n := newNews()
	for i := range 2500 {
		n.desktops[fmt.Sprint("d", i)] = struct{}{}
	}
	if again := o.messages(view, n); len(again) != 0 {
		t.Errorf("nothing changed, %d messages", len(again))
	}
	sequence, dropped := uint64(1), 0
	for _, m := range o.messages(inView(t), n) {
		if m.GetComplete() || m.GetAppliesTo() != sequence || m.GetResultsIn() != sequence+1 || len(m.GetDrop()) > maxChanges {
			t.Errorf("message %d -> %d with %d", m.GetAppliesTo(), m.GetResultsIn(), len(m.GetDrop()))
		}
		sequence++
		dropped += len(m.GetDrop())
	}
	if dropped != 2500 || sequence != 4 {
		t.Errorf("%d dropped in %d messages", dropped, sequence-1)
	}
}

func TestWhatFindsNoRoomFollows(t *testing.T) {
	var objects []*v1.Desktop
	word := strings.Repeat("x", 4096)
	probe := make([]string, 30)
	for i := range probe {
		probe[i] = word
	}
	for i := range 120 {
		d := newDesktop(fmt.Sprint("d", i), "h1", int64(1+i))
		d.Incarnation.Readiness = &v1.Readiness{Probe: probe}
		objects = append(objects, d)
	}
	got := map[string]bool{}
	for i, m := range newOutbox("h1", 0).messages(inView(t, objects...), newNews()) {
		if size := proto.Size(m); size > 4<<20 || m.GetComplete() != (i == 0) {
			t.Errorf("message %d: complete %v, %d bytes", i, m.GetComplete(), size)
		}
		for _, a := range m.GetSet() {
			if got[a.GetDesktop()] {
				t.Errorf("%s sent twice", a.GetDesktop())
			}
			got[a.GetDesktop()] = true
		}
	}
	if len(got) != 120 {
		t.Errorf("%d of 120 sent", len(got))
	}
}

// TestReservedMemoryIsTold: at once when a session begins and when it changes, and in every message between.
func TestReservedMemoryIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newBareTerm(t, func() error { return nil })
		defer h.end()
		keep := func(mib uint64) *store.View {
			host := get[*v1.Host](&h.house, "h1")
			host.Spec = &v1.HostSpec{ReservedMemoryMib: mib}
			put(&h.house, host)
			synctest.Wait()
			return h.mirror.View()
		}
		o := newOutbox("h1", 0)
		first := o.messages(keep(512), newNews())
		if len(first) != 1 || first[0].GetReservedMemoryMib() != 512 {
			t.Fatalf("first: %v", first)
		}
		n := newNews()
		n.wanted = true
		if again := o.messages(h.mirror.View(), n); len(again) != 0 {
			t.Errorf("nothing changed: %v", again)
		}
		if less := o.messages(keep(0), n); len(less) != 1 || less[0].GetComplete() || less[0].GetReservedMemoryMib() != 0 {
			t.Errorf("changed: %v", less)
		}
	})
}
