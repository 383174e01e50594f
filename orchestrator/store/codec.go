package store

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// MaxObjectBytes bounds one object as stored.
const MaxObjectBytes = 256 << 10

// Encode returns an object's bytes as a backend stores them: without its revision, which the backend knows by itself.
// Fields that this program does not know are kept. Text that is not UTF-8 gives ErrInvalid.
func Encode(o Object) ([]byte, error) {
	if meta := o.GetMeta(); meta.GetRevision() != 0 {
		o = proto.CloneOf(o)
		o.GetMeta().Revision = 0
	}
	value, err := proto.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w: %w", RefOf(o), ErrInvalid, err)
	}
	return value, nil
}

// Decode reads what Encode made, and fills in the revision. Bytes that are no such object give an error that wraps
// ErrBroken and names the object.
func Decode(ref Ref, revision int64, value []byte) (Object, error) {
	o, err := New(ref.Kind)
	if err != nil {
		return nil, fmt.Errorf("decode %s: %w: no such kind", ref, ErrBroken)
	}
	if err := proto.Unmarshal(value, o); err != nil {
		return nil, fmt.Errorf("decode %s at revision %d: %w: %v", ref, revision, ErrBroken, err)
	}
	if o.GetMeta().GetName() != ref.Name || ref.Name == "" {
		return nil, fmt.Errorf("decode %s at revision %d: %w: it calls itself %q", ref, revision, ErrBroken, o.GetMeta().GetName())
	}
	o.GetMeta().Revision = revision
	return o, nil
}
