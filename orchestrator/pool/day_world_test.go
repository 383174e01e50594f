package pool

import (
	"testing"
	"time"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// mebi is what each of the world's desktops takes of its host, MiB.
const mebi = 1024

// withSchedule gives a pool office hours from Monday to Friday, 08:30 to 17:15 in a zone, and a schedule. Hosts have memory
// for so many desktops each; 0 means that nobody knows.
func withSchedule(zone string, schedule *v1.Schedule, perHost int64) func(*world) {
	return func(w *world) {
		c := &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: zone, Hours: []*v1.OfficeHours{
			{Days: []v1.Weekday{1, 2, 3, 4, 5, 6, 7}, Open: "08:30", Close: "17:15"},
		}}}
		office, err := calendar.Resolve(c, nil)
		if err != nil {
			panic(err)
		}
		w.office, w.memory = office, perHost*mebi
		w.pool.Spec.Calendar, w.pool.Spec.Schedule = "office", schedule
	}
}

// rooms is what hosts have free; nil when nobody knows.
func (w *world) rooms() []*room.Host {
	if w.memory == 0 {
		return nil
	}
	var rooms []*room.Host
	for _, name := range []string{"h1", "h2"} {
		if w.hosts[name] {
			rooms = append(rooms, w.room(name))
		}
	}
	return rooms
}

func (w *world) room(name string) *room.Host {
	h := &room.Host{
		Host: &v1.Host{Meta: &v1.Meta{Name: name}, Status: &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, Capacity: &v1.HostCapacity{Kvm: true},
		}},
		Zones: map[string]bool{"lgwan": true}, Coming: map[string]bool{}, OfPool: map[string]int{}, MaxBoots: 8,
		FreeVCPUs: 1000, FreeMemoryMiB: w.memory, MemoryMiB: w.memory, SaidMiB: 1 << 20, ReservableMiB: 1 << 20,
	}
	for _, name := range w.names() {
		if d := w.desktops[name]; d.Incarnation.Host == h.Name() {
			n := need(d, room.PhaseOf(d))
			n.Desired = d.Incarnation.Desired
			h.Enter(n)
		}
	}
	return h
}

func changed(a Actions) int {
	return len(a.Create) + len(a.Amend) + len(a.Retire) + len(a.Renew) + len(a.Remove) + len(a.Wake) + len(a.Cool)
}

// until lets the day go on to a time of the office's clock, round by round, and returns how many changes were decided.
func (w *world) until(t testing.TB, clock string) int {
	t.Helper()
	end, err := time.ParseInLocation("2006-01-02 15:04", clock, w.office.Zone())
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for w.now.Before(end) {
		a := w.round()
		total += changed(a)
		w.revision++
		for i, name := range w.names() {
			w.advance(name, []string{"h1", "h2"}[i%2])
		}
		w.now = w.now.Add(20 * time.Second)
	}
	w.now = end
	return total
}

// standing counts the desktops by what they are.
func (w *world) standing() (ready, cold, suspended int) {
	for _, d := range w.desktops {
		switch {
		case store.State(d) == v1.DesktopState_DESKTOP_STATE_READY && isDue(w.now, d):
			ready++
		case isCold(w.now, d) && store.State(d) == v1.DesktopState_DESKTOP_STATE_PREPARED:
			cold++
		case store.State(d) == v1.DesktopState_DESKTOP_STATE_SUSPENDED:
			suspended++
		}
	}
	return ready, cold, suspended
}

func (w *world) step() demand.Step {
	return demand.At(demand.Curve(demand.Pool{Spec: w.pool.Spec, Calendar: w.office}, w.now, w.now.Add(horizon)), w.now)
}
