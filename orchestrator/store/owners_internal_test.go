package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	v1 "daybreak/proto/daybreak/v1"
)

// fieldOwners is the ownership as the protos' comments have it, one line a kind: "path=writer". "-" is nobody: those
// fields are the store's own, or never change.
const fieldOwners = `
zone       meta.labels=api meta.deletion=api spec=api
host       meta.labels=api meta.deletion=api spec=api status=dispatch wanted_images=rollout
image      meta.labels=api meta.deletion=api spec=api status=rollout
pool       meta.labels=api meta.deletion=api spec=api status=pool release=rollout
desktop    meta.labels=api meta.deletion=api spec=pool incarnation=pool incarnation.host=placement incarnation.unplaced_reason=placement claim=pool ended=pool status=dispatch
calendar   meta.labels=api meta.deletion=api spec=api
rollout    meta.labels=api meta.deletion=api spec=rollout spec.paused=api status=rollout
claim      meta.labels=api meta.deletion=api pool=pool user=pool desktop=pool since=pool request_id=pool queued=pool expires=pool
event      meta.labels=- meta.deletion=- at=- subject_kind=- subject=- reason=- message=- warning=-
join_token meta.labels=api meta.deletion=api secret_hash=api expires=api role=api subject=api
plan       meta.labels=api meta.deletion=api pool=pool date=pool time_zone=pool made=pool targets=pool hosts=pool starts=pool shortfalls=pool standing=pool
history    meta.labels=api meta.deletion=api days=pool boots=pool
`

// ownersByText reads fieldOwners.
func ownersByText(kind v1.Kind) map[string]Writer {
	owners := map[string]Writer{}
	for line := range strings.Lines(fieldOwners) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] != KindName(kind) {
			continue
		}
		for _, word := range words[1:] {
			path, writer, _ := strings.Cut(word, "=")
			owners[path] = Writer(writer)
		}
	}
	return owners
}

func TestEveryFieldHasOneOwner(t *testing.T) {
	for _, kind := range Kinds() {
		owners := ownersByText(kind)
		o, err := New(kind)
		if err != nil {
			t.Fatal(err)
		}
		fields := o.ProtoReflect().Descriptor().Fields()
		for i := range fields.Len() {
			if name := string(fields.Get(i).Name()); name != "meta" && owners[name] == "" {
				t.Errorf("%s.%s has no owner", KindName(kind), name)
			}
		}
	}
}

// TestOwnerCheck changes one field of a random object: its owner may, anybody else may not.
func TestOwnerCheck(t *testing.T) {
	writers := []Writer{WriterAPI, WriterPool, WriterPlacement, WriterRollout, WriterDispatch}
	rapid.Check(t, func(rt *rapid.T) {
		kind := rapid.SampledFrom(Kinds()).Draw(rt, "kind")
		before, err := New(kind)
		if err != nil {
			rt.Fatal(err)
		}
		fill(rt, before.ProtoReflect(), 0)
		setMeta(before, &v1.Meta{Name: "a", Uid: "u", Revision: 5, Labels: before.GetMeta().GetLabels()})
		if d, ok := before.(*v1.Desktop); ok && d.Incarnation != nil {
			d.Incarnation.Generation = max(d.Incarnation.Generation, 1) // 0 breaks the proto's rule
		}
		after := proto.CloneOf(before)
		path := mutate(rt, after.ProtoReflect(), "")
		if d, ok := after.(*v1.Desktop); ok && d.GetIncarnation().GetGeneration() != before.(*v1.Desktop).GetIncarnation().GetGeneration() && d.Incarnation != nil {
			d.Incarnation.Host, d.Incarnation.UnplacedReason = "", "" // a new life is unplaced
		}
		if !strings.Contains(path, ".") { // gone as a whole: nothing of another's may be in it
			clearOthers(before.ProtoReflect(), after.ProtoReflect(), path, ownersByText(kind))
		}
		owner := ownerByText(kind, path)
		for _, w := range writers {
			err := checkUpdate(w, before, after)
			if refused := errors.Is(err, ErrNotOwner); refused == (w == owner) {
				rt.Fatalf("%s %s of %s changes %s: %v", KindName(kind), path, owner, w, err)
			}
		}
	})
}

