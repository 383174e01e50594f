package api

import (
	"context"
	"math"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func zone(name string) *v1.Zone {
	return &v1.Zone{Meta: &v1.Meta{Name: name}, Spec: &v1.ZoneSpec{}}
}

func newPool(name string) *v1.Pool {
	return &v1.Pool{Meta: &v1.Meta{Name: name}, Spec: &v1.PoolSpec{Image: "micro", Zone: "lgwan", Desktops: 2}}
}

func (r *rig) apply(o store.Object) (*v1.ApplyResponse, error) {
	return r.objects().Apply(r.t.Context(), &v1.ApplyRequest{Object: wrap(o)})
}

// ground stores what a pool stands on.
func (r *rig) ground() {
	r.put(store.WriterAPI, zone("lgwan"))
	r.put(store.WriterRollout, &v1.Image{Meta: &v1.Meta{Name: "micro"}, Status: &v1.ImageStatus{Current: 1, Versions: []*v1.ImageVersion{
		{Number: 1, Digest: digest, State: v1.VersionState_VERSION_STATE_READY, Created: timestamppb.Now()},
		{Number: 2, Digest: digest, State: v1.VersionState_VERSION_STATE_DRAFT, Created: timestamppb.Now()},
	}}})
}

const digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestApply(t *testing.T) {
	r := newRig(t)
	r.ground()
	client := r.objects()
	created, err := client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(newPool("sales"))})
	if err != nil {
		t.Fatal(err)
	}
	if created.GetChange() != v1.Change_CHANGE_CREATED || created.GetObject().GetPool().GetMeta().GetUid() == "" {
		t.Errorf("created: %v", created)
	}
	again, err := client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(newPool("sales"))})
	if err != nil {
		t.Fatal(err)
	}
	if again.GetChange() != v1.Change_CHANGE_UNCHANGED {
		t.Errorf("again: %v", again.GetChange())
	}
	wantSame(t, again.GetObject(), created.GetObject())
	got, err := client.Get(t.Context(), &v1.GetRequest{Kind: v1.Kind_KIND_POOL, Name: "sales"})
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, got.GetObject(), created.GetObject())
	_, err = client.Get(t.Context(), &v1.GetRequest{Kind: v1.Kind_KIND_POOL, Name: "none"})
	wantCode(t, err, codes.NotFound, "pool none")
}

