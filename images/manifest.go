package images

import (
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
)

// Manifest is a version's content by digest: the message daybreak.v1.Manifest, read strictly and kept as the bytes it
// came in. Immutable, safe for concurrent use.
type Manifest struct {
	encoded []byte
	digest  Digest
	size    uint64
	chunks  []byte // within encoded
}

// Piece is one chunk's place on the disk.
type Piece struct {
	Index  int
	Offset int64
	// Length in bytes: ChunkBytes, less for the last piece only.
	Length int
	Digest Digest
}

// Zero says whether the piece holds zeros only: there is no chunk to fetch.
func (p Piece) Zero() bool {
	return p.Digest.IsZero()
}

// The numbers of daybreak.v1.Manifest's fields.
const (
	fieldFormat     = 1
	fieldSize       = 2
	fieldChunkBytes = 3
	fieldDigests    = 4

	manifestFormat = 1
)

// Parse reads an encoded manifest, and keeps the slice. Only the canonical encoding is taken, every field once and in
// order: one content has one manifest, and there is no room to hide anything in it. Errors wrap ErrInvalid.
//
// It is read by hand and not through the generated message so that a large manifest is not held twice.
func Parse(encoded []byte) (*Manifest, error) {
	if len(encoded) > MaxManifestBytes {
		return nil, fmt.Errorf("read manifest: %d bytes, more than %d: %w", len(encoded), MaxManifestBytes, ErrInvalid)
	}
	rest := encoded
	var format, size, chunkBytes uint64
	for _, field := range []struct {
		number protowire.Number
		into   *uint64
	}{{fieldFormat, &format}, {fieldSize, &size}, {fieldChunkBytes, &chunkBytes}} {
		value, after, err := takeVarint(rest, field.number)
		if err != nil {
			return nil, err
		}
		*field.into, rest = value, after
		if format != manifestFormat {
			return nil, fmt.Errorf("read manifest: format %d, this release reads %d: %w", format, manifestFormat, ErrInvalid)
		}
	}
	if chunkBytes != ChunkBytes {
		return nil, fmt.Errorf("read manifest: chunks of %d bytes, want %d: %w", chunkBytes, ChunkBytes, ErrInvalid)
	}
	if err := CheckSize(size); err != nil {
		return nil, fmt.Errorf("read manifest: %w: %w", err, ErrInvalid)
	}
	digests, err := takeDigests(rest, size)
	if err != nil {
		return nil, err
	}
	return &Manifest{encoded: encoded, digest: Sum(encoded), size: size, chunks: digests}, nil
}

// takeVarint takes a field of the given number, encoded as short as can be.
func takeVarint(data []byte, want protowire.Number) (uint64, []byte, error) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 || number != want || kind != protowire.VarintType || n != protowire.SizeTag(want) {
		return 0, nil, fmt.Errorf("read manifest: field %d is missing or not in its place: %w", want, ErrInvalid)
	}
	data = data[n:]
	value, n := protowire.ConsumeVarint(data)
	if n < 0 || n != protowire.SizeVarint(value) {
		return 0, nil, fmt.Errorf("read manifest: field %d is cut off or badly encoded: %w", want, ErrInvalid)
	}
	return value, data[n:], nil
}

// takeDigests takes the last field, which must be as long as the disk's size asks and end the message.
func takeDigests(data []byte, size uint64) ([]byte, error) {
	number, kind, n := protowire.ConsumeTag(data)
	if n < 0 || number != fieldDigests || kind != protowire.BytesType || n != protowire.SizeTag(fieldDigests) {
		return nil, fmt.Errorf("read manifest: field %d is missing or not in its place: %w", fieldDigests, ErrInvalid)
	}
	data = data[n:]
	length, n := protowire.ConsumeVarint(data)
	if n < 0 || n != protowire.SizeVarint(length) {
		return nil, fmt.Errorf("read manifest: field %d is cut off or badly encoded: %w", fieldDigests, ErrInvalid)
	}
	data = data[n:]
	if want := Count(size) * DigestBytes; length != uint64(want) || len(data) != want {
		return nil, fmt.Errorf("read manifest: %d bytes of digests and %d follow; a disk of %d bytes has %d: %w",
			length, len(data), size, want, ErrInvalid)
	}
	return data, nil
}

