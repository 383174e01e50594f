package placement

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// rapidly lets viewOf be called from a property.
type rapidly struct{ *rapid.T }

func (r rapidly) Context() context.Context { return context.Background() }

func drawHost(t *rapid.T, i int) *v1.Host {
	return newHost(fmt.Sprintf("h%d", i), func(h *v1.Host) {
		h.Spec.Unschedulable = rapid.IntRange(0, 5).Draw(t, "unschedulable") == 0
		h.Spec.CpuOvercommit = float64(rapid.IntRange(0, 3).Draw(t, "overcommit"))
		h.Spec.ReservedMemoryMib = rapid.Uint64Range(0, 1024).Draw(t, "reserved")
		h.Status.Capacity.Cpus = rapid.Uint32Range(0, 8).Draw(t, "cpus")
		h.Status.Capacity.MemoryMib = rapid.Uint64Range(0, 8192).Draw(t, "memory")
		h.Status.Capacity.StoreBytes = gib * rapid.Uint64Range(0, 40).Draw(t, "store")
		h.Status.Capacity.Kvm = rapid.IntRange(0, 5).Draw(t, "kvm") > 0
		h.Status.Usage.StoreAvailableBytes = gib * rapid.Uint64Range(0, 40).Draw(t, "available")
		h.Status.Phase = rapid.SampledFrom([]v1.HostPhase{v1.HostPhase_HOST_PHASE_UP, v1.HostPhase_HOST_PHASE_UP,
			v1.HostPhase_HOST_PHASE_UP, v1.HostPhase_HOST_PHASE_DOWN}).Draw(t, "phase")
		h.Status.Zones = rapid.SampledFrom([][]string{{"lgwan"}, {"internet"}, {"lgwan", "internet"}, nil}).Draw(t, "zones")
		if rapid.IntRange(0, 7).Draw(t, "orphans") == 0 {
			h.Status.Orphans = []*v1.Orphan{{Desktop: "old-1", Running: false}, {Desktop: "old-2", Running: rapid.Bool().Draw(t, "running")}}
		}
		if rapid.Bool().Draw(t, "image") {
			h.Status.Images = []string{digest}
		}
	})
}

func drawDesktop(t *rapid.T, i, hosts int) *v1.Desktop {
	return newDesktop(fmt.Sprintf("%s-%d", rapid.SampledFrom([]string{"a", "b"}).Draw(t, "pool"), i), func(d *v1.Desktop) {
		d.Spec.Zone = rapid.SampledFrom([]string{"lgwan", "internet"}).Draw(t, "zone")
		d.Incarnation.Generation = rapid.Int64Range(1, 20).Draw(t, "generation")
		d.Incarnation.Shape.Vcpus = rapid.Uint32Range(1, 4).Draw(t, "vcpus")
		d.Incarnation.Shape.MemoryMib = rapid.Uint32Range(256, 2048).Draw(t, "memory")
		d.Incarnation.Shape.DataDiskGib = rapid.Uint32Range(0, 2).Draw(t, "data")
		d.Incarnation.Desired = rapid.SampledFrom([]v1.DesiredState{v1.DesiredState_DESIRED_STATE_READY, v1.DesiredState_DESIRED_STATE_PREPARED,
			v1.DesiredState_DESIRED_STATE_SUSPENDED}).Draw(t, "desired")
		host := fmt.Sprintf("h%d", rapid.IntRange(0, hosts).Draw(t, "host"))
		switch rapid.IntRange(0, 3).Draw(t, "where") {
		case 0:
			state := v1.DesktopState(rapid.IntRange(2, 12).Draw(t, "state"))
			on(host, state)(d)
			d.Status.Generation -= rapid.Int64Range(0, 1).Draw(t, "stale")
		case 1:
			d.Spec.DataHost = host
		}
	})
}

func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		hosts := rapid.IntRange(0, 4).Draw(rt, "hosts")
		objects := []store.Object{image()}
		for i := range hosts {
			objects = append(objects, drawHost(rt, i))
		}
		for i := range rapid.IntRange(0, 25).Draw(rt, "desktops") {
			objects = append(objects, drawDesktop(rt, i, hosts))
		}
		view := viewOf(rapidly{rt}, objects...)
		plan, again := Plan(view), Plan(view)
		if !slices.EqualFunc(plan, again, func(a, b Placement) bool { return proto.Equal(a.Desktop, b.Desktop) }) {
			rt.Fatal("equal views, different plans")
		}
		checkPlan(rt, view, plan)
	})
}

// tally is what stands on each host as the plan goes, added up in a way of its own.
type tally struct {
	vcpus, memory, reserve, toMake uint64
	digests                        map[string]bool
}

