package pool

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// A pool in New York on the day on which clocks are set forward, planned once a minute by a clock that somebody sets by two
// hours and back: its one opening is planned once, its starts are told once, what comes after the gap is not skipped, and nobody's desktop
// goes while the office is open.
func TestPlanByClocksThatJump(t *testing.T) {
	const set = 20 * time.Minute                                         // so long the clock is wrong
	for name, steps := range map[string]map[time.Duration]time.Duration{ // by when, as seen from the opening
		"the evening before":  {-8 * time.Hour: 2 * time.Hour, -6 * time.Hour: -2 * time.Hour},
		"past the opening":    {-90 * time.Minute: 2 * time.Hour},
		"before the starts":   {-3 * time.Hour: -2 * time.Hour},
		"after the opening":   {time.Hour: -2 * time.Hour},
		"soon after it":       {5 * time.Minute: -2 * time.Hour},
		"ahead in open hours": {30 * time.Minute: 30 * time.Minute, 60 * time.Minute: time.Hour},
	} {
		for _, oneMachine := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, one machine %v", name, oneMachine), func(t *testing.T) {
				events := planByClock(t, oneMachine, func(now, opens time.Time) time.Time {
					for from, by := range steps {
						if since := now.Sub(opens); since > from && since < from+set {
							return now.Add(by)
						}
					}
					return now
				})
				// What a clock that is set past the opening finds is told as what it is, and once.
				skipped := 0
				if name == "past the opening" {
					skipped = 1
				}
				if events[ReasonPlanned] != 1 || events[ReasonMissed] != 0 || events[ReasonSkipped] != skipped {
					t.Errorf("events %v", events)
				}
			})
		}
	}
}

// planByClock plays the day, and counts its events by their reasons. clock says what ours shows; the host's is right, or
// the same on one machine.
func planByClock(t *testing.T, oneMachine bool, clock func(now, opens time.Time) time.Time) (events map[string]int) {
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
	ran := 0
	told := map[time.Time]int{} // starts, by their time
	events = map[string]int{}
	var watch clockWatch
	round := func(hosts, now time.Time) {
		watch.look(now, time.Minute)
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
		r := dayRound{skipped: watch.skipped}
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
			case state == v1.DesktopState_DESKTOP_STATE_PREPARED && isDue(hosts, d):
				state = v1.DesktopState_DESKTOP_STATE_READY
				ran++
			}
			if state != store.State(d) {
				_, err = store.Modify(t.Context(), store.Open(memory, store.WriterDispatch), d.Meta.Name, func(d *v1.Desktop) error {
					d.Status = &v1.DesktopStatus{Generation: d.Incarnation.Generation, State: state, Times: append(store.Present(d).GetTimes(), &v1.StateTime{State: state, At: timestamppb.New(hosts)})}
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
		by := clock(now, opens)
		if oneMachine {
			round(by, by)
		} else {
			round(now, by)
		}
		if open := now.Sub(opens); open >= 0 && open < 150*time.Minute && ready() != 4 {
			t.Fatalf("%d are ready at %v", ready(), now)
		}
	}
	if n := ready(); n != 0 {
		t.Errorf("%d run after closing", n)
	}
	if ran != 4 {
		t.Errorf("%d lives ran for one opening", ran)
	}
	total := 0
	for at, n := range told {
		total += n
		if at.Year() != 2027 || !at.Before(opens) || at.Before(opens.Add(-time.Hour)) {
			t.Errorf("%d starts at %v", n, at)
		}
	}
	if total != 4 {
		t.Errorf("%d starts told", total)
	}
	names := []string{}
	for _, p := range store.All[*v1.Plan](view()) {
		names = append(names, p.GetMeta().GetName())
	}
	if got := strings.Join(names, " "); got != "sales-2027-03-14" {
		t.Errorf("plans %s", got)
	}
	return events
}

// One desktop is to be ready at an opening. What is told of it, by the readings of one control plane's clock.
func TestWarmUpByClocksThatJump(t *testing.T) {
	opens := time.Date(2027, 4, 5, 8, 30, 0, 0, time.UTC)
	type reading struct {
		ran time.Duration // since the one before
		at  time.Duration // from the opening
	}
	const minute, hour = time.Minute, time.Hour
	for name, c := range map[string]struct {
		readings []reading
		inTime   bool // the last reading finds that it was
		want     string
	}{
		"late":                            {[]reading{{0, -hour}, {hour, 0}, {minute, minute}}, false, ReasonMissed},
		"in time":                         {[]reading{{0, -hour}, {hour, 0}, {minute, minute}}, true, ""},
		"down until it was over":          {[]reading{{0, 2 * minute}, {minute, 3 * minute}}, false, ReasonMissed},
		"down, and in time":               {[]reading{{0, 2 * minute}}, true, ""},
		"past it at once":                 {[]reading{{0, -hour}, {minute, 10 * minute}, {minute, 11 * minute}}, false, ReasonSkipped},
		"past it at once, yet in time":    {[]reading{{0, -hour}, {minute, 10 * minute}}, true, ""},
		"past the starts at once":         {[]reading{{0, -hour}, {minute, -30 * time.Second}, {minute, 30 * time.Second}, {minute, 90 * time.Second}}, false, ReasonSkipped},
		"long before the starts":          {[]reading{{0, -3 * hour}, {minute, -hour}, {hour, 0}, {minute, minute}}, false, ReasonMissed},
		"past it, back, and late":         {[]reading{{0, -hour}, {minute, 10 * minute}, {minute, -58 * minute}, {hour, 2 * minute}}, false, ReasonSkipped + " " + ReasonMissed},
		"past it, back, and in time":      {[]reading{{0, -hour}, {minute, 10 * minute}, {minute, -58 * minute}, {hour, 2 * minute}}, true, ReasonSkipped},
		"past it, and nearly as far back": {[]reading{{0, -hour}, {minute, hour - minute}, {minute, 10 * minute}}, false, ReasonSkipped},
		"after it was late":               {[]reading{{0, -hour}, {hour, 0}, {2 * minute, 2 * minute}, {minute, 30 * minute}}, false, ReasonMissed},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1)
			plan := planOf(plannedStart(1, opens.Add(-10*minute), opens))
			var watch clockWatch
			var told []string
			for i, read := range c.readings {
				now := opens.Add(read.at)
				if c.inTime && i == len(c.readings)-1 {
					plan.Starts[0].Ready = timestamppb.New(opens.Add(-minute))
				}
				watch.look(now, read.ran)
				r := dayRound{skipped: watch.skipped}
				r.tell(now, shown(t, w), w.pool, time.UTC, plan, plan)
				for _, op := range r.events {
					event := op.Object.(*v1.Event)
					w.events = append(w.events, event)
					if event.GetReason() != ReasonPlanned {
						told = append(told, event.GetReason())
					}
				}
			}
			if got := strings.Join(told, " "); got != c.want {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
}
