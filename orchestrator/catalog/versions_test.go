package catalog_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/images"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// versions makes an image of n published versions, of which the last is current.
func (h house) versions(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		manifest, _ := h.disk(t, "abcdefgh"[:i+1])
		if _, _, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Manifest: manifest}); err != nil {
			t.Fatal(err)
		}
		if _, err := h.intake.Publish(t.Context(), noon(), "debian", uint32(i+1)); err != nil {
			t.Fatal(err)
		}
	}
}

func (h house) pool(t *testing.T, release *v1.Release) {
	t.Helper()
	pool := &v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "debian", Zone: "office", Desktops: 2}}
	if _, err := h.api.Commit(t.Context(), store.Create(pool)); err != nil {
		t.Fatal(err)
	}
	_, err := store.Modify(t.Context(), h.objects, "sales", func(pool *v1.Pool) error {
		pool.Release = release
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (h house) image(t *testing.T) *v1.Image {
	t.Helper()
	image, err := store.Get[*v1.Image](t.Context(), h.objects, "debian")
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// TestPublishRefusesWhatFailedItsCheck until a later check passes.
func TestPublishRefusesWhatFailedItsCheck(t *testing.T) {
	h := newHouse(t)
	manifest, _ := h.disk(t, "a")
	if _, _, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Manifest: manifest}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.intake.MarkFailed(t.Context(), noon(), "debian", 1, "the guest never answered", false); err != nil {
		t.Fatal(err)
	}
	if _, err := h.intake.Publish(t.Context(), noon(), "debian", 1); !errors.Is(err, catalog.ErrRefused) || !strings.Contains(err.Error(), "never answered") {
		t.Errorf("Publish of what failed its check: %v", err)
	}
	if _, err := h.intake.MarkChecked(t.Context(), noon(), "debian", 1, "well", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := h.intake.Publish(t.Context(), noon(), "debian", 1); err != nil {
		t.Errorf("Publish of what passed a later check: %v", err)
	}
}

func TestRetire(t *testing.T) {
	h := newHouse(t)
	h.versions(t, 4)
	h.pool(t, &v1.Release{Image: "debian", Version: 4, Previous: 3})
	later := noon().Add(time.Hour)
	for _, number := range []uint32{4, 3} {
		_, err := h.intake.Retire(t.Context(), later, "debian", number, false, "")
		if !errors.Is(err, catalog.ErrRefused) || !strings.Contains(err.Error(), "in use by pool sales") {
			t.Errorf("Retire of version %d, which is used: %v", number, err)
		}
	}
	if _, err := h.intake.Retire(t.Context(), later, "debian", 9, false, ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Retire of no version: %v", err)
	}
	v, err := h.intake.Retire(t.Context(), later, "debian", 2, false, "")
	if err != nil || v.GetState() != v1.VersionState_VERSION_STATE_RETIRED || !v.GetStateSince().AsTime().Equal(later) {
		t.Errorf("Retire = %v, %v", v, err)
	}
	// Withdrawing asks nobody. The newest ready version that is older is current then: 2 is retired, and 4 goes first.
	if _, err := h.intake.Retire(t.Context(), later, "debian", 4, true, "it does not print"); err != nil {
		t.Error(err)
	}
	if current := h.image(t).GetStatus().GetCurrent(); current != 3 {
		t.Errorf("version %d is current, want 3", current)
	}
	if _, err := h.intake.Retire(t.Context(), later, "debian", 4, false, ""); !errors.Is(err, catalog.ErrRefused) {
		t.Errorf("Retire of one that is withdrawn: %v", err)
	}
	if _, err := h.intake.Retire(t.Context(), later, "debian", 3, true, ""); err != nil {
		t.Error(err)
	}
	if _, err := h.intake.Retire(t.Context(), later, "debian", 1, true, ""); err != nil {
		t.Error(err)
	}
	if current := h.image(t).GetStatus().GetCurrent(); current != 0 {
		t.Errorf("version %d is current, and none is ready", current)
	}
	events, _, err := store.List[*v1.Event](t.Context(), h.objects)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, event := range events {
		count[event.GetReason()]++
	}
	if count[catalog.ReasonPublished] != 4 || count[catalog.ReasonRetired] != 1 || count[catalog.ReasonWithdrawn] != 3 {
		t.Errorf("events %v", count)
	}
}

// late is a backend in which somebody else commits just before the first commit of an image.
type late struct {
	store.Backend
	before func()
}

func (l *late) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	if before := l.before; before != nil {
		l.before = nil
		before()
	}
	return l.Backend.Commit(ctx, guard, ops)
}

// A pool that begins to use a version after Retire has looked for users is seen all the same.
func TestRetireRace(t *testing.T) {
	h := newHouse(t)
	h.versions(t, 2)
	h.pool(t, &v1.Release{Image: "debian", Version: 2})
	backend := &late{Backend: h.backend}
	intake, err := catalog.NewIntake(store.Open(backend, store.WriterRollout), h.chunks, h.key, nil)
	if err != nil {
		t.Fatal(err)
	}
	backend.before = func() {
		pool, err := store.Get[*v1.Pool](t.Context(), h.objects, "sales")
		if err != nil {
			t.Error(err)
		}
		changed := proto.CloneOf(pool)
		changed.Release = &v1.Release{Image: "debian", Version: 2, Next: 1}
		if _, err := h.objects.Commit(t.Context(), store.Update(changed), store.Update(h.image(t))); err != nil {
			t.Error(err)
		}
	}
	if _, err := intake.Retire(t.Context(), noon(), "debian", 1, false, ""); !errors.Is(err, catalog.ErrRefused) {
		t.Errorf("Retire: %v", err)
	}
	if backend.before != nil {
		t.Error("nobody came in between")
	}
}

func TestUsage(t *testing.T) {
	h := newHouse(t)
	h.versions(t, 3)
	image := h.image(t)
	digest := image.GetStatus().GetVersions()[1].GetDigest()
	desktop := func(name string, version uint32) *v1.Desktop {
		return &v1.Desktop{Meta: &v1.Meta{Name: name}, Incarnation: &v1.Incarnation{Image: "debian", Version: version}}
	}
	host := func(name string, images ...string) *v1.Host {
		return &v1.Host{Meta: &v1.Meta{Name: name}, Status: &v1.HostStatus{Images: images}}
	}
	usage := catalog.Usage(image, catalog.Users{
		Pools: []*v1.Pool{
			{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "debian"}, Release: &v1.Release{Image: "debian", Version: 2, Next: 3}},
			{Meta: &v1.Meta{Name: "new"}, Spec: &v1.PoolSpec{Image: "debian"}},
			{Meta: &v1.Meta{Name: "else"}, Spec: &v1.PoolSpec{Image: "windows", Version: 1}},
		},
		Desktops: []*v1.Desktop{desktop("sales-2", 2), desktop("sales-1", 2), desktop("sales-3", 1)},
		Hosts:    []*v1.Host{host("kvm2", digest), host("kvm1", digest, images.Sum(nil).String()), host("kvm3")},
	})
	for i, want := range []*v1.VersionUsage{
		{Number: 1, Desktops: 1, DesktopNames: []string{"sales-3"}},
		{Number: 2, Pools: []string{"sales"}, Desktops: 2, DesktopNames: []string{"sales-1", "sales-2"}, Hosts: []string{"kvm1", "kvm2"}},
		{Number: 3, Pools: []string{"new", "sales"}},
	} {
		if !proto.Equal(usage[i], want) {
			t.Errorf("got %v, want %v", usage[i], want)
		}
	}
}

// The list of packages of a version is a chunk; one that is lost is not known.
func TestDiff(t *testing.T) {
	h := newHouse(t)
	h.versions(t, 3)
	compare := catalog.NewComparer(h.objects, h.chunks, h.codec)
	got, err := compare.Diff(t.Context(), "debian", 1, 3)
	if err != nil || got.GetChangedChunks() != 2 || got.GetChangedBytes() != 2*images.ChunkBytes || got.GetPackagesKnown() || got.GetNewBytes() == 0 {
		t.Errorf("Diff = %v, %v", got, err)
	}
	back, err := compare.Diff(t.Context(), "debian", 3, 1)
	if err != nil || back.GetChangedChunks() != 2 || back.GetNewBytes() != 0 {
		t.Errorf("Diff backwards = %v, %v", back, err)
	}
	for number, list := range map[uint32]string{1: "bash 5.1\nzsh 5.9\n", 3: "bash 5.2\nzsh 5.9\n", 2: "lost"} {
		chunk := images.Chunk{Digest: images.Sum([]byte(list)), Sealed: h.codec.Seal([]byte(list))}
		if number != 2 {
			if _, err := h.chunks.Put(t.Context(), []images.Chunk{chunk}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.intake.MarkChecked(t.Context(), noon(), "debian", number, "it boots", chunk.Digest.String()); err != nil {
			t.Fatal(err)
		}
	}
	got, err = compare.Diff(t.Context(), "debian", 1, 3)
	want := []*v1.PackageChange{{Name: "bash", Before: "5.1", After: "5.2"}}
	if err != nil || !got.GetPackagesKnown() || !slices.EqualFunc(got.GetPackages(), want, func(a, b *v1.PackageChange) bool { return proto.Equal(a, b) }) {
		t.Errorf("Diff = %v, %v", got, err)
	}
	if got, err = compare.Diff(t.Context(), "debian", 1, 2); err != nil || got.GetPackagesKnown() {
		t.Errorf("Diff with a list that is lost = %v, %v", got, err)
	}
	if _, err := compare.Diff(t.Context(), "debian", 1, 9); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Diff with no version: %v", err)
	}
}
