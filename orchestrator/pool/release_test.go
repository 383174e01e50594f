package pool

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// published gives a world versions 1 to 4, all to be run, and lets the pool run version 1.
func published(w *world) {
	for number := uint32(2); number <= 4; number++ {
		w.publish(number)
	}
	w.pool.Release = &v1.Release{Version: 1}
}

func (w *world) publish(number uint32) {
	w.image = proto.CloneOf(w.image)
	version := &v1.ImageVersion{
		Number: number, Digest: strings.Repeat(string(rune('0'+number)), 64), State: v1.VersionState_VERSION_STATE_READY,
		Signatures: []*v1.Signature{{Key: make([]byte, 32), Signature: make([]byte, 64)}},
	}
	if int(number) <= len(w.image.Status.Versions) {
		w.image.Status.Versions[number-1] = version
	} else {
		w.image.Status.Versions = append(w.image.Status.Versions, version)
	}
}

// let sets the release, as the rollout loop does.
func (w *world) let(release *v1.Release) {
	w.revision++
	w.pool = proto.CloneOf(w.pool)
	w.pool.Release = release
}

// versions tells which desktops run a version.
func (w *world) running(version uint32) (names []string) {
	for _, name := range w.names() {
		if w.desktops[name].Incarnation.Version == version {
			names = append(names, name)
		}
	}
	return names
}

func rolling(admitted uint32) *v1.Release {
	return &v1.Release{Version: 1, Next: 2, Admitted: admitted, Moving: true, Rollout: "sales-1"}
}

func TestNewLivesByAdmission(t *testing.T) {
	w := newWorld(5)
	published(w)
	w.let(&v1.Release{Version: 1, Next: 2, Admitted: 2})
	w.round()
	if got := w.running(2); len(got) != 2 || len(w.running(1)) != 3 {
		t.Fatalf("of 5 new desktops, 2 admitted to version 2, %v got it", got)
	}
	inc := w.desktops[w.running(2)[0]].Incarnation
	if len(inc.Signatures) != 1 || inc.Digest != digestTwo {
		t.Errorf("the new life has digest %s and signatures %v", inc.Digest, inc.Signatures)
	}
	w.settle(20)
	w.report(w.running(2)[0], v1.DesktopState_DESKTOP_STATE_FAILED, "no")
	w.settle(20)
	if got := len(w.running(2)); got != 2 {
		t.Errorf("%d run version 2 after one of them was made anew, want 2: its place is its own", got)
	}
	w.let(&v1.Release{Version: 1, Next: 2, Admitted: 1}) // halted: only the healthy one is admitted
	w.report(w.running(2)[0], v1.DesktopState_DESKTOP_STATE_FAILED, "no")
	w.settle(20)
	if got := len(w.running(2)); got != 1 {
		t.Errorf("%d run version 2 after the halt, want 1: what failed goes back", got)
	}
}

func TestNothingMovesUnlessItMay(t *testing.T) {
	for name, release := range map[string]*v1.Release{
		"not moving":        {Version: 1, Next: 2, Admitted: 4},
		"none admitted":     {Version: 1, Next: 2, Moving: true},
		"is what it runs":   {Version: 1, Moving: true},
		"next is withdrawn": {Version: 1, Next: 3, Admitted: 4, Moving: true},
		"no such version":   {Version: 1, Next: 9, Admitted: 4, Moving: true},
	} {
		w := settled(t, 4, published)
		w.image.Status.Versions[2].State = v1.VersionState_VERSION_STATE_WITHDRAWN
		w.let(release)
		if a := w.round(); len(a.Retire)+len(a.Renew) != 0 {
			t.Errorf("%s: retired %v, renewed %v", name, changedNames(a.Retire), changedNames(a.Renew))
		}
	}
}

