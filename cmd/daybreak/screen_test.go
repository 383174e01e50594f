package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
)

// A viewer finds the greeting that came before it; the next one finds the next greeting, and nothing of what was still on
// the way for the first.
func TestScreen(t *testing.T) {
	s, err := listenScreen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(chan string)
	s.show([]byte("RFB 003.008\n"))
	s.serve(ctx, func(piece []byte) bool {
		select {
		case said <- string(piece):
			return true
		case <-ctx.Done():
			return false
		}
	})
	look := func(greeting string) net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(greeting))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != greeting {
			t.Fatalf("greeted with %q, %v", got, err)
		}
		return conn
	}
	first := look("RFB 003.008\n")
	second, err := net.Dial("tcp", s.address())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := second.Read(make([]byte, 1)); err == nil {
		t.Error("two viewers at a time")
	}
	if _, err := first.Write([]byte("key")); err != nil {
		t.Fatal(err)
	}
	if got := <-said; got != "key" {
		t.Errorf("said %q", got)
	}
	_ = first.Close()
	if got := <-said; got != "" {
		t.Errorf("said %q, want the word that the viewer is gone", got)
	}
	s.show([]byte("still of the first"))
	s.show([]byte("RFB 003.009\n"))
	third := look("RFB 003.009\n")
	s.show([]byte("picture"))
	cancel()
	if rest, _ := io.ReadAll(third); string(rest) != "picture" && len(rest) > 0 {
		t.Errorf("shown %q", rest)
	}
}

func TestScreenIsForThisMachine(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":5900", "192.0.2.1:0", "[::]:0", "5900"} {
		if s, err := listenScreen(address); err == nil {
			s.close()
			t.Errorf("%s was taken", address)
		}
	}
}

func TestPlainWriter(t *testing.T) {
	var out bytes.Buffer
	w := &plainWriter{out: &out}
	text := "漢字\r\n\x1b]0;name\x07 \u202egnp\t\xff end\u009b2J"
	for _, b := range []byte(text) { // the worst cuts there can be
		if n, err := w.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := out.String(); got != "漢字\r\n?]0;name? ?gnp\t\ufffd end?2J" {
		t.Errorf("%q", got)
	}
}

func TestFileWords(t *testing.T) {
	for words, want := range map[string]string{
		"a:/b": "a|/b|", "./a b:/c d:0755": "./a b|/c d|0755", `a:C:\b\c:600`: `a|C:\b\c|600`, "a:C:/b": "a|C:/b|", "a:/b/": "a|/b/|",
		"a": "", "a:b": "", ":/b": "", "a:/b:rwx": "", "a:/b:99": "", "a:/b:0755:1": "",
	} {
		got := ""
		if parts := fileWords.FindStringSubmatch(words); parts != nil {
			got = strings.Join(parts[1:], "|")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", words, got, want)
		}
	}
}
