package api

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// wrap puts an object into the envelope that the services speak, without what nobody needs to see.
func wrap(o store.Object) *v1.Object {
	if token, ok := o.(*v1.JoinToken); ok {
		token = proto.CloneOf(token)
		token.SecretHash = nil
		o = token
	}
	envelope := &v1.Object{}
	m := envelope.ProtoReflect()
	// The envelope's field numbers are the kinds' numbers; TestEnvelope holds them to that.
	field := m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(store.KindOf(o)))
	m.Set(field, protoreflect.ValueOfMessage(o.ProtoReflect()))
	return envelope
}

// unwrap takes the object out of its envelope; nil when there is none.
func unwrap(envelope *v1.Object) store.Object {
	m := envelope.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return nil
	}
	o, _ := m.Get(field).Message().Interface().(store.Object)
	return o
}

// unknownField finds a field that this server does not know: it was sent by a newer program, and to ignore it would be
// to do something else than was asked.
func unknownField(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	found := false
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsMap() || field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			for i := range value.List().Len() {
				found = found || unknownField(value.List().Get(i).Message())
			}
		default:
			found = found || unknownField(value.Message())
		}
		return !found
	})
	return found
}
