// Package images is the goods: what a golden image's version is made of. A version is content, the guest-visible bytes
// of a disk cut into chunks of 256 KiB; its manifest lists them, and the manifest's digest is the version's identity.
//
// Here: digests, the manifest and its strict reading, the sealed (compressed) form of a chunk and its check. In the
// folders: what a disk file is (inspect), making it a raw disk (convert), cutting that into chunks (pack), a file that carries
// one version (bundle), who vouches for it (sign), the way to a control plane and back (push), the store of chunks (chunkstore).
// Not here: servers, cluster state, the files that hosts make of chunks (hostagent/disk). Every room but proto may call it.
package images

import "errors"

// Sentinels.
var (
	// ErrCorrupt: content is not what its digest says, or no content at all.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrInvalid: bytes that are no manifest or no digest by the rules of this format.
	ErrInvalid = errors.New("not a valid image manifest")
	// ErrNotFound: the store has no such chunk or manifest.
	ErrNotFound = errors.New("not in the image store")
	// ErrIncomplete: a manifest names chunks that the store lacks.
	ErrIncomplete = errors.New("chunks are missing from the image store")
	// ErrFull: the store has no room for more.
	ErrFull = errors.New("no space left in the image store")
)

// Limits of the format.
const (
	// ChunkBytes is the size of every chunk but the last of a disk.
	ChunkBytes = 256 << 10
	// SectorBytes: a disk's size is a multiple of it.
	SectorBytes = 512
	// MaxDiskBytes is the largest disk, 1 TiB as in the proto: its manifest, which control plane and hosts hold in memory while
	// they read it, is 128 MiB then.
	MaxDiskBytes = 1 << 40
	// MaxManifestBytes bounds an encoded manifest.
	MaxManifestBytes = MaxDiskBytes/ChunkBytes*DigestBytes + 64
	// MaxSealedBytes bounds a chunk in its compressed form.
	MaxSealedBytes = 270000
)
