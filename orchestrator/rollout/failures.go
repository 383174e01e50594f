package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxFailures is how many failures a rollout's status holds, as in its proto.
const maxFailures = 64

// maxFailureText is the proto's bound of RolloutFailure.message, in characters.
const maxFailureText = 512

// countFailures adds to the rollout's status each life of its version that failed since it began and that is not there
// yet. A failed life is seen on its desktop until the next one begins, and by its event whenever. It tells whether there
// were any.
func (d *decision) countFailures() bool {
	s := d.active.GetStatus()
	known := map[int64]map[string]bool{}
	for _, f := range s.GetFailures() {
		remember(known, f)
	}
	var fresh []*v1.RolloutFailure
	for _, f := range slices.Concat(d.seen(), d.told()) {
		// A full list has forgotten older lives: whatever is told of such now may have been counted.
		full := len(s.GetFailures()) == maxFailures && f.GetGeneration() <= s.GetFailures()[0].GetGeneration()
		if f.GetGeneration() <= s.GetSinceRevision() || known[f.GetGeneration()][f.GetDesktop()] || full {
			continue
		}
		remember(known, f)
		fresh = append(fresh, f)
	}
	if len(fresh) == 0 {
		return false
	}
	s.Failed += uint32(len(fresh))
	s.Failures = append(s.Failures, fresh...)
	slices.SortStableFunc(s.Failures, func(a, b *v1.RolloutFailure) int { return int(a.GetGeneration() - b.GetGeneration()) })
	s.Failures = s.Failures[max(0, len(s.Failures)-maxFailures):]
	return true
}

func remember(known map[int64]map[string]bool, f *v1.RolloutFailure) {
	if known[f.GetGeneration()] == nil {
		known[f.GetGeneration()] = map[string]bool{}
	}
	known[f.GetGeneration()][f.GetDesktop()] = true
}

// seen are the failed lives that desktops show.
func (d *decision) seen() []*v1.RolloutFailure {
	var failures []*v1.RolloutFailure
	for _, desktop := range d.Desktops {
		inc := desktop.GetIncarnation()
		if !runs(desktop, d.active.GetSpec().GetImage(), d.active.GetSpec().GetToVersion()) || !hasFailed(desktop) {
			continue
		}
		message := store.Present(desktop).GetMessage()
		if message == "" {
			message = "the VM stopped by itself"
		}
		failures = append(failures, &v1.RolloutFailure{
			Desktop: desktop.GetMeta().GetName(), Generation: inc.GetGeneration(), Host: inc.GetHost(),
			Message: store.Cut(message, maxFailureText), At: timestamppb.New(d.now),
		})
	}
	return failures
}

// hasFailed: the present life failed once, whatever is done with it now, or stopped though nobody wanted that. A user
// may shut a desktop down.
func hasFailed(d *v1.Desktop) bool {
	if _, failed := store.Reached(d, v1.DesktopState_DESKTOP_STATE_FAILED); failed {
		return true
	}
	inc := d.GetIncarnation()
	return store.State(d) == v1.DesktopState_DESKTOP_STATE_FAILED ||
		store.Broken(store.State(d)) && inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY && inc.GetUsedBy() == ""
}

// told are the failed lives that events tell of.
func (d *decision) told() []*v1.RolloutFailure {
	var failures []*v1.RolloutFailure
	for _, event := range d.Failed {
		labels := event.GetMeta().GetLabels()
		generation, err := strconv.ParseInt(labels[store.LabelGeneration], 10, 64)
		version, versionErr := strconv.ParseUint(labels[store.LabelVersion], 10, 32)
		spec := d.active.GetSpec()
		if err != nil || versionErr != nil || uint32(version) != spec.GetToVersion() || labels[store.LabelImage] != spec.GetImage() {
			continue
		}
		failures = append(failures, &v1.RolloutFailure{
			Desktop: event.GetSubject(), Generation: generation, Host: labels[store.LabelHost],
			Message: store.Cut(plainFailure(event, generation), maxFailureText), At: event.GetAt(),
		})
	}
	return failures
}

// plainFailure is what an event tells of a failure, without which life that was.
func plainFailure(event *v1.Event, generation int64) string {
	host := event.GetMeta().GetLabels()[store.LabelHost]
	return strings.TrimPrefix(event.GetMessage(), fmt.Sprintf("generation %d on host %s: ", generation, host))
}
