package calendar

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	ics "github.com/arran4/golang-ical"
)

// What an iCalendar file may be at most, beside what any file of days may be.
const (
	maxEventDays = 366
	// maxRules is how many events may have a rule: one without any date, such as 30 February, costs up to 30 ms to see through.
	maxRules = 200
	// maxSteps is how many days all events may give together, each as often as it comes up.
	maxSteps = 100000
	// maxLineWork bounds, over all lines, the length times the number of separators: the parser takes that many bytes.
	maxLineWork = 2 << 30
)

// Within bounds what repeats for ever: the dates on which it begins that are wanted, and the zone of the calendar for which
// they are, in which programs mean a midnight that they wrote in UTC.
type Within struct {
	From, To Date
	Zone     *time.Location
}

// ICS is what an iCalendar file lists.
type ICS struct {
	// Days are as those of ReadCSV.
	Days []FileDay
	// Timed is how many events were left out, since they have a time of day.
	Timed int
	// GoesOn: an event repeats after the last date that was wanted.
	GoesOn bool
}

// icsFile is a file while it is read.
type icsFile struct {
	within Within
	days   map[Date]string
	// replaced are the dates of each UID's repetition for which another event stands.
	replaced map[string]map[Date]bool
	// unclear are UIDs of which an event replaces an instant that is no date, and that instant.
	unclear      map[string]string
	timed        int
	rules, steps int
	repeats      bool // some event does
	goesOn       bool
}

// ReadICS reads the all-day events of an iCalendar file; of one over several days, each day; of one that repeats, each time
// that it begins within the range. Errors wrap ErrFile and name the event.
func ReadICS(text []byte, within Within) (ICS, error) {
	events, err := parseICS(text)
	if err != nil {
		return ICS{}, err
	}
	f := &icsFile{within: within, days: map[Date]string{}, replaced: map[string]map[Date]bool{}, unclear: map[string]string{}}
	for _, step := range []func(*ics.VEvent) error{f.replace, f.read} {
		for _, event := range events {
			if err := step(event); err != nil {
				return ICS{}, fmt.Errorf("%w: event %q: %w", ErrFile, nameOf(event), err)
			}
		}
	}
	switch {
	case len(f.days) > 0:
	case f.repeats:
		return ICS{}, fmt.Errorf("%w: none of its events has a whole day from %v to %v", ErrFile, within.From, within.To)
	case f.timed > 0:
		return ICS{}, fmt.Errorf("%w: none of its events is for whole days", ErrFile)
	}
	found, err := sorted(f.days)
	if err != nil {
		return ICS{}, err
	}
	return ICS{Days: found, Timed: f.timed, GoesOn: f.goesOn}, nil
}

func parseICS(text []byte) ([]*ics.VEvent, error) {
	if len(text) > MaxFileBytes {
		return nil, fmt.Errorf("%w: it has more than %d MiB", ErrFile, MaxFileBytes>>20)
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: it is not in UTF-8, as .ics files must be", ErrFile)
	}
	if err := checkLines(text); err != nil {
		return nil, err
	}
	parsed, err := ics.ParseCalendar(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrFile, err)
	}
	events := parsed.Events()
	for _, event := range events {
		for i := range event.Properties {
			// Names may be in small letters; the parser finds those in capitals only.
			event.Properties[i].IANAToken = strings.ToUpper(event.Properties[i].IANAToken)
		}
	}
	return events, nil
}

// checkLines refuses files on which the parser would spend minutes: for each parameter of a line it copies the whole line.
func checkLines(text []byte) error {
	work, length, separators := 0, 0, 0
	for line := range bytes.Lines(text) {
		if line[0] != ' ' && line[0] != '\t' { // else it goes on from the line before
			length, separators = 0, 0
		}
		work -= length * separators
		length += len(line)
		separators += bytes.Count(line, []byte(";")) + bytes.Count(line, []byte(","))
		if work += length * separators; work > maxLineWork {
			return fmt.Errorf("%w: line %q has too many parameters or values; divide it", ErrFile, short(string(line)))
		}
	}
	return nil
}

// nameOf is what messages call an event.
func nameOf(event *ics.VEvent) string {
	for _, property := range []ics.ComponentProperty{ics.ComponentPropertySummary, ics.ComponentPropertyUniqueId, ics.ComponentPropertyDtStart} {
		if name := clean(value(event, property)); name != "" {
			return name
		}
	}
	return ""
}

