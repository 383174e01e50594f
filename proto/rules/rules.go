// Package rules holds messages against the rules in their .proto, and says what is wrong in words for people.
//
// Here: which fields break a rule, how fields are written (as files and -o yaml have them: spec.minReady), what a rule
// allows. Not here: rules that the .proto cannot express (the rooms whose they are). It is pure; api checks requests with
// it, cmd/daybreak files, orchestrator/store what is written.
package rules

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Mistake is a field that breaks a rule.
type Mistake struct {
	// Field is the path from the message's root, "spec.hours[0].open"; empty for the message as a whole.
	Field string
	// Text says what is wrong and what is allowed.
	Text string
}

// Check finds all mistakes. The error is that the rules themselves cannot be applied.
func Check(message proto.Message) ([]Mistake, error) {
	err := protovalidate.Validate(message)
	if err == nil {
		return nil, nil
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return nil, fmt.Errorf("validate %s: %w", message.ProtoReflect().Descriptor().Name(), err)
	}
	var mistakes []Mistake
	for _, violation := range broken.Violations {
		field, text := path(violation), words(violation)
		if violation.FieldDescriptor == nil { // a rule of a whole message says itself which field it is about
			field, text = fieldOf(field, text)
		}
		mistakes = append(mistakes, Mistake{field, text})
	}
	return mistakes, nil
}

// path is where a field stands, in the spelling of protojson.
func path(violation *protovalidate.Violation) string {
	found := proto.CloneOf(violation.Proto.GetField())
	for _, element := range found.GetElements() {
		element.FieldName = proto.String(camel(element.GetFieldName()))
	}
	return protovalidate.FieldPathString(found)
}

// camel is a field's name as protojson has it.
func camel(name string) string {
	parts := strings.Split(name, "_")
	for i, part := range parts[1:] {
		if part != "" {
			parts[i+1] = strings.ToUpper(part[:1]) + part[1:]
		}
	}
	return strings.Join(parts, "")
}

// fieldOf takes the field off the head of "meta.name: too long". Its path begins at the message at path, or with that itself.
func fieldOf(path, text string) (field, rest string) {
	head, tail, found := strings.Cut(text, ": ")
	if !found || strings.Contains(head, " ") {
		return path, text
	}
	if above := path[:strings.LastIndex(path, ".")+1]; strings.HasPrefix(above+head, path+".") {
		return above + head, tail
	}
	return strings.TrimPrefix(path+"."+head, "."), tail
}

// words says what a rule allows. Patterns are put into words; they tell nothing to most people.
func words(violation *protovalidate.Violation) string {
	text := violation.Proto.GetMessage()
	if text == "" {
		text = "breaks the rule " + violation.Proto.GetRuleId()
	}
	id, field := violation.Proto.GetRuleId(), violation.FieldDescriptor
	switch {
	case id == "string.pattern":
		if said, ok := patterns()[violation.RuleValue.String()]; ok {
			text = said
		}
	case id == "enum.not_in" && field != nil && field.Enum() != nil:
		names, _ := EnumNames(field.Enum())
		return "must be set: one of " + strings.Join(names, ", ")
	case id == "required":
		return "must be set"
	case id == "string.min_len" && violation.FieldValue.String() == "", id == "repeated.min_items" && violation.FieldValue.List().Len() == 0:
		return "must not be empty"
	case id == "repeated.unique":
		return "must not hold the same twice"
	case strings.HasPrefix(id, "duration."):
		text = durations(text)
	}
	text = strings.NewReplacer("greater than or equal to ", "at least ", "less than or equal to ", "at most ", "greater than ", "more than ").Replace(text)
	if value := violation.FieldValue; value.IsValid() && field != nil && !field.IsList() && !field.IsMap() {
		if shown, ok := value.Interface().(string); ok && shown != "" {
			text += ", found " + Found(shown)
		}
	}
	return text
}

// durations puts the bounds in a text that are written as seconds ("2592000s") into words.
func durations(text string) string {
	parts := strings.Split(text, " ")
	for i, part := range parts {
		if length, err := time.ParseDuration(part); err == nil {
			parts[i] = Duration(length)
		}
	}
	return strings.Join(parts, " ")
}

// Duration is a length of time as people write it, in full: "90s" is "1m30s", "2592000s" is "30d".
func Duration(length time.Duration) string {
	const day = 24 * time.Hour
	if length < 0 {
		return "-" + Duration(-length)
	}
	text := ""
	if days := length / day; days > 0 {
		text = fmt.Sprintf("%dd", days)
	}
	rest := (length % day).String() // "1h0m0s"
	if cut, ok := strings.CutSuffix(rest, "m0s"); ok {
		rest = cut + "m"
	}
	if cut, ok := strings.CutSuffix(rest, "h0m"); ok {
		rest = cut + "h"
	}
	if text != "" && length%day == 0 {
		return text
	}
	return text + rest
}

