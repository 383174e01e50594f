package demand

import (
	"slices"
	"time"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// bin is the grain of history, and of what is learned from it.
const bin = 5 * time.Minute

// agenda is a schedule laid out on the line of time.
type agenda struct {
	pool  Pool
	days  map[calendar.Date]calendar.Day
	opens []calendar.Opening
	spans []placed
	facts []fact
	open  map[calendar.Date][]uint32 // bins in which each date is open, as pairs
}

// placed is a span on one civil date.
type placed struct {
	span     *v1.TargetSpan
	from, to time.Time
	minute   int // of the wall at which it begins
}

func newAgenda(p Pool, from, to time.Time) *agenda {
	a := &agenda{pool: p, days: map[calendar.Date]calendar.Day{}, open: map[calendar.Date][]uint32{}, facts: facts(p.History)}
	zone := p.Calendar.Zone()
	// Where clocks are set back over midnight, the date of an instant may be the one before that of its opening.
	first, last := calendar.DateOf(from.In(zone)).Add(-1), calendar.DateOf(to.In(zone)).Add(1)
	for day := range p.Calendar.Days(first, last) {
		a.days[day.Date] = day
		a.open[day.Date] = openBins(day, zone)
		a.opens = append(a.opens, day.Openings...)
		if len(day.Openings) == 0 {
			continue
		}
		for _, span := range p.Spec.GetSchedule().GetSpans() {
			if holdsOn(span, day.Date.Weekday()) {
				a.place(span, day.Date, zone)
			}
		}
	}
	return a
}

// holdsOn says whether a span holds on a weekday; Sunday is the last of our days and the first of Go's.
func holdsOn(span *v1.TargetSpan, day time.Weekday) bool {
	return len(span.GetDays()) == 0 || slices.ContainsFunc(span.GetDays(), func(d v1.Weekday) bool { return int(d)%7 == int(day) })
}

// place puts a span on the line of time as the calendar does an opening: one that lies wholly in a gap of the clocks has its
// usual length from the gap's end on.
func (a *agenda) place(span *v1.TargetSpan, date calendar.Date, zone *time.Location) {
	begins, ends := minutes(span.GetFrom()), minutes(span.GetTo())
	if begins < 0 || ends <= begins {
		return // refused by Check; the rest of the schedule holds
	}
	p := placed{span: span, from: date.At(begins, zone), to: date.At(ends, zone), minute: begins}
	if !p.to.After(p.from) {
		p.to = p.from.Add(time.Duration(ends-begins) * time.Minute)
		if midnight := date.Add(1).At(0, zone); p.to.After(midnight) {
			p.to = midnight
		}
	}
	a.spans = append(a.spans, p)
}

// cuts are the instants in [from, to) at which the curve may change, and from.
func (a *agenda) cuts(from, to time.Time) []time.Time {
	cuts := []time.Time{from}
	add := func(times ...time.Time) {
		for _, t := range times {
			if t.After(from) && t.Before(to) {
				cuts = append(cuts, t)
			}
		}
	}
	for _, o := range a.opens {
		add(o.Open, o.Close)
	}
	for _, s := range a.spans {
		add(s.from, s.to)
	}
	for _, e := range a.pool.Spec.GetSchedule().GetExtra() {
		add(e.GetFrom().AsTime(), e.GetUntil().AsTime())
	}
	// Midnight, since closed days have names.
	for date := range a.days {
		add(date.At(0, a.pool.Calendar.Zone()))
	}
	if learns(a.pool.Spec.GetSchedule()) {
		// Zones are whole bins away from each other.
		for t := from.Truncate(bin).Add(bin); t.Before(to); t = t.Add(bin) {
			cuts = append(cuts, t)
		}
	}
	slices.SortFunc(cuts, time.Time.Compare)
	return slices.CompactFunc(cuts, time.Time.Equal)
}

// learns says whether any target or the buffer is learned.
func learns(s *v1.Schedule) bool {
	return s.GetOpen() == learned || s.GetClosed() == learned || bufferWord(s) == learned ||
		slices.ContainsFunc(s.GetSpans(), func(span *v1.TargetSpan) bool { return span.GetTarget() == learned })
}

// openAt is the opening that t lies in.
func (a *agenda) openAt(t time.Time) (calendar.Opening, bool) {
	for _, o := range a.opens {
		if !t.Before(o.Open) && t.Before(o.Close) {
			return o, true
		}
	}
	return calendar.Opening{}, false
}

// spanAt is the span that t lies in; of two, which only clocks that jump can bring together, the one that begins later.
func (a *agenda) spanAt(t time.Time) (found placed, ok bool) {
	for _, s := range a.spans {
		if !t.Before(s.from) && t.Before(s.to) && (!ok || s.minute > found.minute) {
			found, ok = s, true
		}
	}
	return found, ok
}

// dayOf is what the calendar says of the civil date of t.
func (a *agenda) dayOf(t time.Time) calendar.Day {
	return a.days[calendar.DateOf(t.In(a.pool.Calendar.Zone()))]
}
