package catalog_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Each kind of version on its own: whether a collection takes it.
func TestCollectable(t *testing.T) {
	now, day := noon(), 24*time.Hour
	digest := func(n int) string { return images.Sum(fmt.Appendf(nil, "%d", n)).String() }
	v := func(state v1.VersionState, age time.Duration) *v1.ImageVersion {
		return &v1.ImageVersion{Number: 1, Digest: digest(1), State: state, Created: timestamppb.New(now.Add(-90 * day)), StateSince: timestamppb.New(now.Add(-age))}
	}
	draft, ready, retired, withdrawn := v1.VersionState_VERSION_STATE_DRAFT, v1.VersionState_VERSION_STATE_READY,
		v1.VersionState_VERSION_STATE_RETIRED, v1.VersionState_VERSION_STATE_WITHDRAWN
	pool := func(release *v1.Release, spec uint32) catalog.Users {
		return catalog.Users{Pools: []*v1.Pool{{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "debian", Version: spec}, Release: release}}}
	}
	for name, row := range map[string]struct {
		version  *v1.ImageVersion
		users    catalog.Users
		current  uint32
		manifest time.Duration
		want     bool
	}{
		"young draft":     {version: v(draft, day), manifest: 90 * day},
		"old draft":       {version: v(draft, 8*day), manifest: 90 * day, want: true},
		"sent again":      {version: v(draft, 8*day), manifest: day},
		"ready":           {version: v(ready, 80*day), manifest: 90 * day},
		"just retired":    {version: v(retired, day), manifest: 90 * day},
		"retired":         {version: v(retired, 8*day), manifest: 90 * day, want: true},
		"withdrawn":       {version: v(withdrawn, 8*day), manifest: 90 * day, want: true},
		"unknown state":   {version: v(17, 80*day), manifest: 90 * day},
		"current":         {version: v(withdrawn, 8*day), current: 1, manifest: 90 * day},
		"run":             {version: v(withdrawn, 8*day), users: pool(&v1.Release{Image: "debian", Version: 1}, 0), manifest: 90 * day},
		"moved to":        {version: v(withdrawn, 8*day), users: pool(&v1.Release{Image: "debian", Next: 1}, 0), manifest: 90 * day},
		"to go back to":   {version: v(withdrawn, 8*day), users: pool(&v1.Release{Image: "debian", Previous: 1}, 0), manifest: 90 * day},
		"asked for":       {version: v(withdrawn, 8*day), users: pool(nil, 1), manifest: 90 * day},
		"another image's": {version: v(withdrawn, 8*day), users: pool(&v1.Release{Image: "windows", Version: 1}, 0), manifest: 90 * day, want: true},
		"lived": {version: v(withdrawn, 8*day), manifest: 90 * day,
			users: catalog.Users{Desktops: []*v1.Desktop{{Meta: &v1.Meta{Name: "sales-1"}, Incarnation: &v1.Incarnation{Image: "debian", Version: 1, Digest: digest(1)}}}}},
		"lived elsewhere": {version: v(withdrawn, 8*day), manifest: 90 * day,
			users: catalog.Users{Desktops: []*v1.Desktop{{Meta: &v1.Meta{Name: "other-1"}, Incarnation: &v1.Incarnation{Image: "copy", Version: 7, Digest: digest(1)}}}}},
		"staged": {version: v(withdrawn, 8*day), manifest: 90 * day,
			users: catalog.Users{Hosts: []*v1.Host{{WantedImages: []*v1.WantedImage{{Image: "debian", Digest: digest(1)}}}}}},
		"rolled out": {version: v(withdrawn, 8*day), manifest: 90 * day, users: catalog.Users{Rollouts: []*v1.Rollout{{
			Spec:   &v1.RolloutSpec{Pool: "sales", Image: "debian", FromVersion: 1, ToVersion: 2},
			Status: &v1.RolloutStatus{Phase: v1.RolloutPhase_ROLLOUT_PHASE_HALTED}}}}},
		"once rolled out": {version: v(withdrawn, 8*day), manifest: 90 * day, want: true, users: catalog.Users{Rollouts: []*v1.Rollout{{
			Spec:   &v1.RolloutSpec{Pool: "sales", Image: "debian", FromVersion: 1, ToVersion: 2},
			Status: &v1.RolloutStatus{Phase: v1.RolloutPhase_ROLLOUT_PHASE_DONE}}}}},
	} {
		h := catalog.Holdings{
			Images: []*v1.Image{{Meta: &v1.Meta{Name: "debian"}, Status: &v1.ImageStatus{Versions: []*v1.ImageVersion{row.version}, Current: row.current}}},
			Users:  row.users, Manifests: map[images.Digest]time.Duration{images.Sum([]byte("1")): row.manifest},
		}
		if got := len(catalog.Collectable(now, 7*day, h)["debian"]) == 1; got != row.want {
			t.Errorf("%s: collected %v, want %v", name, got, row.want)
		}
	}
}

