package main

import (
	"io"
	"unicode"
	"unicode/utf8"
)

// plainWriter lets through to a terminal what a guest says, but nothing that could move its cursor, name its window or
// answer for its user.
type plainWriter struct {
	out  io.Writer
	half []byte // the beginning of a character whose rest is to come
}

func (w *plainWriter) Write(p []byte) (int, error) {
	text := append(w.half, p...)
	plain := make([]byte, 0, len(text))
	for len(text) > 0 && (utf8.FullRune(text) || len(text) >= utf8.UTFMax) {
		r, size := utf8.DecodeRune(text)
		text = text[size:]
		switch {
		case r == '\n' || r == '\t' || r == '\r':
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			r = '?'
		}
		plain = utf8.AppendRune(plain, r)
	}
	w.half = append([]byte(nil), text...)
	if _, err := w.out.Write(plain); err != nil {
		return 0, err
	}
	return len(p), nil
}
