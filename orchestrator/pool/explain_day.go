package pool

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// cooledWithin is how long after a desktop was cooled its next life begins at most, for the story to be told.
const cooledWithin = 15 * time.Minute

// resting says why a desktop does not run that is well, and when it will; "" when it is to run now.
func (d *decision) resting(view *store.View, desktop *v1.Desktop) string {
	if asleep := d.asleep(view, desktop); asleep != "" {
		return asleep
	}
	inc, zone := desktop.GetIncarnation(), d.Clock
	switch {
	case isSuspended(desktop):
		where := onHost(view, inc.GetHost()) + d.whySuspended(view, desktop)
		if store.State(desktop) != v1.DesktopState_DESKTOP_STATE_SUSPENDED {
			return "it is being suspended" + where
		}
		return "it is suspended" + where + ", where its memory lies in the store; it goes on when " + inc.GetUsedBy() + " claims it"
	case !isCold(d.now, desktop):
		return ""
	}
	text := "it waits cold" + onHost(view, inc.GetHost())
	if at := inc.GetStartAt(); at != nil {
		text += fmt.Sprintf(" and starts at %s", at.AsTime().In(zone).Format("2006-01-02 15:04:05 MST"))
		if deadline := d.deadlineOf(desktop); !deadline.IsZero() {
			step, seats := demand.At(d.Curve, deadline), int(d.Pool.GetSpec().GetDesktops())
			text += fmt.Sprintf(", %s: %d are wanted then (%s)", toBeReady(d.now, at.AsTime(), deadline, zone),
				step.Wanted(d.held+d.kept, seats), step.Why(d.held, d.kept, seats))
		}
	} else {
		text += ": " + d.whyCold(desktop, zone)
	}
	if story := d.cooled(view, desktop); story != "" {
		text += "; before that it ran, and was " + story
	}
	return text
}

// deadlineOf is when a desktop must be ready that a plan starts; zero when no plan knows.
func (d *decision) deadlineOf(desktop *v1.Desktop) time.Time {
	for _, plan := range d.Plans {
		for _, start := range plan.GetStarts() {
			if int(start.GetSeat()) == seatNumber(desktop) && start.GetStartAt().AsTime().Equal(desktop.GetIncarnation().GetStartAt().AsTime()) {
				return start.GetDeadline().AsTime()
			}
		}
	}
	return time.Time{}
}

// whyCold says why a desktop that has no time to start waits.
func (d *decision) whyCold(desktop *v1.Desktop, zone *time.Location) string {
	t := d.versionOf(desktop)
	switch {
	case d.warm >= d.want:
		text := fmt.Sprintf("it is not needed: %s, and %d run or are on the way", d.whyWanted(), d.warm)
		if at, target := d.nextRise(); !at.IsZero() {
			text += fmt.Sprintf("; %d are wanted at %s", target, at.In(zone).Format("2006-01-02 15:04 MST"))
		}
		return text
	case t.held(d.now):
		return fmt.Sprintf("it is needed (%s), and not started before %s, since too many failed in a row", d.whyWanted(), clock(d.Clock, t.hold.until))
	case t != nil && t.tried:
		return fmt.Sprintf("it is needed (%s), and is started once the one that is tried first is ready", d.whyWanted())
	case !d.fitsWhereItLies(desktop):
		return fmt.Sprintf("it is needed (%s), and %s", d.whyWanted(), d.noRoom(desktop))
	}
	return fmt.Sprintf("it is needed (%s), and is about to be started", d.whyWanted())
}

