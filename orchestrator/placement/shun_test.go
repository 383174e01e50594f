package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

var morning = time.Date(2027, 4, 5, 8, 0, 0, 0, time.UTC)

func born(at time.Time) func(*v1.Desktop) {
	return func(d *v1.Desktop) { d.Incarnation.Created = timestamppb.New(at) }
}

func gotReady(d *v1.Desktop) {
	d.Status.Times = []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_READY, At: d.Incarnation.Created}}
}

// failed is the event that a life failed on a host before it was ready.
func failed(at time.Time, host string, generation int64, edit ...func(*v1.Desktop)) *v1.Event {
	life := newDesktop("a-1", append(edit, on(host, v1.DesktopState_DESKTOP_STATE_FAILED), func(d *v1.Desktop) { d.Incarnation.Generation = generation })...)
	event := store.NewEvent(at, life, "DesktopReplaced", "", true)
	event.Meta.Labels[store.LabelAttempt] = store.Attempt(life.Incarnation)
	return event
}

// Three hosts, of which h1 is empty, and so the best for what waits.
func TestShunnedHost(t *testing.T) {
	before := func(ago time.Duration) time.Time { return morning.Add(-ago) }
	three := func(ago time.Duration) []store.Object {
		return []store.Object{failed(before(ago), "h1", 1), failed(before(ago-time.Second), "h1", 2), failed(before(ago-2*time.Second), "h1", 3)}
	}
	ready := v1.DesktopState_DESKTOP_STATE_READY
	full := func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 }
	for name, c := range map[string]struct {
		objects []store.Object
		others  []func(*v1.Host)
		want    string
	}{
		"nothing failed":              {nil, nil, "h1"},
		"two failed":                  {three(time.Minute)[:2], nil, "h1"},
		"three failed":                {three(time.Minute), nil, "h2"},
		"three failed long ago":       {three(11 * time.Minute), nil, "h1"},
		"one life, told twice":        {append(three(time.Minute)[:2], failed(before(time.Second), "h1", 2)), nil, "h1"},
		"they were ready before that": {append(three(time.Minute), newDesktop("a-5", on("h1", ready), born(before(time.Hour)), gotReady)), nil, "h2"},
		"one got ready since":         {append(three(time.Minute), newDesktop("a-5", on("h1", ready), born(before(30*time.Second)), gotReady)), nil, "h1"},
		"no other fits":               {three(time.Minute), []func(*v1.Host){full}, "h1"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := append(c.objects, image(), newHost("h1"), newHost("h2", c.others...), newDesktop("a-9", born(morning)),
				newDesktop("a-10", on("h2", ready), born(before(time.Hour)), gotReady), newDesktop("a-11", on("h2", ready), born(before(time.Hour)), gotReady))
			plan := Plan(viewOf(t, objects...))
			if len(plan) != 1 || plan[0].Desktop.Incarnation.Host != c.want {
				t.Errorf("placed %v, want host %s", plan, c.want)
			}
		})
	}
}

// A host on which everything fails, and which is soon the emptiest, takes three lives in ten minutes and no more, however many
// begin anew.
func TestBadHostTakesFew(t *testing.T) {
	objects := []store.Object{image(), newHost("h1"), newHost("h2"), newHost("h3")}
	var failures []time.Time
	for n := range 60 {
		now, name := morning.Add(time.Duration(n)*20*time.Second), fmt.Sprintf("a-%d", n%10)
		plan := Plan(viewOf(t, append(objects, newDesktop(name, born(now), func(d *v1.Desktop) { d.Incarnation.Generation = int64(n + 1) }))...))
		switch host := plan[0].Desktop.Incarnation.Host; {
		case host == "h1":
			failures = append(failures, now)
			objects = append(objects, failed(now.Add(10*time.Second), "h1", int64(n+1)))
		case n%20 < 3: // some stay, so that the others are never as empty
			objects = append(objects, newDesktop(fmt.Sprintf("b-%d", n), on(host, v1.DesktopState_DESKTOP_STATE_READY), born(now), gotReady))
		}
	}
	for i := failuresToShun; i < len(failures); i++ {
		if failures[i].Sub(failures[i-failuresToShun]) < shunWindow-time.Minute {
			t.Fatalf("failures at %v", failures)
		}
	}
	if len(failures) < failuresToShun {
		t.Errorf("the bad host was never tried: %v", failures)
	}
}

