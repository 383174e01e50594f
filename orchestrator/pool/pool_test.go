package pool

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// settled returns a world whose seats are all ready.
func settled(t testing.TB, seats uint32, edit ...func(*world)) *world {
	t.Helper()
	w := newWorld(seats)
	for _, e := range edit {
		e(w)
	}
	if w.settle(40) < 0 || len(w.ready()) != int(seats) {
		t.Fatalf("a new pool does not settle: %v", w.pool.Status)
	}
	return w
}

func TestNewPool(t *testing.T) {
	w := newWorld(3)
	actions := w.round()
	if got, want := changedNames(actions.Create), []string{"sales-1", "sales-2", "sales-3"}; !slices.Equal(got, want) {
		t.Fatalf("created %v, want %v", got, want)
	}
	want := &v1.Desktop{
		Meta: &v1.Meta{Name: "sales-1", Uid: "00000000-0000-4000-8000-000000000001"},
		Spec: &v1.DesktopSpec{Pool: "sales", Zone: "lgwan", Mac: "52:54:00:00:00:01", VmUuid: "00000000-0000-4000-9000-000000000001"},
		Incarnation: &v1.Incarnation{
			Generation: 100, Image: "office", Version: 1, Digest: digestOne,
			Shape:     &v1.Shape{Vcpus: 1, MemoryMib: 1024, OverlayReserveMib: 1024},
			Readiness: &v1.Readiness{ProbeTimeout: durationpb.New(10 * time.Second), Deadline: durationpb.New(300 * time.Second)},
			Desired:   v1.DesiredState_DESIRED_STATE_READY, Created: timestamppb.New(w.now), Reason: "new",
		},
	}
	if diff := cmp.Diff(want, actions.Create[0].Desktop, protocmp.Transform()); diff != "" {
		t.Errorf("first desktop (-want +got):\n%s", diff)
	}
	if w.settle(10) < 0 {
		t.Fatal("does not settle")
	}
	if diff := cmp.Diff(&v1.PoolStatus{
		Desktops: 3, Ready: 3, Free: 3, Versions: []*v1.VersionCount{{Version: 1, Desktops: 3, Ready: 3}},
		Wanted: 3, WantedReason: "no schedule: all desktops, always",
	}, w.pool.Status, protocmp.Transform()); diff != "" {
		t.Errorf("status of a warm pool (-want +got):\n%s", diff)
	}
}

func TestLargePoolGrowsInBatches(t *testing.T) {
	w := newWorld(150)
	var sizes []int
	for range 4 {
		sizes = append(sizes, len(w.round().Create))
	}
	if want := []int{64, 64, 22, 0}; !slices.Equal(sizes, want) {
		t.Errorf("created %v in rounds, want %v", sizes, want)
	}
}

func TestNothingToRun(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(w *world)
		want string
	}{
		{"no zone", func(w *world) { w.zone = false }, "zone lgwan does not exist"},
		{"no image", func(w *world) { w.image = nil }, "image office does not exist"},
		{"nothing published", func(w *world) { w.image.Status = nil }, "image office has no published version"},
		{"no such version", func(w *world) { w.pool.Spec.Version = 7 }, "image office has no version 7"},
		{"draft", func(w *world) { w.pool.Spec.Version = 2 }, "version 2 of image office is draft"},
		{"withdrawn", func(w *world) { w.image.Status.Versions[0].State = v1.VersionState_VERSION_STATE_WITHDRAWN },
			"version 1 of image office is withdrawn"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(2)
			test.edit(w)
			actions := w.round()
			if len(actions.Create) != 0 {
				t.Errorf("created %v", changedNames(actions.Create))
			}
			if got := actions.Status.Message; !strings.Contains(got, test.want) || !strings.Contains(got, "0 of 2 are ready") {
				t.Errorf("status says %q, want %q in it", got, test.want)
			}
		})
		t.Run(test.name+" later", func(t *testing.T) {
			w := settled(t, 2)
			test.edit(w)
			w.report("sales-1", v1.DesktopState_DESKTOP_STATE_FAILED, "no")
			w.claim("sales-2", "a")
			w.release("sales-2")
			if actions := w.round(); len(actions.Retire) != 0 {
				t.Errorf("took down %v, though nothing can follow", changedNames(actions.Retire))
			}
		})
	}
}

func TestPinnedVersion(t *testing.T) {
	w := newWorld(1)
	w.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_READY
	w.pool.Spec.Version = 2
	if inc := w.round().Create[0].Desktop.Incarnation; inc.Version != 2 || inc.Digest != digestTwo {
		t.Errorf("runs version %d (%s), want the pinned 2", inc.Version, inc.Digest)
	}
}

func TestNewVersionIsForNewLivesOnly(t *testing.T) {
	w := settled(t, 4)
	w.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_READY
	w.image.Status.Current = 2
	if actions := w.round(); len(actions.Retire) != 0 {
		t.Fatalf("retired %v for a new version", changedNames(actions.Retire))
	}
	w.report("sales-2", v1.DesktopState_DESKTOP_STATE_FAILED, "died")
	if w.settle(20) < 0 {
		t.Fatal("does not settle")
	}
	if got := w.desktops["sales-2"].Incarnation.Version; got != 2 {
		t.Errorf("the new life runs version %d", got)
	}
	if got := w.desktops["sales-1"].Incarnation.Version; got != 1 {
		t.Errorf("the old life runs version %d", got)
	}
}

