package objectfile

import (
	"encoding/base64"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/proto/rules"
)

// wellKnown returns how a message that is written as a scalar is read, nil for all others.
func wellKnown(d protoreflect.MessageDescriptor) func(text string) (protoreflect.Message, string) {
	switch d.FullName() {
	case "google.protobuf.Duration":
		return func(text string) (protoreflect.Message, string) {
			value, ok := rules.ParseDuration(text)
			if !ok {
				return nil, rules.WantDuration
			}
			return durationpb.New(value).ProtoReflect(), ""
		}
	case "google.protobuf.Timestamp":
		return func(text string) (protoreflect.Message, string) {
			value, err := time.Parse(time.RFC3339Nano, text)
			if err != nil || timestamppb.New(value).CheckValid() != nil {
				return nil, "want a moment like 2026-11-23T08:30:00+09:00"
			}
			return timestamppb.New(value).ProtoReflect(), ""
		}
	}
	return nil
}

// value reads a scalar of a field's type.
func (r *reader) value(node *yaml.Node, field protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	var none protoreflect.Value
	if node.Kind != yaml.ScalarNode || isNull(node) {
		r.mistake(node, path, "want %s, found %s", wanted(field), describe(node))
		return none, false
	}
	value, complaint := scalar(node, field)
	if complaint != "" {
		r.mistake(node, path, "%s, found %s", complaint, describe(node))
		return none, false
	}
	return value, true
}

// wanted says in a word what a field takes.
func wanted(field protoreflect.FieldDescriptor) string {
	switch field.Kind() {
	case protoreflect.StringKind:
		return "a text"
	case protoreflect.BoolKind:
		return "true or false"
	case protoreflect.EnumKind:
		names, _ := rules.EnumNames(field.Enum())
		return "one of " + strings.Join(names, ", ")
	case protoreflect.MessageKind:
		_, complaint := wellKnown(field.Message())("")
		return strings.TrimPrefix(complaint, "want ")
	default:
		return "a number"
	}
}

// scalar reads a node as a field's type, or says what is wanted.
func scalar(node *yaml.Node, field protoreflect.FieldDescriptor) (value protoreflect.Value, complaint string) {
	tag, text := node.ShortTag(), node.Value
	switch field.Kind() {
	case protoreflect.StringKind:
		// YAML takes 2026-11-23 for a moment; JSON and people take it for text.
		if tag != "!!str" && tag != "!!timestamp" {
			return value, "want a text: put it in quotes"
		}
		return protoreflect.ValueOfString(text), ""
	case protoreflect.BoolKind:
		if tag != "!!bool" || strings.ToLower(text) != "true" && strings.ToLower(text) != "false" {
			return value, "want true or false"
		}
		return protoreflect.ValueOfBool(strings.ToLower(text) == "true"), ""
	case protoreflect.EnumKind:
		names, numbers := rules.EnumNames(field.Enum())
		number, ok := numbers[strings.ToLower(text)]
		if !ok {
			return value, "want one of " + strings.Join(names, ", ")
		}
		return protoreflect.ValueOfEnum(number), ""
	case protoreflect.MessageKind:
		message, complaint := wellKnown(field.Message())(text)
		if complaint != "" {
			return value, complaint
		}
		return protoreflect.ValueOfMessage(message), ""
	case protoreflect.BytesKind:
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil || tag != "!!str" {
			return value, "want bytes in base64"
		}
		return protoreflect.ValueOfBytes(decoded), ""
	default:
		return number(node, field)
	}
}

// number reads numbers as JSON has them: no 0755 that means 493, no 1_000, no 0x10.
func number(node *yaml.Node, field protoreflect.FieldDescriptor) (value protoreflect.Value, complaint string) {
	tag, text := node.ShortTag(), node.Value
	kind := field.Kind()
	if kind == protoreflect.DoubleKind || kind == protoreflect.FloatKind {
		parsed, err := strconv.ParseFloat(text, 64)
		if err != nil || tag != "!!int" && tag != "!!float" || math.IsNaN(parsed) || math.IsInf(parsed, 0) ||
			!regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`).MatchString(text) {
			return value, "want a number"
		}
		return protoreflect.ValueOfFloat64(parsed), ""
	}
	bits, signed := 64, true
	switch kind {
	case protoreflect.Int32Kind:
		bits = 32
	case protoreflect.Uint32Kind:
		bits, signed = 32, false
	case protoreflect.Uint64Kind:
		signed = false
	}
	// JSON has 64-bit numbers in quotes.
	if tag != "!!int" && !(tag == "!!str" && bits == 64) || !regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`).MatchString(text) {
		return value, "want a whole number, in plain decimal digits"
	}
	if signed {
		parsed, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return value, "want a whole number nearer to 0"
		}
		if bits == 32 {
			return protoreflect.ValueOfInt32(int32(parsed)), ""
		}
		return protoreflect.ValueOfInt64(parsed), ""
	}
	parsed, err := strconv.ParseUint(text, 10, bits)
	if err != nil {
		return value, outside(text)
	}
	if bits == 32 {
		return protoreflect.ValueOfUint32(uint32(parsed)), ""
	}
	return protoreflect.ValueOfUint64(parsed), ""
}

// outside says why a whole number does not fit a field that has no sign.
func outside(text string) string {
	if strings.HasPrefix(text, "-") {
		return "want a whole number, 0 or more"
	}
	return "want a smaller number"
}
