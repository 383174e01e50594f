// Package pack cuts a raw disk into the chunks and the manifest of an image version.
//
// Here: walking the data of a sparse file, or what an overlay holds; hashing and compressing on all CPUs. Not here: where chunks go (a Sink says it),
// what a file is (images/inspect), making other formats raw (images/convert), the format of overlays (hostagent/disk). push,
// hostagent/build and tests call it.
package pack

import (
	"context"
	"errors"

	"daybreak/images"
)

// Sentinels.
var (
	// ErrNotRaw: the file is not a raw disk that can become a golden image. The message says what it is and what to do.
	ErrNotRaw = errors.New("not a raw disk")
	// ErrChanged: somebody wrote to the file while it was read.
	ErrChanged = errors.New("the file changed while it was read")
)

// Sink takes chunks in. images/push and chunkstore.Dir are sinks. It is called by several goroutines at once, with at
// most 64 digests or chunks.
type Sink interface {
	// Missing returns those of the digests that it wants.
	Missing(ctx context.Context, digests []images.Digest) ([]images.Digest, error)
	// Put keeps chunks and returns the bytes that the store grew by.
	Put(ctx context.Context, chunks []images.Chunk) (uint64, error)
}

// Progress is how far Disk has come, bytes of the disk.
type Progress struct {
	// Scanned of Size; holes count as scanned.
	Scanned, Size uint64
	// Read of them was read and hashed.
	Read uint64
	// Sent is compressed bytes that the sink did not have.
	Sent uint64
	// Stored is bytes that the store grew by.
	Stored uint64
}
