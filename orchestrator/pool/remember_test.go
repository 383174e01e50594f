package pool

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/warmup"
	v1 "daybreak/proto/daybreak/v1"
)

// A host that gives its CPU a long name in a wide script does not make the history of a pool too large for the store, and what
// was forgotten for want of room stays so.
func TestHistoryHasRoom(t *testing.T) {
	w := settled(t, 1)
	model := strings.Repeat("𠮷", 128)
	ready := w.now.Add(-time.Hour)
	d := w.desktops["sales-1"]
	d.Incarnation.Host = "wide"
	d.Incarnation.Digest = strings.Repeat("a", 64)
	d.Status.Boot = &v1.BootReport{Took: durationpb.New(time.Minute), AtOnce: 1, ReadBytes: 1 << 60}
	d.Status.Times = []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_READY, At: timestamppb.New(ready)}}
	host := &v1.Host{Meta: &v1.Meta{Name: d.Incarnation.Host}, Status: &v1.HostStatus{Capacity: &v1.HostCapacity{Kvm: true, CpuModel: model}}}
	view := shown(t, w, host)
	var samples []*v1.BootSample
	for i := range maxBootSamples {
		samples = append(samples, &v1.BootSample{
			Digest: d.Incarnation.Digest, HostClass: model, Took: durationpb.New(time.Minute), AtOnce: 4096, ReadBytes: 1 << 60,
			Ready: timestamppb.New(ready.Add(time.Duration(i-maxBootSamples) * time.Minute)),
		})
	}
	kept, added := addBoots(view, w.pool, samples)
	if size := bytesOf(kept); !added || size > maxBootBytes || size < maxBootBytes/2 {
		t.Errorf("%d samples in %d bytes, added: %t", len(kept), size, added)
	}
	if newest := kept[len(kept)-1]; !newest.GetReady().AsTime().Equal(ready) {
		t.Errorf("the newest is of %v", newest.GetReady().AsTime())
	}
	if _, again := addBoots(view, w.pool, kept); again {
		t.Error("what is known is added again")
	}
	for _, s := range kept {
		s.Ready = timestamppb.New(s.Ready.AsTime().Add(10 * time.Hour))
	}
	if _, again := addBoots(view, w.pool, kept); again {
		t.Error("what was forgotten is added again")
	}
}

// A pool of hundreds does not forget every day but the last one: how much days differ is what its plans need to know.
func TestHistoryOfManyDays(t *testing.T) {
	w := settled(t, 1)
	ready := w.now.Truncate(24 * time.Hour).Add(12 * time.Hour)
	d := w.desktops["sales-1"]
	d.Incarnation.Host, d.Incarnation.Digest = "fast1", strings.Repeat("a", 64)
	d.Status.Boot = &v1.BootReport{Took: durationpb.New(time.Minute), AtOnce: 1}
	d.Status.Times = []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_READY, At: timestamppb.New(ready)}}
	host := &v1.Host{Meta: &v1.Meta{Name: "fast1"}, Status: &v1.HostStatus{Capacity: &v1.HostCapacity{Kvm: true, CpuModel: "fast"}}}
	view := shown(t, w, host)
	for _, c := range []struct {
		name          string
		before, today int
		digest        string
		want          bool
	}{
		{"the first day", 0, fewBoots - 1, d.Incarnation.Digest, true},
		{"enough of the first day", 0, fewBoots, d.Incarnation.Digest, false},
		{"another day", fewBoots, bootsOfDay - 1, d.Incarnation.Digest, true},
		{"enough of that", fewBoots, bootsOfDay, d.Incarnation.Digest, false},
		{"enough of another version", fewBoots, bootsOfDay, strings.Repeat("b", 64), true},
	} {
		var samples []*v1.BootSample
		for i := range c.before + c.today {
			at := ready.Add(-24 * time.Hour)
			if i >= c.before {
				at = ready.Add(-time.Hour)
			}
			samples = append(samples, &v1.BootSample{
				Digest: c.digest, HostClass: warmup.HostClass(host.GetStatus().GetCapacity()), Took: durationpb.New(time.Minute), Ready: timestamppb.New(at),
			})
		}
		if _, added := addBoots(view, w.pool, samples); added != c.want {
			t.Errorf("%s: added %t", c.name, added)
		}
	}
}

