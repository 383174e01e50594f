package pool

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// A pool in New York on the day on which clocks are set forward, planned once a minute by a clock that somebody sets by two
// hours and back: its one opening is planned once, its starts are told once, and what comes after the gap is not skipped.
func TestPlanByClocksThatJump(t *testing.T) {
	zone, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	memory := store.NewMemory()
	commit := func(w store.Writer, ops ...store.Op) {
		if _, failed, err := store.Open(memory, w).CommitEach(t.Context(), ops); err != nil || len(failed) > 0 {
			t.Fatal(err, failed)
		}
	}
	w := newWorld(4)
	w.pool.Meta = &v1.Meta{Name: "sales"}
	w.pool.Spec.Calendar, w.pool.Spec.Schedule = "office", office()
	commit(store.WriterAPI, store.Create(&v1.Zone{Meta: &v1.Meta{Name: "lgwan"}}), store.Create(&v1.Host{Meta: &v1.Meta{Name: "h1"}}), store.Create(w.pool),
		store.Create(&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "America/New_York", Hours: []*v1.OfficeHours{
			{Days: []v1.Weekday{7}, Open: "02:30", Close: "06:00"},
		}}}))
	commit(store.WriterRollout, store.Create(w.image))
	mirror := storetest.Mirror(t, memory)
	view := func() *store.View {
		_, revision, err := store.Open(memory, store.WriterAPI).List(t.Context(), v1.Kind_KIND_ZONE)
		if err != nil {
			t.Fatal(err)
		}
		v, err := mirror.Wait(t.Context(), revision)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	_, err = store.Modify(t.Context(), store.Open(memory, store.WriterDispatch), "h1", func(h *v1.Host) error {
		h.Status = &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"}, Images: []string{digestOne},
			Capacity: &v1.HostCapacity{Cpus: 64, MemoryMib: 1 << 16, StoreBytes: 1 << 40, MaxBoots: 4, Kvm: true}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	told := map[time.Time]int{} // starts, by their time
	events := map[string]int{}
	round := func(now time.Time) {
		pool, _ := store.Lookup[*v1.Pool](view(), "sales")
		s := snapshotOf(view(), pool, now, &curves{})
		for range 4 - len(s.Desktops) {
			w.made++
			s.Identities = append(s.Identities, Identity{UID: "00000000-0000-4000-8000-00000000000" + string(rune('0'+w.made)),
				VMUUID: "00000000-0000-4000-9000-000000000001", MAC: "52:54:00:00:00:0" + string(rune('0'+w.made))})
		}
		for _, write := range writesOf(now, Decide(now, s)) {
			commit(store.WriterPool, write.ops...)
		}
		var r dayRound
		kept := r.remember(now, view(), &curves{}, nil)
		r.sweep(now, view())
		r.plan(now, view(), &curves{}, kept)
		for _, op := range r.starts {
			told[op.Object.(*v1.Desktop).GetIncarnation().GetStartAt().AsTime()]++
		}
		for _, op := range r.events {
			events[op.Object.(*v1.Event).GetReason()]++
		}
		for _, list := range [][]store.Op{r.objects, r.starts, r.events} {
			commit(store.WriterPool, list...)
		}
		for _, d := range store.All[*v1.Desktop](view()) {
			if d.GetIncarnation().GetHost() == "" {
				_, err = store.Modify(t.Context(), store.Open(memory, store.WriterPlacement), d.Meta.Name, func(d *v1.Desktop) error { d.Incarnation.Host = "h1"; return nil })
			}
			state := store.State(d)
			switch {
			case d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
				state = v1.DesktopState_DESKTOP_STATE_DELETED
			case state == v1.DesktopState_DESKTOP_STATE_PLACED:
				state = v1.DesktopState_DESKTOP_STATE_PREPARED
			case state == v1.DesktopState_DESKTOP_STATE_PREPARED && isDue(now, d):
				state = v1.DesktopState_DESKTOP_STATE_READY
			}
			if state != store.State(d) {
				_, err = store.Modify(t.Context(), store.Open(memory, store.WriterDispatch), d.Meta.Name, func(d *v1.Desktop) error {
					d.Status = &v1.DesktopStatus{Generation: d.Incarnation.Generation, State: state, Times: append(store.Present(d).GetTimes(), &v1.StateTime{State: state, At: timestamppb.New(now)})}
					return nil
				})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	ready := func() (n int) {
		for _, d := range store.All[*v1.Desktop](view()) {
			if store.State(d) == v1.DesktopState_DESKTOP_STATE_READY {
				n++
			}
		}
		return n
	}
	from := time.Date(2027, 3, 13, 18, 0, 0, 0, zone)
	opens := time.Date(2027, 3, 14, 3, 0, 0, 0, zone) // 02:30 does not exist
	for now := from; now.Before(opens.Add(5 * time.Hour)); now = now.Add(time.Minute) {
		by := now
		switch {
		case now.After(from.Add(time.Hour)) && now.Before(from.Add(80*time.Minute)):
			by = now.Add(2 * time.Hour)
		case now.After(from.Add(3*time.Hour)) && now.Before(from.Add(200*time.Minute)):
			by = now.Add(-2 * time.Hour)
		}
		round(by)
		if now.Equal(opens) && ready() != 4 {
			t.Errorf("%d are ready as clocks jump to the opening", ready())
		}
	}
	if n := ready(); n != 0 {
		t.Errorf("%d run after closing", n)
	}
	total := 0
	for at, n := range told {
		total += n
		if at.Year() != 2027 || !at.Before(opens) || at.Before(opens.Add(-time.Hour)) {
			t.Errorf("%d starts at %v", n, at)
		}
	}
	if total != 4 || events[ReasonPlanned] != 1 || events[ReasonMissed] != 0 {
		t.Errorf("%d starts told, events %v", total, events)
	}
	names := []string{}
	for _, p := range store.All[*v1.Plan](view()) {
		names = append(names, p.GetMeta().GetName())
	}
	if got := strings.Join(names, " "); got != "sales-2027-03-14" {
		t.Errorf("plans %s", got)
	}
}
