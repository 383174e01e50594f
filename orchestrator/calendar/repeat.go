package calendar

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"
	"github.com/teambition/rrule-go"
)

// begins are the dates on which an event begins. One that does not repeat begins once, whenever that is; of one that does,
// those count that reach into the range.
func (f *icsFile) begins(event *ics.VEvent, first Date, length int) ([]Date, error) {
	r, err := f.rule(event)
	if err != nil {
		return nil, err
	}
	also, err := f.listed(event, ics.ComponentPropertyRdate)
	if err != nil {
		return nil, err
	}
	except, err := f.listed(event, ics.ComponentPropertyExdate)
	if err != nil {
		return nil, err
	}
	dates, repeats := []Date{first}, r != nil || len(also) > 0
	if r != nil {
		if dates, err = f.follow(r, first); err != nil {
			return nil, err
		}
	}
	f.repeats = f.repeats || repeats
	gone := map[Date]bool{}
	for _, date := range except {
		gone[date] = true
	}
	if uid := value(event, ics.ComponentPropertyUniqueId); !event.HasProperty(ics.ComponentPropertyRecurrenceId) {
		if instant, ok := f.unclear[uid]; ok && repeats {
			return nil, fmt.Errorf("another event replaces one of its dates, and says %q of which; RECURRENCE-ID must be a date such as 20261123, as its DTSTART is", short(instant))
		}
		for date := range f.replaced[uid] {
			gone[date] = true
		}
	} else if repeats {
		return nil, errors.New("it replaces a date of another event (RECURRENCE-ID), and so cannot repeat itself; give it a UID of its own")
	}
	return slices.DeleteFunc(append(dates, also...), func(date Date) bool {
		return gone[date] || repeats && date.Add(length-1).Compare(f.within.From) < 0
	}), nil
}

// listed are the dates of an event's RDATE or EXDATE lines.
func (f *icsFile) listed(event *ics.VEvent, property ics.ComponentProperty) (dates []Date, err error) {
	for _, line := range event.GetProperties(property) {
		for text := range strings.SplitSeq(line.Value, ",") {
			date, ok := f.date(text)
			if !ok {
				return nil, fmt.Errorf("its %s %q is not a date that exists; write one as 20261123, as its DTSTART is", property, short(text))
			}
			if err := f.spend(1); err != nil {
				return nil, err
			}
			dates = append(dates, date)
		}
	}
	return dates, nil
}

// rule is what an RRULE says, but for what the library is not trusted with.
type rule struct {
	option rrule.ROption
	count  int   // how often in all; 0: no end by number
	until  *Date // its last date at most; nil: no end by date
}

// maxRuleLength is how many bytes an RRULE may have. Real ones have less than a hundred.
const maxRuleLength = 500

// ruleParts are the parts that a rule for whole days may have: how a value looks, whether it may be a list, and that in words.
var ruleParts = map[string]struct {
	form *regexp.Regexp
	list bool
	want string
}{
	"FREQ":       {regexp.MustCompile(`^(YEARLY|MONTHLY|WEEKLY|DAILY)$`), false, "DAILY, WEEKLY, MONTHLY or YEARLY"},
	"INTERVAL":   {regexp.MustCompile(`^[1-9]\d{0,2}$`), false, "1 to 999"},
	"COUNT":      {regexp.MustCompile(`^[1-9]\d{0,9}$`), false, "a number from 1 on"},
	"UNTIL":      {regexp.MustCompile(`^\d{8}(T\d{6}Z?)?$`), false, "a date such as 20271231"},
	"WKST":       {regexp.MustCompile(`^(MO|TU|WE|TH|FR|SA|SU)$`), false, "a day such as MO"},
	"BYMONTH":    {regexp.MustCompile(`^0?[1-9]$|^1[0-2]$`), true, "1 to 12"},
	"BYMONTHDAY": {regexp.MustCompile(`^[+-]?(0?[1-9]|[12]\d|3[01])$`), true, "1 to 31, or -31 to -1"},
	"BYYEARDAY":  {regexp.MustCompile(`^[+-]?(0{0,2}[1-9]|0?[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6])$`), true, "1 to 366, or -366 to -1"},
	"BYSETPOS":   {regexp.MustCompile(`^[+-]?(0{0,2}[1-9]|0?[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6])$`), true, "1 to 366, or -366 to -1"},
	// Where a year's last weeks lie the library does not know in every year.
	"BYWEEKNO": {regexp.MustCompile(`^\+?(0?[1-9]|[1-4]\d|5[01])$`), true, "1 to 51"},
	"BYDAY":    {regexp.MustCompile(`^([+-]?(0?[1-9]|[1-4]\d|5[0-3]))?(MO|TU|WE|TH|FR|SA|SU)$`), true, "days such as MO, or 2MO for the second"},
}

