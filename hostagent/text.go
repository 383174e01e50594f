package hostagent

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// cleanText makes words of guests, programs and peers fit to be shown: valid UTF-8, one line, at most limit bytes.
func cleanText(text string, limit int) string {
	if len(text) > 4*limit {
		text = text[:4*limit]
	}
	text = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError:
			return '?'
		case unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
			return ' '
		}
		return r
	}, text)
	text = strings.TrimSpace(text)
	if len(text) <= limit {
		return text
	}
	cut := limit - len("…")
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

// exitWord says how a program ended, and what it had to say, if anything.
func exitWord(program string, status int, output string) string {
	text := fmt.Sprintf("%s exited with %d", program, status)
	if output == "" {
		return text
	}
	return text + ": " + output
}