func checkPlan(t *rapid.T, view *store.View, plan []Placement) {
	tallies := map[string]*tally{}
	for _, h := range store.All[*v1.Host](view) {
		tallies[h.Meta.Name] = &tally{digests: map[string]bool{}}
		for _, digest := range h.Status.Images {
			tallies[h.Meta.Name].digests[digest] = true
		}
	}
	for _, d := range store.All[*v1.Desktop](view) {
		over := d.Status.GetGeneration() == d.Incarnation.Generation && d.Status.GetState() == v1.DesktopState_DESKTOP_STATE_DELETED
		if on := tallies[d.Incarnation.Host]; on != nil && !over {
			current := d.Status.GetGeneration() == d.Incarnation.Generation
			on.add(d, !current || d.Status.GetState() < v1.DesktopState_DESKTOP_STATE_PREPARED)
		}
	}
	var last *v1.Desktop
	for _, p := range plan {
		before, _ := store.Lookup[*v1.Desktop](view, p.Desktop.Meta.Name)
		inc := p.Desktop.Incarnation
		if before.Incarnation.Host != "" {
			t.Fatalf("%s was placed already", p.Desktop.Meta.Name)
		}
		if last != nil && choices(last) == choices(before) && inc.Generation < last.Incarnation.Generation || choices(last) > choices(before) && last != nil {
			t.Fatalf("%s comes too late", p.Desktop.Meta.Name)
		}
		last = before
		if p.Host == nil {
			for _, h := range store.All[*v1.Host](view) {
				if fits(h, p.Desktop, tallies[h.Meta.Name]) {
					t.Fatalf("%s fits on %s, but the plan says: %s", p.Desktop.Meta.Name, h.Meta.Name, inc.UnplacedReason)
				}
			}
			continue
		}
		if inc.UnplacedReason != "" || inc.Host != p.Host.Meta.Name || !fits(p.Host, p.Desktop, tallies[inc.Host]) {
			t.Fatalf("%s does not fit on %s", p.Desktop.Meta.Name, inc.Host)
		}
		tallies[inc.Host].add(p.Desktop, true)
	}
}

func (t *tally) add(d *v1.Desktop, toMake bool) {
	s := d.Incarnation.Shape
	if runs(d) {
		t.vcpus += uint64(s.Vcpus)
		t.memory += uint64(s.MemoryMib)
	}
	saved := mayBeSaved(d)
	t.reserve += gib + gib*uint64(s.DataDiskGib) + saved
	if toMake {
		t.toMake += makes(d, t) + saved
		t.digests[digest] = true
	} else if d.Status.State != v1.DesktopState_DESKTOP_STATE_SUSPENDED {
		t.toMake += saved
	}
}

// runs: the life may take memory, as far as anybody can tell.
func runs(d *v1.Desktop) bool {
	known := d.Status.GetGeneration() == d.Incarnation.Generation
	suspended := known && d.Status.GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED
	switch d.Incarnation.Desired {
	case v1.DesiredState_DESIRED_STATE_PREPARED:
		return known && d.Status.GetState() > v1.DesktopState_DESKTOP_STATE_PREPARED
	case v1.DesiredState_DESIRED_STATE_SUSPENDED:
		return !suspended
	}
	return true
}

// mayBeSaved is the store space for the memory of a life that is suspended or is to be.
func mayBeSaved(d *v1.Desktop) uint64 {
	suspended := d.Status.GetGeneration() == d.Incarnation.Generation && d.Status.GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED
	if suspended || d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_SUSPENDED {
		return uint64(d.Incarnation.Shape.MemoryMib) << 20
	}
	return 0
}

// makes is what a desktop takes of a store on which nothing of it is.
func makes(d *v1.Desktop, t *tally) uint64 {
	total := uint64(gib)
	if d.Spec.DataHost == "" {
		total += gib * uint64(d.Incarnation.Shape.DataDiskGib)
	}
	if !t.digests[digest] {
		total += 2 * gib
	}
	return total
}

// fits is every rule of placement in one place.
func fits(h *v1.Host, d *v1.Desktop, t *tally) bool {
	capacity, shape := h.Status.Capacity, d.Incarnation.Shape
	overcommit := h.Spec.CpuOvercommit
	if overcommit == 0 {
		overcommit = 4
	}
	reserved := h.Spec.ReservedMemoryMib
	if reserved == 0 {
		reserved = max(256, capacity.MemoryMib/16)
	}
	vcpus, memory := t.vcpus, t.memory
	if !runs(d) {
		vcpus, memory = 0, 0 // it takes none, but it must be able to run
	}
	strangers := slices.ContainsFunc(h.Status.Orphans, func(o *v1.Orphan) bool { return o.Running })
	return !h.Spec.Unschedulable && !strangers && h.Status.Phase == v1.HostPhase_HOST_PHASE_UP && capacity.Kvm &&
		slices.Contains(h.Status.Zones, d.Spec.Zone) && (d.Spec.DataHost == "" || d.Spec.DataHost == h.Meta.Name) &&
		vcpus+uint64(shape.Vcpus) <= uint64(float64(capacity.Cpus)*overcommit) &&
		memory+uint64(shape.MemoryMib)+reserved <= capacity.MemoryMib &&
		t.reserve+gib+gib*uint64(shape.DataDiskGib) <= capacity.StoreBytes &&
		t.toMake+makes(d, t) <= h.Status.Usage.StoreAvailableBytes
}
