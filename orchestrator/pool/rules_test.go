package pool

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// alive: something of the desktop's present life may be left on a host.
func alive(w *world, d *v1.Desktop) bool {
	return w.hosts[d.Incarnation.Host] && store.State(d) != v1.DesktopState_DESKTOP_STATE_DELETED
}

// checkRetirements: no life ends without a cause, and no more at once than may.
func checkRetirements(t *rapid.T, w *world, a Actions) {
	excess := len(w.desktops) - int(w.pool.Spec.Desktops)
	costly, free := 0, 0
	for _, change := range a.Retire {
		before := w.desktops[change.Desktop.Meta.Name]
		asked := before.Meta.Deletion != nil || w.pool.Meta.Deletion != nil
		broken := store.Broken(store.State(before)) || before.Incarnation.UsedBy != ""
		switch {
		case change.Desktop.Incarnation.DataDisposal != v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED && !asked:
			t.Fatalf("%s: data disposed of without being asked", before.Meta.Name)
		case w.withdrawn(before):
			continue // it was never started
		case change.Reason == ReasonMadeElsewhere:
			if !isCold(w.now, before) || before.Claim != nil {
				t.Fatalf("made anew elsewhere: %v", before)
			}
			continue
		case change.Reason == ReasonMoved && isCold(w.now, before) && before.Claim == nil && w.movesBack(before):
			continue
		case change.Reason == ReasonMoved:
			checkMove(t, w, before, change.Desktop)
			if rankOf(before) == rankFree {
				free++
			}
		case before.Claim != nil && !servedNobody(before):
			t.Fatalf("retired %s, which is claimed", before.Meta.Name)
		case asked:
			continue
		case excess > 0 && !holdsData(before):
			excess--
			continue
		case !broken:
			t.Fatalf("retired %s for nothing: %v", before.Meta.Name, before)
		}
		if !newDecision(w.now, w.snapshot()).onTheWay(before) && (!isCold(w.now, before) || before.Claim != nil) {
			costly++
		}
	}
	limit := newDecision(w.now, w.snapshot()).limit()
	if out := w.missed(w.outOfService()); costly > 0 && out+costly > limit {
		t.Fatalf("%d are out of service and %d are taken out, limit %d", out, costly, limit)
	}
	if left := w.free() - free; free > 0 && left < int(w.pool.Spec.MinReady) {
		t.Fatalf("%d are moved, and %d ready ones are left, min_ready %d", free, left, w.pool.Spec.MinReady)
	}
}

// missed is how many of those that are out of service are wanted now and not there.
func (w *world) missed(out int) int {
	if w.pool.Spec.Schedule == nil {
		return out
	}
	d := newDecision(w.now, w.snapshot())
	d.weigh(nil)
	for _, desktop := range d.rest {
		if store.State(desktop) == v1.DesktopState_DESKTOP_STATE_READY {
			d.want--
		}
	}
	return min(out, max(0, d.want))
}

// movesBack: more wait with the next version than are admitted to it.
func (w *world) movesBack(d *v1.Desktop) bool {
	next := w.pool.Release.GetNext()
	return d.Incarnation.Version == next && len(w.running(next)) > int(w.pool.Release.GetAdmitted())
}

// outOfService counts what is being made anew. What is on a silent host, goes for good or is new does not count.
func (w *world) outOfService() int {
	n := 0
	for _, d := range w.desktops {
		ended := d.Incarnation.Host != "" && !alive(w, d)
		switch {
		case d.Meta.Deletion != nil || w.pool.Meta.Deletion != nil || dataHostToRecord(d) != "":
		case ended:
			n++
		case store.State(d) == v1.DesktopState_DESKTOP_STATE_LOST:
		case d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED || newDecision(w.now, w.snapshot()).onTheWay(d):
			n++
		}
	}
	return n
}

// free counts the ready desktops that nobody holds.
func (w *world) free() int {
	n := 0
	for _, d := range w.desktops {
		if d.Claim == nil && d.Incarnation.UsedBy == "" && d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_READY &&
			store.State(d) == v1.DesktopState_DESKTOP_STATE_READY && d.Meta.Deletion == nil && !d.Status.PausedIo && dataHostToRecord(d) == "" {
			n++
		}
	}
	return n
}

func (w *world) withdrawn(d *v1.Desktop) bool {
	return store.State(d) < v1.DesktopState_DESKTOP_STATE_STARTING &&
		w.image.Status.Versions[d.Incarnation.Version-1].State == v1.VersionState_VERSION_STATE_WITHDRAWN
}

