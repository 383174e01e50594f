package build

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of words, by the messages' rules.
const (
	maxError    = 1024
	maxCheck    = 256
	maxPackages = 256 << 10
)

// clean makes words fit to be shown: valid UTF-8, one line, at most limit bytes.
func clean(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r) || r == utf8.RuneError:
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	return cut(strings.TrimSpace(text), limit)
}

// cut shortens text to at most limit bytes, between two characters.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

// cleaner makes output of a guest's program fit for a terminal: what is neither printable nor the end of a line nor a tab is
// left out, so that no guest moves anybody's cursor.
type cleaner struct {
	// half is the begin of a character whose end has not come yet.
	half []byte
}

func (c *cleaner) clean(raw []byte) []byte {
	raw = append(c.half, raw...)
	c.half = nil
	var out []byte
	for len(raw) > 0 {
		if !utf8.FullRune(raw) {
			c.half = append([]byte(nil), raw...)
			break
		}
		r, n := utf8.DecodeRune(raw)
		if r == '\n' || r == '\t' || r != utf8.RuneError && unicode.IsPrint(r) {
			out = append(out, raw[:n]...)
		}
		raw = raw[n:]
	}
	return out
}
