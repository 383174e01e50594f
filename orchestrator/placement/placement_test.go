package placement

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	digest = "1111111111111111111111111111111111111111111111111111111111111111"
	gib    = 1 << 30
)

func image() *v1.Image {
	return &v1.Image{Meta: &v1.Meta{Name: "office"}, Status: &v1.ImageStatus{Current: 1, Versions: []*v1.ImageVersion{
		{Number: 1, Digest: digest, State: v1.VersionState_VERSION_STATE_READY, SizeBytes: 2 * gib},
	}}}
}

// newHost has 4 CPUs, 8 GiB of memory of which 512 MiB are reserved, and 100 GiB of store.
func newHost(name string, edit ...func(*v1.Host)) *v1.Host {
	h := &v1.Host{
		Meta: &v1.Meta{Name: name},
		Spec: &v1.HostSpec{},
		Status: &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"},
			Capacity: &v1.HostCapacity{Cpus: 4, MemoryMib: 8192, StoreBytes: 100 * gib, MaxBoots: 4, Kvm: true},
			Usage:    &v1.HostUsage{StoreAvailableBytes: 90 * gib},
		},
	}
	for _, e := range edit {
		e(h)
	}
	return h
}

// newDesktop waits for a host and needs 1 vCPU, 1 GiB of memory and 1 GiB of store.
func newDesktop(name string, edit ...func(*v1.Desktop)) *v1.Desktop {
	number := len(name)
	for _, c := range name {
		number = (number*31 + int(c)) % 256
	}
	d := &v1.Desktop{
		Meta: &v1.Meta{Name: name},
		Spec: &v1.DesktopSpec{Pool: name[:strings.LastIndexByte(name, '-')], Zone: "lgwan", Mac: fmt.Sprintf("52:54:00:00:00:%02x", number),
			VmUuid: "00000000-0000-4000-9000-000000000001"},
		Incarnation: &v1.Incarnation{
			Generation: 10, Image: "office", Version: 1, Digest: digest, Desired: v1.DesiredState_DESIRED_STATE_READY,
			Shape: &v1.Shape{Vcpus: 1, MemoryMib: 1024, OverlayReserveMib: 1024},
		},
	}
	for _, e := range edit {
		e(d)
	}
	return d
}

// on places a desktop on a host in a state.
func on(host string, state v1.DesktopState) func(*v1.Desktop) {
	return func(d *v1.Desktop) {
		d.Incarnation.Host = host
		d.Status = &v1.DesktopStatus{Generation: d.Incarnation.Generation, State: state}
	}
}

func cold(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_PREPARED }

func suspended(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_SUSPENDED }

type tester interface {
	Helper()
	Fatal(...any)
	Context() context.Context
}

// viewOf makes a view of objects.
func viewOf(t tester, objects ...store.Object) *store.View {
	t.Helper()
	memory := store.NewMemory()
	for i := 0; i < len(objects); i += 100 {
		var ops []store.Op
		for _, o := range objects[i:min(i+100, len(objects))] {
			ops = append(ops, store.Create(proto.CloneOf(o)))
		}
		if _, err := memory.Commit(t.Context(), store.Guard{}, ops); err != nil {
			t.Fatal(err)
		}
	}
	mirror := store.NewMirror(memory)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- mirror.Run(ctx) }()
	view, err := mirror.Wait(ctx, 0)
	cancel()
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	return view
}

