package objectfile

import "daybreak/proto/rules"

// check holds the object against the rules in its .proto, as the server will.
func (r *reader) check(document *Document) {
	found, err := rules.Check(document.Object)
	if err != nil {
		r.mistakes = append(r.mistakes, Mistake{Place: document.start, Text: err.Error()})
	}
	for _, m := range found {
		r.mistakes = append(r.mistakes, Mistake{Place: document.At(m.Field), Field: m.Field, Text: m.Text})
	}
}
