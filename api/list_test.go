package api

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// listAll reads all pages, and checks that each keeps its limits.
func (r *rig) listAll(request *v1.ListRequest) []string {
	r.t.Helper()
	client := r.objects()
	var names []string
	for {
		page, err := client.List(r.t.Context(), request)
		if err != nil {
			r.t.Fatal(err)
		}
		if n := len(page.GetObjects()); request.GetPageSize() > 0 && n > int(request.GetPageSize()) {
			r.t.Errorf("a page of %d, at most %d were asked for", n, request.GetPageSize())
		}
		if size := proto.Size(page); size > maxMessage {
			r.t.Errorf("a page of %d bytes", size)
		}
		for _, o := range page.GetObjects() {
			names = append(names, unwrap(o).GetMeta().GetName())
		}
		if page.GetNextPageToken() == "" {
			return names
		}
		request.PageToken = page.GetNextPageToken()
	}
}

func TestList(t *testing.T) {
	r := newRig(t)
	var all, odd []string
	for i := range 25 {
		z := zone(fmt.Sprintf("zone-%02d", i))
		z.Meta.Labels = map[string]string{"odd": fmt.Sprint(i % 2), "site": "a"}
		z.Spec.Description = strings.Repeat("x", 1000)
		r.put(store.WriterAPI, z)
		all = append(all, z.Meta.Name)
		if i%2 == 1 {
			odd = append(odd, z.Meta.Name)
		}
	}
	for _, size := range []uint32{0, 1, 7, 25, 1000} {
		wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_ZONE, PageSize: size}), all)
		wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_ZONE, PageSize: size, Labels: map[string]string{"odd": "1", "site": "a"}}), odd)
	}
	wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_ZONE, Labels: map[string]string{"none": ""}}), []string(nil))
	wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_ZONE, PageToken: "zone-23x"}), []string{"zone-24"})
	_, err := r.objects().List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_ZONE, PageSize: 1001})
	wantCode(t, err, codes.InvalidArgument, "pageSize")
	_, err = r.objects().List(t.Context(), &v1.ListRequest{Kind: 99})
	wantCode(t, err, codes.InvalidArgument, "kind")
}

// TestLargeListIsCut: objects that together are too large for one message come in several.
func TestLargeListIsCut(t *testing.T) {
	r := newRig(t)
	var want []string
	for i := range 40 {
		image := &v1.Image{Meta: &v1.Meta{Name: fmt.Sprintf("image-%02d", i)}, Status: &v1.ImageStatus{}}
		for n := range 150 {
			image.Status.Versions = append(image.Status.Versions, &v1.ImageVersion{
				Number: uint32(n + 1), Digest: digest, Note: strings.Repeat("あ", 400), State: v1.VersionState_VERSION_STATE_DRAFT, Created: timestamppb.Now(),
			})
		}
		r.put(store.WriterRollout, image)
		want = append(want, image.Meta.Name)
	}
	wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_IMAGE}), want)
	seen, messages := r.picture(v1.Kind_KIND_IMAGE)
	if len(seen) != len(want) || messages < 2 {
		t.Errorf("the watch showed %d of %d in %d messages", len(seen), len(want), messages)
	}
}

func TestAbout(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"sales-1", "sales-2", "office-1"} {
		poolName, _, _ := strings.Cut(name, "-")
		r.put(store.WriterPool, &v1.Desktop{Meta: &v1.Meta{Name: name}, Spec: desktopSpec(poolName)},
			&v1.Event{Meta: &v1.Meta{Name: "e-" + name}, At: timestamppb.Now(), SubjectKind: "desktop", Subject: name, Reason: "X"})
	}
	wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_DESKTOP, About: "sales"}), []string{"sales-1", "sales-2"})
	wantSame(t, r.listAll(&v1.ListRequest{Kind: v1.Kind_KIND_EVENT, About: "sales-2"}), []string{"e-sales-2"})
	_, err := r.objects().List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_ZONE, About: "sales"})
	wantCode(t, err, codes.InvalidArgument, "about")
}

func desktopSpec(pool string) *v1.DesktopSpec {
	return &v1.DesktopSpec{Pool: pool, Zone: "lgwan", Mac: "52:54:00:00:00:01", VmUuid: "33333333-3333-4333-8333-333333333333"}
}

// TestTokensShowNoHash: neither get, list nor watch tells what could be attacked at leisure.
func TestTokensShowNoHash(t *testing.T) {
	r := newRig(t)
	r.put(store.WriterAPI, &v1.JoinToken{Meta: &v1.Meta{Name: "t"}, SecretHash: make([]byte, 32), Expires: timestamppb.Now(), Role: v1.Role_ROLE_HOST})
	got, err := r.objects().Get(t.Context(), &v1.GetRequest{Kind: v1.Kind_KIND_JOIN_TOKEN, Name: "t"})
	if err != nil || got.GetObject().GetJoinToken().GetSecretHash() != nil || got.GetObject().GetJoinToken().GetExpires() == nil {
		t.Errorf("%v, %v", got, err)
	}
	page, err := r.objects().List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_JOIN_TOKEN})
	if err != nil || len(page.GetObjects()) != 1 || page.GetObjects()[0].GetJoinToken().GetSecretHash() != nil {
		t.Errorf("%v, %v", page, err)
	}
	seen, _ := r.picture(v1.Kind_KIND_JOIN_TOKEN)
	if len(seen) != 1 || seen["t"].(*v1.JoinToken).GetSecretHash() != nil {
		t.Errorf("%v", seen)
	}
}
