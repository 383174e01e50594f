package show

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// maxWaves is how many lines of waves a plan shows.
	maxWaves = 40
	// maxMissed is how many desktops a plan names that were late.
	maxMissed = 20
)

// Missed is a desktop that was not ready in time, and what kept it.
type Missed struct {
	Desktop string
	Start   *v1.PlannedStart
	Host    string
	Why     string
	// Unheard: whether it was is not known yet.
	Unheard bool
}

// MissedOf are the starts of a plan that were not ready by deadlines that could be met, as of now, at most as many as are shown, and how many more there are.
func MissedOf(answer *v1.PlanResponse, now time.Time) (missed []Missed, more int) {
	plan := answer.GetPlan()
	for _, s := range plan.GetStarts() {
		deadline := s.GetDeadline().AsTime()
		if deadline.After(now) || warmup.AtOnce(s) || s.GetReady() != nil && !s.GetReady().AsTime().After(deadline) {
			continue
		}
		if len(missed) == maxMissed {
			more++
			continue
		}
		m := Missed{Desktop: fmt.Sprintf("%s-%d", plan.GetPool(), s.GetSeat()), Start: s}
		if m.Unheard = s.GetReady() == nil && slices.Contains(answer.GetUnheard(), s.GetSeat()); m.Unheard {
			m.Why = "its host was not heard since the control plane came back"
		}
		if hosts := plan.GetHosts(); int(s.GetHost()) < len(hosts) {
			m.Host = hosts[s.GetHost()].GetName()
		}
		missed = append(missed, m)
	}
	return missed, more
}

// Plan shows how a pool is warmed up on a date: whether it will do, the waves of each host, the chart, what is short, and, of what is over,
// what became of it. width is that of the screen.
func Plan(out io.Writer, answer *v1.PlanResponse, missed []Missed, more int, width int, now time.Time) error {
	plan := answer.GetPlan()
	zone, err := time.LoadLocation(plan.GetTimeZone())
	if err != nil {
		zone = time.UTC
	}
	v := planView{page: &page{now: now.In(zone)}, answer: answer, plan: plan, zone: zone, over: !answer.GetDryRun() && began(plan, now)}
	v.text.WriteString(Clean(answer.GetSummary()) + "\n")
	v.text.WriteString(v.origin() + "\n")
	v.waves()
	v.chart(width)
	v.shortfalls()
	v.missed(missed, more)
	return v.writeTo(out)
}

// began: the first start of a plan has come.
func began(plan *v1.Plan, now time.Time) bool {
	return len(plan.GetStarts()) > 0 && !plan.GetStarts()[0].GetStartAt().AsTime().After(now)
}

type planView struct {
	*page
	answer *v1.PlanResponse
	plan   *v1.Plan
	zone   *time.Location
	over   bool
}

func (v planView) clock(t time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return ""
	}
	if t = t.In(v.zone); t.Format(time.DateOnly) != v.plan.GetDate() {
		return t.Format("01-02 15:04:05")
	}
	return t.Format("15:04:05")
}

// origin says what the plan is made of.
func (v planView) origin() string {
	if v.answer.GetDryRun() {
		return "A dry run by what is known now. Times are " + Clean(v.plan.GetTimeZone()) + "'s."
	}
	if v.plan.GetMade() == nil {
		return "No plan was kept of it."
	}
	return "Planned " + Moment(v.now, v.plan.GetMade()) + ". Times are " + Clean(v.plan.GetTimeZone()) + "'s."
}

func (v planView) waves() {
	t := Table{Header: []string{"BY", "HOST", "DESKTOPS", "FIRST START", "LAST START", "EXPECTED", "99 OF 100", "AT ONCE", "A START TAKES"}}
	if v.over {
		t.Header = append(t.Header, "READY", "LAST READY")
	}
	waves := warmup.Waves(v.plan)
	for _, w := range waves[:min(len(waves), maxWaves)] {
		row := []string{
			v.clock(w.Deadline), w.Host.GetName(), count(w.Starts), v.clock(w.First), v.clock(w.Last), v.clock(w.Expected), v.clock(w.Sure),
			count(w.Host.GetBoots()), takes(w.Host),
		}
		if v.over {
			row = append(row, fmt.Sprintf("%d/%d", w.Ready, w.Starts), v.clock(w.LastReady))
		}
		t.Rows = append(t.Rows, row)
	}
	v.section("Starts", t)
	if more := len(waves) - maxWaves; more > 0 {
		fmt.Fprintf(&v.text, "  and %d more lines; -o json has every start\n", more)
	}
}

