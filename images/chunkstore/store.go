package chunkstore

import (
	"context"

	"daybreak/images"
)

// Store is what the control plane takes chunks and manifests in with, and gives them out from. Dir is one; storetest holds
// all of them to their contract.
type Store interface {
	// Missing returns those of the digests that have no chunk in the store, in their order. The zero digest needs none.
	Missing(ctx context.Context, digests []images.Digest) ([]images.Digest, error)
	// Put checks chunks against their digests and keeps those that are new, durably. It returns the bytes that the store grew by.
	// Errors wrap images.ErrCorrupt for a chunk that is not what it claims to be, images.ErrFull when there is no room.
	Put(ctx context.Context, chunks []images.Chunk) (uint64, error)
	// Get returns a sealed chunk, unchecked, or images.ErrNotFound.
	Get(ctx context.Context, digest images.Digest) ([]byte, error)
	// Size returns how many bytes the chunks take in the store in all; those that are not in it take none.
	Size(ctx context.Context, digests []images.Digest) (uint64, error)
	// PutManifest keeps a manifest whose chunks are all in the store; images.ErrIncomplete when some are not.
	PutManifest(ctx context.Context, manifest *images.Manifest) error
	// GetManifest returns a manifest, or images.ErrNotFound; images.ErrCorrupt when it is damaged.
	GetManifest(ctx context.Context, digest images.Digest) (*images.Manifest, error)
}
