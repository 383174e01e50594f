package chunkstore

import (
	"context"
	"errors"
	"iter"
	"time"

	"daybreak/images"
)

var (
	// ErrForeign: the store belongs to another cluster.
	ErrForeign = errors.New("the image store belongs to another cluster")
	// ErrDenied: the store's server is there and does not let us do what we must; the message says what to set right.
	ErrDenied = errors.New("the image store cannot be used as it is set up")
	// ErrUnreachable: the store did not answer. What was asked for may have been done.
	ErrUnreachable = errors.New("the image store cannot be reached")
)

// Store is what the control plane takes chunks and manifests in with, and gives them out from. Dir and S3 are stores;
// storetest holds all of them to their contract.
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
	// PutManifest keeps a manifest whose chunks are all in the store; images.ErrIncomplete when some are not. From then on no
	// Remove with the same age, here or by another process, takes any of them away before it has passed, or an hour if that is
	// less: time in which the caller records who needs them.
	PutManifest(ctx context.Context, manifest *images.Manifest) error
	// GetManifest returns a manifest, or images.ErrNotFound; images.ErrCorrupt when it is damaged.
	GetManifest(ctx context.Context, digest images.Digest) (*images.Manifest, error)
	// List yields all that lies in the store, in no order. It ends with the first error.
	List(ctx context.Context) iter.Seq2[Item, error]
	// Remove removes those of the items that are at least so old now. What is not there is no error. It returns the bytes
	// that the store shrank by, also when it fails.
	Remove(ctx context.Context, items []Item, age time.Duration) (uint64, error)
	// Own writes down that the store is owner's when it is nobody's yet, and returns ErrForeign when it is another's: two clusters
	// that share a store would take each other's content for garbage.
	Own(ctx context.Context, owner string) error
}

// Item is a chunk or a manifest as it lies in a store.
type Item struct {
	Digest images.Digest
	// Manifest says that it is one, and not a chunk.
	Manifest bool
	// Bytes that it takes.
	Bytes uint64
	// Age since it was last written or renewed, by the store's own clock: those of the daybreakd may be wrong.
	Age time.Duration
}