// takes is how long starts take on a host, and how that is known: "21s, up to 34s (128 seen)".
func takes(h *v1.PlanHost) string {
	mean, quantile := h.GetMean().AsDuration(), h.GetQuantile().AsDuration()
	if h.GetSamples() == 0 {
		return "up to " + Span(quantile) + " (none seen yet)"
	}
	return fmt.Sprintf("%s, up to %s (%d seen)", Span(mean), Span(quantile), h.GetSamples())
}

func (v planView) chart(width int) {
	from, to := v.window()
	if from.IsZero() {
		return
	}
	lines := Chart(v.answer.GetPoints(), from, to, v.zone, width-2, v.over, v.now)
	if len(lines) == 0 {
		return
	}
	v.text.WriteString("\nReady desktops (# ")
	if v.over {
		v.text.WriteString("planned and ready, - planned only, + ready only, ")
	} else {
		v.text.WriteString("planned, ")
	}
	v.text.WriteString("| wanted):\n")
	for _, line := range lines {
		v.text.WriteString("  " + line + "\n")
	}
}

// window is the time that is worth looking at: from before the first start until after the last deadline, or the last that came late.
func (v planView) window() (from, to time.Time) {
	see := func(t time.Time) {
		if from.IsZero() || t.Before(from) {
			from = t
		}
		if t.After(to) {
			to = t
		}
	}
	for _, w := range warmup.Waves(v.plan) {
		see(w.First)
		see(w.Sure)
		see(w.Deadline)
		if !w.LastReady.IsZero() {
			see(w.LastReady)
		}
	}
	for _, s := range v.plan.GetShortfalls() {
		see(s.GetDeadline().AsTime())
		if s.GetReady() != nil {
			see(s.GetReady().AsTime())
		}
	}
	if from.IsZero() {
		return from, to
	}
	margin := to.Sub(from) / 20
	return from.Add(-margin), to.Add(margin)
}

func (v planView) shortfalls() {
	t := Table{Header: []string{"BY", "DESKTOPS", "READY", "WHY"}}
	for _, s := range v.plan.GetShortfalls() {
		if s.GetReady() != nil && v.met(s.GetDeadline().AsTime()) {
			continue // it was feared, and came better
		}
		ready := "never"
		if s.GetReady() != nil {
			ready = v.clock(s.GetReady().AsTime())
		}
		t.Rows = append(t.Rows, []string{v.clock(s.GetDeadline().AsTime()), count(s.GetDesktops()), ready, s.GetReason()})
	}
	v.section("Short", t)
}

// met: a deadline is over, and all that was to be ready by it was.
func (v planView) met(deadline time.Time) bool {
	return !deadline.After(v.now) && !slices.ContainsFunc(v.plan.GetStarts(), func(s *v1.PlannedStart) bool {
		return s.GetDeadline().AsTime().Equal(deadline) && !warmup.AtOnce(s) && (s.GetReady() == nil || s.GetReady().AsTime().After(deadline))
	})
}

func (v planView) missed(missed []Missed, more int) {
	t := Table{Header: []string{"DESKTOP", "HOST", "START", "BY", "READY", "LATE", "WHY"}}
	for _, m := range missed {
		deadline := m.Start.GetDeadline().AsTime()
		row := []string{m.Desktop, m.Host, v.clock(m.Start.GetStartAt().AsTime()), v.clock(deadline), "never", "", m.Why}
		if m.Unheard {
			row[4] = "not known"
		}
		if ready := m.Start.GetReady(); ready != nil {
			row[4], row[5] = v.clock(ready.AsTime()), Span(ready.AsTime().Sub(deadline).Truncate(time.Second))
		}
		t.Rows = append(t.Rows, row)
	}
	v.section("Not ready in time", t)
	if more > 0 {
		fmt.Fprintf(&v.text, "  and %d more\n", more)
	}
}

// targetsWord is a plan's targets in few words: "0, 40 from 08:30, 0 from 17:15".
func targetsWord(plan *v1.Plan) string {
	zone, err := time.LoadLocation(plan.GetTimeZone())
	if err != nil {
		zone = time.UTC
	}
	var parts []string
	for i, t := range plan.GetTargets() {
		if i == 8 {
			parts = append(parts, fmt.Sprintf("and %d more", len(plan.GetTargets())-i))
			break
		}
		part := count(t.GetRunning())
		if i > 0 {
			part += " from " + t.GetFrom().AsTime().In(zone).Format("15:04")
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}
