package packages_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"daybreak/images"
	"daybreak/images/packages"
)

func TestParse(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       packages.List
	}{
		{"nothing", "", packages.List{}},
		{"lines", "bash 5.2-1\r\nlibc6\t2.36\n  zsh   5.9  ", packages.List{"bash": "5.2-1", "libc6": "2.36", "zsh": "5.9"}},
		{"several versions", "linux 6.1\nlinux 6.0\nlinux 6.1\n", packages.List{"linux": "6.0, 6.1"}},
		{"no version", "bash\n\n \nzsh 5.9 extra\n", packages.List{}},
		{"escape", "ba\x1b[2Jsh 5\nzsh 5.9\n", packages.List{"zsh": "5.9"}},
		{"turned around", "ba\u202esh 5\n", packages.List{}},
		{"no UTF-8", "ba\xffsh 5\n", packages.List{}},
		{"too long", strings.Repeat("x", 300) + " 1\nzsh 5.9", packages.List{"zsh": "5.9"}},
		{"Windows", "Microsoft_Edge 131.0\r\n", packages.List{"Microsoft_Edge": "131.0"}},
	} {
		if diff := cmp.Diff(row.want, packages.Parse([]byte(row.text))); diff != "" {
			t.Errorf("%s (-want +got)\n%s", row.name, diff)
		}
	}
}

func TestDiff(t *testing.T) {
	before := packages.Parse([]byte("bash 5.1\nlibc6 2.36\nold 1\n"))
	after := packages.Parse([]byte("bash 5.2\nlibc6 2.36\nnew 2\n"))
	want := []packages.Change{{"bash", "5.1", "5.2"}, {"new", "", "2"}, {"old", "1", ""}}
	if diff := cmp.Diff(want, packages.Diff(before, after)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if got := packages.Diff(before, before); got != nil {
		t.Errorf("a list differs from itself: %v", got)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("bash 5.2\nlibc6 2.36\n"))
	f.Add([]byte("a 1\na 2\na 1\n\x00 \xff"))
	f.Add(bytes.Repeat([]byte("x 1\n"), 70000))
	f.Fuzz(func(t *testing.T, text []byte) {
		list := packages.Parse(text)
		if len(list) > images.ChunkBytes/4 {
			t.Fatalf("%d packages", len(list))
		}
		for name, version := range list {
			for _, word := range []string{name, version} {
				if word == "" || len(word) > 600 || strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Fatalf("%q %q", name, version)
				}
			}
		}
		if changes := packages.Diff(list, list); changes != nil {
			t.Fatalf("a list differs from itself: %v", changes)
		}
		if changes := packages.Diff(nil, list); len(changes) != len(list) {
			t.Fatalf("%d changes from nothing to %d packages", len(changes), len(list))
		}
	})
}
