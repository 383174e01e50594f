package pool

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// TestDecideProperties lets everything happen to a pool in any order, checks every round against the rules, and then
// lets the world be well: the pool must come to what is wanted in a bounded number of rounds.
func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(uint32(rapid.IntRange(0, 12).Draw(t, "seats")))
		w.pool.Spec.MaxUnavailable = uint32(rapid.IntRange(0, 4).Draw(t, "max_unavailable"))
		if rapid.Bool().Draw(t, "data") {
			withData(w)
		}
		if rapid.Bool().Draw(t, "release") {
			w.releases(t)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				w.happen(t)
				continue
			}
			w.checkedRound(t)
			if w.pool.Release != nil && rapid.IntRange(0, 9).Draw(t, "release?") == 0 {
				w.releaseAnything(t)
			}
		}
		w.mend()
		if w.settle(900) < 0 {
			t.Fatalf("never settles: %v", w.pool.Status)
		}
		w.checkEnd(t)
	})
}

// checkedRound is round with the rules checked.
func (w *world) checkedRound(t *rapid.T) {
	snapshot := w.snapshot()
	before := proto.CloneOf(w.pool)
	actions := Decide(w.now, snapshot)
	if again := Decide(w.now, snapshot); !slices.Equal(allNames(actions), allNames(again)) || !proto.Equal(actions.Status, again.Status) {
		t.Fatal("Decide is not deterministic")
	}
	if !proto.Equal(before, w.pool) {
		t.Fatal("Decide changed its input")
	}
	checkActions(t, w, actions)
	w.commit(actions)
}

func allNames(a Actions) []string {
	return slices.Concat(changedNames(a.Create), []string{"|"}, changedNames(a.Amend), []string{"|"}, changedNames(a.Retire),
		[]string{"|"}, changedNames(a.Renew), []string{"|"}, changedNames(a.Remove), []string{"|"}, changedNames(a.Wake), []string{"|"}, changedNames(a.Cool))
}

func checkActions(t *rapid.T, w *world, a Actions) {
	spec := w.pool.Spec
	total := len(w.desktops) + len(a.Create)
	if len(a.Create) > 0 && total > int(spec.Desktops) {
		t.Fatalf("%d desktops of %d wanted", total, spec.Desktops)
	}
	if changed(a) > maxChanges {
		t.Fatalf("%d changes in a round", changed(a))
	}
	seen := map[string]bool{}
	for _, change := range slices.Concat(a.Create, a.Amend, a.Retire, a.Renew, a.Remove, a.Wake, a.Cool) {
		name := change.Desktop.Meta.Name
		if seen[name] {
			t.Fatalf("%s is in two lists", name)
		}
		seen[name] = true
	}
	held := func(d *v1.Desktop) bool { // by the version that people wait for first
		return a.Status.HeldUntil != nil && d.Incarnation.Version != w.pool.Release.GetNext()
	}
	for _, change := range a.Create {
		if w.desktops[change.Desktop.Meta.Name] != nil || held(change.Desktop) || !w.zone {
			t.Fatalf("created %s", change.Desktop.Meta.Name)
		}
		checkLife(t, w, nil, change.Desktop)
	}
	for _, change := range a.Renew {
		before := w.desktops[change.Desktop.Meta.Name]
		if w.hosts[before.Incarnation.Host] && store.State(before) != v1.DesktopState_DESKTOP_STATE_DELETED {
			t.Fatalf("%s: a new life before the old one ended: %v", before.Meta.Name, before)
		}
		if held(change.Desktop) && change.Desktop.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_DELETED {
			t.Fatalf("%s is renewed during a hold", before.Meta.Name)
		}
		checkLife(t, w, before, change.Desktop)
	}
	for _, change := range a.Remove {
		before := w.desktops[change.Desktop.Meta.Name]
		if before.Claim != nil {
			t.Fatalf("removed %s, which is claimed", before.Meta.Name)
		}
		if h := before.Incarnation.Host; h != "" && w.hosts[h] && store.State(before) != v1.DesktopState_DESKTOP_STATE_DELETED {
			t.Fatalf("removed %s, which lives", before.Meta.Name)
		}
		if before.Meta.Deletion == nil && w.pool.Meta.Deletion == nil && holdsData(before) {
			t.Fatalf("removed %s, which holds data, without being asked", before.Meta.Name)
		}
	}
	checkRetirements(t, w, a)
	checkRelease(t, w, a)
}

