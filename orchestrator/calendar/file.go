package calendar

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	ics "github.com/arran4/golang-ical"
	"golang.org/x/text/encoding/japanese"

	"daybreak/proto/rules"
)

// What a file of days may be at most.
const (
	MaxFileBytes = 4 << 20
	maxFileDays  = 10000
	maxEventDays = 366
	maxNameRunes = 100
)

// ErrFile: a file holds no list of days that can be read.
var ErrFile = errors.New("not a list of days")

// FileDay is a date that a file lists. Name has no control characters, and fits into a CalendarDay.
type FileDay struct {
	Date Date
	Name string
}

// ReadCSV reads lines of "date,name" or just "date", in UTF-8 or Shift_JIS, with or without a heading: the format in which
// Japan's Cabinet Office publishes the holidays ("1955/1/1,元日"), and plain lists of dates ("2026-12-29"). The days come
// back sorted, each date once, with the first name it has. Errors wrap ErrFile and name the line.
func ReadCSV(text []byte) ([]FileDay, error) {
	text, err := toUTF8(text)
	if err != nil {
		return nil, err
	}
	reader := csv.NewReader(bytes.NewReader(text))
	reader.FieldsPerRecord, reader.TrimLeadingSpace = -1, true
	days := map[Date]string{}
	for first := true; ; first = false {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrFile, err)
		}
		line, _ := reader.FieldPos(0)
		cell := strings.TrimSpace(record[0])
		date, err := looseDate(cell)
		if err != nil {
			if first && !strings.ContainsFunc(cell, unicode.IsDigit) || strings.Trim(strings.Join(record, ""), " \t") == "" {
				continue // the heading, or a line of a spreadsheet with nothing in it
			}
			return nil, fmt.Errorf("%w: line %d: %w", ErrFile, line, err)
		}
		name := ""
		if len(record) > 1 {
			name = record[1]
		}
		if err := add(days, date, name); err != nil {
			return nil, err
		}
	}
	return sorted(days)
}

// toUTF8 bounds a file and decodes it.
func toUTF8(text []byte) ([]byte, error) {
	if len(text) > MaxFileBytes {
		return nil, fmt.Errorf("%w: it has more than %d MiB", ErrFile, MaxFileBytes>>20)
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if utf8.Valid(text) {
		return text, nil
	}
	decoded, err := japanese.ShiftJIS.NewDecoder().Bytes(text)
	if err != nil || bytes.ContainsRune(decoded, utf8.RuneError) {
		return nil, fmt.Errorf("%w: it is neither UTF-8 nor Shift_JIS", ErrFile)
	}
	return decoded, nil
}

// looseDate reads "2026-11-03" and "2026/11/3".
func looseDate(text string) (Date, error) {
	parts := strings.Split(strings.ReplaceAll(text, "/", "-"), "-")
	if len(parts) == 3 && len(parts[0]) == 4 {
		year, err1 := strconv.ParseUint(parts[0], 10, 16)
		month, err2 := strconv.ParseUint(parts[1], 10, 8)
		day, err3 := strconv.ParseUint(parts[2], 10, 8)
		if errors.Join(err1, err2, err3) == nil {
			return ParseDate(fmt.Sprintf("%04d-%02d-%02d", year, month, day))
		}
	}
	return Date{}, fmt.Errorf("%s is not a date; write one as 2026-11-23 or 2026/11/23", rules.Found(text))
}

// ReadICS reads the all-day events of an iCalendar file; of one over several days, each day. timed is how many events with
// a time of day it left out. The days come back as ReadCSV's do. Errors wrap ErrFile and name the event.
func ReadICS(text []byte) (found []FileDay, timed int, err error) {
	if len(text) > MaxFileBytes {
		return nil, 0, fmt.Errorf("%w: it has more than %d MiB", ErrFile, MaxFileBytes>>20)
	}
	if !utf8.Valid(text) {
		return nil, 0, fmt.Errorf("%w: it is not in UTF-8, as .ics files must be", ErrFile)
	}
	parsed, err := ics.ParseCalendar(bytes.NewReader(bytes.TrimPrefix(text, []byte("\ufeff"))))
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %v", ErrFile, err)
	}
	days := map[Date]string{}
	for _, event := range parsed.Events() {
		name := value(event, ics.ComponentPropertySummary)
		if strings.EqualFold(value(event, ics.ComponentPropertyStatus), "CANCELLED") {
			continue
		}
		first, err := time.Parse("20060102", value(event, ics.ComponentPropertyDtStart))
		if err != nil {
			if !strings.Contains(value(event, ics.ComponentPropertyDtStart), "T") {
				return nil, 0, fmt.Errorf("%w: event %q: its DTSTART %q is not a date that exists", ErrFile, short(name), short(value(event, ics.ComponentPropertyDtStart)))
			}
			timed++
			continue
		}
		if event.GetProperty(ics.ComponentPropertyRrule) != nil || event.GetProperty(ics.ComponentPropertyRdate) != nil {
			return nil, 0, fmt.Errorf("%w: event %q repeats (RRULE); give each of its dates an event of its own", ErrFile, short(name))
		}
		length, err := length(event, first)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: event %q %w", ErrFile, short(name), err)
		}
		for i := range length {
			if err := add(days, DateOf(first).Add(i), name); err != nil {
				return nil, 0, err
			}
		}
	}
	if len(days) == 0 && timed > 0 {
		return nil, timed, fmt.Errorf("%w: none of its events is for whole days", ErrFile)
	}
	found, err = sorted(days)
	return found, timed, err
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
		if end, err = time.Parse("20060102", text); err != nil {
			return 0, errors.New("begins with a date and does not end with one")
		}
	case m != nil:
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return 0, err
		}
		end = first.AddDate(0, 0, n*map[string]int{"D": 1, "W": 7}[m[2]])
	case duration != "":
		return 0, fmt.Errorf("has the DURATION %q, which is not of whole days, as P2D is", short(duration))
	}
	days := int(end.Sub(first).Hours() / 24)
	switch {
	case days < 0:
		return 0, errors.New("ends before it begins")
	case days > maxEventDays:
		return 0, fmt.Errorf("has %d days; at most %d", days, maxEventDays)
	}
	return max(days, 1), nil // some programs write the same date twice
}

func value(event *ics.VEvent, property ics.ComponentProperty) string {
	if p := event.GetProperty(property); p != nil {
		return strings.TrimSpace(p.Value)
	}
	return ""
}

func add(days map[Date]string, date Date, name string) error {
	if have, twice := days[date]; twice && have != "" {
		return nil
	}
	days[date] = clean(name)
	if len(days) > maxFileDays {
		return fmt.Errorf("%w: it has more than %d days", ErrFile, maxFileDays)
	}
	return nil
}

// clean makes a name one that a calendar takes.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, name)
	return short(strings.TrimSpace(name))
}

func short(text string) string {
	if runes := []rune(text); len(runes) > maxNameRunes {
		return string(runes[:maxNameRunes]) + "…"
	}
	return text
}

func sorted(days map[Date]string) ([]FileDay, error) {
	if len(days) == 0 {
		return nil, fmt.Errorf("%w: there are no days in it", ErrFile)
	}
	var list []FileDay
	for date, name := range days {
		list = append(list, FileDay{date, name})
	}
	slices.SortFunc(list, func(a, b FileDay) int { return a.Date.Compare(b.Date) })
	return list, nil
}