// A store that is another cluster's, a grace too short, or a version whose manifest is lost: nothing is removed.
func TestCollectRefuses(t *testing.T) {
	h := newHouse(t)
	collector := catalog.NewCollector(h.chunks, "here", zerolog.Nop())
	if _, err := collector.Collect(t.Context(), h.objects, noon(), time.Minute, true); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a minute's grace: %v", err)
	}
	manifest, _ := h.disk(t, "ab")
	made, _, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Manifest: manifest})
	if err != nil {
		t.Fatal(err)
	}
	digest, err := images.ParseDigest(made.GetDigest())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.chunks.Remove(t.Context(), []chunkstore.Item{{Digest: digest, Manifest: true}}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := collector.Collect(t.Context(), h.objects, noon(), catalog.MinGrace, false); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("a lost manifest: %v", err)
	}
	if _, err := catalog.NewCollector(h.chunks, "elsewhere", zerolog.Nop()).Collect(t.Context(), h.objects, noon(), catalog.MinGrace, false); !errors.Is(err, chunkstore.ErrForeign) {
		t.Errorf("another's store: %v", err)
	}
}

// On a real store: a dry run says what a collection then does, and what other versions need stays.
func TestCollect(t *testing.T) {
	h := newHouse(t)
	h.versions(t, 2) // "a" and "ab"
	manifest, sizes := h.disk(t, "ac")
	if _, _, err := h.intake.CreateVersion(t.Context(), noon(), catalog.Draft{Image: "debian", Manifest: manifest}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.intake.Retire(t.Context(), noon(), "debian", 1, false, ""); err != nil {
		t.Fatal(err)
	}
	collector := catalog.NewCollector(h.chunks, "here", zerolog.Nop())
	collect := func(now time.Time, dry bool) *v1.CollectGarbageResponse {
		t.Helper()
		did, err := collector.Collect(t.Context(), h.objects, now, 7*24*time.Hour, dry)
		if err != nil {
			t.Fatal(err)
		}
		return did
	}
	week := noon().Add(8 * 24 * time.Hour)
	if did := collect(week, false); len(did.GetVersions()) != 0 || did.GetBytes() != 0 {
		t.Errorf("what was written just now was collected: %v", did)
	}
	h.makeOld(t, 8*24*time.Hour)
	would := collect(week, true)
	did := collect(week, false)
	if diff := cmp.Diff(would, did, protocmp.Transform()); diff != "" {
		t.Errorf("a dry run and what was done (-would +did):\n%s", diff)
	}
	first := h.image(t).GetStatus().GetVersions()[0]
	want := &v1.CollectGarbageResponse{Versions: []string{"debian/1", "debian/3"}, Chunks: 1, KeptBytes: did.GetKeptBytes(),
		Bytes: sizes['c'] + uint64(len(manifest)) + manifestBytes(t, 1)}
	if diff := cmp.Diff(want, did, protocmp.Transform()); diff != "" || !first.GetCollected() {
		t.Errorf("collected (-want +got):\n%s\nversion 1: %v", diff, first)
	}
	// The same content again is a draft anew.
	again, _ := h.disk(t, "ac")
	v, existed, err := h.intake.CreateVersion(t.Context(), week, catalog.Draft{Image: "debian", Manifest: again})
	if err != nil || !existed || v.GetCollected() || v.GetState() != v1.VersionState_VERSION_STATE_DRAFT || v.GetNumber() != 3 {
		t.Errorf("CreateVersion of what was collected = %v, %v, %v", v, existed, err)
	}
	if _, err := h.intake.Publish(t.Context(), week, "debian", 1); !errors.Is(err, catalog.ErrRefused) {
		t.Errorf("Publish of what was collected: %v", err)
	}
}

// manifestBytes is how long the manifest of a disk of n chunks is.
func manifestBytes(t *testing.T, n int) uint64 {
	t.Helper()
	manifest, err := images.NewManifest(uint64(n)*images.ChunkBytes, make([]images.Digest, n))
	if err != nil {
		t.Fatal(err)
	}
	return uint64(len(manifest.Encoded()))
}

// makeOld sets the times of all files of the image store back.
func (h house) makeOld(t *testing.T, by time.Duration) {
	t.Helper()
	err := filepath.WalkDir(h.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		old := time.Now().Add(-by)
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
}
