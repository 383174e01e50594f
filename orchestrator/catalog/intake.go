package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxVersions is how many versions an image can have, as in its proto.
const maxVersions = 1000

// recordTime is how long a version may take from its manifest to its record. It and markAge are together less than what a
// store spares after a manifest was put, see chunkstore.Store.
const recordTime = 30 * time.Minute

// Intake takes versions in. Safe for concurrent use.
type Intake struct {
	objects *store.Store
	chunks  chunkstore.Store
	key     *sign.Key
	trusted *sign.Publishers
}

// NewIntake makes an Intake that writes objects as store.WriterRollout, keeps manifests beside their chunks, and signs with
// key. trusted are the publishers whose bundles it takes; nil for none but key itself.
func NewIntake(objects *store.Store, chunks chunkstore.Store, key *sign.Key, trusted *sign.Publishers) (*Intake, error) {
	all, err := sign.NewPublishers(append(trusted.Keys(), key.Public())...)
	if err != nil {
		return nil, fmt.Errorf("make intake: %w", err)
	}
	return &Intake{objects: objects, chunks: chunks, key: key, trusted: all}, nil
}

// Draft is a version to be.
type Draft struct {
	Image string
	Note  string
	// Parent is the number of the version it was made from, 0 for none.
	Parent uint32
	// By is who brings it.
	By string
	// Log is the digest of the chunk that holds the output of the patch, empty for none.
	Log string
	// Manifest as it was received.
	Manifest []byte
	// Tell has an event say that the version came. A build says more itself.
	Tell bool
	// OriginImage and OriginSignatures are those of a version out of a bundle: its image's name where it was published, and
	// what was said of it there. Empty for one that was made here.
	OriginImage      string
	OriginSignatures []*v1.Signature
}

// CreateVersion makes a draft version of an image, and the image if it is new. The chunks must be in the store. When the
// image has this content already it returns that version, and existed. Either way the version is signed afterwards, and its
// content is there. Errors wrap images.ErrInvalid, images.ErrIncomplete, images.ErrFull, ErrRefused, or the store's sentinels.
func (in *Intake) CreateVersion(ctx context.Context, now time.Time, draft Draft) (made *v1.ImageVersion, existed bool, err error) {
	made, existed, err = in.createVersion(ctx, now, draft)
	if err != nil {
		return nil, false, fmt.Errorf("create version of image %s: %w", draft.Image, err)
	}
	return made, existed, nil
}

func (in *Intake) createVersion(ctx context.Context, now time.Time, draft Draft) (made *v1.ImageVersion, existed bool, err error) {
	manifest, err := images.Parse(draft.Manifest)
	if err != nil {
		return nil, false, err
	}
	signatures, err := in.signatures(draft, manifest.Digest().String())
	if err != nil {
		return nil, false, err
	}
	// First the content, durably, then the object that promises it: soon, since garbage collection spares for a while only what
	// nothing names yet.
	ctx, cancel := context.WithTimeout(ctx, recordTime)
	defer cancel()
	if err := in.chunks.PutManifest(ctx, manifest); err != nil {
		return nil, false, err
	}
	before, err := in.image(ctx, draft.Image, draft.Parent)
	if err != nil {
		return nil, false, err
	}
	if known := byDigest(before, manifest.Digest()); known != nil {
		known, err := in.again(ctx, now, draft.Image, known, signatures)
		return known, true, err
	}
	stored, err := in.newBytes(ctx, before, manifest)
	if err != nil {
		return nil, false, err
	}
	version := &v1.ImageVersion{
		Digest: manifest.Digest().String(), SizeBytes: manifest.Size(), StoredBytes: stored, Parent: draft.Parent,
		State: v1.VersionState_VERSION_STATE_DRAFT, StateSince: timestamppb.New(now), Note: draft.Note, Created: timestamppb.New(now), By: draft.By,
		Signatures: signatures, Log: draft.Log,
	}
	image, err := in.add(ctx, now, draft, version)
	if err != nil {
		return nil, false, err
	}
	made = byDigest(image, manifest.Digest())
	return made, made.GetNumber() != version.GetNumber(), nil
}

