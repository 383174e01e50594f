// Package objectfile reads the files in which people write objects: YAML or JSON, one object a document.
//
//	kind: pool
//	meta: {name: sales}
//	spec: {image: debian, zone: internet, desktops: 6}
//
// Field names and values are those of the API's messages, strictly: what is unknown, twice, of the wrong type or out of
// range is a mistake, named with file, line, column and field. Kinder than protojson in two things: enums may be written
// short and in lower case (monday), durations as Go has them, with days (5m, 7d).
//
// Here: reading and checking. Not here: sending anything anywhere. Only cmd/daybreak calls it.
package objectfile

import (
	"fmt"
	"strings"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Bounds of what is read.
const (
	// MaxBytes is the largest file.
	MaxBytes = 1 << 20
	// MaxDocuments is how many objects a file can hold.
	MaxDocuments = 1000
	// maxMistakes is how many mistakes are told at once.
	maxMistakes = 20
)

// Place is where something stands. Line and Column count from 1; 0 means the file as a whole.
type Place struct {
	File         string
	Line, Column int
}

// String is "file:line:column", as compilers write it.
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Mistake is one thing that is wrong.
type Mistake struct {
	Place Place
	// Field is the path from the object's root, "spec.hours[0].open"; empty for the file itself.
	Field string
	// Text says what is wrong and what is allowed.
	Text string
}

// Mistakes are all that was found; the error that Parse returns.
type Mistakes []Mistake

func (list Mistakes) Error() string {
	lines := make([]string, 0, len(list))
	for i, m := range list {
		if i == maxMistakes {
			lines = append(lines, fmt.Sprintf("… and %d more", len(list)-maxMistakes))
			break
		}
		line := m.Place.String() + ": "
		if m.Field != "" {
			line += m.Field + ": "
		}
		lines = append(lines, line+m.Text)
	}
	return strings.Join(lines, "\n")
}

// Document is one object and where its parts stand.
type Document struct {
	Object store.Object
	start  Place
	places map[string]Place
}

// Kind is the object's kind.
func (d *Document) Kind() v1.Kind {
	return store.KindOf(d.Object)
}

// At returns where a field stands, or the nearest field around it that is in the file.
func (d *Document) At(path string) Place {
	for path != "" {
		if place, ok := d.places[path]; ok {
			return place
		}
		cut := strings.LastIndexAny(path, ".[")
		path = path[:max(cut, 0)]
	}
	return d.start
}