func TestWhyNothingFits(t *testing.T) {
	full := func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 512 }
	for _, test := range []struct {
		name    string
		hosts   []*v1.Host
		desktop *v1.Desktop
		want    string
	}{
		{"no host", nil, newDesktop("a-1"), "no host fits: there is none, enrol one first"},
		{"zone and memory", []*v1.Host{
			newHost("h1", func(h *v1.Host) { h.Status.Zones = []string{"internet"} }), newHost("h2", full),
		}, newDesktop("a-1", func(d *v1.Desktop) { d.Incarnation.Shape.MemoryMib = 2048 }),
			"no host fits: 1 host has no zone lgwan, 1 host lacks memory (needs 2048 MiB, 1280 free)"},
		{"most first", []*v1.Host{newHost("h1", func(h *v1.Host) { h.Spec.Unschedulable = true }), newHost("h2", full), newHost("h3", full)},
			newDesktop("a-1", func(d *v1.Desktop) { d.Incarnation.Shape.MemoryMib = 9000 }),
			"no host fits: 2 hosts lack memory (needs 9000 MiB, at most 1280 free), 1 host is unschedulable"},
		{"down, removed, no KVM", []*v1.Host{
			newHost("h1", func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN }),
			newHost("h2", func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DEGRADED }),
			newHost("h3", func(h *v1.Host) { h.Status = nil }),
			newHost("h4", func(h *v1.Host) { h.Meta.Deletion = &v1.Deletion{} }),
			newHost("h5", func(h *v1.Host) { h.Status.Capacity.Kvm = false }),
		}, newDesktop("a-1"), "no host fits: 3 hosts are not up, 1 host is being removed, 1 host has no working KVM"},
		{"strangers", []*v1.Host{
			newHost("h1", func(h *v1.Host) { h.Status.Orphans = []*v1.Orphan{{Desktop: "old-1", Generation: 3, Running: true}} }),
		}, newDesktop("a-1"), "no host fits: 1 host runs VMs that no desktop owns"},
		{"CPUs", []*v1.Host{newHost("h1", func(h *v1.Host) { h.Spec.CpuOvercommit = 0.5 })},
			newDesktop("a-1", func(d *v1.Desktop) { d.Incarnation.Shape.Vcpus = 3 }),
			"no host fits: 1 host lacks CPUs (needs 3 vCPUs, 2 free)"},
		{"store", []*v1.Host{newHost("h1", func(h *v1.Host) { h.Status.Usage.StoreAvailableBytes = 3*gib - 1 })}, newDesktop("a-1"),
			"no host fits: 1 host lacks store space (needs 1024 MiB and 2048 for its image where that is not yet, 2816 free)"},
		{"data disk", []*v1.Host{newHost("h1", func(h *v1.Host) { h.Status.Capacity.StoreBytes = 5 * gib })},
			newDesktop("a-1", func(d *v1.Desktop) { d.Incarnation.Shape.DataDiskGib = 5 }),
			"no host fits: 1 host lacks store space (needs 6144 MiB and 2048 for its image where that is not yet, 5120 free)"},
		{"data elsewhere", []*v1.Host{newHost("h1"), newHost("h2", func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN })},
			newDesktop("a-1", func(d *v1.Desktop) { d.Spec.DataHost = "h2" }),
			"its data disk is on host h2, and 1 host is not up"},
		{"data on a host that is gone", []*v1.Host{newHost("h1")}, newDesktop("a-1", func(d *v1.Desktop) { d.Spec.DataHost = "h2" }),
			"no host fits: its data disk is on host h2, which is not known: enrol that host again, or delete the desktop with its data"},
	} {
		t.Run(test.name, func(t *testing.T) {
			objects := []store.Object{image(), test.desktop}
			for _, h := range test.hosts {
				objects = append(objects, h)
			}
			view := viewOf(t, objects...)
			plan := Plan(view)
			if len(plan) != 1 || plan[0].Host != nil {
				t.Fatalf("plan %v", plan)
			}
			if got := plan[0].Desktop.Incarnation.UnplacedReason; got != test.want {
				t.Errorf("reason\n got %s\nwant %s", got, test.want)
			}
			if got := Explain(view, morning, "a-1"); got != test.want {
				t.Errorf("Explain says %q", got)
			}
			told := proto.CloneOf(test.desktop)
			told.Incarnation.UnplacedReason = test.want
			objects[1] = told
			if plan := Plan(viewOf(t, objects...)); len(plan) != 0 {
				t.Errorf("the same reason is written again: %v", plan)
			}
		})
	}
}

