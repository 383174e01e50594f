package pool

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// Reasons of events about warm-ups.
const (
	ReasonPlanned = "WarmUpPlanned"
	ReasonMissed  = "WarmUpMissed"  // a deadline passed, and not all that should be was ready
	ReasonSkipped = "WarmUpSkipped" // the same, and the clock left out time in which they were to get ready
	// ReasonNoLongerShort: what was told to fall short will be ready in time after all.
	ReasonNoLongerShort = "WarmUpNoLongerShort"
)

// Labels of events about warm-ups: by them each is told once.
const (
	labelDate     = "date"
	labelDeadline = "deadline" // that was missed, or the last of those that will be
	labelShort    = "short"    // how many desktops were to fall short then
)

const (
	// missGrace is how long after a deadline desktops are counted: reports take their time.
	missGrace = time.Minute
	// missLatest is how long after it that is still news.
	missLatest = time.Hour
)

// tell records what people should hear of a plan: that it was made, whether it falls short, and that it was missed.
func (r *dayRound) tell(now time.Time, view *store.View, pool *v1.Pool, zone *time.Location, stored, next *v1.Plan) {
	events := view.EventsAbout(store.RefOf(pool))
	r.tellPlanned(now, events, pool, zone, next)
	for _, deadline := range deadlines(next) {
		if due := deadline.Add(missGrace); due.After(now) {
			r.lookAgain(due)
		}
	}
	for _, deadline := range deadlines(stored) {
		r.tellMissed(now, view, events, pool, zone, stored, next, deadline)
	}
}

// tellPlanned tells once that a plan was made, that it falls short, again when it does so by twice as many as was told, and that it does
// no longer: who was warned should not have to look after it.
func (r *dayRound) tellPlanned(now time.Time, events []*v1.Event, pool *v1.Pool, zone *time.Location, plan *v1.Plan) {
	short, _ := warmup.MostShort(plan, now)
	told := toldOf(events, plan.GetDate())
	ahead := slices.ContainsFunc(plan.GetStarts(), func(s *v1.PlannedStart) bool { return s.GetStartAt().AsTime().After(now) })
	news := !told.planned || short > 0 && (told.short == 0 || short >= 2*told.short)
	switch {
	case short == 0 && told.short > 0 && told.until > deadlineKey(now):
		r.event(now, pool, ReasonNoLongerShort, labelDate, plan.GetDate(), plan.GetDate()+": nothing is short any more: "+planText(now, plan, zone), false)
	case (ahead || short > 0) && news:
		event := r.event(now, pool, ReasonPlanned, labelDate, plan.GetDate(), plan.GetDate()+": "+planText(now, plan, zone), short > 0)
		event.Meta.Labels[labelShort] = strconv.Itoa(short)
		for _, s := range plan.GetShortfalls() {
			event.Meta.Labels[labelDeadline] = max(event.Meta.Labels[labelDeadline], deadlineKey(s.GetDeadline().AsTime()))
		}
	}
}

// toldPlan is what events say of a date's plan.
type toldPlan struct {
	planned bool
	short   int    // as was told at worst, unless it was told since that nothing is
	until   string // the last deadline that it was about
}

func toldOf(events []*v1.Event, date string) (told toldPlan) {
	for _, e := range events {
		labels := e.GetMeta().GetLabels()
		switch {
		case labels[labelDate] != date:
		case e.GetReason() == ReasonNoLongerShort:
			told.short = 0
		case e.GetReason() == ReasonPlanned:
			n, _ := strconv.Atoi(labels[labelShort])
			told = toldPlan{planned: true, short: max(told.short, n), until: max(told.until, labels[labelDeadline])}
		}
	}
	return told
}

// deadlineKey is a deadline as a label has it, in the order of time.
func deadlineKey(at time.Time) string { return at.UTC().Format("20060102T150405Z") }

// tellMissed tells once of a deadline that passed while not all that was to be ready was.
func (r *dayRound) tellMissed(now time.Time, view *store.View, events []*v1.Event, pool *v1.Pool, zone *time.Location, stored, next *v1.Plan, deadline time.Time) {
	since, key := now.Sub(deadline), deadlineKey(deadline)
	skipped := r.skipped.tookFrom(stored, deadline)
	toldBefore := slices.ContainsFunc(events, func(e *v1.Event) bool {
		if e.GetMeta().GetLabels()[labelDeadline] != key {
			return false
		}
		// One from the time to come was told before the clock was set back, and this deadline is another one, which does pass.
		return e.GetReason() == ReasonMissed || e.GetReason() == ReasonSkipped && (skipped || !e.GetAt().AsTime().After(now))
	})
	if since < missGrace || since > missLatest || toldBefore {
		return
	}
	if isUnheard(view, next, deadline) {
		return // a host that is heard, or called DOWN, asks for another plan
	}
	text := missText(now, view, next, deadline, zone)
	switch {
	case text == "":
	case skipped:
		r.event(now, pool, ReasonSkipped, labelDeadline, key, r.skipped.text(zone)+": "+text, true)
	default:
		r.event(now, pool, ReasonMissed, labelDeadline, key, text, true)
	}
}

// isUnheard: of some start for a deadline it is not known yet whether it was ready.
func isUnheard(view *store.View, plan *v1.Plan, deadline time.Time) bool {
	return slices.ContainsFunc(plan.GetStarts(), func(s *v1.PlannedStart) bool {
		_, unknown := unheardHost(view, plan, s)
		return unknown && s.GetDeadline().AsTime().Equal(deadline) && !warmup.AtOnce(s)
	})
}

func (r *dayRound) event(now time.Time, pool *v1.Pool, reason, label, value, text string, warning bool) *v1.Event {
	event := store.NewEvent(now, pool, reason, store.Cut(text, maxMessage), warning)
	event.Meta.Labels[label] = value
	r.events = append(r.events, store.Create(event))
	return event
}