// ownerByText finds the owner of a changed path by its first two steps.
func ownerByText(kind v1.Kind, path string) Writer {
	owners := ownersByText(kind)
	steps := strings.Split(path, ".")
	if len(steps) > 1 {
		if w, ok := owners[steps[0]+"."+steps[1]]; ok {
			return w
		}
	}
	return owners[steps[0]]
}

// clearOthers empties, in before, the fields of others in a message that after has no more.
func clearOthers(before, after protoreflect.Message, path string, owners map[string]Writer) {
	fd := before.Descriptor().Fields().ByName(protoreflect.Name(path))
	if fd.Message() == nil || fd.IsList() || fd.IsMap() || after.Has(fd) || !before.Has(fd) {
		return
	}
	message := before.Mutable(fd).Message()
	for other := range owners {
		if field, ok := strings.CutPrefix(other, path+"."); ok {
			message.Clear(fd.Message().Fields().ByName(protoreflect.Name(field)))
		}
	}
}

// fill gives random fields of a message random values.
func fill(rt *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); rapid.Bool().Draw(rt, "has") && depth < 3 {
			set(rt, m, fd, depth)
		}
	}
}

func set(rt *rapid.T, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	switch {
	case fd.IsMap():
		m.Mutable(fd).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString(fmt.Sprint(rapid.IntRange(0, 9).Draw(rt, "value"))))
	case fd.IsList():
		list := m.Mutable(fd).List()
		if fd.Message() != nil {
			fill(rt, list.AppendMutable().Message(), depth+1)
			return
		}
		list.Append(scalar(rt, fd))
	case fd.Message() != nil:
		fill(rt, m.Mutable(fd).Message(), depth+1)
	default:
		m.Set(fd, scalar(rt, fd))
	}
}

func scalar(rt *rapid.T, fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := rapid.IntRange(1, 3).Draw(rt, "n")
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprint("値", n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(n)})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n > 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n))
	}
	panic("no value for " + fd.Kind().String())
}

// mutate changes exactly one field, somewhere, and returns its path. Fields that the store gives are left alone.
func mutate(rt *rapid.T, m protoreflect.Message, prefix string) string {
	fields := m.Descriptor().Fields()
	var free []protoreflect.FieldDescriptor
	for i := range fields.Len() {
		given := prefix == "meta." && slices.Contains([]string{"name", "uid", "revision", "created"}, string(fields.Get(i).Name()))
		if !given {
			free = append(free, fields.Get(i))
		}
	}
	if len(free) == 0 { // an empty message: only a field of a later version can differ
		m.SetUnknown([]byte{0x08, 0x01})
		return strings.TrimSuffix(prefix, ".")
	}
	fd := rapid.SampledFrom(free).Draw(rt, "field")
	path := prefix + string(fd.Name())
	switch {
	case path == "meta", fd.Message() != nil && !fd.IsList() && !fd.IsMap() && m.Has(fd) && rapid.Bool().Draw(rt, "deeper"):
		return mutate(rt, m.Mutable(fd).Message(), path+".")
	case m.Has(fd) && (fd.IsList() || fd.IsMap() || fd.Message() != nil):
		m.Clear(fd)
	case fd.Message() != nil && !fd.IsList() && !fd.IsMap():
		m.Mutable(fd)
	default:
		for was := m.Get(fd); m.Get(fd).Equal(was); {
			if m.Has(fd) && rapid.Bool().Draw(rt, "clear") {
				m.Clear(fd)
				continue
			}
			if fd.IsList() || fd.IsMap() {
				set(rt, m, fd, 3)
				return path
			}
			m.Set(fd, scalar(rt, fd))
		}
	}
	return path
}
