package objectfile

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"daybreak/proto/rules"
)

// reader fills messages from YAML nodes and collects what is wrong.
type reader struct {
	file     string
	places   map[string]Place
	mistakes Mistakes
}

func (r *reader) place(node *yaml.Node) Place {
	return Place{File: r.file, Line: node.Line, Column: node.Column}
}

func (r *reader) mistake(node *yaml.Node, path, format string, args ...any) {
	r.mistakes = append(r.mistakes, Mistake{Place: r.place(node), Field: path, Text: fmt.Sprintf(format, args...)})
}

// plain refuses what YAML can do and JSON cannot: a file that unfolds to more than it shows is not one to check by eye.
func (r *reader) plain(node *yaml.Node, path string) bool {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		r.mistake(node, path, "anchors (&) and aliases (*) are not taken: write the value out")
	case node.Style&yaml.TaggedStyle != 0:
		r.mistake(node, path, "tags (%s) are not taken", node.Tag)
	default:
		return true
	}
	return false
}

// describe shows a node in a message, shortened.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if isNull(node) {
			return "nothing"
		}
		if node.ShortTag() != "!!str" { // what YAML takes for something else than text must not look as if it stood in quotes
			return node.Value
		}
		return rules.Found(node.Value)
	}
	return "something else"
}

// join makes the path of a field.
func join(path, field string) string {
	if path == "" {
		return field
	}
	return path + "." + field
}

// each calls do for every entry of a mapping whose key is a string and stands there once.
func (r *reader) each(node *yaml.Node, path string, do func(key string, at, value *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		switch {
		case !r.plain(key, path) || !r.plain(value, path):
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			r.mistake(key, path, "a name is wanted here, found %s; put it in quotes if it is one", describe(key))
		case seen[key.Value]:
			r.mistake(key, join(path, printable(key.Value)), "stands twice")
		default:
			seen[key.Value] = true
			do(key.Value, key, value)
		}
	}
}

// message fills m from a mapping.
func (r *reader) message(node *yaml.Node, m protoreflect.Message, path string) {
	if node.Kind != yaml.MappingNode {
		r.mistake(node, path, "want an object, {field: value, …}, with the fields %s; found %s", fieldNames(m.Descriptor()), describe(node))
		return
	}
	fields := m.Descriptor().Fields()
	set := map[protoreflect.FieldNumber]bool{}
	r.each(node, path, func(key string, at, value *yaml.Node) {
		field := fields.ByTextName(key)
		if field == nil {
			field = fields.ByJSONName(key)
		}
		if field == nil {
			r.mistake(at, join(path, printable(key)), "there is no such field; %s", instead(key, m.Descriptor()))
			return
		}
		name := join(path, field.JSONName())
		if set[field.Number()] {
			r.mistake(at, name, "stands twice, as %s and %s", field.TextName(), field.JSONName())
			return
		}
		set[field.Number()] = true
		r.places[name] = r.place(value)
		if !isNull(value) {
			r.field(value, m, field, name)
		}
	})
}

// instead is the field that an unknown name stands for but for its spelling, or else all that there are.
func instead(key string, d protoreflect.MessageDescriptor) string {
	plain := func(name string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name)) }
	for i := range d.Fields().Len() {
		if name := d.Fields().Get(i).JSONName(); plain(name) == plain(key) {
			return "it is written " + name
		}
	}
	return "there are " + fieldNames(d)
}

func fieldNames(d protoreflect.MessageDescriptor) string {
	var names []string
	for i := range d.Fields().Len() {
		names = append(names, d.Fields().Get(i).JSONName())
	}
	if len(names) == 0 {
		return "(none)"
	}
	return strings.Join(names, ", ")
}

// printable is a name as it stands in a path: quoted when it is not of plain letters.
func printable(key string) string {
	if q := rules.Quoted(key); q != `"`+key+`"` || key == "" {
		return q
	}
	return key
}

func (r *reader) field(node *yaml.Node, m protoreflect.Message, field protoreflect.FieldDescriptor, path string) {
	switch {
	case field.IsMap():
		r.dictionary(node, m.Mutable(field).Map(), field, path)
	case field.IsList():
		r.list(node, m.Mutable(field).List(), field, path)
	case field.Message() != nil && wellKnown(field.Message()) == nil:
		r.message(node, m.Mutable(field).Message(), path)
	default:
		if value, ok := r.value(node, field, path); ok {
			m.Set(field, value)
		}
	}
}

func (r *reader) list(node *yaml.Node, list protoreflect.List, field protoreflect.FieldDescriptor, path string) {
	if node.Kind != yaml.SequenceNode {
		r.mistake(node, path, "want a list, like [a, b]; found %s", describe(node))
		return
	}
	for i, item := range node.Content {
		name := fmt.Sprintf("%s[%d]", path, i)
		r.places[name] = r.place(item)
		switch {
		case !r.plain(item, name):
		case isNull(item):
			r.mistake(item, name, "is empty")
		case field.Message() != nil && wellKnown(field.Message()) == nil:
			r.message(item, list.AppendMutable().Message(), name)
		default:
			if value, ok := r.value(item, field, name); ok {
				list.Append(value)
			}
		}
	}
}

func (r *reader) dictionary(node *yaml.Node, entries protoreflect.Map, field protoreflect.FieldDescriptor, path string) {
	if node.Kind != yaml.MappingNode || field.MapKey().Kind() != protoreflect.StringKind || field.MapValue().Message() != nil {
		r.mistake(node, path, "want names with values, like {floor: \"3\"}; found %s", describe(node))
		return
	}
	r.each(node, path, func(key string, _, item *yaml.Node) {
		name := fmt.Sprintf("%s[%q]", path, key)
		r.places[name] = r.place(item)
		if value, ok := r.value(item, field.MapValue(), name); ok {
			entries.Set(protoreflect.ValueOfString(key).MapKey(), value)
		}
	})
}