// deadlines of a plan's starts, in order, each once.
func deadlines(plan *v1.Plan) []time.Time {
	var all []time.Time
	for _, start := range plan.GetStarts() {
		all = append(all, start.GetDeadline().AsTime())
	}
	slices.SortFunc(all, time.Time.Compare)
	return slices.CompactFunc(all, time.Time.Equal)
}

// planText says in a sentence what a plan will do. When its starts are is left to the plan: they move with all that is learned.
func planText(now time.Time, plan *v1.Plan, zone *time.Location) string {
	var ahead []*v1.PlannedStart
	hosts := map[uint32]bool{}
	for _, s := range plan.GetStarts() {
		if s.GetStartAt().AsTime().After(now) {
			ahead = append(ahead, s)
			hosts[s.GetHost()] = true
		}
	}
	text := "nothing starts"
	if len(ahead) > 0 {
		slices.SortFunc(ahead, func(a, b *v1.PlannedStart) int { return a.GetStartAt().AsTime().Compare(b.GetStartAt().AsTime()) })
		first, deadline := ahead[0].GetStartAt().AsTime(), ahead[0].GetDeadline().AsTime()
		text = fmt.Sprintf("%s on %s, the first %s", starts(len(ahead)), plural(len(hosts), "host"), toBeReady(now, first, deadline, zone))
	}
	for _, s := range plan.GetShortfalls() {
		if s.GetDeadline().AsTime().After(now) {
			text += "; " + shortText(s, zone)
		}
	}
	return text
}

// toBeReady says when a start is to be ready, though it may come too late for that. When that time is over, it may be that nobody planned for it:
// the start is for users whom nobody expected.
func toBeReady(now, start, deadline time.Time, zone *time.Location) string {
	switch {
	case !deadline.After(now):
		return "wanted since " + deadline.In(zone).Format("15:04:05 MST")
	case deadline.Before(start):
		return "is to be ready at " + deadline.In(zone).Format("15:04:05 MST")
	}
	return "to be ready at " + deadline.In(zone).Format("15:04 MST")
}

func starts(n int) string {
	if n == 1 {
		return "1 desktop starts"
	}
	return fmt.Sprintf("%d desktops start", n)
}

// shortText says in a sentence what will fall short.
func shortText(s *v1.Shortfall, zone *time.Location) string {
	text := fmt.Sprintf("%s will not be ready at %s", plural(int(s.GetDesktops()), "desktop"), s.GetDeadline().AsTime().In(zone).Format("15:04 MST"))
	if s.GetReady() != nil {
		text += fmt.Sprintf(" but at %s", s.GetReady().AsTime().In(zone).Format("15:04:05"))
	}
	return text + ": " + s.GetReason()
}

// missText says what was not ready at a deadline and why; "" when all that was planned for it was: what was planned later, for
// users whom nobody expected, could not be. What was ready by its host's clock was ready, and so was what got ready at a time that is
// yet to come: the clock was set back since.
func missText(now time.Time, view *store.View, plan *v1.Plan, deadline time.Time, zone *time.Location) string {
	all, missing := 0, 0
	why := map[string]int{}
	example := map[string]string{}
	for _, start := range plan.GetStarts() {
		if !start.GetDeadline().AsTime().Equal(deadline) || warmup.AtOnce(start) {
			continue
		}
		all++
		if ready := start.GetReady(); ready != nil && (!ready.AsTime().After(deadline) || ready.AsTime().After(now)) {
			continue
		}
		missing++
		name := seatName(plan, start)
		what := fate(view, name, start)
		why[what]++
		example[what] = name
	}
	if missing == 0 {
		return ""
	}
	kinds := make([]string, 0, len(why))
	for what := range why {
		kinds = append(kinds, what)
	}
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Or(cmp.Compare(why[b], why[a]), cmp.Compare(a, b)) })
	var parts []string
	for _, what := range kinds {
		parts = append(parts, fmt.Sprintf("%d %s (%s)", why[what], what, example[what]))
	}
	text := fmt.Sprintf("%d of %s that were to be ready at %s were not: %s", missing, plural(all, "desktop"),
		deadline.In(zone).Format("2006-01-02 15:04 MST"), strings.Join(parts, ", "))
	for _, s := range plan.GetShortfalls() {
		if s.GetDeadline().AsTime().Equal(deadline) {
			text += "; planned: " + shortText(s, zone)
		}
	}
	return text
}

// fate says in a few words what became of a desktop that was not ready in time.
func fate(view *store.View, name string, start *v1.PlannedStart) string {
	desktop, ok := store.Lookup[*v1.Desktop](view, name)
	host, _ := store.Lookup[*v1.Host](view, desktop.GetIncarnation().GetHost())
	state := store.State(desktop)
	switch {
	case !ok:
		return "no longer there"
	case start.GetReady() != nil:
		late := start.GetReady().AsTime().Sub(start.GetDeadline().AsTime())
		if late < time.Minute {
			return "ready within a minute after"
		}
		return fmt.Sprintf("ready up to %s after", spell(late.Truncate(time.Minute)+time.Minute))
	case state == v1.DesktopState_DESKTOP_STATE_LOST || host.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_DOWN:
		return "on silent hosts"
	case store.Broken(state):
		return "failed"
	case desktop.GetIncarnation().GetUnplacedReason() != "":
		return "without a host"
	case state == v1.DesktopState_DESKTOP_STATE_STARTING:
		return "still starting"
	case isStarting(state):
		return "not started"
	case state == v1.DesktopState_DESKTOP_STATE_READY:
		return "ready in another life"
	}
	return "being made anew"
}
