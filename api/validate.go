package api

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/proto/rules"
)

// maxViolations is how many mistakes one answer names.
const maxViolations = 16

// mistake is one field that breaks a rule.
type mistake struct {
	// field is the path from the object's root, as people write it in their files: "spec.desktops".
	field string
	text  string
}

// validate checks a message against the rules in its .proto.
func validate(message proto.Message) error {
	found, err := rules.Check(message)
	if err != nil || len(found) == 0 {
		return err
	}
	var mistakes []mistake
	for _, m := range found {
		mistakes = append(mistakes, mistake{field: fieldPath(m.Field), text: m.Text})
	}
	return invalid(mistakes...)
}

// fieldPath turns a path from the request into one from the object that the request carries.
func fieldPath(path string) string {
	rest, inside := strings.CutPrefix(path, "object.")
	if !inside {
		return path
	}
	if _, field, found := strings.Cut(rest, "."); found {
		return field
	}
	return rest
}

// invalid is the answer to a request with these mistakes: a sentence for people, and the fields as details for programs.
func invalid(mistakes ...mistake) error {
	if len(mistakes) > maxViolations {
		mistakes = mistakes[:maxViolations]
	}
	details := &errdetails.BadRequest{}
	var lines []string
	for _, m := range mistakes {
		line := m.text
		if m.field != "" {
			line = m.field + ": " + m.text
		}
		lines = append(lines, line)
		details.FieldViolations = append(details.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: m.field, Description: m.text})
	}
	plain := status.New(codes.InvalidArgument, strings.Join(lines, "; "))
	if detailed, err := plain.WithDetails(details); err == nil {
		return detailed.Err()
	}
	return plain.Err()
}