func TestWhatFits(t *testing.T) {
	ready, placed, starting := v1.DesktopState_DESKTOP_STATE_READY, v1.DesktopState_DESKTOP_STATE_PLACED, v1.DesktopState_DESKTOP_STATE_STARTING
	for _, test := range []struct {
		name    string
		objects []store.Object
		edit    func(*v1.Desktop)
		want    string
	}{
		{"first of equals", []store.Object{newHost("h1"), newHost("h2")}, nil, "h1"},
		{"more memory", []store.Object{newHost("h1"), newHost("h2"), newDesktop("b-1", on("h1", ready))}, nil, "h2"},
		{"a life that ended takes nothing", []store.Object{
			newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 256 }),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_DELETED)),
		}, nil, "h1"},
		{"the end of another life does not count", []store.Object{
			newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 256 }),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_DELETED), func(d *v1.Desktop) { d.Status.Generation-- }),
		}, nil, ""},
		{"image is there", []store.Object{newHost("h1"), newHost("h2", func(h *v1.Host) { h.Status.Images = []string{digest} })}, nil, "h2"},
		{"fewer boots", []store.Object{newHost("h1"), newHost("h2"), newDesktop("b-1", on("h1", starting)), newDesktop("b-2", on("h2", ready))}, nil, "h2"},
		{"fewer of the pool", []store.Object{newHost("h1"), newHost("h2"), newDesktop("a-2", on("h1", ready)), newDesktop("b-2", on("h2", ready))}, nil, "h2"},
		{"fewer failures", []store.Object{newHost("h1"), newHost("h2"),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_FAILED)), newDesktop("b-2", on("h2", ready))}, nil, "h2"},
		{"emulation will do", []store.Object{newHost("h1", func(h *v1.Host) {
			h.Status.Capacity.Kvm, h.Status.Capacity.Emulation = false, true
		})}, nil, "h1"},
		{"only its data host", []store.Object{newHost("h1"), newHost("h2"), newDesktop("b-1", on("h2", ready))},
			func(d *v1.Desktop) { d.Spec.DataHost = "h2" }, "h2"},
		{"overlays to be made count twice over", []store.Object{newHost("h1", func(h *v1.Host) {
			h.Status.Usage.StoreAvailableBytes = 4*gib - 1
		}), newDesktop("b-1", on("h1", placed))}, nil, ""},
		{"overlays that are made are in the host's word", []store.Object{newHost("h1", func(h *v1.Host) {
			h.Status.Usage.StoreAvailableBytes, h.Status.Images = 1*gib, []string{digest}
		}), newDesktop("b-1", on("h1", ready))}, nil, "h1"},
		{"prepared only", []store.Object{newHost("h1")}, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_PREPARED }, "h1"},
		{"cold beside what fills the host", []store.Object{newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 256 }),
			newDesktop("b-1", on("h1", ready))}, cold, "h1"},
		{"cold ones leave the memory to others", []store.Object{newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 256 }),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_PREPARED), cold)}, nil, "h1"},
		{"a start to come is promised", []store.Object{newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 256 }),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_PREPARED), func(d *v1.Desktop) {
				d.Incarnation.StartAt = &timestamppb.Timestamp{Seconds: 1 << 40}
			})}, nil, ""},
		{"cold where it could never run", []store.Object{newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 })}, cold, ""},
		{"cold ones spread by all seats", []store.Object{newHost("h1"), newHost("h2"), newDesktop("b-1", on("h1", ready)),
			newDesktop("b-2", on("h2", v1.DesktopState_DESKTOP_STATE_PREPARED), cold),
			newDesktop("b-3", on("h2", v1.DesktopState_DESKTOP_STATE_PREPARED), cold)}, cold, "h1"},
		{"cold ones where they could run, whatever else speaks for others", []store.Object{
			newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib, h.Status.Images = 1024+512, []string{digest} }),
			newHost("h2"), newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_PREPARED), cold),
			newDesktop("a-2", on("h2", v1.DesktopState_DESKTOP_STATE_FAILED)), newDesktop("a-3", on("h2", v1.DesktopState_DESKTOP_STATE_FAILED)),
			newDesktop("a-4", on("h2", v1.DesktopState_DESKTOP_STATE_FAILED)), newDesktop("a-5", on("h2", ready)), newDesktop("a-6", on("h2", ready))},
			cold, "h2"},
		{"suspended ones leave the memory to others", []store.Object{newHost("h1", func(h *v1.Host) { h.Status.Capacity.MemoryMib = 1024 + 256 }),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_SUSPENDED), suspended)}, nil, "h1"},
		{"suspended ones take the store", []store.Object{newHost("h1", func(h *v1.Host) { h.Status.Capacity.StoreBytes = 3*gib - 1 }),
			newDesktop("b-1", on("h1", v1.DesktopState_DESKTOP_STATE_SUSPENDED), suspended)}, nil, ""},
		{"to be deleted", []store.Object{newHost("h1")}, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED }, ""},
		{"going", []store.Object{newHost("h1")}, func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{} }, ""},
		{"to dispose of its data on a full host", []store.Object{newHost("h1"), newHost("h2", func(h *v1.Host) {
			h.Spec.Unschedulable, h.Status = true, nil
		})}, func(d *v1.Desktop) {
			d.Incarnation.Desired, d.Spec.DataHost = v1.DesiredState_DESIRED_STATE_DELETED, "h2"
		}, "h2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDesktop("a-1")
			if test.edit != nil {
				test.edit(d)
			}
			plan := Plan(viewOf(t, append(test.objects, image(), d)...))
			got := ""
			for _, p := range plan {
				if p.Host != nil && p.Desktop.Incarnation.Host == p.Host.Meta.Name {
					got = p.Host.Meta.Name
				}
			}
			if got != test.want {
				t.Errorf("placed on %q, want %q: %v", got, test.want, plan)
			}
		})
	}
}