func checkLife(t *rapid.T, w *world, before, after *v1.Desktop) {
	inc := after.Incarnation
	if inc.Generation <= before.GetIncarnation().GetGeneration() {
		t.Fatalf("%s: generation %d after %d", after.Meta.Name, inc.Generation, before.GetIncarnation().GetGeneration())
	}
	if inc.Host != "" || inc.UnplacedReason != "" {
		t.Fatalf("%s: a new life is not pool's to place", after.Meta.Name)
	}
	if before != nil && (before.Claim != nil && alive(w, before) || !proto.Equal(before.Spec, after.Spec)) {
		t.Fatalf("%s: taken from its user, or changed: %v", after.Meta.Name, after.Spec)
	}
	if after.GetClaim().GetUser() != before.GetClaim().GetUser() || inc.UsedBy != after.GetClaim().GetUser() {
		t.Fatalf("%s: the claim did not come along: %v", after.Meta.Name, after)
	}
	if inc.Desired == v1.DesiredState_DESIRED_STATE_DELETED {
		return
	}
	for _, version := range w.image.Status.Versions {
		if version.Number == inc.Version && version.Digest == inc.Digest && version.State == v1.VersionState_VERSION_STATE_READY {
			return
		}
	}
	t.Fatalf("%s runs version %d, which is not published", after.Meta.Name, inc.Version)
}

// happen lets one thing happen that is not the pool loop's doing.
func (w *world) happen(t *rapid.T) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
	switch rapid.IntRange(0, 6).Draw(t, "event") {
	case 3:
		if w.pool.Release != nil {
			w.releaseAnything(t)
		}
	case 0:
		w.pool = proto.CloneOf(w.pool)
		w.pool.Spec.Desktops = uint32(rapid.IntRange(0, 12).Draw(t, "seats"))
	case 1:
		w.zone = rapid.Bool().Draw(t, "zone")
		state := rapid.SampledFrom([]v1.VersionState{v1.VersionState_VERSION_STATE_READY, v1.VersionState_VERSION_STATE_WITHDRAWN})
		w.image = proto.CloneOf(w.image)
		w.image.Status.Versions[0].State = state.Draw(t, "version")
	case 2:
		host := rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "host")
		w.hosts = map[string]bool{"h1": true, "h2": true}
		w.hosts[host] = rapid.Bool().Draw(t, "exists")
		if !w.hosts[host] {
			delete(w.hosts, host)
		}
	default:
		for _, name := range w.names() {
			w.happenTo(t, name)
		}
	}
}

func (w *world) happenTo(t *rapid.T, name string) {
	d := w.desktops[name]
	running := d.Incarnation.Host != "" && w.hosts[d.Incarnation.Host] && store.State(d) != v1.DesktopState_DESKTOP_STATE_DELETED
	switch rapid.IntRange(0, 12).Draw(t, name) {
	case 0:
		if running {
			w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "bad luck")
		}
	case 1:
		if running {
			w.report(name, v1.DesktopState_DESKTOP_STATE_LOST, "silence")
		}
	case 2, 3:
		wanted := d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_READY && d.Incarnation.UsedBy == "" && d.Meta.Deletion == nil
		if running && wanted && d.Claim == nil && store.State(d) == v1.DesktopState_DESKTOP_STATE_READY {
			w.claim(name, fmt.Sprintf("user %d", w.revision))
		}
	case 4:
		if d.Claim != nil {
			w.release(name)
		}
	case 5:
		if d.Meta.Deletion == nil && rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			w.change(name, func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{Data: v1.DataDisposal_DATA_DISPOSAL_DELETE} })
		}
	default:
		w.advance(name, rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "place"))
	}
}

// mend makes the world well, but for what people hold.
func (w *world) mend() {
	w.zone = true
	w.image = proto.CloneOf(w.image)
	w.image.Status.Versions[0].State = v1.VersionState_VERSION_STATE_READY
	w.hosts = map[string]bool{"h1": true, "h2": true}
	if w.pool.Release != nil {
		published(w)
		w.let(&v1.Release{Version: 3, Next: 2, Admitted: 12, Moving: true})
		w.pool.Spec.MinReady = 0
	}
}

func (w *world) checkEnd(t *rapid.T) {
	extra := 0
	for _, name := range w.names() {
		d := w.desktops[name]
		if d.Claim != nil {
			extra++
			continue
		}
		if holdsData(d) {
			extra++
		}
		if store.State(d) != v1.DesktopState_DESKTOP_STATE_READY || d.Incarnation.UsedBy != "" || d.Meta.Deletion != nil {
			t.Fatalf("%s in the end: %v", name, d)
		}
		if w.pool.Release != nil && d.Incarnation.Version != 2 {
			t.Fatalf("%s in the end runs version %d", name, d.Incarnation.Version)
		}
	}
	wanted := int(w.pool.Spec.Desktops)
	if len(w.desktops) < wanted || len(w.desktops) > wanted+extra {
		t.Fatalf("%d desktops in the end, %d wanted, %d may be extra", len(w.desktops), wanted, extra)
	}
}
