package api

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func zone(name string) *v1.Zone {
	return &v1.Zone{Meta: &v1.Meta{Name: name}, Spec: &v1.ZoneSpec{}}
}

func pool(name string) *v1.Pool {
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
	created, err := client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(pool("sales"))})
	if err != nil {
		t.Fatal(err)
	}
	if created.GetChange() != v1.Change_CHANGE_CREATED || created.GetObject().GetPool().GetMeta().GetUid() == "" {
		t.Errorf("created: %v", created)
	}
	again, err := client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(pool("sales"))})
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