// ParseDuration reads what Duration writes: Go's lengths of time, and days in front of them, "7d" or "1d12h".
func ParseDuration(text string) (time.Duration, bool) {
	const most = 100_000 // days, or hours, that the type holds
	whole, rest, dayed := strings.Cut(text, "d")
	if !dayed {
		value, err := time.ParseDuration(text)
		return value, err == nil
	}
	days, err := strconv.ParseUint(whole, 10, 32)
	if err != nil || days > most {
		return 0, false
	}
	value := time.Duration(0)
	if rest != "" {
		if value, err = time.ParseDuration(rest); err != nil || value < 0 || value > most*time.Hour {
			return 0, false
		}
	}
	return time.Duration(days)*24*time.Hour + value, true
}

// WantDuration says what ParseDuration takes.
const WantDuration = "want a time with its unit, like 300s, 5m, 1h30m or 7d"

// Quoted shows a text on one line, whatever is in it, shortened.
func Quoted(text string) string {
	const most = 40
	if runes := []rune(text); len(runes) > most {
		text = string(runes[:most]) + "…"
	}
	return fmt.Sprintf("%q", text)
}

// Found is Quoted for what somebody wrote that is not as it should be. It points out what a word processor or a Japanese keyboard
// put there: the eye hardly sees it.
func Found(text string) string {
	shown := Quoted(text)
	switch {
	case strings.ContainsAny(text, "“”„‟‘’‚‛「」＂＇"):
		return shown + ` (with quotation marks that YAML does not know as such: write " or ')`
	case strings.ContainsFunc(text, func(r rune) bool { return r >= '！' && r <= '～' || r == '\u3000' }):
		return shown + " (in full-width characters: write half-width ones)"
	}
	return shown
}

// EnumName is how files write a value of an enum: without the type's name, in lower case.
func EnumName(enum protoreflect.EnumDescriptor, value protoreflect.Name) string {
	prefix := strings.TrimSuffix(string(enum.Values().Get(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(value), prefix))
}

// EnumNames lists what may be written for an enum: its values' own parts, in lower case.
func EnumNames(enum protoreflect.EnumDescriptor) (names []string, numbers map[string]protoreflect.EnumNumber) {
	numbers = map[string]protoreflect.EnumNumber{}
	values := enum.Values()
	for i := range values.Len() {
		full, short := string(values.Get(i).Name()), EnumName(enum, values.Get(i).Name())
		numbers[strings.ToLower(full)], numbers[short] = values.Get(i).Number(), values.Get(i).Number()
		if values.Get(i).Number() != 0 {
			names = append(names, short)
		}
	}
	sort.SliceStable(names, func(i, j int) bool { return numbers[names[i]] < numbers[names[j]] })
	return names, numbers
}

func patterns() map[string]string {
	const name = "must be a name of lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends"
	const target = "must be a number of desktops like 10, a share of the seats like 50%, or learned"
	return map[string]string{
		"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$":             name,
		"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$":          name + ", or empty",
		"^[a-z0-9A-Z]([a-z0-9A-Z._/-]{0,61}[a-z0-9A-Z])?$": "must be of letters, digits, dots, slashes, hyphens and underscores, at most 63, with a letter or digit at both ends",
		"^[^\\x00-\\x1f\\x7f]*$":                           "must not hold control characters or line breaks",
		"^[^\\x00-\\x09\\x0b-\\x1f\\x7f]*$":                "must not hold control characters, tabs or carriage returns",
		"^([01][0-9]|2[0-3]):[0-5][0-9]$":                  "must be a time of day like 08:30",
		"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$":          "must be a time of day like 17:15, or 24:00",
		"^[0-9]{4}-[0-9]{2}-[0-9]{2}$":                     "must be a date like 2026-11-23",
		"^[0-9a-f]{64}$":                                   "must be 64 lower-case hexadecimal digits",
		"^([0-9a-f]{64})?$":                                "must be 64 lower-case hexadecimal digits, or empty",
		"^([0-9a-f]{2}:){5}[0-9a-f]{2}$":                   "must be a MAC address like 52:54:00:12:34:56, in lower case",
		"^[1-9][0-9]{0,3}%?$":                              "must be a number of desktops like 10, or a share of the pool like 25%",
		"^(learned|[0-9]{1,4}|[0-9]{1,2}%|100%)$":          target,
		"^(learned|[0-9]{1,4}|[0-9]{1,2}%|100%)?$":         target,
	}
}
