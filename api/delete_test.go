package api

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func (r *rig) delete(request *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	return r.objects().Delete(r.t.Context(), request)
}

// town stores a small cluster: host kvm1 with a claimed desktop and one with data, host kvm2 without any.
func (r *rig) town() {
	r.ground()
	plain := newPool("plain")
	plain.Spec.Calendar = "office"
	withData := newPool("data")
	withData.Spec.Shape = &v1.Shape{DataDiskGib: 1}
	r.put(store.WriterAPI,
		&v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo"}},
		zone("unused"), plain, withData, newPool("empty"),
		&v1.Host{Meta: &v1.Meta{Name: "kvm1"}, Spec: &v1.HostSpec{}}, &v1.Host{Meta: &v1.Meta{Name: "kvm2"}, Spec: &v1.HostSpec{}},
	)
	incarnation := func() *v1.Incarnation {
		return &v1.Incarnation{Generation: 5, Image: "micro", Version: 1, Digest: digest}
	}
	claimed := &v1.Desktop{Meta: &v1.Meta{Name: "plain-1"}, Spec: desktopSpec("plain"), Incarnation: incarnation(), Claim: &v1.DesktopClaim{User: "佐藤"}}
	free := &v1.Desktop{Meta: &v1.Meta{Name: "plain-2"}, Spec: desktopSpec("plain"), Incarnation: incarnation()}
	disk := &v1.Desktop{Meta: &v1.Meta{Name: "data-1"}, Spec: desktopSpec("data"), Incarnation: incarnation()}
	disk.Incarnation.Shape = &v1.Shape{DataDiskGib: 1}
	r.put(store.WriterPool, claimed, free, disk)
	for _, name := range []string{"plain-1", "data-1"} {
		edit(r, store.WriterPlacement, name, func(d *v1.Desktop) { d.Incarnation.Host = "kvm1" })
	}
}

func TestDeleteRefuses(t *testing.T) {
	r := newRig(t)
	r.town()
	keep := v1.DataDisposal_DATA_DISPOSAL_KEEP
	for _, row := range []struct {
		name    string
		request *v1.DeleteRequest
		code    codes.Code
		words   []string
	}{
		{"nothing", &v1.DeleteRequest{Kind: v1.Kind_KIND_ZONE, Name: "none"}, codes.NotFound, []string{"zone none"}},
		{"used zone", &v1.DeleteRequest{Kind: v1.Kind_KIND_ZONE, Name: "lgwan"}, codes.FailedPrecondition, []string{"pool data", "pool plain", "desktop plain-1"}},
		{"used image", &v1.DeleteRequest{Kind: v1.Kind_KIND_IMAGE, Name: "micro"}, codes.FailedPrecondition, []string{"pool plain", "desktop data-1"}},
		{"used calendar", &v1.DeleteRequest{Kind: v1.Kind_KIND_CALENDAR, Name: "office"}, codes.FailedPrecondition, []string{"pool plain"}},
		{"stale", &v1.DeleteRequest{Kind: v1.Kind_KIND_ZONE, Name: "unused", Revision: 1}, codes.Aborted, []string{"zone unused changed meanwhile"}},
		{"pool in use", &v1.DeleteRequest{Kind: v1.Kind_KIND_POOL, Name: "plain", Data: keep}, codes.FailedPrecondition, []string{"plain-1 (佐藤)", "release"}},
		{"pool with data", &v1.DeleteRequest{Kind: v1.Kind_KIND_POOL, Name: "data"}, codes.FailedPrecondition, []string{"--data keep or --data delete"}},
		{"desktop in use", &v1.DeleteRequest{Kind: v1.Kind_KIND_DESKTOP, Name: "plain-1", Data: keep}, codes.FailedPrecondition, []string{"held by 佐藤", "daybreak release plain --user 佐藤"}},
		{"desktop with data", &v1.DeleteRequest{Kind: v1.Kind_KIND_DESKTOP, Name: "data-1"}, codes.FailedPrecondition, []string{"data disks"}},
		{"host with desktops", &v1.DeleteRequest{Kind: v1.Kind_KIND_HOST, Name: "kvm1"}, codes.FailedPrecondition, []string{"data-1, plain-1", "--host-is-off"}},
		{"host that is heard", &v1.DeleteRequest{Kind: v1.Kind_KIND_HOST, Name: "kvm1", AttestHostOff: true}, codes.FailedPrecondition, []string{"not DOWN"}},
		{"claim", &v1.DeleteRequest{Kind: v1.Kind_KIND_CLAIM, Name: "x"}, codes.InvalidArgument, []string{"daybreak release"}},
		{"event", &v1.DeleteRequest{Kind: v1.Kind_KIND_EVENT, Name: "x"}, codes.InvalidArgument, []string{"events"}},
		{"rollout", &v1.DeleteRequest{Kind: v1.Kind_KIND_ROLLOUT, Name: "x"}, codes.InvalidArgument, []string{"rollouts"}},
		{"data of a zone", &v1.DeleteRequest{Kind: v1.Kind_KIND_ZONE, Name: "unused", Data: keep}, codes.InvalidArgument, []string{"data"}},
		{"attested zone", &v1.DeleteRequest{Kind: v1.Kind_KIND_ZONE, Name: "unused", AttestHostOff: true}, codes.InvalidArgument, []string{"attestHostOff"}},
		{"unknown disposal", &v1.DeleteRequest{Kind: v1.Kind_KIND_POOL, Name: "data", Data: 9}, codes.InvalidArgument, []string{"data"}},
		{"negative revision", &v1.DeleteRequest{Kind: v1.Kind_KIND_POOL, Name: "data", Revision: -1}, codes.InvalidArgument, []string{"revision"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := r.everything()
			_, err := r.delete(row.request)
			wantCode(t, err, row.code, row.words...)
			wantSame(t, r.everything(), before)
		})
	}
}

