package hostagent

import (
	"errors"
	"fmt"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// Times of the agent's ways. Those of a pool come with its assignments.
const (
	// stopGrace is how long a guest may take to power off before QEMU is ended.
	stopGrace = 30 * time.Second
	// preparePatience is how long preparation may go on failing for a reason of this host before the life has failed.
	preparePatience = 10 * time.Minute
	defaultDeadline = 300 * time.Second
	describeAgain   = 15 * time.Minute
	// clockCheck is how often a wait for a time of day looks at the clock.
	clockCheck = time.Minute
)

// step is a decision: the state that the life is in from now on, durable before do is done.
type step struct {
	do      action
	state   v1.DesktopState
	message string
	paused  bool
	// percent of the image that was fetched.
	percent uint32
	// until is when to decide again, if nothing changes before; zero means only when something changes.
	until time.Time
	// listen asks for the hypervisor's list sooner than usual.
	listen bool
	// waking holds the boot slot of a life that is SUSPENDED and on its way back.
	waking bool
}

// rank orders states by how late in a life they are. A failed life can only end.
func rank(state v1.DesktopState) int {
	switch state {
	case v1.DesktopState_DESKTOP_STATE_FAILED:
		return 100
	case v1.DesktopState_DESKTOP_STATE_DELETED:
		return 101
	case v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return int(v1.DesktopState_DESKTOP_STATE_READY) // they take turns
	default:
		return int(state)
	}
}

// decide says what to do next for one life. It never lets a state go backward, never starts a life that was seen running,
// and stops or removes nothing without an assignment that says so.
func decide(now time.Time, s situation) step {
	state := s.status.GetState()
	if s.frozen || state == v1.DesktopState_DESKTOP_STATE_DELETED {
		return s.stay(s.status.GetMessage())
	}
	if s.domain == presenceMissing && s.matters() {
		return s.in(state, seek, s.status.GetMessage())
	}
	if s.assignment == nil {
		return s.watch(now)
	}
	switch s.assignment.GetIncarnation().GetDesired() {
	case v1.DesiredState_DESIRED_STATE_DELETED:
		return s.end(now)
	case v1.DesiredState_DESIRED_STATE_STOPPED:
		return s.stop(now)
	case v1.DesiredState_DESIRED_STATE_READY, v1.DesiredState_DESIRED_STATE_PREPARED:
		return s.raise(now)
	case v1.DesiredState_DESIRED_STATE_SUSPENDED:
		return s.sleep(now)
	default:
		return s.stay("the assignment does not say what is wanted")
	}
}

// matters reports whether anything follows from the VM's being gone.
func (s situation) matters() bool {
	switch s.status.GetState() {
	case v1.DesktopState_DESKTOP_STATE_STARTING, v1.DesktopState_DESKTOP_STATE_READY, v1.DesktopState_DESKTOP_STATE_STOPPING,
		v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return true
	case v1.DesktopState_DESKTOP_STATE_STOPPED:
		return s.assignment.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED
	case v1.DesktopState_DESKTOP_STATE_FAILED:
		// A later life of the desktop waits until this one's VM is proven gone, if it ever was.
		if s.start.phase != startNever {
			return true
		}
	}
	switch s.assignment.GetIncarnation().GetDesired() {
	case v1.DesiredState_DESIRED_STATE_STOPPED, v1.DesiredState_DESIRED_STATE_DELETED:
		return true
	}
	return false
}

// stay waits for a change in the present state.
func (s situation) stay(message string) step {
	return step{state: s.status.GetState(), message: message, paused: s.status.GetPausedIo()}
}

// in is a step in a state, but never in an earlier one than the present.
func (s situation) in(state v1.DesktopState, do action, message string) step {
	if rank(state) < rank(s.status.GetState()) {
		state = s.status.GetState()
	}
	return step{do: do, state: state, message: message}
}

func (s situation) fail(format string, args ...any) step {
	return s.in(v1.DesktopState_DESKTOP_STATE_FAILED, wait, fmt.Sprintf(format, args...))
}

// watch follows an orphan: what becomes of its VM is reported, and nothing is done to it.
func (s situation) watch(now time.Time) step {
	switch s.status.GetState() {
	case v1.DesktopState_DESKTOP_STATE_STARTING, v1.DesktopState_DESKTOP_STATE_READY:
		return s.running(now)
	case v1.DesktopState_DESKTOP_STATE_STOPPING:
		return s.stopping()
	case v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		if s.domain == presentNow && s.domainState == DomainRunning {
			return s.awake(now)
		}
	}
	if s.domain == presentNow && rank(s.status.GetState()) < rank(v1.DesktopState_DESKTOP_STATE_STARTING) {
		return s.in(v1.DesktopState_DESKTOP_STATE_STARTING, wait, "found running")
	}
	return s.stay(s.status.GetMessage())
}

// raise brings a life up to PREPARED or READY.
func (s situation) raise(now time.Time) step {
	switch s.status.GetState() {
	case v1.DesktopState_DESKTOP_STATE_FAILED, v1.DesktopState_DESKTOP_STATE_STOPPED:
		return s.stay(s.status.GetMessage())
	case v1.DesktopState_DESKTOP_STATE_STOPPING:
		return s.stopping()
	case v1.DesktopState_DESKTOP_STATE_STARTING, v1.DesktopState_DESKTOP_STATE_READY:
		return s.running(now)
	case v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return s.rouse(now)
	}
	if s.domain == presentNow || s.start.phase == startConfirmed {
		return s.in(v1.DesktopState_DESKTOP_STATE_STARTING, wait, "found running")
	}
	return s.prepare(now)
}

// prepare makes what the VM needs, and starts it when that is wanted and its time has come.
func (s situation) prepare(now time.Time) step {
	inc := s.assignment.GetIncarnation()
	if reason := s.unfit(); reason != "" {
		return s.fail("%s", reason)
	}
	if err := s.trouble.err; err != nil {
		if errors.Is(err, ErrPermanent) || !s.trouble.since.IsZero() && s.ours(err) && now.Sub(s.trouble.since) >= preparePatience {
			return s.fail("cannot be brought up: %v", err)
		}
		if now.Before(s.trouble.next) {
			again := s.in(s.status.GetState(), wait, fmt.Sprintf("will be tried again: %v", err))
			again.until = s.trouble.next
			return again
		}
	}
	switch {
	case s.base.running:
		fetching := s.in(v1.DesktopState_DESKTOP_STATE_PREPARING, wait, "fetching the image")
		fetching.percent = s.base.percent
		return fetching
	case !s.base.done:
		return s.in(v1.DesktopState_DESKTOP_STATE_PREPARING, fetchBase, "fetching the image")
	case !s.overlay:
		return s.in(v1.DesktopState_DESKTOP_STATE_PREPARING, createOverlay, "making the disk")
	case inc.GetShape().GetDataDiskGib() > 0 && !s.data:
		return s.in(v1.DesktopState_DESKTOP_STATE_PREPARING, createData, "making the data disk")
	case inc.GetDesired() != v1.DesiredState_DESIRED_STATE_READY:
		return s.in(v1.DesktopState_DESKTOP_STATE_PREPARED, wait, "")
	}
	return s.launch(now)
}

// ours reports whether an error is this host's own. While the control plane cannot be reached the image cannot come, and
// that is no reason to give up.
func (s situation) ours(err error) bool {
	return s.base.done || errors.Is(err, ErrNoSpace) || errors.Is(err, ErrCorrupt)
}

// launch starts a prepared life when its time, its rivals and the governor allow.
func (s situation) launch(now time.Time) step {
	prepared := v1.DesktopState_DESKTOP_STATE_PREPARED
	if at := s.assignment.GetIncarnation().GetStartAt(); at != nil && now.Before(at.AsTime()) {
		later := s.in(prepared, wait, "starts at "+at.AsTime().UTC().Format("2006-01-02 15:04:05 MST"))
		// The host's clock may be set meanwhile, and timers do not follow it.
		later.until = earlier(at.AsTime(), now.Add(clockCheck))
		return later
	}
	if s.rival != 0 {
		return s.in(prepared, wait, fmt.Sprintf("waiting until generation %d of this desktop has ended", s.rival)).listening()
	}
	if !s.told {
		// While the host was off somebody may have said so, and the desktop may have begun another life elsewhere.
		return s.in(prepared, wait, "the host restarted: waiting until the control plane says what it shall run")
	}
	if !s.slot {
		return s.in(prepared, askSlot, s.slotMessage())
	}
	return s.in(v1.DesktopState_DESKTOP_STATE_STARTING, start, "starting")
}

func (s situation) slotMessage() string {
	if s.slotWhy == "" {
		return "waits for a boot slot"
	}
	return s.slotWhy
}

func (s step) listening() step {
	s.listen = true
	return s
}

// running follows a life that was started.
func (s situation) running(now time.Time) step {
	switch s.domain {
	case presenceAbsent:
		if s.assignment != nil && s.start.phase != startConfirmed && s.start.bootID == s.bootID {
			return s.startAnew(now)
		}
		if s.status.GetState() == v1.DesktopState_DESKTOP_STATE_READY && !s.keptKnown {
			return s.find(now) // it may have been suspended by an agent that did not come to say so
		}
		if s.status.GetState() == v1.DesktopState_DESKTOP_STATE_READY && s.kept != KeptNone {
			return s.save(now)
		}
		return s.lost()
	case presenceUnknown:
		if s.start.phase != startConfirmed {
			return s.in(v1.DesktopState_DESKTOP_STATE_STARTING, wait, "waiting for the hypervisor's word on the start"+s.because()).listening()
		}
	}
	paused := s.domain == presentNow && (s.domainState == DomainPausedIO || s.domainState == DomainPaused)
	var next step
	switch {
	case paused:
		next = s.stay("the VM stands still: it is paused")
		if s.domainState == DomainPausedIO {
			next.message = "the VM stands still: the host's store is full or failing; it goes on when that is mended"
		}
	case s.status.GetState() == v1.DesktopState_DESKTOP_STATE_STARTING:
		next = s.boot(now)
	default:
		next = s.serve(now)
	}
	next.paused = paused && s.domainState == DomainPausedIO
	next.listen = next.listen || s.domain == presenceUnknown
	return next
}

func (s situation) because() string {
	if s.trouble.err == nil {
		return ""
	}
	return fmt.Sprintf(": %v", s.trouble.err)
}

// lost says why a life that was started has no VM any more.
func (s situation) lost() step {
	switch {
	case s.start.bootID != s.bootID:
		return s.fail("the host restarted")
	case s.status.GetState() == v1.DesktopState_DESKTOP_STATE_READY:
		return s.fail("QEMU ended: the guest powered off or crashed")
	default:
		return s.fail("QEMU ended before the guest was ready")
	}
}

// startAnew tries a start again that the hypervisor never confirmed and whose VM is on no list.
func (s situation) startAnew(now time.Time) step {
	if deadline := s.deadline(); !now.Before(deadline) {
		return s.fail("not started within %s%s", deadline.Sub(s.startedAt), s.because())
	}
	next := s.prepare(now)
	if (next.do == wait || next.do == askSlot) && (next.until.IsZero() || next.until.After(s.deadline())) {
		next.until = s.deadline()
	}
	return next
}

func (s situation) deadline() time.Time { return s.startedAt.Add(s.limit()) }

// limit is how long a start or a wake may take.
func (s situation) limit() time.Duration {
	if d := s.assignment.GetIncarnation().GetReadiness().GetDeadline(); d != nil {
		return d.AsDuration()
	}
	return defaultDeadline
}

// boot brings a running VM to READY by the guest's word, within the pool's deadline. An orphan has none.
func (s situation) boot(now time.Time) step {
	starting := v1.DesktopState_DESKTOP_STATE_STARTING
	probes := len(s.assignment.GetIncarnation().GetReadiness().GetProbe()) > 0
	if s.answered && (s.proven || !probes) {
		return s.in(v1.DesktopState_DESKTOP_STATE_READY, wait, "")
	}
	doubt := s.doubt
	if doubt == "" {
		doubt = "the guest agent has not answered yet"
	}
	if s.assignment != nil && !now.Before(s.deadline()) {
		return s.fail("not ready within %s: %s", s.deadline().Sub(s.startedAt), doubt)
	}
	if now.Before(s.nextPing) {
		later := s.in(starting, wait, doubt)
		later.until = s.nextPing
		if s.assignment != nil && s.deadline().Before(later.until) {
			later.until = s.deadline()
		}
		return later
	}
	if s.answered {
		return s.in(starting, probe, doubt)
	}
	return s.in(starting, ping, doubt)
}
