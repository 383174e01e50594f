package api

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// requests are empty messages of every type that a peer may send, in a fixed order.
func requests(t testing.TB) []proto.Message {
	t.Helper()
	var names []string
	protoregistry.GlobalFiles.RangeFilesByPackage("daybreak.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				names = append(names, string(methods.Get(j).Input().FullName()))
			}
		}
		return true
	})
	slices.Sort(names)
	var messages []proto.Message
	for _, name := range slices.Compact(names) {
		kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, kind.New().Interface())
	}
	return messages
}

// FuzzEdge throws bytes at what every request passes: it is understood and lawful, or refused as an argument, and never
// a panic.
func FuzzEdge(f *testing.F) {
	all := requests(f)
	seed := func(message proto.Message) {
		index := slices.IndexFunc(all, func(have proto.Message) bool {
			return have.ProtoReflect().Descriptor() == message.ProtoReflect().Descriptor()
		})
		raw, err := proto.Marshal(message)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(index), raw)
	}
	seed(&v1.ApplyRequest{Object: wrap(newPool("sales"))})
	seed(&v1.ApplyRequest{Object: wrap(&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo"}})})
	seed(&v1.DeleteRequest{Kind: v1.Kind_KIND_POOL, Name: "sales"})
	seed(&v1.EnrolRequest{Token: "t", Csr: []byte{1}, Name: "kvm1"})
	seed(&v1.ReportRequest{SessionId: "0123456789abcdef", Desktops: []*v1.IncarnationReport{{Desktop: "a", Status: &v1.DesktopStatus{}}}})
	for i := range all {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	}
	f.Fuzz(func(t *testing.T, which uint8, raw []byte) {
		message := proto.Clone(all[int(which)%len(all)])
		if err := proto.Unmarshal(raw, message); err != nil {
			return
		}
		if err := validate(message); err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("validate %T: %v", message, err)
			}
			return
		}
		about(message)
		unknownField(message.ProtoReflect())
	})
}

// FuzzApply stores whatever is lawful, and only that, and can apply its own answer again.
func FuzzApply(f *testing.F) {
	for _, o := range []store.Object{
		newPool("sales"), zone("lgwan"), &v1.Image{Meta: &v1.Meta{Name: "micro"}},
		&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo", Hours: []*v1.OfficeHours{{Days: []v1.Weekday{1}, Open: "08:30", Close: "24:00"}}}},
	} {
		raw, err := proto.Marshal(&v1.ApplyRequest{Object: wrap(o)})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		request := &v1.ApplyRequest{}
		if proto.Unmarshal(raw, request) != nil || validate(request) != nil {
			return
		}
		handle := store.Open(store.NewMemory(), store.WriterAPI)
		for _, ground := range []store.Object{zone("lgwan"), &v1.Image{Meta: &v1.Meta{Name: "micro"}}} {
			if _, err := handle.Commit(context.Background(), store.Create(ground)); err != nil {
				t.Fatal(err)
			}
		}
		service := &objectService{store: handle}
		first, err := service.Apply(context.Background(), request)
		if err != nil {
			if code := status.Code(toStatus(err, true)); code == codes.Internal || code == codes.Unknown {
				t.Errorf("apply: %v", err)
			}
			return
		}
		if request.GetDryRun() {
			return
		}
		second, err := service.Apply(context.Background(), &v1.ApplyRequest{Object: first.GetObject()})
		if err != nil || second.GetChange() != v1.Change_CHANGE_UNCHANGED {
			t.Errorf("apply what was answered: %v, %v", second, err)
		}
	})
}
