package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/packages"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxChanges is how many packages a comparison names, as in its proto.
const maxChanges = 2000

// Comparer compares versions. Safe for concurrent use.
type Comparer struct {
	objects *store.Store
	chunks  chunkstore.Store
	codec   *images.Codec
}

// NewComparer makes a Comparer.
func NewComparer(objects *store.Store, chunks chunkstore.Store, codec *images.Codec) *Comparer {
	return &Comparer{objects: objects, chunks: chunks, codec: codec}
}

// Diff says what differs between two versions of an image. Errors wrap ErrRefused when the content of one was collected, or
// the store's sentinels.
func (c *Comparer) Diff(ctx context.Context, image string, from, to uint32) (*v1.DiffResponse, error) {
	response, err := c.diff(ctx, image, from, to)
	if err != nil {
		return nil, fmt.Errorf("compare versions %d and %d of image %s: %w", from, to, image, err)
	}
	return response, nil
}

func (c *Comparer) diff(ctx context.Context, name string, from, to uint32) (*v1.DiffResponse, error) {
	image, err := store.Get[*v1.Image](ctx, c.objects, name)
	if err != nil {
		return nil, err
	}
	older, before, err := c.manifest(ctx, image, from)
	if err != nil {
		return nil, err
	}
	newer, after, err := c.manifest(ctx, image, to)
	if err != nil {
		return nil, err
	}
	response := changedBytes(before, after)
	fresh := map[images.Digest]struct{}{}
	for digest := range after.Chunks() {
		fresh[digest] = struct{}{}
	}
	for piece := range before.Pieces() {
		delete(fresh, piece.Digest)
	}
	if response.NewBytes, err = c.chunks.Size(ctx, slices.Collect(maps.Keys(fresh))); err != nil {
		return nil, err
	}
	return response, c.comparePackages(ctx, older, newer, response)
}

func (c *Comparer) manifest(ctx context.Context, image *v1.Image, number uint32) (*v1.ImageVersion, *images.Manifest, error) {
	v := store.Version(image, number)
	switch {
	case v == nil:
		return nil, nil, fmt.Errorf("there is no version %d: %w", number, store.ErrNotFound)
	case v.GetCollected():
		return nil, nil, fmt.Errorf("the content of version %d is no longer in the image store: %w", number, ErrRefused)
	}
	digest, err := images.ParseDigest(v.GetDigest())
	if err != nil {
		return nil, nil, err
	}
	manifest, err := c.chunks.GetManifest(ctx, digest)
	return v, manifest, err
}

// changedBytes compares two disks place by place.
func changedBytes(before, after *images.Manifest) *v1.DiffResponse {
	response := &v1.DiffResponse{}
	for i := range max(before.Len(), after.Len()) {
		var piece images.Piece
		if i < before.Len() {
			piece = before.Piece(i)
		}
		if i < after.Len() {
			was := piece
			piece = after.Piece(i)
			if was.Length == piece.Length && was.Digest == piece.Digest {
				continue
			}
		}
		response.ChangedChunks++
		response.ChangedBytes += uint64(piece.Length)
	}
	return response
}

// comparePackages adds what differs in the lists of packages, when both are known.
func (c *Comparer) comparePackages(ctx context.Context, older, newer *v1.ImageVersion, response *v1.DiffResponse) error {
	before, err := c.packages(ctx, older)
	if before == nil || err != nil {
		return err
	}
	after, err := c.packages(ctx, newer)
	if after == nil || err != nil {
		return err
	}
	response.PackagesKnown = true
	for _, change := range packages.Diff(before, after) {
		if len(response.Packages) == maxChanges {
			break
		}
		response.Packages = append(response.Packages, &v1.PackageChange{Name: change.Name, Before: change.Before, After: change.After})
	}
	return nil
}

// packages reads a version's list of packages; nil when there is none.
func (c *Comparer) packages(ctx context.Context, v *v1.ImageVersion) (packages.List, error) {
	digest, err := images.ParseDigest(v.GetPackages())
	if err != nil {
		return nil, nil // not known
	}
	sealed, err := c.chunks.Get(ctx, digest)
	if err == nil {
		var text []byte
		if text, err = c.codec.Open(nil, images.Chunk{Digest: digest, Sealed: sealed}); err == nil {
			return packages.Parse(text), nil
		}
	}
	if errors.Is(err, images.ErrNotFound) || errors.Is(err, images.ErrCorrupt) {
		return nil, nil // a list that was lost is not known
	}
	return nil, err
}
