package objectfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Parse reads all objects of a file. name is shown in mistakes. The error is of type Mistakes.
func Parse(name string, text []byte) ([]*Document, error) {
	nodes, err := split(name, text)
	if err != nil {
		return nil, err
	}
	var documents []*Document
	var mistakes Mistakes
	for _, node := range nodes {
		r := &reader{file: name, places: map[string]Place{}}
		document := r.document(node)
		if len(r.mistakes) == 0 {
			r.check(document)
		}
		mistakes = append(mistakes, r.mistakes...)
		documents = append(documents, document)
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	return documents, nil
}

// split reads the YAML of every document that holds something.
func split(name string, text []byte) ([]*yaml.Node, error) {
	if len(text) > MaxBytes {
		return nil, whole(name, "the file is larger than %d bytes, the most that is read", MaxBytes)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	if json.Valid(text) {
		// JSON may be indented by tabs, which YAML refuses. Within JSON's strings there are none.
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" "))
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var nodes []*yaml.Node
	for {
		node := &yaml.Node{}
		err := decoder.Decode(node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, syntax(name, err)
		}
		if node.Kind != yaml.DocumentNode || len(node.Content) != 1 || isNull(node.Content[0]) {
			continue // nothing between two "---"
		}
		if len(nodes) == MaxDocuments {
			return nil, whole(name, "the file holds more than %d objects", MaxDocuments)
		}
		nodes = append(nodes, node.Content[0])
	}
	if len(nodes) == 0 {
		return nil, whole(name, "the file holds no object; it wants one like this: {kind: zone, meta: {name: internet}}")
	}
	return nodes, nil
}

func whole(name, format string, args ...any) error {
	return Mistakes{{Place: Place{File: name}, Text: fmt.Sprintf(format, args...)}}
}

// syntax turns the YAML reader's words into a mistake.
func syntax(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	place := Place{File: name}
	if found := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(text); found != nil {
		if line, err := strconv.Atoi(found[1]); err == nil {
			place.Line, place.Column = line, 1
		}
		text = strings.TrimPrefix(text, found[0])
	}
	for _, hint := range []struct{ sign, words string }{
		{"cannot start any token", "YAML is indented by spaces, not by tabs"},
		{"tab character", "YAML is indented by spaces, not by tabs"},
		{"could not find expected ':'", "after a field's name stand a half-width colon and a space"},
		{"mapping values are not allowed", "is it indented as the lines around it are?"},
		{"UTF-8", "the file must be in UTF-8: save it as such"},
	} {
		if strings.Contains(text, hint.sign) {
			text += " (" + hint.words + ")"
			break
		}
	}
	return Mistakes{{Place: place, Text: "this is not YAML: " + text}}
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// document reads one object.
func (r *reader) document(node *yaml.Node) *Document {
	document := &Document{start: r.place(node), places: r.places}
	if !r.plain(node, "") {
		return document
	}
	if node.Kind != yaml.MappingNode {
		r.mistake(node, "", "want an object, found %s", describe(node))
		return document
	}
	kind := r.kind(node)
	if kind == v1.Kind_KIND_UNSPECIFIED {
		return document
	}
	object, err := store.New(kind)
	if err != nil {
		r.mistake(node, "kind", "%v", err)
		return document
	}
	document.Object = object
	fields := *node
	fields.Content = nil
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != "kind" {
			fields.Content = append(fields.Content, node.Content[i], node.Content[i+1])
		}
	}
	r.message(&fields, object.ProtoReflect(), "")
	return document
}

// kind finds out what a document is.
func (r *reader) kind(node *yaml.Node) v1.Kind {
	var value *yaml.Node
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != "kind" {
			continue
		}
		if value != nil {
			r.mistake(node.Content[i], "kind", "stands twice")
			return v1.Kind_KIND_UNSPECIFIED
		}
		value = node.Content[i+1]
	}
	if value == nil {
		r.mistake(node, "kind", "is missing: say what it is, one of %s", kinds())
		return v1.Kind_KIND_UNSPECIFIED
	}
	kind := v1.Kind_KIND_UNSPECIFIED
	if value.Kind == yaml.ScalarNode {
		kind = store.KindByName(strings.ToLower(value.Value))
	}
	if kind == v1.Kind_KIND_UNSPECIFIED {
		r.mistake(value, "kind", "%s is no kind of object; want one of %s", describe(value), kinds())
	}
	return kind
}

// kinds lists what people write in files.
func kinds() string {
	return "zone, calendar, image, host, pool"
}