func TestApplyRefuses(t *testing.T) {
	r := newRig(t)
	r.ground()
	r.put(store.WriterAPI, &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo"}})
	if _, err := r.apply(newPool("sales")); err != nil {
		t.Fatal(err)
	}
	r.put(store.WriterAPI, zone("internet"), &v1.Pool{Meta: &v1.Meta{Name: "disks"}, Spec: &v1.PoolSpec{Image: "micro", Zone: "lgwan", Shape: &v1.Shape{DataDiskGib: 8}}})
	with := func(name string, change func(*v1.Pool)) *v1.Pool {
		p := newPool(name)
		change(p)
		return p
	}
	for _, row := range []struct {
		name   string
		object store.Object
		code   codes.Code
		words  []string
	}{
		{"other zone", with("sales", func(p *v1.Pool) { p.Spec.Zone = "internet" }), codes.InvalidArgument, []string{"spec.zone: cannot be changed", `"lgwan"`}},
		{"shrunk disk", with("disks", func(p *v1.Pool) { p.Spec.Shape = &v1.Shape{DataDiskGib: 7} }), codes.InvalidArgument, []string{"spec.shape.dataDiskGib", "from 8 to 7"}},
		{"no disk any more", with("disks", func(p *v1.Pool) {}), codes.InvalidArgument, []string{"from 8 to 0"}},
		{"no zone", with("new", func(p *v1.Pool) { p.Spec.Zone = "none" }), codes.FailedPrecondition, []string{`zone "none" does not exist`}},
		{"no calendar", with("new", func(p *v1.Pool) { p.Spec.Calendar = "none" }), codes.FailedPrecondition, []string{`calendar "none" does not exist`}},
		{"no image", with("new", func(p *v1.Pool) { p.Spec.Image = "none" }), codes.FailedPrecondition, []string{`image "none" does not exist: import it first with "daybreak image import none FILE"`}},
		{"no version", with("new", func(p *v1.Pool) { p.Spec.Version = 3 }), codes.FailedPrecondition, []string{"no version 3", "it has: 1, 2"}},
		{"draft", with("sales", func(p *v1.Pool) { p.Spec.Version = 2 }), codes.FailedPrecondition, []string{"version 2", "is draft", "daybreak image publish micro 2"}},
		{"long name", newPool(strings.Repeat("a", 41)), codes.InvalidArgument, []string{"at most 40 characters"}},
		{"too many", with("new", func(p *v1.Pool) { p.Spec.Desktops = 5001 }), codes.InvalidArgument, []string{"spec.desktops"}},
		{"nonsense name", newPool("../etc"), codes.InvalidArgument, []string{"meta.name"}},
		{"markup name", newPool("<!ENTITY"), codes.InvalidArgument, []string{"meta.name"}},
		{"Japanese name", newPool("総務課"), codes.InvalidArgument, []string{"meta.name"}},
		{"no name", zone(""), codes.InvalidArgument, []string{"meta.name"}},
		{"no meta", &v1.Zone{}, codes.InvalidArgument, []string{"meta"}},
		{"line break in a label", &v1.Zone{Meta: &v1.Meta{Name: "a", Labels: map[string]string{"k": "a\nb"}}}, codes.InvalidArgument, []string{"meta.labels"}},
		{"stale", with("sales", func(p *v1.Pool) { p.Meta.Revision = 1 }), codes.Aborted, []string{"pool sales changed meanwhile", "not 1"}},
		{"revision of nothing", with("new", func(p *v1.Pool) { p.Meta.Revision = 1 }), codes.Aborted, []string{"pool new is gone"}},
		{"another life", with("sales", func(p *v1.Pool) { p.Meta.Uid = "22222222-2222-4222-8222-222222222222" }), codes.Aborted, []string{"made anew"}},
		{"host", &v1.Host{Meta: &v1.Meta{Name: "kvm9"}}, codes.FailedPrecondition, []string{"host kvm9 does not exist", "token create"}},
		{"not a number", &v1.Host{Meta: &v1.Meta{Name: "kvm1"}, Spec: &v1.HostSpec{CpuOvercommit: math.NaN()}}, codes.InvalidArgument, []string{"spec.cpuOvercommit"}},
		{"desktop", &v1.Desktop{Meta: &v1.Meta{Name: "sales-9"}}, codes.InvalidArgument, []string{"desktops cannot be applied"}},
		{"claim", &v1.Claim{Meta: &v1.Meta{Name: "c"}, User: "u"}, codes.InvalidArgument, []string{"daybreak claim"}},
		{"event", &v1.Event{Meta: &v1.Meta{Name: "e"}}, codes.InvalidArgument, []string{"events cannot"}},
		{"rollout", &v1.Rollout{Meta: &v1.Meta{Name: "r"}}, codes.InvalidArgument, []string{"rollouts cannot", "daybreak image publish"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := r.everything()
			_, err := r.apply(row.object)
			wantCode(t, err, row.code, row.words...)
			wantSame(t, r.everything(), before)
		})
	}
	token := &v1.JoinToken{Meta: &v1.Meta{Name: "t"}, SecretHash: make([]byte, 32)}
	_, err := r.objects().Apply(t.Context(), &v1.ApplyRequest{Object: &v1.Object{Kind: &v1.Object_JoinToken{JoinToken: token}}})
	wantCode(t, err, codes.InvalidArgument, "daybreak token create")
	_, err = r.objects().Apply(t.Context(), &v1.ApplyRequest{})
	wantCode(t, err, codes.InvalidArgument, "object")
	_, err = r.objects().Apply(t.Context(), &v1.ApplyRequest{Object: &v1.Object{}})
	wantCode(t, err, codes.InvalidArgument)
}

// everything is all that is stored.
func (r *rig) everything() map[string]store.Object {
	r.t.Helper()
	all := map[string]store.Object{}
	for _, kind := range store.Kinds() {
		objects, _, err := r.backend.List(r.t.Context(), kind)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, o := range objects {
			all[store.RefOf(o).String()] = o
		}
	}
	return all
}

// TestUnknownFieldIsRefused: what a newer program sends must not be half done.
func TestUnknownFieldIsRefused(t *testing.T) {
	r := newRig(t)
	newer := zone("lgwan")
	newer.Spec.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 999, protowire.VarintType), 1))
	_, err := r.apply(newer)
	wantCode(t, err, codes.InvalidArgument, "newer program")
}

