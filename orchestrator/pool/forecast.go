package pool

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// forecastSamples is how many of a pool's newest starts an estimate looks at.
const forecastSamples = 32

// forecast estimates when the nth of those who wait for a desktop of a pool gets one that is on its way; nil when nothing
// is known.
func forecast(view *store.View, pool string, now time.Time, nth int) *timestamppb.Timestamp {
	var times []time.Time
	for _, desktop := range view.DesktopsOfPool(pool) {
		if desktop.GetClaim() != nil || desktop.GetIncarnation().GetDesired() != v1.DesiredState_DESIRED_STATE_READY || isKept(desktop) {
			continue
		}
		if at := readyAt(view, desktop, now); at != nil {
			times = append(times, at.AsTime())
		}
	}
	if nth < 1 || nth > len(times) {
		return nil
	}
	slices.SortFunc(times, time.Time.Compare)
	return timestamppb.New(times[nth-1])
}

// isKept: the desktop is for one user.
func isKept(d *v1.Desktop) bool {
	return d.GetIncarnation().GetUsedBy() != "" || d.GetSpec().GetOwner() != "" || d.GetSpec().GetDataUser() != ""
}

// readyAt estimates when a desktop that is starting, or has a time to start, is ready; nil when nothing is known, or when
// it should have been ready by now.
func readyAt(view *store.View, d *v1.Desktop, now time.Time) *timestamppb.Timestamp {
	var begin time.Time
	switch state := store.State(d); {
	case state == v1.DesktopState_DESKTOP_STATE_STARTING:
		begin = reached(d, state, now)
	case isStarting(state) && d.GetIncarnation().GetStartAt() != nil:
		begin = later(d.GetIncarnation().GetStartAt().AsTime(), now)
	default:
		return nil
	}
	took := usualBoot(view, d)
	at := begin.Add(took).Truncate(time.Second)
	if took == 0 || !at.After(now) {
		return nil
	}
	return timestamppb.New(at)
}

// usualBoot is the middle one of the newest starts of the desktop's version in its pool, of any version when there are
// none; 0 when there are none at all.
func usualBoot(view *store.View, d *v1.Desktop) time.Duration {
	history, _ := store.Lookup[*v1.History](view, d.GetSpec().GetPool())
	var same, all []time.Duration
	for _, sample := range slices.Backward(history.GetBoots()) {
		if took := sample.GetTook().AsDuration(); took > 0 && len(all) < forecastSamples {
			all = append(all, took)
			if sample.GetDigest() == d.GetIncarnation().GetDigest() {
				same = append(same, took)
			}
		}
	}
	if len(same) > 0 {
		all = same
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
