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

	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/unicode/norm"

	"daybreak/proto/rules"
)

// What a file of days may be at most.
const (
	MaxFileBytes = 4 << 20
	maxFileDays  = 10000
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
// Japan's Cabinet Office publishes the holidays ("1955/1/1,元日"), plain lists of dates ("2026-12-29"), and those of Japanese
// offices ("令和8年12月29日"). The days come back sorted, each date once, with the first name it has. Errors wrap ErrFile and
// name the line.
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
			if first && isHeading(record) || strings.Trim(strings.Join(record, ""), " \t") == "" {
				continue // the heading, or a line of a spreadsheet with nothing in it
			}
			return nil, fmt.Errorf("%w: line %d: %w", ErrFile, line, err)
		}
		name := ""
		if len(record) > 1 {
			name = record[1]
		}
		if err := add(days, date, name); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFile, err)
		}
	}
	return sorted(days)
}

// isHeading says whether a file's first line, which begins with no date, is there to name the columns. One that has a date
// elsewhere is a day whose columns are the other way round.
func isHeading(record []string) bool {
	return !strings.ContainsFunc(record[0], unicode.IsDigit) && !slices.ContainsFunc(record, func(cell string) bool {
		_, err := looseDate(strings.TrimSpace(cell))
		return err == nil
	})
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

// looseForm is a date whose year comes first: of the Common Era, or of Japan's present one. Older eras are over.
var looseForm = regexp.MustCompile(`^(?:(令和|R) *(元|[0-9]{1,2})|([0-9]{4})) *[-/.年] *([0-9]{1,2}) *[-/.月] *([0-9]{1,2}) *日?$`)

// looseDate reads "2026-11-03", "2026/11/3", "2026年11月3日", "令和8年11月3日" and "R8.11.3", in full-width characters too.
func looseDate(text string) (Date, error) {
	found := looseForm.FindStringSubmatch(norm.NFKC.String(text))
	if found == nil {
		return Date{}, fmt.Errorf("%s is not a date; write one as 2026-11-23, 2026/11/23, 2026年11月23日, 令和8年11月23日 or R8.11.23", rules.Quoted(text))
	}
	year := count(found[3])
	if found[1] != "" {
		year = 2018 + count(strings.Replace(found[2], "元", "1", 1))
	}
	date, err := ParseDate(fmt.Sprintf("%04d-%02d-%02d", year, count(found[4]), count(found[5])))
	if first := (Date{2019, time.May, 1}); err == nil && found[1] != "" && date.Compare(first) < 0 {
		return Date{}, fmt.Errorf("%s is not a date: 令和 began on %v", rules.Quoted(text), first)
	}
	return date, err
}

// count reads a few ASCII digits; none are 0.
func count(digits string) int {
	n, _ := strconv.Atoi(digits)
	return n
}

func add(days map[Date]string, date Date, name string) error {
	if have, twice := days[date]; twice && have != "" {
		return nil
	}
	days[date] = clean(name)
	if len(days) > maxFileDays {
		return fmt.Errorf("up to here there are more than %d days; divide the file", maxFileDays)
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
