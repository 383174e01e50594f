package rollout

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// What one desktop takes to move while none of the rollout has: to shut down, and to boot.
const (
	usualStop = 15 * time.Second
	usualBoot = 2 * time.Minute
)

// estimate says when the rollout will be done, if no user and no host keeps it: each wave moves its desktops as many at
// once as may be out of service, and is watched.
func (d *decision) estimate(c census, sizes []int) {
	s, policy := d.active.GetStatus(), d.Pool.GetSpec().GetRollout()
	if d.active.GetSpec().GetPaused() || len(c.away) > 0 || len(c.inUse) > 0 && d.release.GetForceFrom() == nil {
		return
	}
	life, atOnce := usualStop+d.bootTime(), maxUnavailable(d.Pool.GetSpec())
	batches := func(n int) time.Duration { return time.Duration((max(n, 0)+atOnce-1)/atOnce) * life }
	left, on := time.Duration(0), c.good+c.cold
	for _, size := range sizes {
		if size < int(s.GetAdmitted()) {
			continue
		}
		left += batches(size - on)
		on = max(on, size)
		switch watching := s.GetWaveReady() != nil && size == int(s.GetAdmitted()); {
		case d.active.GetSpec().GetRollback():
		case watching:
			left += max(0, monitor(policy)-d.now.Sub(s.GetWaveReady().AsTime()))
		default:
			left += monitor(policy)
		}
	}
	end, ok := d.now.Add(left), true
	if d.Window != nil && !d.active.GetSpec().GetRollback() {
		end, ok = d.Window.After(d.now, left)
	}
	if last := d.lastRestart(c.inUse); last.After(end) {
		end = last.Add(life)
	}
	if ok {
		s.EstimatedEnd = timestamppb.New(end.Truncate(time.Second))
	}
}

// lastRestart says when the last of desktops in use is restarted: when its user was told, or when nobody is asked any more.
func (d *decision) lastRestart(inUse []*v1.Desktop) time.Time {
	var last time.Time
	for _, desktop := range inUse {
		at := d.release.GetForceFrom().AsTime()
		if told := desktop.GetClaim().GetRestartAt(); told != nil {
			at = told.AsTime()
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// keepEstimate leaves the estimate of before where the new one says nearly the same: it would be written anew with every
// look otherwise.
func (d *decision) keepEstimate(before *timestamppb.Timestamp) {
	s := d.active.GetStatus()
	if s.GetEstimatedEnd() == nil || before == nil {
		return
	}
	drift := s.GetEstimatedEnd().AsTime().Sub(before.AsTime()).Abs()
	if drift < max(30*time.Second, s.GetEstimatedEnd().AsTime().Sub(d.now)/10) {
		s.EstimatedEnd = before
	}
}

// maxUnavailable is how many desktops may be taken out at once.
func maxUnavailable(spec *v1.PoolSpec) int {
	if limit := int(spec.GetMaxUnavailable()); limit > 0 {
		return limit
	}
	return max(1, int(spec.GetDesktops())/4)
}

// bootTime is how long the lives of the new version took from placing to ready, on average.
func (d *decision) bootTime() time.Duration {
	total, n := time.Duration(0), 0
	for _, desktop := range d.Desktops {
		if !runs(desktop, d.active.GetSpec().GetImage(), d.active.GetSpec().GetToVersion()) {
			continue
		}
		var began, ready time.Time
		for _, t := range store.Present(desktop).GetTimes() {
			if began.IsZero() {
				began = t.GetAt().AsTime()
			}
			if t.GetState() == v1.DesktopState_DESKTOP_STATE_READY {
				ready = t.GetAt().AsTime()
			}
		}
		if took := ready.Sub(began); !ready.IsZero() && took >= 0 && took < time.Hour {
			total, n = total+took, n+1
		}
	}
	if n == 0 {
		return usualBoot
	}
	return total / time.Duration(n)
}
