package pool

import (
	"testing"

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