// replace notes the date for which an event stands, if it stands for one of a repetition.
func (f *icsFile) replace(event *ics.VEvent) error {
	instead := event.GetProperty(ics.ComponentPropertyRecurrenceId)
	if instead == nil {
		return nil
	}
	uid := value(event, ics.ComponentPropertyUniqueId)
	date, ok := f.date(instead.Value)
	switch {
	case !ok:
		f.unclear[uid] = instead.Value // which is right if what repeats has a time of day
		return nil
	case len(instead.ICalParameters["RANGE"]) > 0:
		return errors.New("its RECURRENCE-ID has a RANGE, and replaces more than one date; end the repetition with UNTIL and begin another event")
	case uid == "":
		return errors.New("its RECURRENCE-ID says that it replaces another event's date, and it has no UID that says which; give both the same UID")
	}
	if f.replaced[uid] == nil {
		f.replaced[uid] = map[Date]bool{}
	}
	f.replaced[uid][date] = true
	return nil
}

// read adds an event's days.
func (f *icsFile) read(event *ics.VEvent) error {
	if strings.EqualFold(value(event, ics.ComponentPropertyStatus), "CANCELLED") {
		return nil
	}
	start := value(event, ics.ComponentPropertyDtStart)
	first, err := time.Parse(icsDate, start)
	if err != nil {
		if !strings.Contains(start, "T") {
			return fmt.Errorf("its DTSTART %q is not a date that exists; write one as 20261123", short(start))
		}
		f.timed++
		return nil
	}
	length, err := length(event, first)
	if err != nil {
		return err
	}
	begins, err := f.begins(event, DateOf(first), length)
	if err != nil {
		return err
	}
	for _, date := range begins {
		if err := f.spend(length); err != nil {
			return err
		}
		for i := range length {
			if err := add(f.days, date.Add(i), value(event, ics.ComponentPropertySummary)); err != nil {
				return err
			}
		}
	}
	return nil
}

// spend keeps count of the days that come up.
func (f *icsFile) spend(days int) error {
	if f.steps += days; f.steps > maxSteps {
		return fmt.Errorf("up to it, the events give more than %d days until %v; divide the file, or let what repeats begin later", maxSteps, f.within.To)
	}
	return nil
}

const icsDate = "20060102"

// date reads a date, or an instant that programs write in its place for an all-day event: its midnight.
func (f *icsFile) date(text string) (Date, bool) {
	text = strings.TrimSpace(text)
	for _, form := range []string{icsDate, icsDate + "T000000", icsDate + "T000000Z"} {
		if t, err := time.Parse(form, text); err == nil {
			return DateOf(t), true
		}
	}
	t, err := time.Parse(icsDate+"T150405Z", text)
	if err != nil {
		return Date{}, false
	}
	date := DateOf(t.In(f.within.Zone))
	return date, date.At(0, f.within.Zone).Equal(t)
}

// wholeDays is a DURATION of whole days or weeks.
var wholeDays = regexp.MustCompile(`^\+?P(\d{1,4})([DW])$`)

// length is how many days an all-day event has; DTEND is the day after its last.
func length(event *ics.VEvent, first time.Time) (int, error) {
	text, duration := value(event, ics.ComponentPropertyDtEnd), value(event, ics.ComponentPropertyDuration)
	end := first.AddDate(0, 0, 1)
	var err error
	switch m := wholeDays.FindStringSubmatch(duration); {
	case text != "":
		if end, err = time.Parse(icsDate, text); err != nil {
			return 0, fmt.Errorf("it begins with a date, and its DTEND %q is none; write the day after its last as 20261124", short(text))
		}
	case m != nil:
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, err
		}
		end = first.AddDate(0, 0, n*map[string]int{"D": 1, "W": 7}[m[2]])
	case duration != "":
		return 0, fmt.Errorf("its DURATION %q is not of whole days, as P2D is", short(duration))
	}
	days := int(end.Sub(first).Hours() / 24)
	switch {
	case days < 0:
		return 0, errors.New("it ends before it begins; DTEND is the day after its last")
	case days > maxEventDays:
		return 0, fmt.Errorf("it has %d days, and an event at most %d; divide it", days, maxEventDays)
	}
	return max(days, 1), nil // some programs write the same date twice
}

func value(event *ics.VEvent, property ics.ComponentProperty) string {
	if p := event.GetProperty(property); p != nil {
		return strings.TrimSpace(p.Value)
	}
	return ""
}