func TestDryRun(t *testing.T) {
	r := newRig(t)
	r.ground()
	before := r.everything()
	answer, err := r.objects().Apply(t.Context(), &v1.ApplyRequest{Object: wrap(newPool("sales")), DryRun: true})
	if err != nil || answer.GetChange() != v1.Change_CHANGE_CREATED || answer.GetObject().GetPool().GetSpec().GetDesktops() != 2 {
		t.Errorf("%v, %v", answer, err)
	}
	bad := newPool("sales")
	bad.Spec.Zone = "none"
	_, err = r.objects().Apply(t.Context(), &v1.ApplyRequest{Object: wrap(bad), DryRun: true})
	wantCode(t, err, codes.FailedPrecondition, `zone "none"`)
	wantSame(t, r.everything(), before)
}

// TestApplyKeepsWhatIsNotPeoples: a status in the request is not looked at, one in the store stays.
func TestApplyKeepsWhatIsNotPeoples(t *testing.T) {
	r := newRig(t)
	r.ground()
	image := &v1.Image{Meta: &v1.Meta{Name: "micro", Labels: map[string]string{"os": "debian"}}, Spec: &v1.ImageSpec{DisplayName: "小さい"}, Status: &v1.ImageStatus{Current: 9}}
	answer, err := r.apply(image)
	if err != nil {
		t.Fatal(err)
	}
	got := answer.GetObject().GetImage()
	if got.GetStatus().GetCurrent() != 1 || len(got.GetStatus().GetVersions()) != 2 || got.GetSpec().GetDisplayName() != "小さい" || got.GetMeta().GetLabels()["os"] != "debian" {
		t.Errorf("%v", got)
	}
	if answer.GetChange() != v1.Change_CHANGE_CONFIGURED {
		t.Errorf("%v", answer.GetChange())
	}
}

// TestApplyIsIdempotent applies random specs twice: the second changes nothing, not even a revision.
func TestApplyIsIdempotent(t *testing.T) {
	r := newRig(t)
	r.ground()
	service := &objectService{store: store.Open(r.backend, store.WriterAPI)}
	rapid.Check(t, func(t *rapid.T) {
		wanted := newPool(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name"))
		wanted.Spec.Desktops = rapid.Uint32Max(5000).Draw(t, "desktops")
		wanted.Spec.MaxUnavailable = rapid.Uint32Max(5000).Draw(t, "max")
		if rapid.Bool().Draw(t, "shape") {
			wanted.Spec.Shape = &v1.Shape{Vcpus: rapid.Uint32Max(64).Draw(t, "vcpus")}
		}
		if rapid.Bool().Draw(t, "labelled") {
			wanted.Meta.Labels = map[string]string{"l": rapid.SampledFrom([]string{"", "x", "日本"}).Draw(t, "label")}
		}
		request := &v1.ApplyRequest{Object: wrap(wanted)}
		first, err := service.Apply(context.Background(), request)
		if err != nil {
			t.Fatal(err)
		}
		second, err := service.Apply(context.Background(), request)
		if err != nil {
			t.Fatal(err)
		}
		if second.GetChange() != v1.Change_CHANGE_UNCHANGED || !proto.Equal(first.GetObject(), second.GetObject()) {
			t.Fatalf("applied twice:\n%v\n%v", first, second)
		}
		if got := first.GetObject().GetPool(); !proto.Equal(got.GetSpec(), wanted.GetSpec()) {
			t.Fatalf("spec %v, want %v", got.GetSpec(), wanted.GetSpec())
		}
		third, err := service.Apply(context.Background(), &v1.ApplyRequest{Object: second.GetObject()})
		if err != nil || third.GetChange() != v1.Change_CHANGE_UNCHANGED {
			t.Fatalf("what was answered cannot be applied: %v, %v", third, err)
		}
	})
}

// TestConcurrentApply: many write one object without a revision; all succeed, one after the other.
func TestConcurrentApply(t *testing.T) {
	r := newRig(t)
	r.ground()
	service := &objectService{store: store.Open(r.backend, store.WriterAPI)}
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error {
			wanted := newPool("sales")
			wanted.Spec.Desktops = uint32(i)
			_, err := service.Apply(context.Background(), &v1.ApplyRequest{Object: wrap(wanted)})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestEnvelope(t *testing.T) {
	for _, kind := range store.Kinds() {
		o, err := store.New(kind)
		if err != nil {
			t.Fatal(err)
		}
		if back := unwrap(wrap(o)); store.KindOf(back) != kind {
			t.Errorf("%v came back as %v", kind, store.KindOf(back))
		}
	}
	if unwrap(nil) != nil || unwrap(&v1.Object{}) != nil {
		t.Error("there is an object in an empty envelope")
	}
}
