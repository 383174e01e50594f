package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// proceed takes the active rollout one step further, and tells how far it is.
func (d *decision) proceed() {
	s, spec := d.active.GetStatus(), d.active.GetSpec()
	before := s.GetEstimatedEnd()
	c := d.census()
	sizes := Waves(d.Pool.GetSpec().GetRollout(), c.seats)
	if spec.GetRollback() {
		sizes = []int{c.seats}
	}
	s.Total, s.Moved, s.InUse = uint32(c.live), uint32(c.good+c.cold), uint32(len(c.inUse))
	s.Waves = uint32(len(sizes))
	d.release.ForceFrom = d.forceFrom()
	if d.countFailures() {
		s.WaveReady = nil
	}
	s.EstimatedEnd = nil
	why := d.trouble()
	if why == "" && s.GetPhase() != halted && store.Runnable(d.Image, d.release.GetVersion()) == nil {
		d.release.Version = spec.GetToVersion() // nothing may begin with the other one any more
	}
	switch {
	case s.GetPhase() == halted:
		d.waitForHelp(c)
	case why != "":
		d.stop(c, why)
	case c.seats == 0:
		d.finish()
	case s.GetPhase() == staging:
		d.stage()
	case spec.GetRollback():
		d.runBack(c)
	default:
		d.run(c, sizes)
	}
	d.keepEstimate(before)
}

// trouble says why the rollout must not go on; empty when it may.
func (d *decision) trouble() string {
	s, to := d.active.GetStatus(), d.active.GetSpec().GetToVersion()
	limit := d.Pool.GetSpec().GetRollout().GetMaxFailures()
	switch {
	case store.Runnable(d.Image, to) == nil:
		return fmt.Sprintf("version %d of image %s may not be run any more", to, d.active.GetSpec().GetImage())
	case s.GetFailed() <= limit+s.GetAccepted():
		return ""
	}
	text := fmt.Sprintf("%s with version %d", plural(int(s.GetFailed()), "failure"), to)
	if s.GetAccepted() > 0 {
		text += fmt.Sprintf(", %d accepted", s.GetAccepted())
	}
	if limit > 0 {
		text += fmt.Sprintf(" (%d may fail)", limit)
	}
	if list := s.GetFailures(); len(list) > 0 {
		last := slices.MaxFunc(list, func(a, b *v1.RolloutFailure) int { return a.GetAt().AsTime().Compare(b.GetAt().AsTime()) })
		text += fmt.Sprintf("; the last: %s on host %s: %s", last.GetDesktop(), last.GetHost(), last.GetMessage())
	}
	return text
}

// stop ends the taking out of service: by going back where the pool wants that, else until somebody helps. What a person
// paused is not set in motion.
func (d *decision) stop(c census, why string) {
	spec := d.active.GetSpec()
	back := d.Pool.GetSpec().GetRollout().GetOnFailure() == v1.OnFailure_ON_FAILURE_ROLL_BACK && !spec.GetPaused()
	if back && !spec.GetRollback() && spec.GetToVersion() != d.release.GetVersion() && store.Runnable(d.Image, d.release.GetVersion()) != nil {
		d.goBack(d.release.GetVersion(), d.release.GetPrevious(), spec.GetToVersion(), "", why, true)
		return
	}
	d.phase(d.active, halted)
	d.note(ReasonHalted, true, "%s halts: %s", d.title(), why)
	d.waitForHelp(c)
}

// waitForHelp keeps a halted rollout where it is: what works stays, and no further life of its version begins.
func (d *decision) waitForHelp(c census) {
	s := d.active.GetStatus()
	d.release.Moving, s.WaveReady = false, nil
	if !d.active.GetSpec().GetRollback() {
		s.Admitted = min(s.GetAdmitted(), uint32(c.good))
		d.release.Admitted = s.GetAdmitted()
	}
	why := d.trouble()
	if why == "" {
		why = "its failures are fewer than the limit by now"
	}
	help := "resume it, roll it back, or publish a better version"
	if d.active.GetSpec().GetRollback() {
		help = "resume it, or publish a better version"
	}
	d.say("halted: %s; %s", why, help)
}

// say sets the rollout's message.
func (d *decision) say(format string, args ...any) {
	d.active.Status.Message = store.Cut(fmt.Sprintf(format, args...), maxMessage)
}

// stage waits until every host that could run one of the pool's next lives has the version. One that is kept from new
// desktops could not: so an admin takes a host that cannot fetch it out of everybody's way.
func (d *decision) stage() {
	digest := store.Runnable(d.Image, d.active.GetSpec().GetToVersion()).GetDigest()
	var up int
	var without []string
	for _, host := range d.Hosts {
		s := host.GetStatus()
		if s.GetPhase() != v1.HostPhase_HOST_PHASE_UP || host.GetSpec().GetUnschedulable() ||
			!slices.Contains(s.GetZones(), d.Pool.GetSpec().GetZone()) {
			continue
		}
		up++
		if !slices.Contains(s.GetImages(), digest) {
			name := host.GetMeta().GetName()
			if why := s.GetMessage(); why != "" {
				name += " (" + store.Cut(why, 200) + ")"
			}
			without = append(without, name)
		}
	}
	switch {
	case up == 0:
		d.say("waits for a host of zone %s: none is up and takes new desktops", d.Pool.GetSpec().GetZone())
	case len(without) > 0:
		d.say("%d of %s fetched version %d; still to come: %s", up-len(without), plural(up, "host"), d.active.GetSpec().GetToVersion(), some(without))
	default:
		d.phase(d.active, running)
		d.note(ReasonStaged, false, "%s: version %d lies on %s", d.title(), d.active.GetSpec().GetToVersion(), plural(up, "host"))
		d.say("lies on all hosts")
	}
}

// waitsForWindow begins the message of a rollout that waits for its window; by it the loop knows that it did.
const waitsForWindow = "waits for its window"

// mayMove says whether desktops may be taken out of service now, and if not, why. It tells of windows that open and close
// while there is something to move in them.
func (d *decision) mayMove(c census) (bool, string) {
	waited := strings.HasPrefix(d.active.GetStatus().GetMessage(), waitsForWindow)
	if d.active.GetSpec().GetPaused() {
		return false, "paused: no desktop is taken out of service before somebody resumes it"
	}
	if d.active.GetSpec().GetRollback() {
		return true, ""
	}
	if d.NoWindow != "" {
		return false, waitsForWindow + ", which cannot be told: " + d.NoWindow
	}
	if d.Window == nil {
		return true, ""
	}
	inside, until := d.Window.Includes(d.now)
	if !until.IsZero() {
		d.lookAgain(until)
	}
	switch {
	case inside && waited && c.movable > 0:
		d.note(ReasonOpened, false, "%s goes on: its window is open until %s", d.title(), moment(until))
	case !inside && d.release.GetMoving() && c.movable > 0:
		d.note(ReasonClosed, false, "%s stands still: its window closed; it goes on at %s", d.title(), moment(until))
	}
	if inside {
		return true, ""
	}
	return false, fmt.Sprintf("%s, which opens at %s", waitsForWindow, moment(until))
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "a time that cannot be told: there is none in the next year"
	}
	return t.Format("2006-01-02 15:04 MST")
}
