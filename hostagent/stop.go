package hostagent

import (
	"fmt"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// stop shuts the VM down and keeps its overlay.
func (s situation) stop(now time.Time) step {
	if s.status.GetState() == v1.DesktopState_DESKTOP_STATE_STOPPED {
		return s.stay("")
	}
	if s.domain != presenceAbsent {
		return s.shut(now)
	}
	if s.status.GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED && (!s.keptKnown || s.kept != KeptNone) {
		next := s.in(v1.DesktopState_DESKTOP_STATE_SUSPENDED, dropMemory, "")
		if now.Before(s.trouble.next) {
			next.do, next.until, next.message = wait, s.trouble.next, "stopping will be tried again"+s.because()
		}
		return next
	}
	return s.in(v1.DesktopState_DESKTOP_STATE_STOPPED, wait, s.keepCause())
}

// keepCause keeps the message of a failed life: why it failed outlasts what is done about it.
func (s situation) keepCause() string {
	if s.status.GetState() == v1.DesktopState_DESKTOP_STATE_FAILED {
		return s.status.GetMessage()
	}
	return ""
}

// stopping waits for the end of a VM that was told to power off, and does no more to it.
func (s situation) stopping() step {
	if s.domain == presenceAbsent {
		return s.in(v1.DesktopState_DESKTOP_STATE_STOPPED, wait, "")
	}
	return s.stay(s.status.GetMessage()).listening()
}

// shut asks the guest to power off, gives it time, and then ends QEMU. A VM whose absence is not proven counts as there.
func (s situation) shut(now time.Time) step {
	next := s.in(v1.DesktopState_DESKTOP_STATE_STOPPING, wait, "").listening()
	next.message = s.keepCause()
	say := func(message string) {
		if next.message == "" {
			next.message = message
		}
	}
	switch {
	case s.domain == presenceUnknown:
		next.state = s.status.GetState()
		say("waiting for the hypervisor to say whether the VM runs")
	case now.Before(s.trouble.next):
		next.until = s.trouble.next
		say("stopping will be tried again" + s.because())
	case s.status.GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED && s.domainState == DomainPaused:
		next.do, next.state = destroy, s.status.GetState() // nobody in it could hear
	case s.stopAsked.IsZero():
		next.do = shutdown
		say("the guest was asked to power off")
	case now.Before(s.stopAsked.Add(stopGrace)):
		next.until = s.stopAsked.Add(stopGrace)
		say("the guest was asked to power off")
	default:
		next.do = destroy
		say("the guest did not power off: its VM is ended")
	}
	return next
}

// end stops the VM, moves the overlay to the trash, and the data disk too if that was said by name.
func (s situation) end(now time.Time) step {
	if s.domain != presenceAbsent {
		return s.heed(now, s.shut(now))
	}
	next := s.in(s.status.GetState(), wait, s.keepCause())
	disposal := s.assignment.GetIncarnation().GetDataDisposal() == v1.DataDisposal_DATA_DISPOSAL_DELETE
	switch {
	case now.Before(s.trouble.next):
		next.until = s.trouble.next
		next.message = "removing the disk will be tried again" + s.because()
	case !s.overlayTrashed:
		next.do = trashOverlay
	case disposal && s.newest && !s.dataTrashed && s.rival != 0:
		next.message = fmt.Sprintf("waiting until generation %d of this desktop has let go of the data disk", s.rival)
		next.listen = true
	case disposal && s.newest && !s.dataTrashed:
		next.do = trashData
	default:
		return s.in(v1.DesktopState_DESKTOP_STATE_DELETED, wait, "")
	}
	return next
}
