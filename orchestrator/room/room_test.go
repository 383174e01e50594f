package room

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

func life(desired v1.DesiredState, state v1.DesktopState) *v1.Desktop {
	return &v1.Desktop{
		Meta: &v1.Meta{Name: "a-1"}, Spec: &v1.DesktopSpec{Pool: "a"},
		Incarnation: &v1.Incarnation{Generation: 4, Host: "h1", Desired: desired},
		Status:      &v1.DesktopStatus{Generation: 4, State: state},
	}
}

func TestPhases(t *testing.T) {
	const (
		prepare, run, suspend, end = v1.DesiredState_DESIRED_STATE_PREPARED, v1.DesiredState_DESIRED_STATE_READY,
			v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesiredState_DESIRED_STATE_DELETED
		unsaid, prepared, starting, ready, suspended, failed, lost = v1.DesktopState_DESKTOP_STATE_UNSPECIFIED, v1.DesktopState_DESKTOP_STATE_PREPARED,
			v1.DesktopState_DESKTOP_STATE_STARTING, v1.DesktopState_DESKTOP_STATE_READY, v1.DesktopState_DESKTOP_STATE_SUSPENDED,
			v1.DesktopState_DESKTOP_STATE_FAILED, v1.DesktopState_DESKTOP_STATE_LOST
	)
	for _, c := range []struct {
		desired v1.DesiredState
		state   v1.DesktopState
		want    Phase
	}{
		{prepare, unsaid, Cold}, {prepare, prepared, Cold},
		{prepare, starting, Runs}, {prepare, ready, Runs}, {prepare, lost, Runs}, {prepare, failed, Runs}, // it may have been told otherwise before
		{run, unsaid, Runs}, {run, prepared, Runs}, {run, ready, Runs}, {run, suspended, Runs},
		{suspend, ready, Runs}, {suspend, suspended, Suspended}, {suspend, lost, Runs},
		{end, prepared, Runs}, {end, ready, Runs}, {end, suspended, Suspended},
	} {
		if got := PhaseOf(life(c.desired, c.state)); got != c.want {
			t.Errorf("%v and %v: phase %v, want %v", c.desired, c.state, got, c.want)
		}
	}
}

// A life that ends is promised what it took: of one that never was to run, nothing.
func TestEndOfColdLife(t *testing.T) {
	d := life(v1.DesiredState_DESIRED_STATE_DELETED, v1.DesktopState_DESKTOP_STATE_PREPARED)
	for at, want := range map[time.Time]Phase{Never(): Cold, Never().Add(-time.Hour): Runs} {
		if d.Incarnation.StartAt = timestamppb.New(at); PhaseOf(d) != want {
			t.Errorf("to start at %v: phase %v, want %v", at, PhaseOf(d), want)
		}
	}
	d.Incarnation.StartAt, d.Status.State = timestamppb.New(Never()), v1.DesktopState_DESKTOP_STATE_LOST
	if PhaseOf(d) != Runs {
		t.Error("what is on a silent host may run")
	}
}

func TestWakeAndHold(t *testing.T) {
	h := &Host{
		Host:  &v1.Host{Meta: &v1.Meta{Name: "h1"}, Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}},
		VCPUs: 8, FreeVCPUs: 8, MemoryMiB: 3000, FreeMemoryMiB: 3000, OfPool: map[string]int{}, Coming: map[string]bool{},
	}
	n := Need{Pool: "a", VCPUs: 1, MemoryMiB: 1024, OverlayMiB: 1024, Phase: Cold, State: v1.DesktopState_DESKTOP_STATE_PREPARED}
	for range 4 {
		h.Enter(n)
	}
	if h.FreeMemoryMiB != 3000 || h.ColdMiB != 4096 || h.ReservableMiB != -4096 || h.Boots != 0 || h.OfPool["a"] != 4 {
		t.Fatalf("cold lives take %+v", h)
	}
	woken := 0
	for ; h.Wakes(n); woken++ {
		h.Wake(n)
	}
	if woken != 2 || h.FreeMemoryMiB != 3000-2048 || h.ColdMiB != 2048 || h.Boots != 2 || h.FreeVCPUs != 6 {
		t.Errorf("woke %d: %+v", woken, h)
	}
	h.Status.Phase = v1.HostPhase_HOST_PHASE_DEGRADED
	if h.FreeMemoryMiB = 3000; h.Wakes(n) || !h.Holds(n) {
		t.Error("wakes on a host that is not well")
	}
}

func TestReserved(t *testing.T) {
	for _, c := range []struct{ memory, spec, want uint64 }{{1024, 0, 256}, {16384, 0, 1024}, {16384, 300, 300}} {
		h := &v1.Host{Spec: &v1.HostSpec{ReservedMemoryMib: c.spec}, Status: &v1.HostStatus{Capacity: &v1.HostCapacity{MemoryMib: c.memory}}}
		if got := ReservedMiB(h); got != c.want {
			t.Errorf("%d MiB of which %d are asked for: %d reserved, want %d", c.memory, c.spec, got, c.want)
		}
	}
}

// A host is full when its agent surely starts nothing: its floor is at most a GiB, and what it tells is rounded down by up to 256 MiB.
func TestStoreFull(t *testing.T) {
	for _, row := range []struct {
		size, said uint64
		told, full bool
	}{
		{1 << 40, 0, true, true},
		{1 << 40, 768 << 20, true, true},
		{1 << 40, 768<<20 + 1, true, false},
		{1 << 40, 1 << 30, true, false},
		{1 << 40, 0, false, false},
		{64 << 30, 512 << 20, true, true},
		{48 << 30, 256 << 20, true, true},
		{48 << 30, 512 << 20, true, true},
		{56 << 30, 768 << 20, true, false}, // it may be 1023 MiB, and the floor is 896
		{8 << 30, 0, true, false},          // the floor is less than a step
		{0, 0, true, false},
	} {
		host := &v1.Host{Status: &v1.HostStatus{Capacity: &v1.HostCapacity{StoreBytes: row.size}}}
		if row.told {
			host.Status.Usage = &v1.HostUsage{StoreAvailableBytes: row.said}
		}
		if _, _, full := StoreFull(host); full != row.full {
			t.Errorf("%+v: full is %v", row, full)
		}
	}
}
