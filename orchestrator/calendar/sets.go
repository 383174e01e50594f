package calendar

import (
	"fmt"
	"slices"
	"time"

	"github.com/rickar/cal/v2"
	"github.com/rickar/cal/v2/de"
	"github.com/rickar/cal/v2/fr"
	"github.com/rickar/cal/v2/gb"
	"github.com/rickar/cal/v2/jp"
	"github.com/rickar/cal/v2/us"

	v1 "daybreak/proto/daybreak/v1"
)

// HolidaySets are the names of the built-in sets.
func HolidaySets() []string { return []string{"jp", "de", "fr", "gb", "us"} }

func holidaysOf(set string) []*cal.Holiday {
	switch set {
	case "jp":
		return jp.Holidays
	case "de":
		return de.Holidays // of the whole country
	case "fr":
		return fr.Holidays
	case "gb":
		return gb.Holidays // of England and Wales
	case "us":
		return us.Holidays // federal
	}
	return nil
}

type setYear struct {
	set  string
	year int
}

// holidayTables are the holidays of the sets and years that one call has met.
type holidayTables map[setYear]map[Date]string

func (t holidayTables) find(set string, date Date) (string, bool) {
	key := setYear{set, date.Year}
	table, ok := t[key]
	if !ok {
		table = holidayTable(set, date.Year)
		t[key] = table
	}
	name, ok := table[date]
	return name, ok
}

// holidayTable computes the holidays of a year, substitute days too.
func holidayTable(set string, year int) map[Date]string {
	table := map[Date]string{}
	for _, shared := range holidaysOf(set) {
		// A copy, since some of the library's rules write into the holiday that they are asked about.
		holiday := *shared
		// New Year's Day of the next year may be kept on the last day of this one.
		for _, each := range []int{year - 1, year, year + 1} {
			actual, observed := holiday.Calc(each)
			if actual.IsZero() {
				continue
			}
			on := civil(actual)
			if on.Year == year {
				table[on] = holiday.Name
			}
			if off := civil(observed); off != on && off.Year == year && table[off] == "" {
				table[off] = holiday.Name + " (observed)"
			}
		}
	}
	if set == "jp" {
		between(table, year)
	}
	return table
}

// between adds what Japan's law says and the library knows until 2032 only: a day between two holidays is one too. The law
// means holidays proper, not substitute days, but none of those can stand two days from another holiday.
func between(table map[Date]string, year int) {
	const since = 2007 // the law as it is now
	if year < since {
		return
	}
	var found []Date
	for date := range table {
		middle := date.Add(1)
		_, taken := table[middle]
		if _, closes := table[middle.Add(1)]; closes && !taken {
			found = append(found, middle)
		}
	}
	for _, date := range found {
		table[date] = "National Holiday"
	}
}

// civil is the date of a midnight in the machine's zone, where midnight may have been put off by an hour.
func civil(midnight time.Time) Date { return DateOf(midnight.Add(2 * time.Hour)) }

// ListedUntil is the last year for which a list of days was written down, as far as it tells: the last in which a name stands
// that stands in another year too, as those of public holidays do. false for a list of single days. Built-in sets have no
// last year.
func ListedUntil(days []*v1.CalendarDay) (year int, ok bool) {
	years := map[string]int{}
	for _, day := range days {
		date, err := ParseDate(day.GetDate())
		if err != nil {
			continue
		}
		if before, again := years[day.GetName()]; again && day.GetName() != "" && before != date.Year {
			year, ok = max(year, before, date.Year), true
		}
		years[day.GetName()] = max(years[day.GetName()], date.Year)
	}
	return year, ok
}

func checkSets(sets []string) (mistakes Mistakes) {
	for i, set := range sets {
		if !slices.Contains(HolidaySets(), set) {
			mistakes = append(mistakes, Mistake{fmt.Sprintf("spec.holidaySets[%d]", i),
				fmt.Sprintf("there is no built-in set %q of holidays; there are %s; other days can be listed in spec.holidays (\"daybreak calendar import\")", set, quoted(HolidaySets()))})
		}
	}
	return mistakes
}
