package dispatch

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	v1 "daybreak/proto/daybreak/v1"
)

// TestAssignmentCarriesEveryField: a field of an incarnation reaches the host, unless it is no business of the host's.
func TestAssignmentCarriesEveryField(t *testing.T) {
	kept := map[protoreflect.Name]bool{"created": true, "used_by": true, "reason": true, "unplaced_reason": true, "woken": true}
	full := &v1.Incarnation{}
	m := full.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch fd := fields.Get(i); {
		case fd.IsList():
			list := m.Mutable(fd).List()
			list.Append(list.NewElement())
		case fd.Message() != nil:
			m.Mutable(fd)
		case fd.Kind() == protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString("x"))
		case fd.Kind() == protoreflect.EnumKind:
			m.Set(fd, protoreflect.ValueOfEnum(1))
		case fd.Kind() == protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(1))
		case fd.Kind() == protoreflect.Int64Kind:
			m.Set(fd, protoreflect.ValueOfInt64(1))
		default:
			t.Fatalf("the test cannot fill %s", fd.FullName())
		}
	}
	sent := assignment(&v1.Desktop{Meta: &v1.Meta{Name: "a"}, Incarnation: full}).GetIncarnation().ProtoReflect()
	for i := range fields.Len() {
		if fd := fields.Get(i); sent.Has(fd) == kept[fd.Name()] {
			t.Errorf("incarnation.%s: sent to the host %v", fd.Name(), sent.Has(fd))
		}
	}
	if !assignment(&v1.Desktop{Incarnation: full}).GetUsed() || assignment(&v1.Desktop{}).GetUsed() {
		t.Error("the host is to know whether there is a user to ask for, and no more")
	}
}
