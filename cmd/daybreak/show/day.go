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

func planRow(p *v1.Plan, now time.Time) (narrow, wide []string) {
	zone, err := time.LoadLocation(p.GetTimeZone())
	if err != nil {
		zone = time.UTC
	}
	short, _ := warmup.MostShort(p, time.Time{})
	var reasons []string
	for _, s := range p.GetShortfalls() {
		if !slices.Contains(reasons, s.GetReason()) {
			reasons = append(reasons, s.GetReason())
		}
	}
	ready := 0
	for _, s := range p.GetStarts() {
		if s.GetReady() != nil {
			ready++
		}
	}
	narrow = []string{name(p), p.GetPool(), p.GetDate(), count(len(p.GetStarts())), "", "", "", count(short), Moment(now.In(zone), p.GetMade())}
	if starts := p.GetStarts(); len(starts) > 0 {
		clock := func(s *v1.PlannedStart) string { return s.GetStartAt().AsTime().In(zone).Format("15:04:05 MST") }
		narrow[4], narrow[5] = clock(starts[0]), clock(starts[len(starts)-1])
		narrow[6] = fmt.Sprintf("%d/%d", ready, len(starts))
	}
	return narrow, []string{targetsWord(p), strings.Join(reasons, "; ")}
}

func historyRow(h *v1.History) (narrow, wide []string) {
	narrow = []string{name(h), count(len(h.GetDays())), "", "", count(len(h.GetBoots())), ""}
	if days := h.GetDays(); len(days) > 0 {
		most := uint32(0)
		for _, day := range days {
			for _, n := range day.GetClaimed() {
				most = max(most, n)
			}
		}
		narrow[2], narrow[3] = days[0].GetDate(), count(most)
	}
	var took []time.Duration
	digests, classes := map[string]bool{}, map[string]bool{}
	for _, boot := range h.GetBoots() {
		took = append(took, boot.GetTook().AsDuration())
		digests[boot.GetDigest()], classes[boot.GetHostClass()] = true, true
	}
	if len(took) > 0 {
		slices.Sort(took)
		narrow[5] = fmt.Sprintf("%s to %s, half of them %s", Span(took[0]), Span(took[len(took)-1]), Span(took[len(took)/2]))
	}
	var names []string
	for class := range classes {
		names = append(names, class)
	}
	slices.Sort(names)
	return narrow, []string{count(len(digests)), strings.Join(names, "; ")}
}

// day adds what of a pool's status is about its schedule.
func (p *page) day(pool *v1.Pool, now time.Time) {
	s := pool.GetStatus()
	if pool.GetSpec().GetSchedule() == nil {
		return
	}
	text := count(s.GetWanted()) + " run"
	if s.GetWantedReason() != "" {
		text += ": " + s.GetWantedReason()
	}
	p.line("Wanted", text)
	if s.GetNextDeadline() != nil {
		next := fmt.Sprintf("%d by %s", s.GetNextTarget(), Moment(now, s.GetNextDeadline()))
		if s.GetNextShortfall() > 0 {
			next += fmt.Sprintf("; %d will not be ready in time, see 'daybreak plan %s'", s.GetNextShortfall(), name(pool))
		}
		p.line("Next", next)
	}
	for _, e := range pool.GetSpec().GetSchedule().GetExtra() {
		if !e.GetUntil().AsTime().After(p.now) {
			continue
		}
		text := fmt.Sprintf("%d until %s", e.GetTarget(), Moment(now, e.GetUntil()))
		if e.GetFrom().AsTime().After(p.now) {
			text = fmt.Sprintf("%d from %s until %s", e.GetTarget(), Moment(now, e.GetFrom()), Moment(now, e.GetUntil()))
		}
		if e.GetNote() != "" {
			text += " (" + e.GetNote() + ")"
		}
		p.line("Extra", text)
	}
}

// countsWord counts a pool's desktops by what they are.
func countsWord(s *v1.PoolStatus) string {
	text := fmt.Sprintf("%d: %d ready, %d free, %d starting, %d failed", s.GetDesktops(), s.GetReady(), s.GetFree(), s.GetStarting(), s.GetFailed())
	for _, each := range []struct {
		n    uint32
		what string
	}{{s.GetCold(), "cold"}, {s.GetSuspended(), "suspended"}} {
		if each.n > 0 {
			text += fmt.Sprintf(", %d %s", each.n, each.what)
		}
	}
	text += fmt.Sprintf("; %d claimed", s.GetClaimed())
	if s.GetQueued() > 0 {
		text += fmt.Sprintf(", %s", countUsers(s.GetQueued()))
	}
	return text
}

func countUsers(n uint32) string {
	if n == 1 {
		return "1 user waits"
	}
	return fmt.Sprintf("%d users wait", n)
}

// History describes what a pool remembers: its last days, and how long starts took.
func History(out io.Writer, h *v1.History, now time.Time) error {
	p := &page{now: now}
	p.head(h.GetMeta())
	days := Table{Header: []string{"DATE", "MOST USERS", "ARRIVALS", "WATCHED"}}
	for _, day := range h.GetDays()[max(0, len(h.GetDays())-14):] {
		var most, arrivals uint32
		for _, n := range day.GetClaimed() {
			most = max(most, n)
		}
		for _, n := range day.GetArrivals() {
			arrivals += n
		}
		days.Rows = append(days.Rows, []string{day.GetDate(), count(most), count(arrivals), fmt.Sprintf("%d%%", day.GetWatched()*100/288)})
	}
	p.section(fmt.Sprintf("Days (the last of %d)", len(h.GetDays())), days)
	p.section("Starts", bootTable(h))
	return p.writeTo(out)
}

// bootTable sums up starts by version and class of host, the newest version last.
func bootTable(h *v1.History) Table {
	type kind struct{ digest, class string }
	var kinds []kind
	took := map[kind][]time.Duration{}
	for _, boot := range h.GetBoots() {
		k := kind{boot.GetDigest(), boot.GetHostClass()}
		if took[k] == nil {
			kinds = append(kinds, k)
		}
		took[k] = append(took[k], boot.GetTook().AsDuration())
	}
	t := Table{Header: []string{"VERSION", "HOSTS", "STARTS", "SHORTEST", "MEDIAN", "LONGEST"}}
	for _, k := range kinds {
		all := took[k]
		slices.Sort(all)
		t.Rows = append(t.Rows, []string{k.digest[:min(12, len(k.digest))], k.class, count(len(all)), Span(all[0]), Span(all[len(all)/2]), Span(all[len(all)-1])})
	}
	return t
}