func TestWaveMoves(t *testing.T) {
	w := settled(t, 8, published, func(w *world) { w.pool.Spec.MaxUnavailable = 2 })
	before := map[string]*v1.Desktop{}
	for _, name := range w.names() {
		before[name] = w.desktops[name]
	}
	w.let(rolling(1))
	a := w.round()
	if len(a.Retire) != 1 || a.Retire[0].Reason != ReasonMoved ||
		!strings.Contains(a.Retire[0].Message, "generation 100 on host h1 gives way to version 2 (rollout sales-1)") {
		t.Fatalf("the canary: %v", a.Retire)
	}
	if a := w.round(); len(a.Retire) != 0 {
		t.Fatalf("one is admitted, and %v follows", changedNames(a.Retire))
	}
	w.settle(20)
	if got := w.running(2); len(got) != 1 {
		t.Fatalf("%v run version 2", got)
	}
	w.let(rolling(8))
	if a := w.round(); len(a.Retire) != 2 {
		t.Errorf("took out %d at once, want max_unavailable", len(a.Retire))
	}
	w.settle(60)
	if got := w.running(2); len(got) != 8 || len(w.ready()) != 8 {
		t.Fatalf("%v run version 2 in the end, %v are ready", got, w.ready())
	}
	for name, was := range before {
		is := w.desktops[name]
		if !proto.Equal(was.Spec, is.Spec) || was.Meta.Uid != is.Meta.Uid || is.Incarnation.Generation <= was.Incarnation.Generation {
			t.Errorf("%s: not the same seat with a new life:\n%v\n%v", name, was, is)
		}
		if want := "which ran version 1 of image office"; !strings.Contains(is.Incarnation.Reason, want) {
			t.Errorf("%s: reason %q lacks %q", name, is.Incarnation.Reason, want)
		}
	}
	w.let(&v1.Release{Version: 1, Previous: 2, Moving: true, Rollback: true})
	if w.settle(80) < 0 || len(w.running(1)) != 8 {
		t.Errorf("after the rollback %v run version 1", w.running(1))
	}
	if diff := w.pool.Status.Versions; len(diff) != 1 || diff[0].Version != 1 || diff[0].Desktops != 8 || diff[0].Ready != 8 {
		t.Errorf("status.versions %v", diff)
	}
}

func TestMinReady(t *testing.T) {
	w := settled(t, 6, published, func(w *world) { w.pool.Spec.MaxUnavailable, w.pool.Spec.MinReady = 6, 4 })
	w.claim("sales-1", "taro")
	w.let(rolling(6))
	if got := changedNames(w.round().Retire); len(got) != 1 {
		t.Errorf("took %v of 5 that are free, with min_ready 4", got)
	}
	if a := w.round(); len(a.Retire) != 0 {
		t.Errorf("and then took %v", changedNames(a.Retire))
	}
	if w.settle(60) < 0 || !slices.Equal(w.running(1), []string{"sales-1"}) {
		t.Errorf("in the end %v run version 1, want the claimed one alone", w.running(1))
	}
	w.release("sales-1")
	if w.settle(20) < 0 || len(w.running(2)) != 6 {
		t.Errorf("%v run version 2 after the last user left", w.running(2))
	}
}

func TestOrderOfMoves(t *testing.T) {
	w := settled(t, 6, published, func(w *world) { w.pool.Spec.MaxUnavailable = 6 })
	w.claim("sales-1", "taro")
	w.change("sales-5", func(d *v1.Desktop) { d.Incarnation.Version, d.Incarnation.Digest = 4, strings.Repeat("4", 64) })
	w.report("sales-3", v1.DesktopState_DESKTOP_STATE_STARTING, "")
	w.change("sales-2", func(d *v1.Desktop) {
		d.Incarnation.Host, d.Incarnation.UnplacedReason, d.Status = "", "no host fits", nil
	})
	d := newDecision(w.now, w.snapshot())
	d.Pool.Release = rolling(6)
	d = newDecision(w.now, d.Snapshot)
	got := changedNames(asChanges(d.candidates(d.next, nil)))
	if want := []string{"sales-3", "sales-5", "sales-4", "sales-6", "sales-1", "sales-2"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v: idle, then ready with strays first, then held, last what no host takes", got, want)
	}
}

func asChanges(desktops []*v1.Desktop) (changes []Change) {
	for _, d := range desktops {
		changes = append(changes, Change{Desktop: d})
	}
	return changes
}