// noRoom says why a cold desktop cannot be started on its host.
func (d *decision) noRoom(desktop *v1.Desktop) string {
	name, n := desktop.GetIncarnation().GetHost(), need(desktop, room.Runs)
	h := d.host(name)
	text := fmt.Sprintf("waits for its host %s, which is not up", name)
	switch {
	case h == nil:
		return text
	case h.GetSpec().GetUnschedulable() && desktop.GetSpec().GetDataHost() == "":
		text = fmt.Sprintf("is to be made anew, since host %s takes no desktops", name)
	case h.GetStatus().GetPhase() != v1.HostPhase_HOST_PHASE_UP:
		return text
	case h.Strangers:
		text = fmt.Sprintf("waits, since on host %s VMs run that no desktop owns", name)
	case h.FreeVCPUs < int64(n.VCPUs):
		text = fmt.Sprintf("waits for vCPUs on host %s: it needs %d, and %d are free", name, n.VCPUs, max(0, h.FreeVCPUs))
	default:
		text = fmt.Sprintf("waits for memory on host %s: it needs %d MiB, and %d are free", name, n.MemoryMiB, max(0, h.FreeMemoryMiB))
	}
	if desktop.GetSpec().GetDataHost() != "" {
		return text + "; its data disk lies there"
	}
	if other := d.roomElsewhere(desktop); other != nil {
		return text + fmt.Sprintf("; host %s has room, and it is made anew there", other.Name())
	}
	return text + "; no other host has room"
}

// cooled tells of the round that ended the desktop's life before, if that was to give back what it took.
func (d *decision) cooled(view *store.View, desktop *v1.Desktop) string {
	created := desktop.GetIncarnation().GetCreated().AsTime()
	_, story := d.cooling(view, desktop, created.Add(-cooledWithin), created)
	return story
}

// cooling finds the newest round between two times that gave back what the desktop took, and tells of it; "" when there was none.
func (d *decision) cooling(view *store.View, desktop *v1.Desktop, from, to time.Time) (at time.Time, story string) {
	for _, event := range slices.Backward(view.EventsAbout(store.RefOf(d.Pool))) {
		at = event.GetAt().AsTime()
		if event.GetReason() != ReasonCooled || at.Before(from) || at.After(to) {
			continue
		}
		text, seats := apart(event.GetMessage())
		if !inRanges(seats, seatNumber(desktop)) {
			continue
		}
		_, why, _ := strings.Cut(text, " cooled: ")
		return at, fmt.Sprintf("cooled at %s: %s", clock(d.Clock, at), why)
	}
	return time.Time{}, ""
}

// inRanges reads what ranges wrote.
func inRanges(text string, number int) bool {
	for part := range strings.SplitSeq(text, ", ") {
		from, to := 0, 0
		if n, err := fmt.Sscanf(part, "%d-%d", &from, &to); n == 1 || err != nil && n == 0 {
			to = from
		}
		if from <= number && number <= to && number > 0 {
			return true
		}
	}
	return false
}

// shortage says why fewer run than are wanted, when cold desktops could; "" when that is not so.
func (d *decision) shortage() string {
	if d.warm >= d.want || !d.scheduled() {
		return ""
	}
	cold, crowded := 0, 0
	var example *v1.Desktop
	for _, desktop := range d.sleepers(nil) {
		cold++
		if isCold(d.now, desktop) && !d.fitsWhereItLies(desktop) {
			crowded++
			example = desktop
		}
	}
	if crowded == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %s cannot start where they lie, for example %s %s", crowded, plural(cold, "cold desktop"),
		example.GetMeta().GetName(), d.noRoom(example))
}

// dayNews tells what the schedule asks for and how far the pool is.
func (d *decision) dayNews() []string {
	if !d.scheduled() {
		return nil
	}
	zone := d.Clock
	text := fmt.Sprintf("%s; %d run or are on the way", d.whyWanted(), d.warm)
	if at, target := d.nextRise(); !at.IsZero() {
		text += fmt.Sprintf("; %d are wanted at %s", target, at.In(zone).Format("2006-01-02 15:04 MST"))
	}
	lines := []string{text}
	for _, plan := range d.Plans {
		for _, s := range plan.GetShortfalls() {
			if s.GetDeadline().AsTime().After(d.now) {
				lines = append(lines, plan.GetDate()+": "+shortText(s, zone))
			}
		}
	}
	return lines
}
