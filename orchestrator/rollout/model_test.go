package rollout_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

// What the model's pool knows of a release; a pool without one has nothing to run.

func (w *world) isOn(d *v1.Desktop, version uint32) bool {
	inc := d.GetIncarnation()
	return inc.GetImage() == w.pool.GetSpec().GetImage() && inc.GetVersion() == version
}

// onNext counts the lives that run the next version and are to go on, but for one desktop.
func (w *world) onNext(but *v1.Desktop) int {
	n := 0
	for _, d := range w.desktops {
		if d != but && w.isOn(d, w.pool.GetRelease().GetNext()) && d.GetIncarnation().GetDesired() != wantDeleted {
			n++
		}
	}
	return n
}

// versionFor is what a life of a desktop that begins now runs.
func (w *world) versionFor(d *v1.Desktop) uint32 {
	r := w.pool.GetRelease()
	if r.GetNext() != 0 && w.onNext(d) < int(r.GetAdmitted()) {
		return r.GetNext()
	}
	return r.GetVersion()
}

func (w *world) limit() int {
	if n := int(w.pool.GetSpec().GetMaxUnavailable()); n > 0 {
		return n
	}
	return max(1, int(w.pool.GetSpec().GetDesktops())/4)
}

// out counts what is out of service by being made anew, as the pool's budget does.
func (w *world) out() int {
	n := 0
	for _, d := range w.desktops {
		inc := d.GetIncarnation()
		anew := inc.GetDesired() == wantDeleted && state(d) != lost
		if anew || inc.GetReason() != "new" && inc.GetHost() != "" && (state(d) == starting || state(d) == pending) {
			n++
		}
	}
	return n
}

// free counts the desktops that a user could have now.
func (w *world) free() int {
	n := 0
	for _, d := range w.desktops {
		if isFree(d) {
			n++
		}
	}
	return n
}

func isFree(d *v1.Desktop) bool {
	return state(d) == ready && d.GetClaim() == nil && d.GetIncarnation().GetUsedBy() == "" && d.GetIncarnation().GetDesired() == wantReady
}

// poolRound renews what ended, makes what is missing, retires what failed or was used, and moves what the release says.
func (w *world) poolRound() {
	if w.pool.GetRelease() == nil {
		return
	}
	for _, d := range w.desktops {
		if d.GetIncarnation().GetDesired() == wantDeleted && state(d) == deleted {
			w.begin(d, "renewed")
		}
	}
	w.shrink()
	for i := 1; len(w.desktops) < int(w.pool.GetSpec().GetDesktops()); i++ {
		name := fmt.Sprintf("%s-%d", w.pool.GetMeta().GetName(), i)
		if slices.ContainsFunc(w.desktops, func(d *v1.Desktop) bool { return d.GetMeta().GetName() == name }) {
			continue
		}
		d := &v1.Desktop{
			Meta: &v1.Meta{Name: name},
			Spec: &v1.DesktopSpec{Pool: w.pool.GetMeta().GetName()},
		}
		if w.begin(d, "new"); d.GetIncarnation() == nil {
			break
		}
		w.desktops = append(w.desktops, d)
	}
	budget := w.limit() - w.out()
	for _, d := range w.desktops {
		released := d.GetIncarnation().GetUsedBy() != "" && state(d) != lost
		if budget > 0 && d.GetClaim() == nil && d.GetIncarnation().GetDesired() == wantReady && (state(d) == failed || released) {
			d.Incarnation.Desired = wantDeleted
			w.touched++
			budget--
		}
	}
	w.move(budget)
}

// shrink removes what is too many, as far as nobody holds it.
func (w *world) shrink() {
	w.desktops = slices.DeleteFunc(w.desktops, func(d *v1.Desktop) bool {
		n, _ := strconv.Atoi(strings.TrimPrefix(d.GetMeta().GetName(), "sales-"))
		return n > int(w.pool.GetSpec().GetDesktops()) && d.GetClaim() == nil
	})
}

// begin gives a desktop its next life.
func (w *world) begin(d *v1.Desktop, reason string) {
	version := w.versionFor(d)
	for _, v := range w.image.GetStatus().GetVersions() {
		if v.GetNumber() == version && v.GetState() != v1.VersionState_VERSION_STATE_READY {
			return // nothing to run
		}
	}
	w.revision++
	w.touched++
	d.Incarnation = &v1.Incarnation{
		Generation: w.revision, Image: w.pool.GetSpec().GetImage(), Version: version, Desired: wantReady, Reason: reason,
		Created: timestamppb.New(w.now), UsedBy: d.GetClaim().GetUser(),
	}
}

