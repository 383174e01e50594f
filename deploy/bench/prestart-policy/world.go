package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
	_ "time/tzdata"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/demand"
	v1 "daybreak/proto/daybreak/v1"
)

// second is virtual time: since midnight of the first day.
type second = int64

const (
	minute = second(60)
	hour   = 60 * minute
	day    = 24 * hour
)

// The office: it opens at half past eight, and the middle sixth of the hour that begins then is ten minutes.
const (
	opens       = 8*hour + 30*minute
	closes      = 17*hour + 15*minute
	sixthBegins = opens + 25*minute
	sixthEnds   = opens + 35*minute
)

// Days that are not like the others. The first is a Monday.
const (
	firstDay   = "2026-08-31"
	typhoonDay = "2026-10-07"
	sunday     = "2026-11-15"
)

// claim is one logon.
type claim struct {
	begins, ends second
}

// house is one pool of the world: what it is, and what happens to it whatever the policy.
type house struct {
	name   string
	kind   string
	seats  int
	median float64          // of the time to ready, seconds
	claims []claim          // in order of begins
	days   []*v1.DayHistory // all of them, oldest first
}

// world is what all policies have in common.
type world struct {
	options
	calendar *calendar.Resolved
	start    time.Time
	openings []claim // of the office
	pools    []*house
}

// at is an instant of the world's time.
func (w *world) at(t second) time.Time { return w.start.Add(time.Duration(t) * time.Second) }

// since is the world's time of an instant.
func (w *world) since(t time.Time) second { return second(t.Sub(w.start) / time.Second) }

func (w *world) end() second { return second(w.weeks) * 7 * day }

func (w *world) seats() (sum int) {
	for _, h := range w.pools {
		sum += h.seats
	}
	return sum
}

// office is the calendar: Japan's holidays of that time, a year's end, and the added Sunday.
func office() (*calendar.Resolved, error) {
	spec := &v1.CalendarSpec{
		TimeZone: "Asia/Tokyo",
		Hours:    []*v1.OfficeHours{{Days: []v1.Weekday{1, 2, 3, 4, 5}, Open: "08:30", Close: "17:15"}},
		Openings: []*v1.CalendarOpening{{Date: sunday, Open: "08:30", Close: "17:15", Name: "the citizens' Sunday"}},
	}
	// By date, since the calendar is asked some hundred thousand times and works out a set each time.
	for _, date := range []string{"2026-09-21", "2026-09-22", "2026-09-23", "2026-10-12", "2026-11-03", "2026-11-23", "2026-12-29", "2026-12-30",
		"2026-12-31", "2027-01-01", "2027-01-11", "2027-02-11", "2027-02-23", "2027-03-22", "2027-04-29", "2027-05-03", "2027-05-04", "2027-05-05", "2027-07-19", "2027-08-11"} {
		spec.Holidays = append(spec.Holidays, &v1.CalendarDay{Date: date})
	}
	return calendar.Resolve(&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: spec}, nil)
}

func newWorld(o options) (*world, error) {
	cal, err := office()
	if err != nil {
		return nil, err
	}
	first, err := calendar.ParseDate(firstDay)
	if err != nil {
		return nil, err
	}
	w := &world{options: o, calendar: cal, start: first.At(0, cal.Zone())}
	for each := range cal.Openings(first, first.Add(7*o.weeks)) {
		w.openings = append(w.openings, claim{w.since(each.Open), w.since(each.Close)})
	}
	for i := range o.pools {
		random := rand.New(rand.NewPCG(o.seed, uint64(i)))
		h := &house{name: fmt.Sprintf("pool-%02d", i), kind: kindOf(i), median: 55 + 40*random.Float64()}
		if i%4 == 3 { // a heavier guest system
			h.median = 150 + 60*random.Float64()
		}
		users := int(12 * math.Exp(2.2*random.Float64()))
		for d := range cal.Days(first, first.Add(7*o.weeks-1)) {
			h.claims = append(h.claims, h.logons(random, d, users, w.since(d.Date.At(0, cal.Zone())), d.Date == first || closedBefore(cal, d.Date))...)
		}
		slices.SortFunc(h.claims, func(a, b claim) int { return int(a.begins - b.begins) })
		h.seats = max(3, most(h.claims)+2)
		w.record(h)
		w.pools = append(w.pools, h)
	}
	return w, nil
}

// kindOf says what the users of a pool are like.
func kindOf(i int) string {
	switch i % 20 {
	case 4, 9, 14:
		return "counter" // short sessions all day long
	case 7:
		return "class" // a course, two days a week
	case 12:
		return "growing"
	case 17:
		return "shrinking"
	}
	return "office"
}

func closedBefore(cal *calendar.Resolved, date calendar.Date) bool {
	for d := range cal.Days(date.Add(-1), date.Add(-1)) {
		return len(d.Openings) == 0
	}
	return false
}

// most is how many claims there are at once.
func most(claims []claim) (peak int) {
	type edge struct {
		at second
		by int
	}
	var edges []edge
	for _, c := range claims {
		edges = append(edges, edge{c.begins, 1}, edge{c.ends, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.at != b.at {
			return int(a.at - b.at)
		}
		return a.by - b.by
	})
	n := 0
	for _, e := range edges {
		n += e.by
		peak = max(peak, n)
	}
	return peak
}

// middleSixth is the share of the logons that come in the middle sixth of the opening hour.
func (w *world) middleSixth() float64 {
	all, within := 0, 0
	for _, h := range w.pools {
		for _, c := range h.claims {
			all++
			if t := c.begins % day; t >= sixthBegins && t < sixthEnds {
				within++
			}
		}
	}
	return float64(within) / float64(max(1, all))
}

// record writes the pool's days as the product does: a look at each logon, and one in each bin.
func (w *world) record(h *house) {
	var held []claim
	var days []*v1.DayHistory
	next := 0
	for t := second(0); t < w.end(); t += tick {
		look := func(at second) {
			held = slices.DeleteFunc(held, func(c claim) bool { return c.ends <= at })
			began := make([]time.Time, len(held))
			for i, c := range held {
				began[i] = w.at(c.begins)
			}
			days, _ = demand.Record(days, w.calendar, w.at(at), began)
		}
		look(t)
		for ; next < len(h.claims) && h.claims[next].begins < t+tick; next++ {
			held = append(held, h.claims[next])
			look(h.claims[next].begins)
		}
		if (t+tick)%day == 0 {
			h.days = append(h.days, days[len(days)-1])
		}
	}
}
