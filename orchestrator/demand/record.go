package demand

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// binsOfDay is how many bins a civil date has.
	binsOfDay = int(24 * time.Hour / bin)
	// keptDays is how many days are remembered.
	keptDays = 70
)

// Record adds to a history's days what is seen now: when each claim of a desktop that users use, or wait for, began. It returns the days,
// sharing those that did not change, and whether any did; it may be asked as often as one likes, once in 5 minutes at least.
// cal is the pool's calendar; without one days are UTC's and always open.
//
// It needs no memory besides the days, so that a restart loses only the time it took. A look at a bin that is already past,
// as when a clock was set back by hand, is not believed, and bins that were jumped over count as unwatched: a clock that is
// wrong for a while leaves a gap, not a wrong number. On a date on which the zone sets its clocks back, bins come twice.
func Record(days []*v1.DayHistory, cal *calendar.Resolved, now time.Time, began []time.Time) ([]*v1.DayHistory, bool) {
	zone := time.UTC
	if cal != nil {
		zone = cal.Zone()
	}
	date := calendar.DateOf(now.In(zone))
	at, found := slices.BinarySearchFunc(days, date.String(), func(d *v1.DayHistory, date string) int {
		return strings.Compare(d.GetDate(), date) // written so that texts have the order of days
	})
	day := &v1.DayHistory{Date: date.String()}
	if found {
		day = proto.CloneOf(days[at])
	}
	bins := len(day.Claimed)
	if !watch(day, date, zone, binOf(now.In(zone)), uint32(len(began))) {
		return days, false
	}
	if len(day.Claimed) > bins { // the calendar is asked once in each bin
		describe(day, cal, date)
	}
	arrive(day, date, zone, began)
	switch {
	case found && proto.Equal(day, days[at]):
		return days, false
	case found:
		days = slices.Clone(days)
		days[at] = day
	default:
		days = slices.Insert(slices.Clone(days), at, day)
	}
	return keep(days, date), true
}

// binOf is the bin that wall clocks show at t.
func binOf(t time.Time) int { return (t.Hour()*60 + t.Minute()) / int(bin/time.Minute) }

// describe writes down what the calendar says of the day, so that it is compared with its like after the calendar changed.
func describe(day *v1.DayHistory, cal *calendar.Resolved, date calendar.Date) {
	if cal == nil {
		day.Open = []uint32{0, uint32(binsOfDay)}
		return
	}
	for each := range cal.Days(date.Add(-1), date) {
		if each.Date != date {
			day.AfterClosed = len(each.Openings) == 0
			continue
		}
		day.Special = each.Special
		day.Open = openBins(each, cal.Zone())
	}
}

// openBins are the bins of a date that lie in its openings at least in part, as pairs.
func openBins(day calendar.Day, zone *time.Location) (pairs []uint32) {
	for _, o := range day.Openings {
		first := binOf(o.Open.In(zone))
		last := binOf(o.Close.Add(-1).In(zone)) + 1
		if last <= first { // clocks were set back in between
			last = first + 1
		}
		if n := len(pairs); n > 0 && first <= int(pairs[n-1]) {
			pairs[n-1] = max(pairs[n-1], uint32(last))
			continue
		}
		pairs = append(pairs, uint32(first), uint32(last))
	}
	return pairs
}

// watch notes that so many claims were seen in a bin. false when the look is not believed.
func watch(day *v1.DayHistory, date calendar.Date, zone *time.Location, now int, claimed uint32) bool {
	switch last := len(day.Claimed) - 1; {
	case now > last:
		if now > last+1 {
			day.Unwatched = append(day.Unwatched, uint32(last+1), uint32(now))
		}
		grown := make([]uint32, now-last)
		day.Claimed, day.Arrivals = append(day.Claimed, grown...), append(day.Arrivals, grown...)
		day.Watched++
	case now < last && date.Add(1).At(0, zone).Sub(date.At(0, zone)) <= 24*time.Hour:
		return false
	}
	day.Claimed[now] = max(day.Claimed[now], claimed)
	return true
}

// arrive counts the claims that began in each bin that was watched. Those that ended since were counted when they were seen.
func arrive(day *v1.DayHistory, date calendar.Date, zone *time.Location, began []time.Time) {
	counts := make([]uint32, binsOfDay)
	for _, t := range began {
		if local := t.In(zone); calendar.DateOf(local) == date {
			counts[binOf(local)]++
		}
	}
	for i := range day.Arrivals {
		if !within(day.Unwatched, i) {
			day.Arrivals[i] = max(day.Arrivals[i], counts[i])
		}
	}
}

// within says whether a bin lies in one of the pairs.
func within(pairs []uint32, bin int) bool {
	for i := 0; i+1 < len(pairs); i += 2 {
		if bin >= int(pairs[i]) && bin < int(pairs[i+1]) {
			return true
		}
	}
	return false
}

// keep drops what is too much: first days that have not come yet, which a wrong clock left, and then the oldest.
func keep(days []*v1.DayHistory, today calendar.Date) []*v1.DayHistory {
	for len(days) > keptDays {
		if days[len(days)-1].GetDate() > today.Add(1).String() {
			days = days[:len(days)-1]
			continue
		}
		days = days[1:]
	}
	return days
}