// A host's spell is told once, however long it lasts and whatever comes and goes meanwhile, and the next one again.
func TestShunnedHostIsTold(t *testing.T) {
	const minute = time.Minute
	ready := func(at time.Duration) store.Object {
		return newDesktop("a-5", on("h1", v1.DesktopState_DESKTOP_STATE_READY), born(morning.Add(at)), gotReady)
	}
	for name, c := range map[string]struct {
		failures []time.Duration
		ready    time.Duration // a life began that gets ready at once; 0 is none
		want     []time.Duration
	}{
		"too few":             {[]time.Duration{0, 4 * minute, 11 * minute, 15 * minute}, 0, nil},
		"one spell":           {[]time.Duration{0, minute, 2 * minute}, 0, []time.Duration{2 * minute}},
		"that goes on":        {[]time.Duration{0, minute, 2 * minute, 6 * minute, 9 * minute, 12 * minute, 15 * minute, 19 * minute, 22 * minute, 25 * minute}, 0, []time.Duration{2 * minute}},
		"and another":         {[]time.Duration{0, minute, 2 * minute, 14 * minute, 15 * minute, 16 * minute}, 0, []time.Duration{2 * minute, 16 * minute}},
		"one got ready":       {[]time.Duration{0, minute, 2 * minute, 4 * minute, 5 * minute}, 3 * minute, []time.Duration{2 * minute}},
		"and then they do so": {[]time.Duration{0, minute, 2 * minute, 4 * minute, 5 * minute, 6 * minute}, 3 * minute, []time.Duration{2 * minute, 6 * minute}},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []store.Object{image(), newHost("h1"), newHost("h2"), newDesktop("a-6", on("h2", v1.DesktopState_DESKTOP_STATE_READY), born(morning.Add(-time.Hour)), gotReady)}
			var told []time.Duration
			for at := time.Duration(0); at <= 40*minute; at += 30 * time.Second {
				if i := slices.Index(c.failures, at); i >= 0 {
					objects = append(objects, failed(morning.Add(at), "h1", int64(i)))
				}
				if at == c.ready && at > 0 {
					objects = append(objects, ready(at))
				}
				for _, op := range newSpells(viewOf(t, objects...), morning.Add(at)) {
					told = append(told, at)
					objects = append(objects, op.Object)
				}
			}
			if !slices.Equal(told, c.want) {
				t.Errorf("told after %v, want %v", told, c.want)
			}
		})
	}
}

// The loop tells of it when the third life fails, and so do the explanations of the host, of what lies there and of what comes there.
func TestShunnedHostIsExplained(t *testing.T) {
	story(t, func(memory *store.Memory, mirror *store.Mirror) {
		now := time.Now()
		h1 := newHost("h1")
		put(t, memory, store.WriterRollout, image())
		put(t, memory, store.WriterAPI, &v1.Host{Meta: h1.Meta})
		if _, err := store.Modify(t.Context(), store.Open(memory, store.WriterDispatch), "h1", func(h *v1.Host) error { h.Status = h1.Status; return nil }); err != nil {
			t.Fatal(err)
		}
		elsewhere := newDesktop("b-1", on("h2", v1.DesktopState_DESKTOP_STATE_READY), born(now.Add(-time.Hour)), gotReady)
		if _, err := memory.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(elsewhere)}); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			put(t, memory, store.WriterPool, failed(now, "h1", int64(n)))
		}
		put(t, memory, store.WriterPool, newDesktop("a-1", born(now)))
		time.Sleep(time.Second)
		const why = "host h1 is the last choice for desktops until 2000-01-01 00:10:00 UTC or until one gets ready there: " +
			"3 failed to in the 10 minutes before, and none that began after them did"
		events := mirror.View().EventsAbout(store.RefOf(h1))
		if len(events) != 1 || events[0].GetReason() != ReasonShunned || events[0].GetMessage() != why || !events[0].GetWarning() {
			t.Errorf("events %v", events)
		}
		pool := &v1.Pool{Spec: &v1.PoolSpec{Zone: "lgwan"}}
		for got, want := range map[string]string{
			ExplainHost(mirror.View(), time.Now(), "h1"):                          why + "; it has promised 1024 of 7680 MiB memory, and 1 of its lives are yet to get ready, at most 4 at once",
			strings.Join(LastChoices(mirror.View(), time.Now(), pool), "\n"):      why,
			Explain(mirror.View(), time.Now(), "a-1"):                             "it is on host h1, which has zone lgwan, runs 1 of the 1 desktops of pool a, has promised 1024 of 7680 MiB memory, " + why[len("host h1 "):],
			ExplainHost(mirror.View(), time.Now().Add(11*time.Minute), "h1")[:27]: "host h1 takes desktops; it ",
			ExplainHost(mirror.View(), time.Now(), "h9"):                          "",
		} {
			if got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		}
		put(t, memory, store.WriterPool, newDesktop("a-2", born(now.Add(time.Second))))
		if events := mirror.View().EventsAbout(store.RefOf(h1)); len(events) != 1 {
			t.Errorf("told again: %v", events)
		}
	})
}

// A life that was held back before its next one began is told of twice. It failed once, when it was told of first.
func TestHeldBackBeforeItIsReplaced(t *testing.T) {
	ago := func(minutes int) time.Time { return morning.Add(-time.Duration(minutes) * time.Minute) }
	objects := []store.Object{
		image(), newHost("h1"), newHost("h2"), failed(ago(16), "h1", 1), failed(ago(5), "h1", 1), failed(ago(4), "h1", 2), failed(ago(3), "h1", 3),
		newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_READY), born(ago(9)), gotReady), newDesktop("b-2", born(morning)),
		newDesktop("c-1", on("h2", v1.DesktopState_DESKTOP_STATE_READY), born(ago(30)), gotReady),
	}
	if spells := recall(viewOf(t, objects...), morning).spells(""); len(spells) != 0 {
		t.Errorf("one life failed before the last that got ready, two after it: %v", spells["h1"])
	}
	view := viewOf(t, append(objects, failed(ago(2), "h1", 4))...)
	if spell := recall(view, morning).spells("")["h1"]; spell == nil || spell.failures != 3 || !spell.from.Equal(ago(2)) {
		t.Errorf("and another one: %v", spell)
	}
	if plan := Plan(view); plan[0].Desktop.Incarnation.Host != "h2" {
		t.Errorf("goes to %s", plan[0].Desktop.Incarnation.Host)
	}
}
