package placement

import (
	"slices"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A host on which everything fails is soon the emptiest, and would get all that others need. So it is the last choice after
// so many lives failed to get ready there within the window, and none that began after them did.
const (
	failuresToShun = 3
	shunWindow     = 10 * time.Minute
)

// shun finds the hosts that are the last choice for desktops that wait. It looks back from when the newest of their lives
// began, so that a plan follows from its view alone.
func (l *ledger) shun(view *store.View, waiting []*v1.Desktop) {
	if len(waiting) == 0 {
		return
	}
	now := slices.MaxFunc(waiting, func(a, b *v1.Desktop) int { return began(a).Compare(began(b)) })
	failures := failuresSince(view, began(now).Add(-shunWindow))
	for _, h := range l.hosts {
		var proven time.Time
		if len(failures[h.Name()]) < failuresToShun {
			continue
		}
		for _, desktop := range view.DesktopsOnHost(h.Name()) {
			_, ready := store.Reached(desktop, v1.DesktopState_DESKTOP_STATE_READY)
			if at := began(desktop); ready && at.After(proven) {
				proven = at
			}
		}
		count := 0
		for _, at := range failures[h.Name()] {
			if at.After(proven) {
				count++
			}
		}
		h.shunned = count >= failuresToShun
	}
}

func began(d *v1.Desktop) time.Time { return d.GetIncarnation().GetCreated().AsTime() }

// life is one life of a desktop.
type life struct{ desktop, generation string }

// failuresSince returns when lives failed to get ready since a time, by host. An event about a life that tells what it tried
// warns of that.
func failuresSince(view *store.View, since time.Time) map[string]map[life]time.Time {
	failures := map[string]map[life]time.Time{}
	for _, event := range slices.Backward(store.All[*v1.Event](view)) { // sorted by name, which is by time
		at, labels := event.GetAt().AsTime(), event.GetMeta().GetLabels()
		if at.Before(since) {
			break
		}
		host := labels[store.LabelHost]
		if !event.GetWarning() || labels[store.LabelAttempt] == "" || host == "" {
			continue
		}
		if failures[host] == nil {
			failures[host] = map[life]time.Time{}
		}
		failures[host][life{event.GetSubject(), labels[store.LabelGeneration]}] = at
	}
	return failures
}
