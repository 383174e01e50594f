package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// run goes on with waves.
func (d *decision) run(c census, sizes []int) {
	s := d.active.GetStatus()
	may, why := d.mayMove(c)
	number, before, next := waveOf(sizes, int(s.GetAdmitted()))
	s.Wave = uint32(number)
	d.release.Moving = may && number > 0
	d.release.Running = d.running(sizes)
	proven := c.good > 0 && c.good+len(c.stuck) >= int(d.release.GetRunning())
	moved := c.off() == 0 && c.starting == 0 && c.between == 0 && proven
	switch {
	case number == 0 && !may:
		d.sayLeft(c, why)
		d.estimate(c, sizes)
	case number == 0:
		d.admit(sizes, next)
	case !moved && !(proven && c.waveReady(int(s.GetAdmitted()), before)):
		d.sayWave(c, why)
		d.estimate(c, sizes)
	case !d.watched():
		d.estimate(c, sizes)
	case moved:
		d.finish()
	case next == 0 || !may:
		d.sayLeft(c, why)
		d.estimate(c, sizes)
	default:
		d.note(ReasonHealthy, false, "%s: wave %d of %d is healthy: %s version %d and %s ready",
			d.title(), number, len(sizes), verb(c.good, "desktop", "runs", "run"), d.active.GetSpec().GetToVersion(), are(c.good))
		d.admit(sizes, next)
	}
}

// verb is "1 desktop runs" or "2 desktops run".
func verb(n int, noun, one, many string) string {
	if n == 1 {
		return plural(n, noun) + " " + one
	}
	return plural(n, noun) + " " + many
}

// waveReady: every desktop of the wave that can move has, and is ready; and there is at least one that the wave before did
// not have, so that each wave proves something.
func (c census) waveReady(admitted, before int) bool {
	full := c.on >= admitted || c.movable == 0 && c.between == 0
	return c.starting == 0 && full && c.good > 0 && c.on > before
}

// running is how many desktops have to run the new version at once in the present wave, when a schedule would let them wait
// cold: of each wave up to now what it added, but no more than may be out of service at once.
func (d *decision) running(sizes []int) uint32 {
	if d.Pool.GetSpec().GetSchedule() == nil {
		return 0
	}
	admitted, limit := int(d.active.GetStatus().GetAdmitted()), maxUnavailable(d.Pool.GetSpec())
	total, before := 0, 0
	for _, size := range append(slices.Clone(sizes), admitted) {
		if size = min(size, admitted); size > before {
			total, before = total+min(size-before, limit), size
		}
	}
	return uint32(total)
}

// admit begins the wave of a size.
func (d *decision) admit(sizes []int, size int) {
	s := d.active.GetStatus()
	s.Admitted, s.WaveReady = uint32(size), nil
	d.release.Admitted, d.release.Moving = uint32(size), true
	d.release.Running = d.running(sizes)
	number, before, _ := waveOf(sizes, size)
	s.Wave = uint32(number)
	d.say("wave %d of %d begins", number, len(sizes))
	d.note(ReasonWave, false, "%s: wave %d of %d begins: from %d to %s with version %d",
		d.title(), number, len(sizes), before, plural(size, "desktop"), d.active.GetSpec().GetToVersion())
}

