package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// probing makes lives try what only those of the same pool do.
func probing(pool string) func(*v1.Desktop) {
	return func(d *v1.Desktop) { d.Incarnation.Readiness = &v1.Readiness{Probe: []string{pool}} }
}

func stands(name, pool, host string, at time.Time) *v1.Desktop {
	return newDesktop(name, probing(pool), born(at), on(host, v1.DesktopState_DESKTOP_STATE_READY), gotReady)
}

// What failed on h1, the emptiest of three hosts, and who may come there now: lives that try the same, and others.
func TestWhoIsToBlame(t *testing.T) {
	fails := func(host string, ago time.Duration, pools ...string) (events []store.Object) {
		for n, pool := range pools {
			events = append(events, failed(morning.Add(-ago-time.Duration(n)*time.Second), host, int64(1000*ago.Seconds())+int64(n), probing(pool)))
		}
		return events
	}
	const minute = time.Minute
	yesterday := morning.Add(-20 * time.Hour)
	for name, c := range map[string]struct {
		objects     []store.Object
		same, other string // the hosts of the next life of pool p, and of pool w
	}{
		"a broken host with many pools": {
			append(fails("h1", minute, "p", "q", "r"), stands("p-5", "p", "h2", yesterday), stands("q-5", "q", "h2", yesterday), stands("r-5", "r", "h3", yesterday)), "h3", "h2"},
		"a broken host with many pools, one of which is ready nowhere": {
			append(fails("h1", minute, "p", "q", "r"), stands("p-5", "p", "h2", yesterday), stands("q-5", "q", "h2", yesterday)), "h1", "h1"},
		"a broken host where only one pool lives":              {fails("h1", minute, "p", "p", "p"), "h2", "h1"},
		"whose next life got ready on another":                 {append(fails("h1", 3*minute, "p", "p", "p"), stands("p-5", "p", "h2", morning.Add(-minute))), "h3", "h2"},
		"a broken pool on several healthy hosts":               {append(append(fails("h1", minute, "p", "p", "p"), fails("h2", minute, "p", "p", "p")...), fails("h3", minute, "p", "p", "p")...), "h1", "h1"},
		"a pool that broke, with lives that began before":      {append(append(fails("h1", minute, "p", "p", "p"), fails("h2", minute, "p")...), stands("p-5", "p", "h2", yesterday)), "h3", "h1"},
		"two broken hosts":                                     {append(append(fails("h1", 3*minute, "p", "p", "p"), fails("h2", 3*minute, "p", "p", "p")...), stands("p-5", "p", "h3", morning.Add(-minute))), "h3", "h3"},
		"a broken pool that fits only one host":                {fails("h1", minute, "p", "p", "p"), "h2", "h1"},
		"one that broke there, with lives that began before":   {append(fails("h1", minute, "p", "p", "p"), stands("p-5", "p", "h1", yesterday)), "h2", "h1"},
		"a pool that was ready here and there, and fails here": {append(fails("h1", minute, "p", "p", "p"), stands("p-5", "p", "h1", yesterday), stands("p-6", "p", "h2", yesterday)), "h3", "h2"},
	} {
		t.Run(name, func(t *testing.T) {
			objects := append(c.objects, image(), newHost("h1"), newHost("h2"), newHost("h3"))
			for i, host := range []string{"h1", "h2", "h2", "h3", "h3", "h3"} { // of which h1 is the emptiest
				objects = append(objects, newDesktop(fmt.Sprintf("x-%d", i), on(host, v1.DesktopState_DESKTOP_STATE_PREPARED), born(yesterday)))
			}
			for pool, want := range map[string]string{"p": c.same, "w": c.other} {
				next := newDesktop(pool+"-9", probing(pool), born(morning))
				plan := Plan(viewOf(t, append(slices.Clone(objects), next)...))
				if got := plan[0].Desktop.Incarnation.Host; got != want {
					t.Errorf("%s goes to %s, want %s", pool, got, want)
				}
			}
		})
	}
}

