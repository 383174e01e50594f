package build

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestInterpreter(t *testing.T) {
	for script, want := range map[string][]string{
		"":                                 {"/bin/sh", "-e"},
		"apt-get update\n":                 {"/bin/sh", "-e"},
		"#! /bin/bash\nx":                  {"/bin/bash"},
		"#!/usr/bin/env python3\r\nx":      {"/usr/bin/env", "python3"},
		"#!/bin/sh -eu -x \n":              {"/bin/sh", "-eu -x"},
		"#!bash\n":                         {"/bin/sh", "-e"},
		"#!\n":                             {"/bin/sh", "-e"},
		"#!/" + strings.Repeat("a", 1<<20): {"/" + strings.Repeat("a", 1021)},
	} {
		if got := interpreter([]byte(script)); !slices.Equal(got, want) {
			t.Errorf("%.40q: %q, want %q", script, got, want)
		}
	}
}

func TestPackageLines(t *testing.T) {
	got := packageLines("a 1\nb\n\n c  2.0~rc1 \n\x1b]0;x\x07d 3\n" + "e 4")
	if want := "a 1\nc 2.0~rc1\n]0;xd 3\ne 4\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	long := packageLines(strings.Repeat("name 1.0\n", 1<<16))
	if len(long) > maxPackages || !strings.HasSuffix(long, "name 1.0\n") {
		t.Errorf("%d bytes", len(long))
	}
}

func FuzzCleaner(f *testing.F) {
	f.Add([]byte("朝\x1b[2J\r\n"), 1)
	f.Add([]byte("\xff\xe6\x9c"), 2)
	f.Fuzz(func(t *testing.T, raw []byte, at int) {
		var whole, parts cleaner
		want := string(whole.clean(raw))
		at = int(uint(at) % uint(len(raw)+1))
		got := string(parts.clean(raw[:at])) + string(parts.clean(raw[at:]))
		if got != want || !utf8.ValidString(got) || strings.ContainsAny(got, "\x1b\r\x00\x7f") {
			t.Errorf("%q in two parts became %q, in one %q", raw, got, want)
		}
		if line := clean(string(raw), 7); len(line) > 7 || !utf8.ValidString(line) || strings.Contains(line, "\n") {
			t.Errorf("%q became %q", raw, line)
		}
	})
}

func TestCleanerWaitsForTheEndOfACharacter(t *testing.T) {
	var c cleaner
	if got := string(c.clean([]byte("朝"[:1]))) + string(c.clean([]byte("朝"[1:]+"!"))); got != "朝!" {
		t.Errorf("got %q", got)
	}
}
