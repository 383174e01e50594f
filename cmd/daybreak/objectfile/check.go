package objectfile

import (
	"errors"
	"strings"

	"buf.build/go/protovalidate"
)

// check holds the object against the rules in its .proto, as the server will.
func (r *reader) check(document *Document) {
	err := protovalidate.Validate(document.Object)
	if err == nil {
		return
	}
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		r.mistakes = append(r.mistakes, Mistake{Place: document.start, Text: err.Error()})
		return
	}
	for _, violation := range broken.Violations {
		path := protovalidate.FieldPathString(violation.Proto.GetField())
		text := words(violation)
		if path == "" { // a rule of the whole object says itself which field it is about
			path, text = fieldOf(text)
		}
		r.mistakes = append(r.mistakes, Mistake{Place: document.At(path), Field: path, Text: text})
	}
}

// fieldOf takes the field off the head of "meta.name: too long".
func fieldOf(text string) (field, rest string) {
	head, tail, found := strings.Cut(text, ": ")
	if !found || strings.ContainsAny(head, " ") {
		return "", text
	}
	return head, tail
}

// words says what a rule allows. Patterns are put into words; they tell nothing to most people.
func words(violation *protovalidate.Violation) string {
	text := violation.Proto.GetMessage()
	if text == "" {
		text = "breaks the rule " + violation.Proto.GetRuleId()
	}
	if violation.Proto.GetRuleId() == "string.pattern" {
		if said, ok := patterns()[violation.RuleValue.String()]; ok {
			text = said
		}
	}
	if violation.Proto.GetRuleId() == "enum.not_in" && violation.FieldDescriptor != nil && violation.FieldDescriptor.Enum() != nil {
		names, _ := enumNames(violation.FieldDescriptor.Enum())
		return "must be set: one of " + strings.Join(names, ", ")
	}
	if value := violation.FieldValue; value.IsValid() && violation.FieldDescriptor != nil && !violation.FieldDescriptor.IsList() && !violation.FieldDescriptor.IsMap() {
		if shown, ok := value.Interface().(string); ok && shown != "" {
			text += ", found " + quoted(shown)
		}
	}
	return text
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