func TestSpread(t *testing.T) {
	for _, hosts := range []int{2, 3} {
		objects := []store.Object{image()}
		for i := range hosts {
			objects = append(objects, newHost(fmt.Sprintf("h%d", i+1)))
		}
		for i := range 6 {
			objects = append(objects, newDesktop(fmt.Sprintf("sales-%d", i+1)))
		}
		counts := map[string]int{}
		for _, p := range Plan(viewOf(t, objects...)) {
			counts[p.Desktop.Incarnation.Host]++
		}
		for host, n := range counts {
			if n != 6/hosts {
				t.Errorf("%d of 6 desktops on %s of %d hosts", n, host, hosts)
			}
		}
	}
}

func TestExplain(t *testing.T) {
	view := viewOf(t, image(), newHost("h1", func(h *v1.Host) { h.Status.Images = []string{digest} }),
		newDesktop("a-1", on("h1", v1.DesktopState_DESKTOP_STATE_READY)), newDesktop("a-2"),
		newDesktop("a-3", on("h9", v1.DesktopState_DESKTOP_STATE_READY)),
		newDesktop("a-4", on("h1", v1.DesktopState_DESKTOP_STATE_READY), func(d *v1.Desktop) { d.Spec.DataHost = "h1" }),
		newDesktop("a-5", func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED }))
	for desktop, want := range map[string]string{
		"a-1": "it is on host h1, which has zone lgwan, holds its image, runs 2 of the 5 desktops of pool a, has promised 2048 of 7680 MiB memory",
		"a-2": "it has no host yet; host h1 fits and is next",
		"a-3": "it was on host h9, which was removed",
		"a-4": "it is on host h1 because its data disk lies there",
		"a-5": "it has no host and wants none, since it is to be deleted",
		"a-6": "",
	} {
		if got := Explain(view, morning, desktop); got != want {
			t.Errorf("%s:\n got %s\nwant %s", desktop, got, want)
		}
	}
}