// watched: the wave was watched long enough since it was first ready.
func (d *decision) watched() bool {
	s := d.active.GetStatus()
	if s.GetWaveReady() == nil {
		s.WaveReady = timestamppb.New(d.now)
	}
	until := s.GetWaveReady().AsTime().Add(monitor(d.Pool.GetSpec().GetRollout()))
	if !d.now.Before(until) {
		return true
	}
	d.lookAgain(until)
	d.say("wave %d of %d: %s version %d and %s ready; watched until %s", s.GetWave(), s.GetWaves(),
		verb(int(s.GetMoved()), "desktop", "runs", "run"), d.active.GetSpec().GetToVersion(), are(int(s.GetMoved())), until.In(cmp.Or(d.Clock, time.UTC)).Format("2006-01-02 15:04:05 MST"))
	return false
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// sayWave tells what a wave that is not ready waits for.
func (d *decision) sayWave(c census, why string) {
	s := d.active.GetStatus()
	if why != "" {
		d.sayLeft(c, why)
		return
	}
	parts := []string{fmt.Sprintf("wave %d of %d: %d of %s ready with version %d", s.GetWave(), s.GetWaves(), c.good,
		plural(int(s.GetAdmitted()), "desktop"), d.active.GetSpec().GetToVersion())}
	if n := c.starting + c.between; n > 0 {
		parts = append(parts, fmt.Sprintf("%d on the way", n))
	}
	if n := int(d.release.GetRunning()) - c.good - len(c.stuck); n > 0 && c.cold > 0 {
		parts = append(parts, fmt.Sprintf("%d wait cold, %d of them have to run to prove it", c.cold, min(n, c.cold)))
	}
	parts = append(parts, d.left(c)...)
	d.say("%s", strings.Join(parts, "; "))
}

// sayLeft tells why nothing moves now.
func (d *decision) sayLeft(c census, why string) {
	if why == "" {
		why = "all that can move have"
	}
	d.say("%s", strings.Join(append([]string{why}, d.left(c)...), "; "))
}

// left are the reasons why desktops that could move as far as waves and windows go do not.
func (d *decision) left(c census) []string {
	var parts []string
	if n := len(c.stuck); n > 0 {
		parts = append(parts, fmt.Sprintf("%s with it on a silent host, without a host, or broken in its user's hands (%s)",
			plural(n, "desktop"), some(names(c.stuck))))
	}
	if floor := d.Pool.GetSpec().GetMinReady(); c.movable > 0 && c.free <= int(floor) && floor > 0 {
		parts = append(parts, fmt.Sprintf("more than minReady=%d ready desktops must be free, %d are", floor, c.free))
	}
	if c.movable > 0 {
		return parts
	}
	if n := len(c.inUse); n > 0 {
		until := "until their users release them"
		if n == 1 {
			until = "until its user releases it"
		}
		if force := d.release.GetForceFrom(); force != nil {
			until += ", or until " + moment(force.AsTime())
		}
		parts = append(parts, fmt.Sprintf("%s in use %s (%s)", plural(n, "desktop"), until, some(held(c.inUse))))
	}
	if n := len(c.away); n > 0 {
		parts = append(parts, fmt.Sprintf("%s on a host that is not heard from (%s): bring it back, or delete them with the word that it is off",
			plural(n, "desktop"), some(names(c.away))))
	}
	return parts
}

// held names desktops that users hold, with the restart that was announced to them.
func held(desktops []*v1.Desktop) []string {
	list := names(desktops)
	for i, desktop := range desktops {
		if at := desktop.GetClaim().GetRestartAt(); at != nil {
			list[i] += " restarts at " + moment(at.AsTime())
		}
	}
	return list
}

func names(desktops []*v1.Desktop) []string {
	var list []string
	for _, desktop := range desktops {
		list = append(list, desktop.GetMeta().GetName())
	}
	return list
}

// some names up to five things.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// finish ends the rollout: its version is the pool's.
func (d *decision) finish() {
	spec, s := d.active.GetSpec(), d.active.GetStatus()
	took := d.now.Sub(s.GetStarted().AsTime()).Truncate(time.Second)
	text := fmt.Sprintf("%s version %d, %v after it began", verb(int(s.GetMoved()), "desktop", "runs", "run"), spec.GetToVersion(), took)
	d.end(d.active, done, text)
	d.note(ReasonDone, false, "%s is done: %s", d.title(), text)
	previous := spec.GetFromVersion()
	if spec.GetRollback() {
		previous = d.release.GetPrevious()
	}
	d.settle(spec.GetToVersion(), previous)
}

// runBack goes on with a rollback: all at once within the pool's limits, without windows and without watching.
func (d *decision) runBack(c census) {
	may, why := d.mayMove(c)
	d.release.Moving = may
	switch {
	case c.off() == 0 && c.starting == 0 && c.between == 0:
		d.finish()
	case c.movable == 0 && c.starting == 0 && c.between == 0:
		d.sayLeft(c, why)
	case why != "":
		d.sayLeft(c, why)
	default:
		d.sayLeft(c, fmt.Sprintf("%d of %s ready with version %d", c.good, plural(c.live, "desktop"), d.active.GetSpec().GetToVersion()))
		d.estimate(c, []int{c.seats})
	}
}