const insteadOfRule = "give each of its dates an event of its own"

// rule reads an event's RRULE; nil when it has none. The library panics at "the 53rd Monday of a month", loops for years at
// high numbers, and takes 0 for 1, so nothing reaches it that is not understood here.
func (f *icsFile) rule(event *ics.VEvent) (*rule, error) {
	if event.HasProperty("EXRULE") {
		return nil, fmt.Errorf("it has an EXRULE, which calendars no longer have; %s", insteadOfRule)
	}
	lines := event.GetProperties(ics.ComponentPropertyRrule)
	if len(lines) == 0 {
		return nil, nil
	}
	if len(lines) > 1 {
		return nil, errors.New("it has more than one RRULE; make an event of each")
	}
	if f.rules++; f.rules > maxRules {
		return nil, fmt.Errorf("it is one of more than %d that repeat; divide the file", maxRules)
	}
	text := lines[0].Value
	if len(text) > maxRuleLength {
		return nil, fmt.Errorf("its RRULE is longer than %d bytes; %s", maxRuleLength, insteadOfRule)
	}
	r, parts, seen := &rule{}, []string(nil), map[string]bool{}
	for part := range strings.SplitSeq(strings.TrimSuffix(strings.ToUpper(strings.TrimSpace(text)), ";"), ";") {
		key, value, _ := strings.Cut(part, "=")
		if seen[key] {
			return nil, fmt.Errorf("its RRULE has %s twice", short(key))
		}
		seen[key] = true
		keep, err := f.part(r, key, value)
		if err != nil {
			return nil, err
		}
		if keep {
			parts = append(parts, part)
		}
	}
	option, err := rrule.StrToROption(strings.Join(parts, ";"))
	if err != nil {
		return nil, fmt.Errorf("its RRULE %q cannot be read: %w; %s", short(text), err, insteadOfRule)
	}
	r.option = *option
	return r, number(&r.option)
}

// part reads one part of an RRULE into r. keep: it is for the library.
func (f *icsFile) part(r *rule, key, value string) (keep bool, err error) {
	if key == "BYHOUR" || key == "BYMINUTE" || key == "BYSECOND" {
		return false, nil // which the standard says to ignore where there is no time of day
	}
	known, ok := ruleParts[key]
	if !ok {
		return false, fmt.Errorf("its RRULE has %q, which is not known here; %s", short(key), insteadOfRule)
	}
	values := []string{value}
	if known.list {
		values = strings.Split(value, ",")
	}
	wrong := fmt.Errorf("its RRULE has %s=%s, which for whole days must be %s; %s", key, short(value), known.want, insteadOfRule)
	if slices.ContainsFunc(values, func(each string) bool { return !known.form.MatchString(each) }) {
		return false, wrong
	}
	switch key {
	case "COUNT":
		r.count, err = strconv.Atoi(value)
		return false, err
	case "UNTIL":
		until, ok := f.date(value)
		if !ok {
			// A time later in the day, where it must not have one: the date counts.
			if until, ok = f.date(value[:len(icsDate)]); !ok {
				return false, wrong
			}
		}
		r.until = &until
		return false, nil
	}
	return true, nil
}

