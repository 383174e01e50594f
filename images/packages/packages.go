// Package packages reads lists of a guest's packages, and compares them.
//
// Here: one "name version" a line, as they lie in the image store. The guest is hostile, so what is no such line is left out.
// Not here: asking guests for them (hostagent/build). orchestrator calls it.
package packages

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"daybreak/images"
)

// maxLine is how many bytes a line may have; a longer one is left out.
const maxLine = 256

// List has the version of each package, by name. Of a package that is installed in several versions it has all, sorted.
type List map[string]string

// Parse reads a list, its first 256 KiB at most.
func Parse(text []byte) List {
	text = text[:min(len(text), images.ChunkBytes)]
	versions := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) == 2 && plain(line) && !slices.Contains(versions[fields[0]], fields[1]) {
			versions[fields[0]] = append(versions[fields[0]], fields[1])
		}
	}
	list := make(List, len(versions))
	for name, several := range versions {
		slices.Sort(several)
		list[name] = joined(several)
	}
	return list
}

// plain: the line may be shown to people.
func plain(line string) bool {
	line = strings.TrimRight(line, "\r\n")
	return len(line) <= maxLine && utf8.ValidString(line) && !strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) && r != '\t' })
}

// joined puts versions into one text of bounded length.
func joined(versions []string) string {
	text := ""
	for i, version := range versions {
		if i > 0 && len(text)+len(version) > maxLine {
			return text + ", …"
		}
		if i > 0 {
			text += ", "
		}
		text += version
	}
	return text
}

// Change is a package that two lists have differently. Before or After is empty when it is not in that list.
type Change struct {
	Name, Before, After string
}

// Diff compares two lists, by name.
func Diff(before, after List) (changes []Change) {
	names := maps.Clone(after)
	maps.Copy(names, before)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before[name] != after[name] {
			changes = append(changes, Change{Name: name, Before: before[name], After: after[name]})
		}
	}
	return changes
}