// image returns the named image, and makes it when there is none, but not for what was made from one of its versions.
func (in *Intake) image(ctx context.Context, name string, parent uint32) (*v1.Image, error) {
	image, err := store.Get[*v1.Image](ctx, in.objects, name)
	if !errors.Is(err, store.ErrNotFound) {
		return image, err
	}
	if parent != 0 {
		return nil, fmt.Errorf("there is no image %s whose version %d could be the parent: %w", name, parent, ErrRefused)
	}
	_, err = in.objects.Commit(ctx, store.Create(&v1.Image{Meta: &v1.Meta{Name: name}}))
	if err != nil && !errors.Is(err, store.ErrExists) {
		return nil, fmt.Errorf("create image: %w", err)
	}
	return store.Get[*v1.Image](ctx, in.objects, name)
}

func byDigest(image *v1.Image, digest images.Digest) *v1.ImageVersion {
	for _, v := range image.GetStatus().GetVersions() {
		if v.GetDigest() == digest.String() {
			return v
		}
	}
	return nil
}

// add writes the version down, with the event that tells of it if one is to.
func (in *Intake) add(ctx context.Context, now time.Time, draft Draft, version *v1.ImageVersion) (*v1.Image, error) {
	if !draft.Tell {
		return store.Modify(ctx, in.objects, draft.Image, func(image *v1.Image) error { return addVersion(image, version) })
	}
	return change(ctx, in.objects, now, draft.Image, func(image *v1.Image) (notice, error) {
		err := addVersion(image, version)
		text := fmt.Sprintf("version %d is a draft, taken in from %s", version.GetNumber(), draft.By)
		if draft.Note != "" {
			text += ": " + draft.Note
		}
		return notice{reason: ReasonCreated, message: text}, err
	})
}

// addVersion gives draft the next number and adds it, unless its content is there. It may be called several times.
func addVersion(image *v1.Image, draft *v1.ImageVersion) error {
	versions := image.GetStatus().GetVersions()
	draft.Number = 1
	for _, v := range versions {
		if v.GetDigest() == draft.GetDigest() {
			draft.Number = 0 // somebody else was quicker with the same content
			return nil
		}
		draft.Number = max(draft.Number, v.GetNumber()+1)
	}
	switch {
	case image.GetMeta().GetDeletion() != nil:
		return fmt.Errorf("the image is being deleted: %w", ErrRefused)
	case len(versions) >= maxVersions:
		return fmt.Errorf("the image has %d versions, the most there can be; import into an image of another name: %w", maxVersions, ErrRefused)
	case draft.GetParent() != 0 && store.Version(image, draft.GetParent()) == nil:
		return fmt.Errorf("the image has no version %d that could be its parent: %w", draft.GetParent(), ErrRefused)
	}
	if image.Status == nil {
		image.Status = &v1.ImageStatus{}
	}
	image.Status.Versions = append(image.Status.Versions, proto.CloneOf(draft))
	return nil
}

// newBytes measures the chunks that no earlier version of the image has.
func (in *Intake) newBytes(ctx context.Context, image *v1.Image, manifest *images.Manifest) (uint64, error) {
	fresh := map[images.Digest]struct{}{}
	for digest := range manifest.Chunks() {
		fresh[digest] = struct{}{}
	}
	for _, v := range slices.Backward(image.GetStatus().GetVersions()) {
		if len(fresh) == 0 {
			break
		}
		if v.GetCollected() {
			continue
		}
		digest, err := images.ParseDigest(v.GetDigest())
		if err != nil {
			return 0, err
		}
		earlier, err := in.chunks.GetManifest(ctx, digest)
		if errors.Is(err, images.ErrNotFound) {
			continue // collected a moment ago
		}
		if err != nil {
			return 0, fmt.Errorf("read version %d: %w", v.GetNumber(), err)
		}
		for piece := range earlier.Pieces() {
			delete(fresh, piece.Digest)
		}
	}
	return in.chunks.Size(ctx, slices.Collect(maps.Keys(fresh)))
}