// A version that never gets ready is held back by itself: what fails of the good one is made anew at once.
func TestHoldIsPerVersion(t *testing.T) {
	w := settled(t, 8, published, func(w *world) { w.pool.Spec.MaxUnavailable = 8 })
	w.let(rolling(4))
	fail := func() {
		for _, name := range w.running(2) {
			if store.State(w.desktops[name]) == v1.DesktopState_DESKTOP_STATE_STARTING {
				w.report(name, v1.DesktopState_DESKTOP_STATE_FAILED, "kernel panic")
			}
		}
	}
	var held []HeldBack
	for range 30 {
		held = append(held, w.round().HeldBack...)
		for _, name := range w.names() {
			w.advance(name, "h1")
		}
		fail()
		w.now = w.now.Add(time.Second)
	}
	if len(held) != 1 || !strings.Contains(held[0].Text, "with version 2") {
		t.Fatalf("holds: %v", held)
	}
	if w.pool.Status.HeldUntil != nil || !strings.Contains(w.pool.Status.Message, "version 2 is not tried before") {
		t.Errorf("status %v", w.pool.Status)
	}
	if len(w.running(1)) != 8 || len(w.ready()) != 8 {
		t.Errorf("while version 2 is held back, %v run version 1 and %v are ready: %v", w.running(1), w.ready(), w.pool.Status)
	}
	w.now = w.now.Add(time.Minute)
	if got := changedNames(w.round().Retire); len(got) != 1 {
		t.Errorf("after the hold %v move, want one trial", got)
	}
}

func TestWithdrawnIsNotStarted(t *testing.T) {
	w := settled(t, 4, published)
	w.pool.Spec.Desktops = 7
	w.round()
	w.place("sales-5", "h1")
	w.place("sales-6", "h1")
	w.report("sales-6", v1.DesktopState_DESKTOP_STATE_STARTING, "")
	w.image.Status.Versions[0].State = v1.VersionState_VERSION_STATE_WITHDRAWN
	if got := changedNames(w.round().Retire); !slices.Equal(got, []string{"sales-5", "sales-7"}) {
		t.Fatalf("ended %v, want the two that had not begun to run", got)
	}
	w.report("sales-5", v1.DesktopState_DESKTOP_STATE_DELETED, "")
	if a := w.round(); len(a.Renew) != 0 {
		t.Fatalf("%v begin, though nothing may", changedNames(a.Renew))
	}
	w.let(&v1.Release{Version: 2, Previous: 1})
	if w.settle(20) < 0 || !slices.Equal(w.running(2), []string{"sales-5", "sales-7"}) || len(w.ready()) != 7 {
		t.Errorf("%v run version 2; %v", w.running(2), w.pool.Status)
	}
}

// A life that was renewed and not placed yet counts: the next one must not be taken before it is back.
func TestRenewedCountsBeforeItIsPlaced(t *testing.T) {
	w := settled(t, 8, published, func(w *world) { w.pool.Spec.MaxUnavailable = 1 })
	w.let(rolling(8))
	name := changedNames(w.round().Retire)[0]
	w.report(name, v1.DesktopState_DESKTOP_STATE_DELETED, "")
	if a := w.round(); len(a.Renew) != 1 || len(a.Retire) != 0 {
		t.Fatalf("renewed %v, retired %v", changedNames(a.Renew), changedNames(a.Retire))
	}
	if a := w.round(); len(a.Retire) != 0 {
		t.Errorf("took %v before %s was back", changedNames(a.Retire), name)
	}
}

// What ends for another reason takes its place in the next version too: it is counted before others move.
func TestEndingOnesCountAsAdmitted(t *testing.T) {
	w := settled(t, 8, published, func(w *world) { w.pool.Spec.MaxUnavailable = 8 })
	w.report("sales-3", v1.DesktopState_DESKTOP_STATE_FAILED, "died")
	w.let(rolling(1))
	if got := changedNames(w.round().Retire); !slices.Equal(got, []string{"sales-3"}) {
		t.Errorf("retired %v, want the failed one alone: it is the canary", got)
	}
}
