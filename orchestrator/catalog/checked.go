package catalog

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxCheck is how long what a check says may be, as in its proto, in characters.
const maxCheck = 256

// MarkChecked notes that a version passed its check: what came of it, and the digest of the chunk that lists the guest's
// packages, empty when they are not known. A draft is ready from then on; other states stay. Errors wrap the store's
// sentinels.
func (in *Intake) MarkChecked(ctx context.Context, now time.Time, image string, number uint32, check, packages string) (*v1.ImageVersion, error) {
	return in.mark(ctx, image, number, check, func(v *v1.ImageVersion) {
		v.CheckFailed = false
		if packages != "" {
			v.Packages = packages
		}
		if v.GetState() == v1.VersionState_VERSION_STATE_DRAFT {
			v.State, v.StateSince = v1.VersionState_VERSION_STATE_READY, timestamppb.New(now)
		}
	})
}

// MarkFailed notes why a version failed its check. With withdraw a draft is withdrawn, so that nothing ever runs it; what
// is published already is not taken from under its desktops by a check. Errors wrap the store's sentinels.
func (in *Intake) MarkFailed(ctx context.Context, now time.Time, image string, number uint32, why string, withdraw bool) (*v1.ImageVersion, error) {
	return in.mark(ctx, image, number, why, func(v *v1.ImageVersion) {
		v.CheckFailed = true
		if withdraw && v.GetState() == v1.VersionState_VERSION_STATE_DRAFT {
			v.State, v.StateSince = v1.VersionState_VERSION_STATE_WITHDRAWN, timestamppb.New(now)
		}
	})
}

func (in *Intake) mark(ctx context.Context, image string, number uint32, check string, change func(*v1.ImageVersion)) (*v1.ImageVersion, error) {
	marked, err := store.Modify(ctx, in.objects, image, func(image *v1.Image) error {
		v := store.Version(image, number)
		if v == nil {
			return fmt.Errorf("there is no such version: %w", store.ErrNotFound)
		}
		if v.GetCollected() {
			return fmt.Errorf("its content is no longer in the image store: %w", ErrRefused)
		}
		v.Check = store.Cut(check, maxCheck)
		change(v)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("note the check of version %d of image %s: %w", number, image, err)
	}
	return store.Version(marked, number), nil
}
