package calendar

import (
	"iter"
	"time"
)

// Horizon is how many days ahead NextOpening looks.
const Horizon = 400

// Opening is one span of office hours.
type Opening struct {
	// Date is the civil date that it belongs to.
	Date Date
	// Open and Close are instants in the calendar's zone; it is open from the one until just before the other.
	Open, Close time.Time
	// Name is that of a one-off opening, if it has one.
	Name string
}

// Day is what a calendar says of a civil date.
type Day struct {
	Date     Date
	Openings []Opening
	// Special: the openings are one-off ones.
	Special bool
	// Holiday: the date is a holiday of the calendar or of one that it inherits from, and HolidayName says which, by the nearest.
	// It is closed then unless Special.
	Holiday     bool
	HolidayName string
	// Blackout: nothing may be changed on this date. Blackouts do not close.
	Blackout     bool
	BlackoutName string
}

// Zone is the calendar's time zone.
func (r *Resolved) Zone() *time.Location { return r.zone }

// Days yields every civil date from one to another, both included.
func (r *Resolved) Days(from, to Date) iter.Seq[Day] {
	return func(yield func(Day) bool) {
		tables := holidayTables{}
		for date := from; date.Compare(to) <= 0; date = date.Add(1) {
			if !yield(r.day(date, tables)) {
				return
			}
		}
	}
}

// Openings yields the openings of the civil dates from one to another, both included, in their order.
func (r *Resolved) Openings(from, to Date) iter.Seq[Opening] {
	return func(yield func(Opening) bool) {
		for day := range r.Days(from, to) {
			for _, opening := range day.Openings {
				if !yield(opening) {
					return
				}
			}
		}
	}
}

// NextOpening is the first opening that begins at t or later; false when none does within the Horizon. Equal instants give
// equal openings, however a clock was set in between: who remembers an opening's Open does nothing twice.
func (r *Resolved) NextOpening(t time.Time) (Opening, bool) {
	date := DateOf(t.In(r.zone))
	// Where clocks are set back over midnight, the date of an instant may be the one before its opening's.
	for opening := range r.Openings(date.Add(-1), date.Add(Horizon)) {
		if !opening.Open.Before(t) {
			return opening, true
		}
	}
	return Opening{}, false
}

// IsOpen says whether t lies in an opening.
func (r *Resolved) IsOpen(t time.Time) bool {
	date := DateOf(t.In(r.zone))
	for opening := range r.Openings(date.Add(-1), date.Add(1)) {
		if !t.Before(opening.Open) && t.Before(opening.Close) {
			return true
		}
	}
	return false
}

// IsBlackout says whether nothing may be changed on a date.
func (r *Resolved) IsBlackout(date Date) bool {
	blackout, _ := r.blackout(date)
	return blackout
}

func (r *Resolved) blackout(date Date) (bool, string) {
	for _, l := range r.levels {
		if name, ok := l.blackouts[date]; ok {
			return true, name
		}
	}
	return false, ""
}

func (r *Resolved) day(date Date, tables holidayTables) Day {
	day := Day{Date: date}
	day.Blackout, day.BlackoutName = r.blackout(date)
	spans := r.hours[date.Weekday()]
	for _, l := range r.levels {
		name, holiday := l.holiday(date, tables)
		special, opens := l.openings[date]
		switch { // the nearest calendar that speaks of the date says when it is open
		case day.Special || day.Holiday:
		case opens:
			spans, day.Special = special, true
		case holiday:
			spans = nil
		}
		// A holiday stays one although a nearer calendar opens on it, and people want to read that.
		if holiday && !day.Holiday {
			day.Holiday, day.HolidayName = true, name
		}
	}
	day.Openings = instants(date, spans, r.zone)
	return day
}

func (l level) holiday(date Date, tables holidayTables) (string, bool) {
	if name, ok := l.holidays[date]; ok {
		return name, true
	}
	for _, set := range l.sets {
		if name, ok := tables.find(set, date); ok {
			return name, true
		}
	}
	return "", false
}

// instants puts the sorted spans of a date on the line of time; the room sign has the rule.
func instants(date Date, spans []span, zone *time.Location) []Opening {
	var openings []Opening
	end := date.Add(1).At(0, zone)
	for i, s := range spans {
		o := Opening{Date: date, Open: date.At(s.open, zone), Close: date.At(s.close, zone), Name: s.name}
		if !o.Close.After(o.Open) {
			o.Close = o.Open.Add(time.Duration(s.close-s.open) * time.Minute)
			if o.Close.After(end) {
				o.Close = end
			}
		}
		if i+1 < len(spans) {
			if next := date.At(spans[i+1].open, zone); next.Before(o.Close) {
				o.Close = next
			}
		}
		// Nothing is left of it where the whole date was skipped, or another opens as the gap ends: then that one stands for both.
		if o.Close.After(o.Open) {
			openings = append(openings, o)
		}
	}
	return openings
}