func TestFailedIsReplaced(t *testing.T) {
	w := settled(t, 8)
	before := w.desktops["sales-3"]
	w.report("sales-3", v1.DesktopState_DESKTOP_STATE_FAILED, "the guest did not answer in 300 s")
	actions := w.round()
	if got := changedNames(actions.Retire); !slices.Equal(got, []string{"sales-3"}) {
		t.Fatalf("retired %v", got)
	}
	if want := "8 desktops"; actions.Status.Failed != 1 || !strings.Contains(actions.Status.Message, "sales-3: the guest did not answer") {
		t.Errorf("status %v, want %s and the reason", actions.Status, want)
	}
	if got := w.round(); len(got.Renew) != 0 {
		t.Fatal("a new life began before the old one ended")
	}
	w.report("sales-3", v1.DesktopState_DESKTOP_STATE_DELETED, "")
	if got := changedNames(w.round().Renew); !slices.Equal(got, []string{"sales-3"}) {
		t.Fatalf("renewed %v", got)
	}
	after := w.desktops["sales-3"]
	if after.Incarnation.Generation <= before.Incarnation.Generation || after.Incarnation.Host != "" {
		t.Errorf("new life: %v", after.Incarnation)
	}
	if diff := cmp.Diff(before.Spec, after.Spec, protocmp.Transform()); diff != "" {
		t.Errorf("the seat changed:\n%s", diff)
	}
	if store.State(after) != v1.DesktopState_DESKTOP_STATE_PENDING {
		t.Errorf("the old life's status is taken for the new one's: %v", store.State(after))
	}
	if got := after.Incarnation.Reason; !strings.HasPrefix(got, "replaces generation") || !strings.Contains(got, "failed") {
		t.Errorf("reason %q", got)
	}
}

func TestRestraint(t *testing.T) {
	for _, test := range []struct{ seats, limit, want uint32 }{{8, 0, 2}, {3, 0, 1}, {8, 5, 5}, {8, 100, 8}} {
		t.Run(fmt.Sprintf("%d seats, limit %d", test.seats, test.limit), func(t *testing.T) {
			w := settled(t, test.seats, func(w *world) { w.pool.Spec.MaxUnavailable = test.limit })
			for _, name := range w.names() {
				w.claim(name, "u")
				w.release(name)
			}
			if got := len(w.round().Retire); got != int(test.want) {
				t.Fatalf("took out %d at once, want %d", got, test.want)
			}
			if got := len(w.round().Retire); got != 0 {
				t.Errorf("took out %d more", got)
			}
			for _, name := range w.names()[:test.want] {
				w.report(name, v1.DesktopState_DESKTOP_STATE_DELETED, "")
			}
			if a := w.round(); len(a.Renew) != int(test.want) || len(a.Retire) != 0 {
				t.Errorf("renewed %d and took out %d more before those were back", len(a.Renew), len(a.Retire))
			}
			if w.settle(100) < 0 || len(w.ready()) != int(test.seats) {
				t.Fatalf("does not settle: %v", w.pool.Status)
			}
			for _, name := range w.names() {
				if used := w.desktops[name].Incarnation.UsedBy; used != "" {
					t.Errorf("%s was not refreshed", name)
				}
			}
		})
	}
}

// A life that waits for room must not keep the failed ones that take it from being taken down.
func TestUnplacedDoNotBlockMending(t *testing.T) {
	w := settled(t, 4, func(w *world) {
		w.pool.Spec.MaxUnavailable = 1
	})
	w.change("sales-1", func(d *v1.Desktop) { d.Incarnation.Host = "h2" })
	delete(w.hosts, "h2")
	w.round() // renews sales-1, and no host takes it
	w.change("sales-1", func(d *v1.Desktop) { d.Incarnation.UnplacedReason = "no host fits" })
	w.report("sales-2", v1.DesktopState_DESKTOP_STATE_FAILED, "no")
	if got := changedNames(w.round().Retire); !slices.Equal(got, []string{"sales-2"}) {
		t.Errorf("retired %v", got)
	}
}

func TestClaimedIsNeverTaken(t *testing.T) {
	w := settled(t, 4)
	w.claim("sales-2", "taro")
	w.report("sales-2", v1.DesktopState_DESKTOP_STATE_FAILED, "the VM died")
	w.claim("sales-3", "hanako")
	w.pool.Spec.Desktops = 0
	for range 5 {
		w.round()
		for _, name := range w.names() {
			w.advance(name, "h1")
		}
	}
	if got := w.names(); !slices.Equal(got, []string{"sales-2", "sales-3"}) {
		t.Fatalf("left: %v", got)
	}
	for _, want := range []string{"sales-2: the VM died (release the claim", "2 desktops more than wanted: 2 are claimed"} {
		if !strings.Contains(w.pool.Status.Message, want) {
			t.Errorf("status says %q, want %q in it", w.pool.Status.Message, want)
		}
	}
	w.change("sales-2", func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{By: "admin"} })
	if actions := w.round(); len(actions.Retire) != 0 || !strings.Contains(actions.Status.Message, "before their claim is released") {
		t.Errorf("retired %v, status %q", changedNames(actions.Retire), actions.Status.Message)
	}
	w.release("sales-2")
	w.release("sales-3")
	if w.settle(20) < 0 || len(w.desktops) != 0 {
		t.Errorf("left after the release: %v", w.names())
	}
}

