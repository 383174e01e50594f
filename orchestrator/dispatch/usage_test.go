package dispatch

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// TestRoundedCarriesEveryField: what a host says of its use reaches Host.status.
func TestRoundedCarriesEveryField(t *testing.T) {
	full := &v1.HostUsage{}
	m := full.ProtoReflect()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		switch fd := fields.Get(i); fd.Kind() {
		case protoreflect.Uint64Kind:
			m.Set(fd, protoreflect.ValueOfUint64(1<<40))
		case protoreflect.Uint32Kind:
			m.Set(fd, protoreflect.ValueOfUint32(7))
		case protoreflect.DoubleKind:
			m.Set(fd, protoreflect.ValueOfFloat64(50))
		case protoreflect.StringKind:
			m.Set(fd, protoreflect.ValueOfString("memory"))
		default:
			t.Fatalf("the test cannot fill %s", fd.FullName())
		}
	}
	if got := rounded(full); !proto.Equal(got, full) {
		t.Errorf("%v became %v", full, got)
	}
}

func TestUrgentUse(t *testing.T) {
	base := &v1.HostUsage{RunningMemoryMib: 4096, BootLimit: 4}
	for name, c := range map[string]struct {
		change func(*v1.HostUsage)
		want   bool
	}{
		"nothing":         {func(*v1.HostUsage) {}, false},
		"memory is taken": {func(u *v1.HostUsage) { u.RunningMemoryMib = 8192 }, true},
		"memory is back":  {func(u *v1.HostUsage) { u.RunningMemoryMib = 1024 }, true},
		"a VM":            {func(u *v1.HostUsage) { u.Running = 1 }, true},
		"a boot":          {func(u *v1.HostUsage) { u.BootsInFlight = 1 }, true},
		"pressure":        {func(u *v1.HostUsage) { u.PsiIo, u.MemoryAvailableMib = 50, 64 }, false},
		"a build":         {func(u *v1.HostUsage) { u.BuildMemoryMib = 1024 }, true},
		"held back":       {func(u *v1.HostUsage) { u.HeldBack = "no memory" }, true},
		"another limit":   {func(u *v1.HostUsage) { u.BootLimit = 2 }, false},
	} {
		next := proto.CloneOf(base)
		c.change(next)
		if urgent(base, next) != c.want {
			t.Errorf("%s: urgent %v, want %v", name, !c.want, c.want)
		}
	}
}

func TestCleanSession(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 11, 4, 12, 0, 0, 0, time.UTC))
	later := timestamppb.New(at.AsTime().Add(time.Hour))
	broken := &timestamppb.Timestamp{Seconds: 1 << 60}
	for name, c := range map[string]struct{ said, want *v1.GuestSession }{
		"nothing":             {nil, nil},
		"all is well":         {&v1.GuestSession{Asked: later, UsersKnown: true, Users: 2, InputIdleSince: at}, &v1.GuestSession{Asked: later, UsersKnown: true, Users: 2, InputIdleSince: at}},
		"no time":             {&v1.GuestSession{Users: 1}, nil},
		"impossible time":     {&v1.GuestSession{Asked: broken}, nil},
		"idle since never":    {&v1.GuestSession{Asked: at, InputIdleSince: broken}, &v1.GuestSession{Asked: at}},
		"idle in the future":  {&v1.GuestSession{Asked: at, InputIdleSince: later}, &v1.GuestSession{Asked: at, InputIdleSince: at}},
		"more than there are": {&v1.GuestSession{Asked: at, Users: 1 << 30}, &v1.GuestSession{Asked: at, Users: 1024}},
	} {
		status := &v1.DesktopStatus{Session: c.said, Boot: &v1.BootReport{}}
		clean(status)
		if !proto.Equal(status.GetSession(), c.want) || status.GetBoot() != nil {
			t.Errorf("%s: %v, want %v", name, status.GetSession(), c.want)
		}
	}
}
