package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Trusted are the publishers whose bundles are taken in.
func (in *Intake) Trusted() *sign.Publishers {
	return in.trusted
}

// signatures are what a new version says of itself: ours first, and those of its origin that hold here too. A version that
// comes from elsewhere must have been signed there by a publisher whom this control plane trusts.
func (in *Intake) signatures(draft Draft, digest string) ([]*v1.Signature, error) {
	ours, err := in.key.Sign(draft.Image, digest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, store.ErrInvalid)
	}
	if draft.OriginImage == "" && len(draft.OriginSignatures) == 0 {
		return []*v1.Signature{ours}, nil
	}
	if err := in.trusted.Check(draft.OriginImage, digest, draft.OriginSignatures); err != nil {
		return nil, fmt.Errorf("%w: if you trust that publisher, give its key (\"daybreak publisher key\" prints it there) to daybreakd with "+
			"--trust-publisher-key: %w", err, ErrRefused)
	}
	return merge([]*v1.Signature{ours}, in.trusted.Valid(draft.Image, digest, draft.OriginSignatures)), nil
}

// again gives a version whose content was sent again the signatures that it lacks. If its content had been collected it is a
// draft anew. The image is written in any case: a collection that found the version old before its content was sent again must
// look again.
func (in *Intake) again(ctx context.Context, now time.Time, image string, known *v1.ImageVersion, signatures []*v1.Signature) (*v1.ImageVersion, error) {
	for attempt := 1; ; attempt++ {
		current, err := store.Get[*v1.Image](ctx, in.objects, image)
		if err != nil {
			return nil, err
		}
		changed := proto.CloneOf(current)
		v := store.Version(changed, known.GetNumber())
		switch {
		case v == nil:
			return nil, fmt.Errorf("version %d is gone: %w", known.GetNumber(), store.ErrNotFound)
		case v.GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN && v.GetCollected():
			return nil, fmt.Errorf("version %d has this content and was withdrawn: %w", v.GetNumber(), ErrRefused)
		case v.GetCollected():
			v.Collected = false
			setState(now, v, v1.VersionState_VERSION_STATE_DRAFT)
		}
		v.Signatures = merge(signatures, v.GetSignatures())
		_, err = in.objects.Commit(ctx, store.Update(changed))
		if err == nil {
			return v, nil
		}
		if !errors.Is(err, store.ErrConflict) || attempt == changeAttempts {
			return nil, fmt.Errorf("take version %d in again: %w", known.GetNumber(), err)
		}
	}
}

// merge puts more after first, each publisher once and as many as a version can carry.
func merge(first, more []*v1.Signature) []*v1.Signature {
	var merged []*v1.Signature
	for _, signature := range append(slices.Clone(first), more...) {
		again := slices.ContainsFunc(merged, func(s *v1.Signature) bool { return bytes.Equal(s.GetKey(), signature.GetKey()) })
		if !again && len(merged) < sign.MaxSignatures {
			merged = append(merged, signature)
		}
	}
	return merged
}
