package hostagent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

// sized is a desktop with so much memory.
func (r *rig) sized(name string, generation int64, mib uint32) *v1.Assignment {
	a := r.desktop(name, generation)
	a.Incarnation.Shape.MemoryMib = mib
	return a
}

func (r *rig) usage() *v1.HostUsage { return r.plane.lastReport().GetUsage() }

func small() fakehost.Config {
	return fakehost.Config{Hardware: hostagent.Hardware{CPUs: 4, MemoryMiB: 4096, CPUModel: "Test CPU"}}
}

func TestNoMoreMemoryIsPromisedThanThereIs(t *testing.T) {
	story(t, small(), func(r *rig) {
		a, b, c := r.sized("office-1", 7, 2048), r.sized("office-2", 8, 1024), r.sized("office-3", 9, 1024)
		r.plane.assign(a, b)
		r.awaitState(a, ready, time.Minute)
		r.awaitState(b, ready, time.Minute)
		r.await("counted", 20*time.Second, func() bool { return r.usage().GetRunningMemoryMib() == 3072 && r.usage().GetHeldBack() == "" })
		// 4096 less a sixteenth, but at least 256, are for desktops.
		r.plane.assign(c)
		r.await("held back", time.Minute, func() bool {
			return strings.Contains(r.plane.status(c).GetStatus().GetMessage(), "waits for memory: it takes 1024 MiB") &&
				strings.HasPrefix(r.usage().GetHeldBack(), "1 desktop waits: waits for memory")
		})
		time.Sleep(time.Hour)
		if r.plane.state(c) != prepared || r.starts(c) != 0 {
			t.Errorf("without memory: %v", r.plane.status(c))
		}
		// Memory that is given back is there at once.
		r.plane.assign(desired(a, wantSuspended))
		r.awaitState(a, suspended, time.Minute)
		r.awaitState(c, ready, 15*time.Second)
		if u := r.usage(); u.GetHeldBack() != "" {
			t.Errorf("still held back: %v", u)
		}
		// And whoever sleeps waits for room as the others do.
		r.plane.assign(a)
		r.await("waits", time.Minute, func() bool { return strings.Contains(r.plane.status(a).GetStatus().GetMessage(), "waits for memory") })
		if r.plane.state(a) != suspended {
			t.Errorf("woken without memory: %v", r.plane.status(a))
		}
		r.plane.assign(toBeDeleted(b), toBeDeleted(c))
		r.awaitState(a, ready, time.Minute)
	})
}

func TestReservedMemoryIsKeptFree(t *testing.T) {
	story(t, small(), func(r *rig) {
		r.plane.set(func() { r.plane.mangle = func(m *v1.Assignments) { m.ReservedMemoryMib = 2048 } })
		a, b := r.sized("office-1", 7, 1536), r.sized("office-2", 8, 1024)
		r.plane.assign(a)
		r.awaitState(a, ready, time.Minute)
		r.plane.assign(b)
		r.await("held back", time.Minute, func() bool { return r.usage().GetHeldBack() != "" })
		// The host remembers it when it has nobody to ask.
		r.plane.set(func() { r.plane.refuse = errors.New("down") })
		r.restart()
		time.Sleep(time.Hour)
		if r.starts(b) != 0 {
			t.Error("started into memory that is the host's own")
		}
		r.plane.set(func() { r.plane.refuse, r.plane.mangle = nil, nil })
		r.awaitState(b, ready, 2*time.Minute)
	})
}

func TestNothingStartsOnAStoreThatIsAboutFull(t *testing.T) {
	cfg := small()
	cfg.StoreBytes = 10 << 30
	story(t, cfg, func(r *rig) {
		a := r.desktop("office-1", 7)
		a.Incarnation.StartAt = timestamppb.New(time.Now().Add(10 * time.Minute))
		r.plane.assign(a)
		r.awaitState(a, prepared, time.Minute)
		r.host.SetFull(true)
		time.Sleep(15 * time.Minute)
		if got := r.plane.status(a).GetStatus(); got.GetState() != prepared || !strings.Contains(got.GetMessage(), "waits for space") || !strings.Contains(r.usage().GetHeldBack(), "space") {
			t.Errorf("on a full store: %v, %v", got, r.usage())
		}
		r.host.SetFull(false)
		r.awaitState(a, ready, time.Minute)
	})
}

func TestHowABootWent(t *testing.T) {
	story(t, small(), func(r *rig) {
		a, b := r.desktop("office-1", 7), r.desktop("office-2", 8)
		r.plane.assign(a, b)
		r.awaitState(a, ready, time.Minute)
		r.awaitState(b, ready, time.Minute)
		most := uint32(0)
		for _, each := range []*v1.Assignment{a, b} {
			boot := r.plane.status(each).GetStatus().GetBoot()
			took := boot.GetTook().AsDuration()
			if took < 5*time.Second || took > 7*time.Second || boot.GetReadBytes() != fakehost.BootReads {
				t.Errorf("boot: %v", boot)
			}
			most = max(most, boot.GetAtOnce())
		}
		if most != 2 {
			t.Errorf("the second one began as number %d", most)
		}
		before := r.plane.status(a).GetStatus().GetBoot()
		r.restart()
		time.Sleep(time.Minute)
		if after := r.plane.status(a).GetStatus().GetBoot(); after.String() != before.String() {
			t.Errorf("forgotten: %v, was %v", after, before)
		}
		if hello := r.plane.greeted()[0]; hello.GetCapacity().GetCpuModel() != "Test CPU" {
			t.Errorf("capacity %v", hello.GetCapacity())
		}
	})
}

// TestTheLimitFollowsThePressure: memory that lacks halves it, the report tells, and boots under way go on.
func TestTheLimitFollowsThePressure(t *testing.T) {
	thrash := 0.0
	cfg := fakehost.Config{
		Hardware: hostagent.Hardware{CPUs: 8, MemoryMiB: 64 << 10}, Pressure: func() (float64, float64, float64) { return 0, thrash, 0 },
		Boot: func(hostagent.Life) fakehost.Boot { return fakehost.Boot{After: time.Minute} },
	}
	story(t, cfg, func(r *rig) {
		var all []*v1.Assignment
		for i := range 24 {
			all = append(all, r.desktop("office-"+string(rune('a'+i)), int64(7+i)))
		}
		r.plane.assign(all...)
		r.await("as many as there are CPUs", time.Minute, func() bool { return r.usage().GetBootsInFlight() == 8 && r.usage().GetBootLimit() == 8 })
		if got := r.usage().GetHeldBack(); got != "16 desktops wait: at most 8 boot at once" {
			t.Errorf("held back: %q", got)
		}
		thrash = 30
		r.await("halved", time.Minute, func() bool { return r.usage().GetBootLimit() == 4 })
		if got := r.host.Booting(); got != 8 {
			t.Errorf("%d go on, want all 8", got)
		}
		r.await("fewer", 3*time.Minute, func() bool { return r.usage().GetBootsInFlight() <= 4 && r.usage().GetBootLimit() <= 4 })
		thrash = 0
		for _, a := range all {
			r.awaitState(a, ready, time.Hour)
		}
	})
}