// However a pool fails that is ready nowhere, others go where they would have gone without it.
func TestBrokenPoolBrandsNoHost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hosts := []string{"h1", "h2", "h3"}
		objects := []store.Object{image()}
		for _, host := range hosts {
			objects = append(objects, newHost(host))
		}
		for i := range rapid.IntRange(0, 12).Draw(t, "others") {
			objects = append(objects, stands(fmt.Sprintf("x-%d", i), "x", rapid.SampledFrom(hosts).Draw(t, "on"), morning.Add(-time.Hour)))
		}
		for i := range 3 {
			objects = append(objects, newDesktop(fmt.Sprintf("w-%d", i), probing("w"), born(morning)))
		}
		without := Plan(viewOf(t, objects...))
		for i := range rapid.IntRange(3, 30).Draw(t, "failures") {
			ago := time.Duration(rapid.IntRange(0, 900).Draw(t, "ago")) * time.Second
			objects = append(objects, failed(morning.Add(-ago), rapid.SampledFrom(hosts).Draw(t, "host"), int64(i), probing("broken")))
		}
		with := Plan(viewOf(t, objects...))
		for i, p := range with {
			if got, want := p.Desktop.Incarnation.Host, without[i].Desktop.Incarnation.Host; got != want {
				t.Fatalf("%s goes to %s, without the broken pool to %s", p.Desktop.GetMeta().GetName(), got, want)
			}
		}
	})
}

// A broken host takes few lives, however many pools have desktops there.
func TestBrokenHostAmongManyPools(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pools := rapid.IntRange(1, 8).Draw(t, "pools")
		objects := []store.Object{image(), newHost("h1"), newHost("h2"), newHost("h3")}
		for p := range pools { // each pool has run elsewhere before
			objects = append(objects, stands(fmt.Sprintf("%c-99", 'a'+p), string(rune('a'+p)), "h2", morning.Add(-time.Hour)))
		}
		var failures []time.Time
		for n := range 40 {
			now, pool := morning.Add(time.Duration(n)*20*time.Second), string(rune('a'+rapid.IntRange(0, pools-1).Draw(t, "pool")))
			life := newDesktop(fmt.Sprintf("%s-%d", pool, n), probing(pool), born(now), func(d *v1.Desktop) { d.Incarnation.Generation = int64(n + 1) })
			plan := Plan(viewOf(t, append(slices.Clone(objects), life)...))
			if plan[0].Desktop.Incarnation.Host == "h1" {
				failures = append(failures, now)
				objects = append(objects, failed(now.Add(10*time.Second), "h1", int64(n+1), probing(pool)))
			}
		}
		for i := failuresToShun; i < len(failures); i++ {
			if failures[i].Sub(failures[i-failuresToShun]) < shunWindow-time.Minute {
				t.Fatalf("%d pools: failures at %v", pools, failures)
			}
		}
	})
}

// Who asks about a pool that is ready nowhere hears that hosts are the last choice for its kind; who asks about the host does not.
func TestOnlyItsKindIsExplained(t *testing.T) {
	objects := []store.Object{image(), newHost("h1"), newHost("h2"), newDesktop("p-1", probing("p"), born(morning)), newDesktop("w-1", probing("w"), born(morning))}
	for n := range 3 {
		objects = append(objects, failed(morning.Add(-time.Minute), "h1", int64(n), probing("p")))
	}
	view := viewOf(t, objects...)
	told := func(pool string) string {
		return strings.Join(LastChoices(view, morning, &v1.Pool{Meta: &v1.Meta{Name: pool}, Spec: &v1.PoolSpec{Zone: "lgwan"}}), "\n")
	}
	const why = "host h1 is the last choice for desktops of the same version, shape and readiness until "
	if got := told("p"); !strings.HasPrefix(got, why) {
		t.Errorf("its pool: %q", got)
	}
	if got := told("w") + ExplainHost(view, morning, "h1"); strings.Contains(got, "last choice") || len(newSpells(view, morning)) != 0 {
		t.Errorf("others: %q, %v", got, newSpells(view, morning))
	}
}