func TestDeleteMarks(t *testing.T) {
	r := newRig(t)
	r.town()
	for _, request := range []*v1.DeleteRequest{
		{Kind: v1.Kind_KIND_POOL, Name: "data", Data: v1.DataDisposal_DATA_DISPOSAL_KEEP},
		{Kind: v1.Kind_KIND_POOL, Name: "empty"},
		{Kind: v1.Kind_KIND_DESKTOP, Name: "data-1", Data: v1.DataDisposal_DATA_DISPOSAL_DELETE},
		{Kind: v1.Kind_KIND_DESKTOP, Name: "plain-2"},
	} {
		answer, err := r.delete(request)
		if err != nil || answer.GetGone() {
			t.Fatalf("%v: %v, %v", request, answer, err)
		}
		o, err := r.backend.Get(t.Context(), store.Ref{Kind: request.GetKind(), Name: request.GetName()})
		if err != nil {
			t.Fatal(err)
		}
		mark := o.GetMeta().GetDeletion()
		if mark.GetBy() != "user/someone" || mark.GetData() != request.GetData() || mark.GetRequested() == nil {
			t.Errorf("%v: %v", request, mark)
		}
		// Once more, and with another word: the first one counts.
		request.Data = v1.DataDisposal_DATA_DISPOSAL_DELETE
		if _, err := r.delete(request); err != nil {
			t.Error(err)
		}
		again, err := r.backend.Get(t.Context(), store.Ref{Kind: request.GetKind(), Name: request.GetName()})
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, again, o)
	}
	changed := newPool("empty")
	changed.Spec.Desktops = 9
	_, err := r.apply(changed)
	wantCode(t, err, codes.FailedPrecondition, "is being deleted, as user/someone asked")
}

func TestDeleteRemoves(t *testing.T) {
	r := newRig(t)
	r.town()
	edit(r, store.WriterDispatch, "kvm1", func(h *v1.Host) { h.Status = &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_DOWN} })
	for _, request := range []*v1.DeleteRequest{
		{Kind: v1.Kind_KIND_ZONE, Name: "unused"},
		{Kind: v1.Kind_KIND_HOST, Name: "kvm2"},
		{Kind: v1.Kind_KIND_HOST, Name: "kvm1", AttestHostOff: true},
	} {
		answer, err := r.delete(request)
		if err != nil || !answer.GetGone() {
			t.Fatalf("%v: %v, %v", request, answer, err)
		}
		_, err = r.delete(request)
		wantCode(t, err, codes.NotFound)
	}
}

// TestZoneDeletionMeetsNewPool: between looking for users and removing, a pool takes the zone. It must not lose it.
func TestZoneDeletionMeetsNewPool(t *testing.T) {
	r := newRig(t)
	r.ground()
	service := &objectService{store: store.Open(r.backend, store.WriterAPI)}
	before, err := store.Get[*v1.Zone](t.Context(), service.store, "lgwan")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.apply(newPool("sales")); err != nil {
		t.Fatal(err)
	}
	if _, err := service.remove(t.Context(), before); err == nil {
		t.Fatal("the zone was removed under its new pool")
	}
}

// TestHostDeletionMeetsPlacement: a desktop that arrives while the host is being removed stops the removal, and the host
// is open again.
func TestHostDeletionMeetsPlacement(t *testing.T) {
	r := newRig(t)
	r.town()
	late := &arrival{Backend: r.backend, arrive: func() {
		edit(r, store.WriterPlacement, "plain-2", func(d *v1.Desktop) { d.Incarnation.Host = "kvm2" })
	}}
	service := &objectService{store: store.Open(late, store.WriterAPI)}
	_, err := service.Delete(t.Context(), &v1.DeleteRequest{Kind: v1.Kind_KIND_HOST, Name: "kvm2"})
	wantCode(t, err, codes.FailedPrecondition, "plain-2")
	host, err := store.Get[*v1.Host](t.Context(), service.store, "kvm2")
	if err != nil || host.GetSpec().GetUnschedulable() {
		t.Errorf("%v, %v", host, err)
	}
}

// arrival lets something happen after the first transaction.
type arrival struct {
	store.Backend
	arrive func()
}

func (a *arrival) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	revision, err := a.Backend.Commit(ctx, guard, ops)
	if arrive := a.arrive; arrive != nil {
		a.arrive = nil
		arrive()
	}
	return revision, err
}