// checkMove: a healthy life ends only while the release lets it, and one in use only when its user was told, or the
// deadline has come.
func checkMove(t *rapid.T, w *world, before, after *v1.Desktop) {
	release := w.pool.Release
	wanted := release.GetVersion()
	if release.GetNext() != 0 {
		wanted = release.GetNext()
	}
	if !release.GetMoving() || before.Incarnation.Version == wanted {
		t.Fatalf("%s moves from version %d: %v", before.Meta.Name, before.Incarnation.Version, release)
	}
	if before.Claim == nil {
		return
	}
	if !proto.Equal(after.Claim, &v1.DesktopClaim{User: before.Claim.User, Since: before.Claim.Since}) {
		t.Fatalf("%s: the claim of a moved desktop: %v", before.Meta.Name, after.Claim)
	}
	at := before.Claim.GetRestartAt()
	forced := release.ForceFrom != nil && !w.now.Before(release.ForceFrom.AsTime())
	if at == nil || w.now.Before(at.AsTime()) || !forced && !inUseOf(w.pool).remind {
		t.Fatalf("%s, which %s holds, is restarted at %v: %v", before.Meta.Name, before.Claim.User, w.now, before.Claim)
	}
}

// checkRelease: no decision gives the next version to more than are admitted, and what users are told is as the policy says.
func checkRelease(t *rapid.T, w *world, a Actions) {
	next := w.pool.Release.GetNext()
	if next != 0 {
		was, is := 0, 0
		after := map[string]*v1.Desktop{}
		for name, d := range w.desktops {
			after[name] = d
		}
		for _, change := range slices.Concat(a.Create, a.Renew) {
			after[change.Desktop.Meta.Name] = change.Desktop
		}
		for name, d := range after {
			if before := w.desktops[name]; before != nil && before.Incarnation.Version == next {
				was++
			}
			if d.Incarnation.Version == next {
				is++
			}
		}
		if promised := w.promised(); w.moved(a) > 0 && is+promised+w.moved(a) > int(w.pool.Release.Admitted) {
			t.Fatalf("%d run the next version, %d are about to, %d more are moved, admitted are %d", is, promised, w.moved(a),
				w.pool.Release.Admitted)
		}
		if is > was && is > int(w.pool.Release.Admitted) {
			t.Fatalf("%d run the next version after %d, admitted are %d", is, was, w.pool.Release.Admitted)
		}
	}
	for _, change := range a.Amend {
		before := w.desktops[change.Desktop.Meta.Name]
		if !proto.Equal(before.Incarnation, withNotice(change.Desktop.Incarnation, before.Incarnation.Notice)) {
			t.Fatalf("%s: an amendment changed the life: %v", before.Meta.Name, change.Desktop)
		}
		was, is := before.Claim.GetRestartAt(), change.Desktop.Claim.GetRestartAt()
		earliest := w.now.Add(inUseOf(w.pool).notice)
		if is != nil && !proto.Equal(was, is) && is.AsTime().Before(earliest) && (was == nil || is.AsTime().Before(was.AsTime())) {
			t.Fatalf("%s: restart at %v, without the time of the notice", before.Meta.Name, is.AsTime())
		}
	}
}

// moved counts the lives that end for the next version, not those that go back from it.
func (w *world) moved(a Actions) int {
	n := 0
	for _, change := range a.Retire {
		if change.Reason == ReasonMoved && change.Desktop.Incarnation.Version != w.pool.Release.GetNext() {
			n++
		}
	}
	return n
}

// promised counts the desktops that come to the next version when they begin anew.
func (w *world) promised() int {
	n := 0
	for _, d := range w.desktops {
		ending := d.Incarnation.Host != "" && alive(w, d) && d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED
		if ending && d.Meta.Deletion == nil && store.State(d) != v1.DesktopState_DESKTOP_STATE_LOST && d.Incarnation.Version != w.pool.Release.Next {
			n++
		}
	}
	return n
}

func withNotice(inc *v1.Incarnation, notice *v1.Notice) *v1.Incarnation {
	inc = proto.CloneOf(inc)
	inc.Notice = notice
	return inc
}

// releases lets a pool begin warm, with versions to move between.
func (w *world) releases(t *rapid.T) {
	published(w)
	if w.settle(100) < 0 {
		t.Fatal("a new pool does not settle")
	}
	w.pool.Spec.MinReady = uint32(rapid.IntRange(0, 6).Draw(t, "min_ready"))
	if rapid.Bool().Draw(t, "remind") {
		reminding(w)
	}
	w.releaseAnything(t)
}

// releaseAnything lets the rollout loop want anything.
func (w *world) releaseAnything(t *rapid.T) {
	release := &v1.Release{
		Version:  uint32(rapid.IntRange(1, 4).Draw(t, "version")),
		Next:     uint32(rapid.IntRange(0, 4).Draw(t, "next")),
		Admitted: uint32(rapid.IntRange(0, 12).Draw(t, "admitted")),
		Moving:   rapid.IntRange(0, 3).Draw(t, "still") != 0,
		Rollback: rapid.Bool().Draw(t, "rollback"),
	}
	if release.Next == release.Version {
		release.Next = 0
	}
	if rapid.Bool().Draw(t, "force") {
		release.ForceFrom = timestamppb.New(w.now.Add(time.Duration(rapid.IntRange(-60, 60).Draw(t, "force_from")) * time.Minute))
	}
	w.let(release)
}
