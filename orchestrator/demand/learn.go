package demand

import (
	"fmt"
	"math"
	"slices"
	"time"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// youngDays is how many days must have been watched before a quantile is taken; until then it is the most that was seen.
const youngDays = 14

// fewDays is how many days of a group there must be; with fewer it is all days of the kind.
const fewDays = 4

// kind is what is never mixed: closed days, usual openings and one-off ones.
type kind int

const (
	closedDay kind = iota
	workingDay
	specialDay
)

func (k kind) String() string {
	return [...]string{"closed days", "working days", "one-off openings"}[k]
}

// days is "12 Mondays".
func days(n int, what string) string {
	if n == 1 {
		return "one of the " + what
	}
	return fmt.Sprintf("%d %s", n, what)
}

// group is days that are like each other.
type group struct {
	weekday     time.Weekday
	afterClosed bool
}

func (g group) String() string {
	if g.afterClosed {
		return g.weekday.String() + "s and days after closed ones"
	}
	return g.weekday.String() + "s"
}

func (g group) has(f fact) bool {
	return f.weekday == g.weekday || g.afterClosed && f.AfterClosed
}

// fact is a remembered day.
type fact struct {
	*v1.DayHistory
	kind    kind
	weekday time.Weekday
	// scale is how much more is in use at such days by now than was then.
	scale float64
}

// facts reads a history.
func facts(h *v1.History) (list []fact) {
	for _, day := range h.GetDays() {
		date, err := calendar.ParseDate(day.GetDate())
		if err != nil {
			continue // no such date: nothing can be learned from it
		}
		list = append(list, fact{DayHistory: day, kind: kindOf(day.GetSpecial(), len(day.GetOpen()) > 0), weekday: date.Weekday(), scale: 1})
	}
	follow(list)
	return list
}

func kindOf(special, open bool) kind {
	switch {
	case special:
		return specialDay
	case open:
		return workingDay
	}
	return closedDay
}

// series is what is learned of: what a day had in a bin, and whether that is known.
type series func(day *v1.DayHistory, bin int) (int, bool)

func known(day *v1.DayHistory, bin int) bool {
	return bin < len(day.GetClaimed()) && bin < len(day.GetArrivals()) && !within(day.GetUnwatched(), bin)
}

// claimedAt is how many were claimed at once.
func claimedAt(day *v1.DayHistory, bin int) (int, bool) {
	if !known(day, bin) {
		return 0, false
	}
	return int(day.GetClaimed()[bin]), true
}

// arrivalsWithin is how many claims began within so long, whole bins of it.
func arrivalsWithin(span time.Duration) series {
	bins := int((span + bin - 1) / bin)
	return func(day *v1.DayHistory, from int) (sum int, ok bool) {
		for at := from; at < min(from+bins, binsOfDay); at++ {
			if !known(day, at) {
				return 0, false
			}
			sum += int(day.GetArrivals()[at])
		}
		return sum, true
	}
}

// seen is what one day had.
type seen struct {
	date string
	had  int
	// count is what it would have had by now.
	count int
}

// lesson is a number with what it was learned from.
type lesson struct {
	need  int
	most  int    // the quantile of what was seen; need is more where the days are too few to show it
	what  string // "Mondays"
	young bool
	level float64
	seen  []seen // oldest first
}

// from is what the number was learned from, for people.
func (l lesson) from() string {
	if l.young {
		return fmt.Sprintf("the most on %s so far", days(len(l.seen), l.what))
	}
	return "learned from " + days(len(l.seen), l.what)
}

// learn asks the history how many are enough at t. false when it has nothing of the kind.
func (a *agenda) learn(t time.Time, of series) (lesson, bool) {
	local := t.In(a.pool.Calendar.Zone())
	date, at := calendar.DateOf(local), binOf(local)
	day, today, openNow := a.days[date], date.String(), within(a.open[date], at)
	all, near := make([]fact, 0, len(a.facts)), make([]fact, 0, len(a.facts))
	watched := 0
	alike := kindOf(day.Special, len(day.Openings) > 0)
	likes := group{weekday: date.Weekday(), afterClosed: len(day.Openings) > 0 && len(a.days[date.Add(-1)].Openings) == 0}
	for _, f := range a.facts {
		if f.GetDate() >= today {
			break // what is learned for a day does not change while it passes
		}
		if int(f.GetWatched()) >= binsOfDay/2 {
			watched++
		}
		// What people do in office hours says nothing of times at which it is closed, and never did.
		if f.kind != alike || within(f.GetOpen(), at) != openNow {
			continue
		}
		if _, ok := of(f.DayHistory, at); !ok {
			continue
		}
		all = append(all, f)
		if likes.has(f) {
			near = append(near, f)
		}
	}
	if len(all) == 0 {
		return lesson{}, false
	}
	l := lesson{level: level(a.pool.Spec.GetSchedule()), what: alike.String(), young: watched < youngDays}
	if l.young {
		l.level = 1
	} else if len(near) >= fewDays {
		all, l.what = near, likes.String()
		if alike == closedDay {
			l.what = "closed " + l.what
		}
	}
	l.seen = make([]seen, 0, len(all))
	for _, f := range all {
		n, _ := of(f.DayHistory, at)
		l.seen = append(l.seen, seen{f.GetDate(), n, int(math.Round(float64(n) * f.scale))})
	}
	l.most = quantile(l.seen, l.level)
	l.need = l.most
	if !l.young {
		l.need = max(l.need, widened(l.seen, l.level))
	}
	return l, true
}

// level is the newsvendor's: of so many times, how often the number should be enough, from what waiting costs and what idling.
func level(s *v1.Schedule) float64 {
	wait, idle := s.GetWaitCost(), s.GetIdleCost()
	if wait == 0 {
		wait = 99
	}
	if idle == 0 {
		idle = 1
	}
	return wait / (wait + idle)
}

// quantile is the smallest count that was enough on a share of the days.
func quantile(days []seen, level float64) int {
	counts := make([]int, len(days))
	for i, s := range days {
		counts[i] = s.count
	}
	slices.Sort(counts)
	at := int(math.Ceil(level*float64(len(counts))-1e-9)) - 1
	return counts[min(max(at, 0), len(counts)-1)]
}

// widened is a quantile beyond what so few days can show: the median and so many of their deviations upwards as a normal spread
// has, and more of them the fewer the days. Deviations downwards, as on the day of a typhoon, say nothing of the most.
func widened(days []seen, level float64) int {
	n := float64(len(days))
	if level*(n+1) <= n || level >= 1 {
		return 0
	}
	middle := float64(quantile(days, 0.5))
	var squares, above float64
	for _, s := range days {
		if by := float64(s.count) - middle; by >= 0 {
			squares += by * by
			above++
		}
	}
	z := math.Sqrt2 * math.Erfinv(2*level-1)
	return int(math.Ceil(middle + z*(1+1/math.Sqrt(n))*math.Sqrt(squares/above) - 0.5))
}
