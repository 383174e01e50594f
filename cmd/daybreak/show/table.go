// Package show puts objects into the tables and descriptions that people read.
//
// Here: columns for each kind, ages, sizes, alignment by the width that characters have on a terminal. Not here: asking
// for objects, JSON and YAML. Only cmd/daybreak calls it.
//
// What it prints may come from guests and strangers: no control character gets to the terminal.
package show

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Table is what is to be printed: a header, and rows of as many cells.
type Table struct {
	Header []string
	Rows   [][]string
}

// Writer prints tables under each other with columns that stay where they are.
type Writer struct {
	out    io.Writer
	widths []int
}

// NewWriter returns a Writer on out.
func NewWriter(out io.Writer) *Writer {
	return &Writer{out: out}
}

const gap = "   "

// Table prints the header, unless it is nil, and the rows.
func (w *Writer) Table(t Table) error {
	rows := t.Rows
	if t.Header != nil {
		rows = append([][]string{t.Header}, rows...)
	}
	cleaned := make([][]string, len(rows))
	for i, row := range rows {
		cleaned[i] = make([]string, len(row))
		for j, cell := range row {
			cleaned[i][j] = orDash(Clean(cell))
			for len(w.widths) <= j {
				w.widths = append(w.widths, 0)
			}
			w.widths[j] = max(w.widths[j], Width(cleaned[i][j]))
		}
	}
	for _, row := range cleaned {
		var line strings.Builder
		for j, cell := range row {
			line.WriteString(cell)
			if j < len(row)-1 {
				line.WriteString(strings.Repeat(" ", w.widths[j]-Width(cell)) + gap)
			}
		}
		if _, err := fmt.Fprintln(w.out, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// Clean makes a text harmless: line breaks and tabs become spaces, other control characters and what would change the
// direction of writing become "?".
func Clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029':
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// Width is how many columns of a terminal a text takes: two for wide (East Asian) characters, none for marks that
// combine with the one before.
func Width(text string) int {
	n := 0
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case kind == width.EastAsianWide || kind == width.EastAsianFullwidth:
			n += 2
		default:
			n++
		}
	}
	return n
}
