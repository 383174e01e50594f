package pool

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/demand"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Bounds of an explanation.
const (
	maxExplained = 20 // desktops of a pool that are told one by one
	maxRecounted = 5  // newest events
)

// Explain says in plain sentences why a desktop or a pool is as it is. A name that both have means the pool.
// store.ErrNotFound when there is neither.
func Explain(view *store.View, now time.Time, name string) (*v1.ExplainResponse, error) {
	if pool, ok := store.Lookup[*v1.Pool](view, name); ok {
		return explainPool(view, now, pool), nil
	}
	if desktop, ok := store.Lookup[*v1.Desktop](view, name); ok {
		return explainDesktop(view, now, desktop), nil
	}
	return nil, fmt.Errorf("explain %q: no pool, no desktop and no host of that name: %w", name, store.ErrNotFound)
}

func explainPool(view *store.View, now time.Time, pool *v1.Pool) *v1.ExplainResponse {
	d := newDecision(now, snapshotOf(view, pool, now, &curves{}))
	d.weigh(d.surplus)
	status := d.status()
	answer := &v1.ExplainResponse{Summary: fmt.Sprintf("pool %s is as it should be: %s ready", pool.GetMeta().GetName(),
		plural(int(pool.GetSpec().GetDesktops()), "desktop"))}
	switch {
	case status.GetMessage() != "":
		answer.Summary = fmt.Sprintf("pool %s: %s", pool.GetMeta().GetName(), status.GetMessage())
	case d.scheduled():
		answer.Summary = fmt.Sprintf("pool %s is as it should be: %d of %s ready, %d cold", pool.GetMeta().GetName(), status.GetReady(),
			plural(int(pool.GetSpec().GetDesktops()), "desktop"), status.GetCold())
		if n := d.dormant; n > 0 {
			answer.Summary += fmt.Sprintf(", %d %s", n, sleeping(n))
		}
	}
	answer.Details = slices.Concat(d.dayNews(), d.queueNews(), d.rolloutNews(view), demand.Explain(DemandOf(view, pool), now))
	told := 0
	for _, desktop := range d.Desktops {
		why := d.condition(view, desktop)
		if why == "" {
			continue
		}
		if told++; told <= maxExplained {
			answer.Details = append(answer.Details, desktop.GetMeta().GetName()+": "+why)
		}
	}
	if told > maxExplained {
		answer.Details = append(answer.Details, fmt.Sprintf("and %d more", told-maxExplained))
	}
	answer.Details = append(answer.Details, recount(d.Clock, view, pool)...)
	return answer
}

func explainDesktop(view *store.View, now time.Time, desktop *v1.Desktop) *v1.ExplainResponse {
	name := desktop.GetMeta().GetName()
	pool, ok := store.Lookup[*v1.Pool](view, desktop.GetSpec().GetPool())
	if !ok {
		return &v1.ExplainResponse{Summary: fmt.Sprintf("%s belongs to pool %s, which does not exist", name, desktop.GetSpec().GetPool())}
	}
	d := newDecision(now, snapshotOf(view, pool, now, &curves{}))
	d.weigh(d.surplus)
	answer := &v1.ExplainResponse{Summary: name + " is ready"}
	if why := d.condition(view, desktop); why != "" {
		answer.Summary = name + " is not ready: " + why
	} else if claim := desktop.GetClaim(); claim != nil {
		answer.Summary = fmt.Sprintf("%s is ready, and %s has held it since %s", name, claim.GetUser(), clock(d.Clock, claim.GetSince().AsTime())) +
			d.clockFor(claim)
	}
	inc := desktop.GetIncarnation()
	answer.Details = append(answer.Details, fmt.Sprintf("generation %d began at %s with version %d of image %s: %s",
		inc.GetGeneration(), clock(d.Clock, inc.GetCreated().AsTime()), inc.GetVersion(), inc.GetImage(), inc.GetReason())+
		d.whyReleased(view, desktop))
	if news := d.versionNews(view, desktop); news != "" {
		answer.Details = append(answer.Details, news)
	}
	if news := d.idleNews(view, desktop); news != "" {
		answer.Details = append(answer.Details, news)
	}
	if news := d.refreshNews(desktop); news != "" {
		answer.Details = append(answer.Details, news)
	}
	if times := store.Course(desktop); len(times) > 0 {
		answer.Details = append(answer.Details, "by its host's clock: "+journey(d.Clock, times))
	}
	if whose := heir(desktop); whose != "" {
		answer.Details = append(answer.Details, whose)
	}
	if user := desktop.GetSpec().GetDataUser(); user != "" {
		answer.Details = append(answer.Details, fmt.Sprintf("its data disk is %s's: nobody else ever gets it", user))
	}
	if host, _ := store.Lookup[*v1.Host](view, inc.GetHost()); host.GetSpec().GetUnschedulable() {
		answer.Details = append(answer.Details, "host "+inc.GetHost()+" is drained; "+cmp.Or(Staying(now, d.Clock, pool, desktop), "it leaves by itself"))
	}
	answer.Details = append(answer.Details, recount(d.Clock, view, desktop)...)
	return answer
}