// move takes healthy lives out of service for the release's sake, strays first.
func (w *world) move(budget int) {
	r := w.pool.GetRelease()
	if !r.GetMoving() {
		return
	}
	to, quota := r.GetVersion(), len(w.desktops)
	if r.GetNext() != 0 {
		to, quota = r.GetNext(), int(r.GetAdmitted())-w.coming()
	}
	list := slices.Clone(w.desktops)
	slices.SortStableFunc(list, func(a, b *v1.Desktop) int { return w.rank(a) - w.rank(b) })
	forced := r.GetForceFrom() != nil && !w.now.Before(r.GetForceFrom().AsTime())
	for _, d := range list {
		inc := d.GetIncarnation()
		if quota <= 0 || budget <= 0 {
			return
		}
		if w.isOn(d, to) || inc.GetDesired() == wantDeleted || state(d) == lost || d.GetClaim() != nil && !forced {
			continue
		}
		if isFree(d) && w.free()-1 < int(w.pool.GetSpec().GetMinReady()) {
			continue
		}
		inc.Desired = wantDeleted
		w.touched++
		w.checkMove(d)
		quota--
		budget--
	}
}

// coming counts the desktops that run the next version, and those between two lives, which may get it.
func (w *world) coming() int {
	n := w.onNext(nil)
	for _, d := range w.desktops {
		if d.GetIncarnation().GetDesired() == wantDeleted && state(d) != lost {
			n++
		}
	}
	return n
}

// rank orders what is to move: what serves nobody first, then strays, then the rest.
func (w *world) rank(d *v1.Desktop) int {
	switch {
	case state(d) != ready:
		return 0
	case !w.isOn(d, w.pool.GetRelease().GetVersion()):
		return 1
	}
	return 2
}

// checkRelease holds a decision to what rollouts promise.
func (w *world) checkRelease(before *v1.Release, a rollout.Actions) {
	active := 0
	for _, r := range w.rollouts {
		if r.GetStatus().GetEnded() == nil {
			active++
		}
	}
	if active > 1 {
		w.broken("%d rollouts at once", active)
	}
	for _, made := range a.Create {
		w.checkCreated(made)
	}
	if a.Release == nil {
		return
	}
	r, run := w.pool.GetRelease(), w.active()
	w.checkAdmitted(before, r, run)
	halted := run.GetStatus().GetPhase() != phaseRunning
	if r.GetMoving() && (halted || run.GetSpec().GetPaused()) {
		w.broken("moves while %v, paused %v", run.GetStatus().GetPhase(), run.GetSpec().GetPaused())
	}
	if r.GetMoving() && !r.GetRollback() && w.window != nil {
		if inside, _ := w.window.Includes(w.now); !inside {
			w.broken("moves outside its window")
		}
	}
	if r.GetNext() != 0 && (run.GetSpec().GetToVersion() != r.GetNext() || run.GetSpec().GetRollback()) {
		w.broken("release %v of %v", r, run)
	}
	if (r.GetRollout() == "") != (run == nil) || r.GetRollout() != run.GetMeta().GetName() {
		w.broken("release names %q, and %q runs", r.GetRollout(), run.GetMeta().GetName())
	}
}

// checkAdmitted: within a rollout ever more are admitted, but for a halt, and no more than the first wave before a desktop of
// it is ready.
func (w *world) checkAdmitted(before, r *v1.Release, run *v1.Rollout) {
	same := before.GetRollout() == r.GetRollout() && r.GetRollout() != ""
	if same && r.GetAdmitted() < before.GetAdmitted() && run.GetStatus().GetPhase() != phaseHalted {
		w.broken("admitted falls from %d to %d", before.GetAdmitted(), r.GetAdmitted())
	}
	if !same && r.GetAdmitted() != 0 {
		w.broken("begins with %d admitted", r.GetAdmitted())
	}
	if r.GetAdmitted() <= before.GetAdmitted() || w.resumed {
		return
	}
	if before.GetAdmitted() > 0 && !w.proven(r.GetNext()) {
		w.broken("%d are admitted to version %d, which no desktop proved", r.GetAdmitted(), r.GetNext())
	}
	if before.GetAdmitted() == 0 && len(w.desktops) > 1 && int(r.GetAdmitted()) >= len(w.desktops) {
		w.broken("the first wave is all %d", r.GetAdmitted())
	}
}

// checkMove holds the model's pool to its limits as it takes a desktop.
func (w *world) checkMove(d *v1.Desktop) {
	if n := w.out(); n > w.limit() {
		w.broken("%d are out of service for %s, more than %d", n, d.GetMeta().GetName(), w.limit())
	}
	if state(d) == ready && d.GetClaim() == nil && d.GetIncarnation().GetUsedBy() == "" && w.free() < int(w.pool.GetSpec().GetMinReady()) {
		w.broken("%d are ready and free once %s is taken, min_ready is %d", w.free(), d.GetMeta().GetName(), w.pool.GetSpec().GetMinReady())
	}
}

// proven: a desktop runs the version and is ready.
func (w *world) proven(version uint32) bool {
	return slices.ContainsFunc(w.desktops, func(d *v1.Desktop) bool { return w.isOn(d, version) && state(d) == ready })
}

func (w *world) checkCreated(made *v1.Rollout) {
	if !made.GetSpec().GetRollback() || len(w.rollouts) < 2 {
		return
	}
	if last := w.rollouts[len(w.rollouts)-2]; last.GetSpec().GetRollback() {
		w.broken("%s takes back %s, which is a rollback", made.GetMeta().GetName(), last.GetMeta().GetName())
	}
}
