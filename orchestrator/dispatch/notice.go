package dispatch

import (
	"context"
	"fmt"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// notice is an event to be written once what it tells of is.
type notice struct {
	subject         store.Object
	reason, message string
	warning         bool
}

// event writes an event, or says in the log that it could not.
func (t *term) event(ctx context.Context, now time.Time, n notice) {
	if err := t.store.Event(ctx, now, n.subject, n.reason, n.message, n.warning); err != nil && ctx.Err() == nil {
		t.log.Error().Err(err).Str("reason", n.reason).Str("message", n.message).Msg("event not written")
	}
}

// tellDesktop returns what the next morning's reader wants to know of a desktop: that it failed.
func tellDesktop(before, after *v1.Desktop) []notice {
	failed := v1.DesktopState_DESKTOP_STATE_FAILED
	was, is := before.GetStatus(), after.GetStatus()
	if is.GetState() != failed || was.GetState() == failed && was.GetGeneration() == is.GetGeneration() {
		return nil
	}
	return []notice{{after, "DesktopFailed", fmt.Sprintf("generation %d on host %s: %s", is.GetGeneration(),
		after.GetIncarnation().GetHost(), is.GetMessage()), true}}
}

// tellHost returns what happened to a host: its phase, another boot, orphans that nobody knew.
func tellHost(before, after *v1.Host) []notice {
	var notices []notice
	was, is := before.GetStatus(), after.GetStatus()
	if was.GetPhase() != is.GetPhase() {
		switch is.GetPhase() {
		case v1.HostPhase_HOST_PHASE_UP:
			notices = append(notices, notice{after, "HostUp", "the host is heard and well", false})
		case v1.HostPhase_HOST_PHASE_DEGRADED:
			notices = append(notices, notice{after, "HostDegraded", is.GetMessage(), true})
		case v1.HostPhase_HOST_PHASE_DOWN:
			notices = append(notices, notice{after, "HostDown", is.GetMessage(), true})
		case v1.HostPhase_HOST_PHASE_UNSPECIFIED:
		}
	}
	if was.GetBootId() != "" && was.GetBootId() != is.GetBootId() {
		notices = append(notices, notice{after, "HostRebooted", "the host booted anew: every VM of the boot before is dead", true})
	}
	known := map[life]bool{}
	for _, o := range was.GetOrphans() {
		known[orphanLife(o)] = true
	}
	for _, o := range is.GetOrphans() {
		if !known[orphanLife(o)] {
			notices = append(notices, notice{after, "OrphanFound", fmt.Sprintf("desktop %q (uid %s, generation %d) is on the host and nothing "+
				"assigns it; it is kept until somebody decides", o.GetDesktop(), o.GetUid(), o.GetGeneration()), true})
		}
	}
	return notices
}

func orphanLife(o *v1.Orphan) life {
	return life{o.GetDesktop(), o.GetUid(), o.GetGeneration()}
}