// condition says why a desktop is not ready and what comes next; "" when it is ready.
func (d *decision) condition(view *store.View, desktop *v1.Desktop) string {
	inc, rest := desktop.GetIncarnation(), d.resting(view, desktop)
	switch state := store.State(desktop); {
	case d.deletion(desktop) != nil && desktop.GetClaim() != nil:
		return fmt.Sprintf("it is to be deleted, and waits until %s lets go of it", desktop.GetClaim().GetUser())
	case d.isOver(desktop):
		return "its life ended; " + d.sequel(desktop)
	case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED:
		return "its life is being ended" + onHost(view, inc.GetHost()) + "; then " + d.sequel(desktop)
	case state == v1.DesktopState_DESKTOP_STATE_PENDING && inc.GetUnplacedReason() != "":
		return inc.GetUnplacedReason()
	case rest != "" && state != v1.DesktopState_DESKTOP_STATE_LOST && !store.Broken(state):
		return rest
	case state == v1.DesktopState_DESKTOP_STATE_PENDING:
		return "a host is being chosen"
	case state == v1.DesktopState_DESKTOP_STATE_LOST:
		return fmt.Sprintf("its host %s is not heard from, and it may still run there; it goes on when the host is back, and is made anew "+
			"when somebody deletes the host with the word that it is off", inc.GetHost())
	case store.Broken(state):
		return "it failed" + onHost(view, inc.GetHost()) + ": " + failure(desktop) + "; " + d.mending(desktop)
	case store.Present(desktop).GetPausedIo():
		return "it stands still" + onHost(view, inc.GetHost()) + ", whose store is full or failing; it goes on when that is mended"
	case state == v1.DesktopState_DESKTOP_STATE_READY:
		return ""
	default:
		text := word(state) + onHost(view, inc.GetHost())
		if message := store.Present(desktop).GetMessage(); message != "" {
			text += ": " + message
		}
		if host, _ := store.Lookup[*v1.Host](view, inc.GetHost()); state == v1.DesktopState_DESKTOP_STATE_PREPARED && host.GetStatus().GetUsage().GetHeldBack() != "" {
			text += "; the host says: " + host.GetStatus().GetUsage().GetHeldBack()
		}
		return text
	}
}

// word is a state as people write it.
func word(state v1.DesktopState) string {
	return strings.ToLower(strings.TrimPrefix(state.String(), "DESKTOP_STATE_"))
}

// sequel says what follows the end of a life.
func (d *decision) sequel(desktop *v1.Desktop) string {
	if deletion := d.deletion(desktop); deletion != nil {
		return "it is removed, " + deletedBy(deletion)
	}
	if d.surplus[desktop.GetMeta().GetName()] {
		return "it is removed, since the pool wants fewer desktops"
	}
	return "a new one begins" + d.obstacle()
}

