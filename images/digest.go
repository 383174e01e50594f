package images

import (
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
)

// DigestBytes is the length of a digest.
const DigestBytes = 32

// Digest is a BLAKE3-256: of a chunk's plain bytes, or of a manifest's encoded bytes. The zero digest stands for a chunk
// of zeros only, which is stored nowhere.
type Digest [DigestBytes]byte

// Sum returns the digest of some bytes.
func Sum(data []byte) Digest {
	return blake3.Sum256(data)
}

// IsZero says whether the digest stands for zeros.
func (d Digest) IsZero() bool {
	return d == Digest{}
}

// String returns the digest as 64 lower-case hex digits.
func (d Digest) String() string {
	return hex.EncodeToString(d[:])
}

// ParseDigest reads what String wrote, and nothing else.
func ParseDigest(text string) (Digest, error) {
	var d Digest
	if len(text) != 2*DigestBytes {
		return d, fmt.Errorf("read digest %.80q: want %d hex digits: %w", text, 2*DigestBytes, ErrInvalid)
	}
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return d, fmt.Errorf("read digest %q: want lower-case hex digits: %w", text, ErrInvalid)
		}
	}
	if _, err := hex.Decode(d[:], []byte(text)); err != nil {
		return d, fmt.Errorf("read digest %q: %w", text, ErrInvalid)
	}
	return d, nil
}

// SplitDigests cuts digests that stand one after another, as they travel on the wire.
func SplitDigests(joined []byte) ([]Digest, error) {
	if len(joined)%DigestBytes != 0 {
		return nil, fmt.Errorf("split digests: %d bytes is not a multiple of %d: %w", len(joined), DigestBytes, ErrInvalid)
	}
	digests := make([]Digest, len(joined)/DigestBytes)
	for i := range digests {
		copy(digests[i][:], joined[i*DigestBytes:])
	}
	return digests, nil
}

// JoinDigests is the reverse of SplitDigests.
func JoinDigests(digests []Digest) []byte {
	joined := make([]byte, 0, len(digests)*DigestBytes)
	for i := range digests {
		joined = append(joined, digests[i][:]...)
	}
	return joined
}
