package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/reconcile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxWanted is how many versions a host can be told to hold, as in its proto.
const maxWanted = 256

// Staging keeps Host.wanted_images: what desktops of a host's zones may need tomorrow is fetched today.
type Staging struct {
	mirror *store.Mirror
	log    zerolog.Logger
}

// NewStaging makes a Staging. mirror has hosts, pools and images at least, and runs beside it.
func NewStaging(mirror *store.Mirror, log zerolog.Logger) *Staging {
	return &Staging{mirror: mirror, log: log}
}

// Run stages until ctx ends and returns nil then. st is opened for WriterRollout and guarded by leadership.
func (s *Staging) Run(ctx context.Context, st *store.Store) error {
	loop := reconcile.New("staging", s.log, func(ctx context.Context, host string) (time.Duration, error) {
		return 0, s.stage(ctx, st, host)
	})
	cancel := s.mirror.Subscribe(func(before, after *store.View, changed []store.Ref) {
		loop.Add(concerned(before, after, changed)...)
	})
	defer cancel()
	return loop.Run(ctx)
}

// concerned names the hosts whose list may be another now.
func concerned(before, after *store.View, changed []store.Ref) []string {
	var hosts []string
	for _, ref := range changed {
		switch ref.Kind {
		case v1.Kind_KIND_HOST:
			hosts = append(hosts, ref.Name)
		case v1.Kind_KIND_POOL, v1.Kind_KIND_IMAGE:
			if before != nil && ref.Kind == v1.Kind_KIND_POOL && sameWish(before, after, ref.Name) {
				continue
			}
			hosts = nil
			for _, host := range store.All[*v1.Host](after) {
				hosts = append(hosts, host.GetMeta().GetName())
			}
			return hosts
		}
	}
	return hosts
}

// sameWish says whether a pool only counted its desktops anew.
func sameWish(before, after *store.View, name string) bool {
	was, old := store.Lookup[*v1.Pool](before, name)
	is, now := store.Lookup[*v1.Pool](after, name)
	return old && now && proto.Equal(was.GetSpec(), is.GetSpec()) && proto.Equal(was.GetRelease(), is.GetRelease()) &&
		(was.GetMeta().GetDeletion() == nil) == (is.GetMeta().GetDeletion() == nil)
}

func (s *Staging) stage(ctx context.Context, st *store.Store, name string) error {
	view := s.mirror.View()
	host, ok := store.Lookup[*v1.Host](view, name)
	if !ok {
		return nil
	}
	wanted, left := Wanted(host, store.All[*v1.Pool](view), func(image string) *v1.Image {
		found, _ := store.Lookup[*v1.Image](view, image)
		return found
	})
	if left > 0 {
		s.log.Warn().Str("host", name).Int("left", left).Msg("more versions in use than a host can hold ahead")
	}
	if slices.EqualFunc(wanted, host.GetWantedImages(), func(a, b *v1.WantedImage) bool { return proto.Equal(a, b) }) {
		return nil
	}
	changed := proto.CloneOf(host)
	changed.WantedImages = wanted
	revision, err := st.Commit(ctx, store.Update(changed))
	if err != nil {
		return fmt.Errorf("stage images on host %s: %w", name, err)
	}
	_, err = s.mirror.Wait(ctx, revision)
	return err
}

// Wanted decides which versions a host shall hold: those that desktops of pools in its zones run, move to, or would go
// back to. A host that is not up keeps its list, since nothing can be fetched there, and its agent must find it unchanged
// when it is back. left counts the versions that found no room in the list.
func Wanted(host *v1.Host, pools []*v1.Pool, image func(name string) *v1.Image) (wanted []*v1.WantedImage, left int) {
	if host.GetStatus().GetPhase() != v1.HostPhase_HOST_PHASE_UP {
		return host.GetWantedImages(), 0
	}
	// What is run or is to be run goes before what one could go back to.
	for _, needs := range []func(*v1.Pool, *v1.Image) []uint32{ahead, behind} {
		for _, pool := range pools {
			spec := pool.GetSpec()
			if pool.GetMeta().GetDeletion() != nil || spec.GetDesktops() == 0 || !slices.Contains(host.GetStatus().GetZones(), spec.GetZone()) {
				continue
			}
			of := image(spec.GetImage())
			for _, number := range needs(pool, of) {
				wanted, left = want(wanted, left, spec.GetImage(), store.Runnable(of, number))
			}
		}
	}
	return wanted, left
}

// want adds a version to the list, unless it may not be run, is there, or finds no room.
func want(wanted []*v1.WantedImage, left int, image string, v *v1.ImageVersion) ([]*v1.WantedImage, int) {
	again := slices.ContainsFunc(wanted, func(w *v1.WantedImage) bool { return w.GetDigest() == v.GetDigest() })
	switch {
	case v == nil || again:
		return wanted, left
	case len(wanted) == maxWanted:
		return wanted, left + 1
	}
	return append(wanted, &v1.WantedImage{Image: image, Digest: v.GetDigest(), Signatures: v.GetSignatures()}), left
}

// ahead are the versions that a pool runs, moves to, and should run.
func ahead(pool *v1.Pool, image *v1.Image) []uint32 {
	return append(released(pool, (*v1.Release).GetVersion, (*v1.Release).GetNext), store.WantedVersion(pool, image))
}

// behind is the version that a pool ran before.
func behind(pool *v1.Pool, _ *v1.Image) []uint32 {
	return released(pool, (*v1.Release).GetPrevious)
}

// released are versions that a pool's release names, none if it speaks of another image.
func released(pool *v1.Pool, fields ...func(*v1.Release) uint32) []uint32 {
	var numbers []uint32
	for _, field := range fields {
		if r := pool.GetRelease(); r.GetImage() == pool.GetSpec().GetImage() {
			numbers = append(numbers, field(r))
		}
	}
	return numbers
}