// number refuses "the second Monday" where there is nothing of which it could be the second, and "the 6th" of a month. Where a
// rule has days with and without a number, it writes those without as all their numbers: of both, the library would take
// only days that are both.
func number(option *rrule.ROption) error {
	most := 0
	switch {
	case len(option.Byweekno) > 0:
	case option.Freq == rrule.MONTHLY, option.Freq == rrule.YEARLY && len(option.Bymonth) > 0:
		most = 5
	case option.Freq == rrule.YEARLY:
		most = 53
	}
	var plain, numbered []rrule.Weekday
	for _, day := range option.Byweekday {
		switch n := max(day.N(), -day.N()); {
		case n > most:
			return fmt.Errorf("its RRULE has BYDAY=%v with FREQ=%v, which has no such day; %s", day, option.Freq, insteadOfRule)
		case n == 0:
			plain = append(plain, day)
		default:
			numbered = append(numbered, day)
		}
	}
	if len(numbered) == 0 {
		return nil
	}
	for _, day := range plain {
		for n := 1; n <= most; n++ {
			numbered = append(numbered, day.Nth(n))
		}
	}
	option.Byweekday = numbered
	return nil
}

// follow are the dates of a rule from first, which always counts, to the end of the range.
func (f *icsFile) follow(r *rule, first Date) ([]Date, error) {
	if first.Year < firstYear {
		return nil, fmt.Errorf("it repeats since the year %d; let it begin in %d or later", first.Year, firstYear)
	}
	if first.Compare(f.within.To) > 0 {
		f.goesOn = true
		return nil, nil
	}
	next, shift, err := r.iterate(first, f.within.To)
	if err != nil {
		return nil, err
	}
	dates := []Date{first}
	for r.count == 0 || len(dates) < r.count {
		t, ok := next()
		if !ok {
			break
		}
		date := DateOf(t)
		date.Year -= shift
		if date.Compare(f.within.To) > 0 {
			f.goesOn = true
			break
		}
		if date.Compare(first) <= 0 {
			continue
		}
		if err := f.spend(1); err != nil {
			return nil, err
		}
		dates = append(dates, date)
	}
	return dates, nil
}

// The library looks for a date until the year 9999, however early it could stop. Weekdays and leap years repeat every 400
// years: so it is asked for the dates of the last cycle before that year, and a rule that has none is seen through soon.
const firstYear, cycle, lastYear = 1600, 400, 9999

// iterate has the library find a rule's dates, so many years later than they are.
func (r *rule) iterate(first, to Date) (next rrule.Next, shift int, err error) {
	shift = (lastYear - to.Year) / cycle * cycle
	at := func(d Date) time.Time { return time.Date(d.Year+shift, d.Month, d.Day, 0, 0, 0, 0, time.UTC) }
	option := r.option
	weekday := []rrule.Weekday{rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU}[(first.Weekday()+6)%7]
	if len(option.Byweekday)+len(option.Bymonthday)+len(option.Byyearday) == 0 && (len(option.Byweekno) > 0 || option.Freq == rrule.WEEKLY) {
		// The library would take all days of a week that a number names.
		option.Byweekday = []rrule.Weekday{weekday}
	}
	option.Dtstart = at(first)
	if option.Freq == rrule.WEEKLY {
		// A rule may count the days of its weeks (BYSETPOS), and the first one is as long as the others.
		option.Dtstart = at(first.Add(-(weekday.Day() - option.Wkst.Day() + 7) % 7))
	}
	option.Until = time.Date(lastYear, time.December, 31, 0, 0, 0, 0, time.UTC)
	if r.until != nil && at(*r.until).Before(option.Until) {
		option.Until = at(*r.until)
	}
	built, err := rrule.NewRRule(option)
	if err != nil {
		return nil, 0, fmt.Errorf("its RRULE cannot be followed: %w; %s", err, insteadOfRule)
	}
	return built.Iterator(), shift, nil
}