// NewManifest makes the manifest of a disk of size bytes from its chunks' digests, in order.
func NewManifest(size uint64, digests []Digest) (*Manifest, error) {
	if err := CheckSize(size); err != nil {
		return nil, fmt.Errorf("make manifest: %w: %w", err, ErrInvalid)
	}
	if want := Count(size); len(digests) != want {
		return nil, fmt.Errorf("make manifest: %d digests, a disk of %d bytes has %d: %w", len(digests), size, want, ErrInvalid)
	}
	encoded := make([]byte, 0, len(digests)*DigestBytes+64)
	encoded = protowire.AppendTag(encoded, fieldFormat, protowire.VarintType)
	encoded = protowire.AppendVarint(encoded, manifestFormat)
	encoded = protowire.AppendTag(encoded, fieldSize, protowire.VarintType)
	encoded = protowire.AppendVarint(encoded, size)
	encoded = protowire.AppendTag(encoded, fieldChunkBytes, protowire.VarintType)
	encoded = protowire.AppendVarint(encoded, ChunkBytes)
	encoded = protowire.AppendTag(encoded, fieldDigests, protowire.BytesType)
	encoded = protowire.AppendVarint(encoded, uint64(len(digests)*DigestBytes))
	for i := range digests {
		encoded = append(encoded, digests[i][:]...)
	}
	return Parse(encoded)
}

// CheckSize says what is wrong with the size of a disk, if anything is.
func CheckSize(size uint64) error {
	switch {
	case size == 0:
		return fmt.Errorf("the disk is empty")
	case size%SectorBytes != 0:
		return fmt.Errorf("the disk has %d bytes, which is not a multiple of %d", size, SectorBytes)
	case size > MaxDiskBytes:
		return fmt.Errorf("the disk has %d bytes, more than the %d (1 TiB) that a golden image may have", size, uint64(MaxDiskBytes))
	}
	return nil
}

// Count returns how many pieces a disk of size bytes has.
func Count(size uint64) int {
	return int((size + ChunkBytes - 1) / ChunkBytes)
}

// Encoded returns the bytes that are stored and sent. They must not be changed.
func (m *Manifest) Encoded() []byte {
	return m.encoded
}

// Digest is the version's identity.
func (m *Manifest) Digest() Digest {
	return m.digest
}

// Size is the size of the disk, bytes.
func (m *Manifest) Size() uint64 {
	return m.size
}

// Len is the number of pieces, zero ones included.
func (m *Manifest) Len() int {
	return len(m.chunks) / DigestBytes
}

// Piece returns the i-th piece, 0 ≤ i < Len.
func (m *Manifest) Piece(i int) Piece {
	p := Piece{Index: i, Offset: int64(i) * ChunkBytes, Length: ChunkBytes}
	p.Length = int(min(uint64(p.Length), m.size-uint64(p.Offset)))
	copy(p.Digest[:], m.chunks[i*DigestBytes:])
	return p
}

// Pieces yields all pieces in order, zero ones included.
func (m *Manifest) Pieces() iter.Seq[Piece] {
	return func(yield func(Piece) bool) {
		for i := range m.Len() {
			if !yield(m.Piece(i)) {
				return
			}
		}
	}
}

// Chunks yields the digest of every chunk that the disk needs, each once.
func (m *Manifest) Chunks() iter.Seq[Digest] {
	return func(yield func(Digest) bool) {
		seen := make(map[Digest]struct{}, m.Len())
		for p := range m.Pieces() {
			if _, again := seen[p.Digest]; again || p.Zero() {
				continue
			}
			seen[p.Digest] = struct{}{}
			if !yield(p.Digest) {
				return
			}
		}
	}
}
