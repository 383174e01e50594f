package store

import "strings"

// Cut fits a text into a field that takes n characters: it shortens it, with an ellipsis at its end, and replaces what is
// not UTF-8.
func Cut(text string, n int) string {
	runes := []rune(strings.ToValidUTF8(text, "\uFFFD"))
	if len(runes) <= n {
		return string(runes)
	}
	return string(runes[:n-1]) + "…"
}