// mending says when a failed desktop is made anew.
func (d *decision) mending(desktop *v1.Desktop) string {
	switch {
	case d.deletion(desktop) != nil || d.surplus[desktop.GetMeta().GetName()]:
		return d.sequel(desktop)
	case desktop.GetClaim() != nil && !servedNobody(desktop):
		return fmt.Sprintf("it is made anew, with nothing of what was on it but its data disk, once %s, who holds it, lets go of it", desktop.GetClaim().GetUser())
	case !d.alone(desktop).IsZero():
		return "it is made anew after " + clock(d.Clock, d.alone(desktop)) + ", since it failed too often"
	case d.obstacle() == "" && d.budget() <= 0:
		return "it is made anew when fewer of the pool are out of service (maxUnavailable)"
	}
	return "it is made anew" + d.obstacle()
}

// obstacle says what keeps new lives from beginning, as the end of a sentence; "" when nothing does.
func (d *decision) obstacle() string {
	switch {
	case d.open(d.next) && d.onNext < int(d.Pool.GetRelease().GetAdmitted()):
		return ""
	case d.base.version == nil:
		return " once this is mended: " + d.base.why
	case d.base.held(d.now):
		return fmt.Sprintf(" after %s, since too many failed in a row", clock(d.Clock, d.base.hold.until))
	}
	return ""
}

// onHost names the host, and its trouble if it has one.
func onHost(view *store.View, name string) string {
	if name == "" {
		return ""
	}
	host, ok := store.Lookup[*v1.Host](view, name)
	if !ok {
		return " on host " + name + ", which was removed"
	}
	text := " on host " + name
	switch host.GetStatus().GetPhase() {
	case v1.HostPhase_HOST_PHASE_UP:
		return text
	case v1.HostPhase_HOST_PHASE_DOWN:
		text += ", which is down"
	case v1.HostPhase_HOST_PHASE_DEGRADED:
		text += ", which is degraded"
	default:
		text += ", whose agent was not heard yet"
	}
	if message := host.GetStatus().GetMessage(); message != "" {
		text += " (" + message + ")"
	}
	return text
}

// journey tells when each state was reached: the first as a time, the others as what they took.
func journey(zone *time.Location, times []*v1.StateTime) string {
	parts := make([]string, 0, len(times))
	for i, t := range times {
		name := strings.TrimPrefix(t.GetState().String(), "DESKTOP_STATE_")
		if slices.ContainsFunc(times[:i], func(before *v1.StateTime) bool { return before.GetState() == t.GetState() }) {
			name += " again"
		}
		if i == 0 {
			parts = append(parts, name+" at "+clock(zone, t.GetAt().AsTime()))
			continue
		}
		took := t.GetAt().AsTime().Sub(times[i-1].GetAt().AsTime()).Round(100 * time.Millisecond)
		parts = append(parts, fmt.Sprintf("%s %v later", name, took))
	}
	return strings.Join(parts, ", ")
}

// recount tells the newest events about an object, oldest first.
func recount(zone *time.Location, view *store.View, subject store.Object) []string {
	var lines []string
	events := view.EventsAbout(store.RefOf(subject))
	for _, event := range events[max(0, len(events)-maxRecounted):] {
		lines = append(lines, fmt.Sprintf("%s %s: %s", clock(zone, event.GetAt().AsTime()), event.GetReason(), event.GetMessage()))
	}
	return lines
}

// clock writes a time for people; the zone is said, since reader and server may be in different ones.
func clock(zone *time.Location, t time.Time) string {
	return inZone(zone, t).Format("2006-01-02 15:04:05 MST")
}

// inZone is a time by the clocks of a zone; nil means UTC.
func inZone(zone *time.Location, t time.Time) time.Time {
	if zone == nil {
		zone = time.UTC
	}
	return t.In(zone)
}
