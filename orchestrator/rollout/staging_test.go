package rollout_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/testing/protocmp"

	"daybreak/images"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func digest(name string) string {
	return images.Sum([]byte(name)).String()
}

// image has one version for each state, numbered from 1; current is one of them.
func image(name string, current uint32, states ...v1.VersionState) *v1.Image {
	status := &v1.ImageStatus{Current: current}
	for i, state := range states {
		status.Versions = append(status.Versions, &v1.ImageVersion{
			Number: uint32(i + 1), Digest: digest(fmt.Sprintf("%s-%d", name, i+1)), State: state,
		})
	}
	return &v1.Image{Meta: &v1.Meta{Name: name}, Status: status}
}

func pool(name, image string, version uint32, zone string, desktops uint32) *v1.Pool {
	return &v1.Pool{
		Meta: &v1.Meta{Name: name},
		Spec: &v1.PoolSpec{Image: image, Version: version, Zone: zone, Desktops: desktops},
	}
}

func wants(pairs ...string) (list []*v1.WantedImage) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, &v1.WantedImage{Image: pairs[i], Digest: digest(pairs[i+1])})
	}
	return list
}

func TestWanted(t *testing.T) {
	const draft, ready, retired = v1.VersionState_VERSION_STATE_DRAFT, v1.VersionState_VERSION_STATE_READY, v1.VersionState_VERSION_STATE_RETIRED
	library := map[string]*v1.Image{
		"debian":  image("debian", 2, ready, ready, draft),
		"windows": image("windows", 1, retired),
		"empty":   image("empty", 0),
	}
	going := pool("going", "debian", 0, "internet", 3)
	going.Meta.Deletion = &v1.Deletion{}
	host := &v1.Host{Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"internet", "lgwan"}}}
	for _, test := range []struct {
		name  string
		pools []*v1.Pool
		want  []*v1.WantedImage
	}{
		{"nothing", nil, nil},
		{"the current version", []*v1.Pool{pool("a", "debian", 0, "internet", 3)}, wants("debian", "debian-2")},
		{"a named version", []*v1.Pool{pool("a", "debian", 1, "lgwan", 3)}, wants("debian", "debian-1")},
		{"a draft", []*v1.Pool{pool("a", "debian", 3, "lgwan", 3)}, nil},
		{"a retired version", []*v1.Pool{pool("a", "windows", 0, "lgwan", 3)}, nil},
		{"no version at all", []*v1.Pool{pool("a", "empty", 0, "lgwan", 3)}, nil},
		{"no such image", []*v1.Pool{pool("a", "beos", 0, "lgwan", 3)}, nil},
		{"a zone that the host lacks", []*v1.Pool{pool("a", "debian", 0, "resident", 3)}, nil},
		{"a pool without seats", []*v1.Pool{pool("a", "debian", 0, "lgwan", 0)}, nil},
		{"a pool that goes", []*v1.Pool{going}, nil},
		{"two pools of one version", []*v1.Pool{pool("a", "debian", 0, "lgwan", 3), pool("b", "debian", 2, "internet", 1)}, wants("debian", "debian-2")},
		{"two versions", []*v1.Pool{pool("a", "debian", 0, "lgwan", 3), pool("b", "debian", 1, "internet", 1)}, wants("debian", "debian-2", "debian", "debian-1")},
	} {
		got, left := rollout.Wanted(host, test.pools, func(name string) *v1.Image { return library[name] })
		if diff := cmp.Diff(test.want, got, protocmp.Transform()); diff != "" || left != 0 {
			t.Errorf("%s: left %d (-want +got):\n%s", test.name, left, diff)
		}
	}
	down := &v1.Host{Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_DOWN, Zones: []string{"internet"}}, WantedImages: wants("debian", "debian-1")}
	if got, _ := rollout.Wanted(down, nil, nil); !cmp.Equal(got, down.WantedImages, protocmp.Transform()) {
		t.Errorf("a host that is down: %v", got)
	}
	var many []*v1.Pool
	for i := range 300 {
		name := fmt.Sprintf("i%d", i)
		library[name] = image(name, 1, ready)
		many = append(many, pool(name, name, 0, "lgwan", 1))
	}
	if got, left := rollout.Wanted(host, many, func(name string) *v1.Image { return library[name] }); len(got) != 256 || left != 44 {
		t.Errorf("300 versions: %d wanted, %d left", len(got), left)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStagingFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		backend := store.NewMemory()
		api, mine := store.Open(backend, store.WriterAPI), store.Open(backend, store.WriterRollout)
		dispatch := store.Open(backend, store.WriterDispatch)
		mirror := store.NewMirror(backend)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 2)
		go func() { ended <- mirror.Run(ctx) }()
		go func() { ended <- rollout.NewStaging(mirror, zerolog.New(zerolog.NewTestWriter(t))).Run(ctx, mine) }()

		commit := func(s *store.Store, ops ...store.Op) {
			t.Helper()
			_, err := s.Commit(ctx, ops...)
			must(t, err)
		}
		want := func(host string, list []*v1.WantedImage) {
			t.Helper()
			synctest.Wait()
			got, err := store.Get[*v1.Host](ctx, mine, host)
			must(t, err)
			if diff := cmp.Diff(list, got.GetWantedImages(), protocmp.Transform()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", host, diff)
			}
		}
		for _, host := range []string{"kvm1", "kvm2"} {
			commit(api, store.Create(&v1.Host{Meta: &v1.Meta{Name: host}}))
			_, err := store.Modify(ctx, dispatch, host, func(h *v1.Host) error {
				h.Status = &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"}}
				return nil
			})
			must(t, err)
		}
		commit(mine, store.Create(image("debian", 1, v1.VersionState_VERSION_STATE_READY, v1.VersionState_VERSION_STATE_READY)))
		commit(api, store.Create(pool("desk", "debian", 0, "lgwan", 3)))
		want("kvm1", wants("debian", "debian-1"))
		want("kvm2", wants("debian", "debian-1"))
		// A host that goes down keeps its list; one that is up follows the image.
		_, err := store.Modify(ctx, dispatch, "kvm2", func(h *v1.Host) error { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN; return nil })
		must(t, err)
		_, err = store.Modify(ctx, mine, "debian", func(i *v1.Image) error { i.Status.Current = 2; return nil })
		must(t, err)
		want("kvm1", wants("debian", "debian-2"))
		want("kvm2", wants("debian", "debian-1"))
		_, err = store.Modify(ctx, dispatch, "kvm2", func(h *v1.Host) error { h.Status.Phase = v1.HostPhase_HOST_PHASE_UP; return nil })
		must(t, err)
		want("kvm2", wants("debian", "debian-2"))
		cancel()
		for range 2 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}
