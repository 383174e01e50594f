package rollout

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxReason is the proto's bound of RolloutSpec.reason, in characters.
const maxReason = 512

// Ordinal returns n of a rollout named pool-n.
func Ordinal(r *v1.Rollout) int {
	name := r.GetMeta().GetName()
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '-')+1:])
	if err != nil {
		return 0
	}
	return n
}

// newest is the rollout of the pool that began last; nil when there is none.
func newest(rollouts []*v1.Rollout) *v1.Rollout {
	var last *v1.Rollout
	for _, r := range rollouts {
		if last == nil || Ordinal(r) > Ordinal(last) {
			last = r
		}
	}
	return last
}

// start makes a rollout, which is the active one from now on.
func (d *decision) start(spec *v1.RolloutSpec, phase v1.RolloutPhase) {
	spec.Pool, spec.Image = d.Pool.GetMeta().GetName(), d.Pool.GetSpec().GetImage()
	spec.Reason = store.Cut(spec.GetReason(), maxReason)
	now := timestamppb.New(d.now)
	d.active = &v1.Rollout{
		Meta:   &v1.Meta{Name: fmt.Sprintf("%s-%d", spec.GetPool(), Ordinal(newest(d.Rollouts))+1)},
		Spec:   spec,
		Status: &v1.RolloutStatus{Phase: phase, PhaseSince: now, Started: now, SinceRevision: d.Revision},
	}
	d.created = append(d.created, d.active)
	c := d.census()
	s := d.active.Status
	s.Total, s.Moved, s.InUse = uint32(c.live), uint32(c.good+c.cold), uint32(len(c.inUse))
	s.Message = "begins"
	by := ""
	if spec.GetBy() != "" {
		by = ", asked for by " + spec.GetBy()
	}
	d.note(ReasonStarted, false, "%s begins%s: %s", d.title(), by, spec.GetReason())
}

// begin rolls a version out. A rollout that runs is superseded; when the version is the one it came from, it goes back.
func (d *decision) begin(to uint32, by, why string) {
	from, refused := d.release.GetVersion(), d.release.GetRefused()
	if refused == to {
		refused = 0
	}
	barred := store.Runnable(d.Image, from) == nil
	if barred && to == d.release.GetPrevious() && d.active == nil && !newest(d.Rollouts).GetSpec().GetRollback() {
		// Nothing may begin with what the pool runs: what it ran before has proved itself, and waits for no window.
		d.goBack(to, 0, 0, by, fmt.Sprintf("%s; version %d may not be run any more", why, from), true)
		return
	}
	if d.active != nil {
		if to == from && !d.active.GetSpec().GetRollback() {
			d.goBack(to, d.release.GetPrevious(), 0, by, why, false)
			return
		}
		d.end(d.active, superseded, why)
		d.note(ReasonSuperseded, false, "%s ends: %s", d.title(), why)
	}
	previous := d.release.GetPrevious()
	d.start(&v1.RolloutSpec{FromVersion: from, ToVersion: to, By: by, Reason: why}, staging)
	d.release = &v1.Release{
		Image: d.Pool.GetSpec().GetImage(), Version: from, Previous: previous, Next: to, Refused: refused,
		Rollout: d.active.GetMeta().GetName(), ForceFrom: d.forceFrom(),
	}
	if barred {
		d.release.Version = to
	}
}

// otherImage moves the pool to the image that it names now. Nothing of the image before it can be named by number any
// more, so that new lives run the new one at once, and there is nothing to go back to.
func (d *decision) otherImage() {
	why := fmt.Sprintf("the pool names image %s instead of %s", d.Pool.GetSpec().GetImage(), d.release.GetImage())
	if d.target == 0 {
		d.abandon(why)
		return
	}
	if d.active != nil {
		d.end(d.active, superseded, why)
		d.note(ReasonSuperseded, false, "%s ends: %s", d.title(), why)
	}
	d.start(&v1.RolloutSpec{ToVersion: d.target, Reason: why}, staging)
	d.release = &v1.Release{
		Image: d.Pool.GetSpec().GetImage(), Version: d.target, Next: d.target,
		Rollout: d.active.GetMeta().GetName(), ForceFrom: d.forceFrom(),
	}
}

// goBack begins a rollback to a version, with what the release shall name as previous and as refused. It ends the rollout
// that runs, if one does.
func (d *decision) goBack(to, previous, refused uint32, by, why string, warning bool) {
	from, last := d.release.GetVersion(), newest(d.Rollouts)
	switch {
	case d.active != nil:
		from = d.active.GetSpec().GetToVersion()
		d.end(d.active, rolledBack, why)
		d.note(ReasonRolledBack, warning, "%s is taken back: %s", d.title(), why)
	case last.GetStatus().GetPhase() == done: // it keeps when it ended
		d.active = d.touch(last)
		d.phase(d.active, rolledBack)
		d.active.Status.Message = store.Cut(why, maxMessage)
		d.note(ReasonRolledBack, warning, "%s, which was done, is taken back: %s", d.title(), why)
	}
	d.start(&v1.RolloutSpec{FromVersion: from, ToVersion: to, Rollback: true, By: by, Reason: why}, running)
	d.active.Status.Wave, d.active.Status.Waves = 1, 1
	d.release = &v1.Release{
		Image: d.Pool.GetSpec().GetImage(), Version: to, Previous: previous, Refused: refused, Moving: true, Rollback: true,
		Rollout: d.active.GetMeta().GetName(), ForceFrom: d.forceFrom(),
	}
}

// forceFrom is when desktops in use may be renewed, too; nil for never.
func (d *decision) forceFrom() *timestamppb.Timestamp {
	deadline := d.Pool.GetSpec().GetRollout().GetInUse().GetDeadline()
	if deadline == nil || d.active == nil {
		return nil
	}
	return timestamppb.New(d.active.GetStatus().GetStarted().AsTime().Add(deadline.AsDuration()))
}

// monitor is how long a wave is watched.
func monitor(policy *v1.RolloutPolicy) time.Duration {
	if policy.GetMonitor() == nil {
		return defaultMonitor
	}
	return policy.GetMonitor().AsDuration()
}

const defaultMonitor = 5 * time.Minute
