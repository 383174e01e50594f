package rollout_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator/rollout"
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
	pool := func(release *v1.Release, spec uint32) rollout.Users {
		return rollout.Users{Pools: []*v1.Pool{{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "debian", Version: spec}, Release: release}}}
	}
	for name, row := range map[string]struct {
		version  *v1.ImageVersion
		users    rollout.Users
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
			users: rollout.Users{Desktops: []*v1.Desktop{{Meta: &v1.Meta{Name: "sales-1"}, Incarnation: &v1.Incarnation{Image: "debian", Version: 1, Digest: digest(1)}}}}},
		"lived elsewhere": {version: v(withdrawn, 8*day), manifest: 90 * day,
			users: rollout.Users{Desktops: []*v1.Desktop{{Meta: &v1.Meta{Name: "other-1"}, Incarnation: &v1.Incarnation{Image: "copy", Version: 7, Digest: digest(1)}}}}},
		"staged": {version: v(withdrawn, 8*day), manifest: 90 * day,
			users: rollout.Users{Hosts: []*v1.Host{{WantedImages: []*v1.WantedImage{{Image: "debian", Digest: digest(1)}}}}}},
		"rolled out": {version: v(withdrawn, 8*day), manifest: 90 * day, users: rollout.Users{Rollouts: []*v1.Rollout{{
			Spec:   &v1.RolloutSpec{Pool: "sales", Image: "debian", FromVersion: 1, ToVersion: 2},
			Status: &v1.RolloutStatus{Phase: v1.RolloutPhase_ROLLOUT_PHASE_HALTED}}}}},
		"once rolled out": {version: v(withdrawn, 8*day), manifest: 90 * day, want: true, users: rollout.Users{Rollouts: []*v1.Rollout{{
			Spec:   &v1.RolloutSpec{Pool: "sales", Image: "debian", FromVersion: 1, ToVersion: 2},
			Status: &v1.RolloutStatus{Phase: v1.RolloutPhase_ROLLOUT_PHASE_DONE}}}}},
	} {
		h := rollout.Holdings{
			Images: []*v1.Image{{Meta: &v1.Meta{Name: "debian"}, Status: &v1.ImageStatus{Versions: []*v1.ImageVersion{row.version}, Current: row.current}}},
			Users:  row.users, Manifests: map[images.Digest]time.Duration{images.Sum([]byte("1")): row.manifest},
		}
		if got := len(rollout.Collectable(now, 7*day, h)["debian"]) == 1; got != row.want {
			t.Errorf("%s: collected %v, want %v", name, got, row.want)
		}
	}
}

// A store that is another cluster's, a grace too short, or a version whose manifest is lost: nothing is removed.
func TestCollectRefuses(t *testing.T) {
	h := newHouse(t)
	collector := rollout.NewCollector(h.chunks, "here", zerolog.Nop())
	if _, err := collector.Collect(t.Context(), h.objects, noon(), time.Minute, true); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a minute's grace: %v", err)
	}
	manifest, _ := h.disk(t, "ab")
	made, _, err := h.intake.CreateVersion(t.Context(), noon(), rollout.Draft{Image: "debian", Manifest: manifest})
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
	if _, err := collector.Collect(t.Context(), h.objects, noon(), rollout.MinGrace, false); !errors.Is(err, images.ErrNotFound) {
		t.Errorf("a lost manifest: %v", err)
	}
	if _, err := rollout.NewCollector(h.chunks, "elsewhere", zerolog.Nop()).Collect(t.Context(), h.objects, noon(), rollout.MinGrace, false); !errors.Is(err, chunkstore.ErrForeign) {
		t.Errorf("another's store: %v", err)
	}
}
