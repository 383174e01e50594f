package rollout

import (
	"bytes"
	"context"
	"fmt"
	"slices"

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

// resign adds to a version that is there what it lacks of signatures.
func (in *Intake) resign(ctx context.Context, image string, known *v1.ImageVersion, signatures []*v1.Signature) (*v1.ImageVersion, error) {
	if !slices.ContainsFunc(signatures, func(s *v1.Signature) bool { return !has(known.GetSignatures(), s) }) {
		return known, nil
	}
	changed, err := store.Modify(ctx, in.objects, image, func(image *v1.Image) error {
		v := version(image, known.GetNumber())
		if v == nil {
			return fmt.Errorf("version %d is gone: %w", known.GetNumber(), store.ErrNotFound)
		}
		v.Signatures = merge(signatures, v.GetSignatures())
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sign version %d of image %s: %w", known.GetNumber(), image, err)
	}
	return version(changed, known.GetNumber()), nil
}

func has(signatures []*v1.Signature, one *v1.Signature) bool {
	return slices.ContainsFunc(signatures, func(s *v1.Signature) bool {
		return bytes.Equal(s.GetKey(), one.GetKey()) && bytes.Equal(s.GetSignature(), one.GetSignature())
	})
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