// Who holds a desktop that sleeps over night wants none of a host then: it is no demand to learn from, before they are back.
func TestWhoIsAwayIsNoDemand(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1.Desktop)
		want   uint32
	}{
		{"runs", func(*v1.Desktop) {}, 1},
		{"is suspended", func(d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesktopState_DESKTOP_STATE_SUSPENDED
		}, 0},
		{"is shut down", func(d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_PREPARED, v1.DesktopState_DESKTOP_STATE_PREPARED
		}, 0},
		{"is being woken", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_SUSPENDED }, 1},
		{"failed", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_FAILED }, 1},
	} {
		w := settled(t, 1)
		w.claim("sales-1", "hanako")
		c.change(w.desktops["sales-1"])
		claim := &v1.Claim{Meta: &v1.Meta{Name: "c1"}, Pool: "sales", User: "hanako", Desktop: "sales-1", Since: timestamppb.New(w.now.Add(-20 * time.Hour))}
		var r dayRound
		r.remember(w.now, shown(t, w, claim), &curves{}, nil)
		day := r.objects[0].Object.(*v1.History).GetDays()[0]
		if got := day.Claimed[len(day.Claimed)-1]; got != c.want {
			t.Errorf("a claim of a desktop that %s counts as %d", c.name, got)
		}
	}
}

// A history is written every quarter of an hour, and nothing of what was seen in between is lost; the first starts at once.
func TestHistoryIsWrittenNowAndThen(t *testing.T) {
	w := settled(t, 1)
	w.now = w.now.Truncate(24 * time.Hour).Add(9 * time.Hour)
	s := openShop(t, w, plain)
	commit := func(ops ...store.Op) {
		t.Helper()
		revision, err := s.backend.Commit(t.Context(), store.Guard{}, ops)
		if err != nil {
			t.Fatal(err)
		}
		s.wait(t, revision)
	}
	var kept map[string]unwritten
	minutes := func(n int) (writes int) {
		for range n {
			var r dayRound
			if kept = r.remember(w.now, s.mirror.View(), &curves{}, kept); len(r.objects) > 0 {
				commit(r.objects...)
			}
			writes += len(r.objects)
			w.now = w.now.Add(time.Minute)
		}
		return writes
	}
	written := func() *v1.History {
		history, _ := store.Lookup[*v1.History](s.mirror.View(), "sales")
		return history
	}
	if n := minutes(1); n != 1 {
		t.Errorf("the first is written %d times", n)
	}
	commit(store.Create(&v1.Claim{Meta: &v1.Meta{Name: "c1"}, Pool: "sales", User: "hanako", Since: timestamppb.New(w.now)}))
	if n := minutes(6); n != 0 {
		t.Errorf("while somebody comes it is written %d times", n)
	}
	claim, _ := store.Lookup[*v1.Claim](s.mirror.View(), "c1")
	commit(store.Delete(claim))
	if n := minutes(24); n != 2 {
		t.Errorf("it is written %d times in half an hour, want 2", n)
	}
	day := written().GetDays()[0]
	if len(day.Unwatched) != 2 || day.Claimed[9*12] != 1 || day.Arrivals[9*12] != 1 || day.Claimed[9*12+1] != 1 || day.Claimed[9*12+2] != 0 || len(day.Claimed) != 9*12+7 {
		t.Errorf("history %v", day)
	}
	s.edit(t, "sales-1", func(d *v1.Desktop) {
		d.Status.Boot = &v1.BootReport{Took: durationpb.New(time.Minute), AtOnce: 1}
		d.Status.Times = []*v1.StateTime{{State: v1.DesktopState_DESKTOP_STATE_READY, At: timestamppb.New(w.now)}}
	})
	if n := minutes(1); n != 1 || len(written().GetBoots()) != 1 {
		t.Errorf("a first start is written %d times: %v", n, written().GetBoots())
	}
}

// A plan knows of the starts that were seen, and not only of those that are written: the first of a pool make it another one.
func TestPlansKnowWhatIsNotWritten(t *testing.T) {
	w := settled(t, 1)
	w.desktops["sales-1"].Status.Boot = &v1.BootReport{Took: durationpb.New(20 * time.Second), AtOnce: 1}
	view := shown(t, w)
	var r dayRound
	kept := r.remember(w.now, view, &curves{}, nil)
	if n := len(kept["sales"].boots); n != 1 || len(store.All[*v1.History](view)) != 0 {
		t.Fatal(n, "starts were seen")
	}
	boot := warmup.Boot{Digest: kept["sales"].boots[0].GetDigest(), Class: kept["sales"].boots[0].GetHostClass()}
	if e := new(curves).learned(view, kept).Estimate(boot); e.Samples != 1 {
		t.Errorf("known is %+v", e)
	}
}