func TestSurplusOrder(t *testing.T) {
	w := settled(t, 6)
	w.claim("sales-6", "taro")
	w.report("sales-2", v1.DesktopState_DESKTOP_STATE_FAILED, "no")
	w.pool.Spec.Desktops = 3
	actions := w.round()
	got := slices.Sorted(slices.Values(changedNames(actions.Retire)))
	if want := []string{"sales-2", "sales-4", "sales-5"}; !slices.Equal(got, want) {
		t.Errorf("retired %v, want %v: first what is not ready, then the newest, none that is claimed", got, want)
	}
	if w.settle(20) < 0 || !slices.Equal(w.names(), []string{"sales-1", "sales-3", "sales-6"}) {
		t.Errorf("left %v", w.names())
	}
	w.pool.Spec.Desktops = 4
	if got := changedNames(w.round().Create); !slices.Equal(got, []string{"sales-2"}) {
		t.Errorf("created %v, want the lowest free number", got)
	}
}

func TestDeletePool(t *testing.T) {
	w := settled(t, 3)
	w.pool.Meta.Deletion = &v1.Deletion{By: "admin"}
	if a := w.round(); a.RemovePool || len(a.Retire) != 3 || !strings.Contains(a.Status.Message, "is being deleted, 3 desktops left") {
		t.Fatalf("first round: %+v", a)
	}
	if w.settle(20) < 0 || len(w.desktops) != 0 {
		t.Fatalf("left %v", w.names())
	}
	if a := w.round(); !a.RemovePool || len(a.Create) != 0 {
		t.Errorf("last round: %+v", a)
	}
}

func TestDeleteDesktop(t *testing.T) {
	w := settled(t, 3)
	uid := w.desktops["sales-2"].Meta.Uid
	w.change("sales-2", func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{By: "admin"} })
	if a := w.round(); len(a.Create) != 0 || !slices.Equal(changedNames(a.Retire), []string{"sales-2"}) {
		t.Fatalf("retired %v, created %v", changedNames(a.Retire), changedNames(a.Create))
	}
	if w.settle(20) < 0 || len(w.ready()) != 3 {
		t.Fatalf("does not settle: %v", w.pool.Status)
	}
	if again := w.desktops["sales-2"]; again == nil || again.Meta.Uid == uid {
		t.Errorf("the seat was not made anew: %v", again)
	}
}

func TestLostIsNotFree(t *testing.T) {
	w := settled(t, 2)
	w.report("sales-1", v1.DesktopState_DESKTOP_STATE_LOST, "host h1 is not heard from")
	a := w.round()
	if n := len(a.Create) + len(a.Retire) + len(a.Renew) + len(a.Remove); n != 0 {
		t.Fatalf("acted on a lost desktop: %+v", a)
	}
	if a.Status.Failed != 1 || !strings.Contains(a.Status.Message, "it may still run on h1") {
		t.Errorf("status %v", a.Status)
	}
	w.hosts = map[string]bool{"h2": true} // somebody attested that h1 is off
	if got := changedNames(w.round().Renew); !slices.Equal(got, []string{"sales-1", "sales-2"}) {
		t.Errorf("renewed %v", got)
	}
	if got := w.desktops["sales-1"].Incarnation.Reason; !strings.Contains(got, "its host h1 was removed") {
		t.Errorf("reason %q", got)
	}
}

func TestClaimOutlivesHost(t *testing.T) {
	w := settled(t, 2)
	w.claim("sales-1", "taro")
	w.hosts = map[string]bool{"h2": true}
	w.round()
	d := w.desktops["sales-1"]
	if d.Claim.GetUser() != "taro" || d.Incarnation.UsedBy != "taro" || d.Incarnation.Host != "" {
		t.Errorf("the claim did not come along: %v", d)
	}
}

func TestReleasedBeforeItHadAHost(t *testing.T) {
	w := settled(t, 2)
	w.claim("sales-1", "taro")
	w.hosts = map[string]bool{"h2": true}
	w.round()
	w.release("sales-1")
	w.place("sales-2", "h2")
	w.report("sales-2", v1.DesktopState_DESKTOP_STATE_READY, "")
	if got := changedNames(w.round().Renew); !slices.Equal(got, []string{"sales-1"}) {
		t.Fatalf("renewed %v: no host can say that a life without one has ended", got)
	}
	w.hosts["h1"] = true
	if w.settle(20) < 0 || len(w.ready()) != 2 {
		t.Errorf("does not settle: %v", w.pool.Status)
	}
}
