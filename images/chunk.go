package images

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Chunk is a piece's content as it is stored and sent.
type Chunk struct {
	Digest Digest
	// Sealed is one zstd frame of the plain bytes.
	Sealed []byte
	// Base is zero, or the chunk to which Sealed is a delta: see OpenDelta.
	Base Digest
}

// Codec seals and opens chunks. It holds the compressor's and decompressor's memory: make one, share it. Safe for
// concurrent use by as many goroutines as there are CPUs; more wait for each other.
type Codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
	// scratch is memory for what is not returned: *[]byte of no bytes, with room for a delta's content.
	scratch sync.Pool
}

// OpenBytes is the capacity of a buffer that Open and OpenDelta are fastest with: room for any chunk, and a little behind it that
// the decompressor may scribble on, without which it watches its step at every copy.
const OpenBytes = ChunkBytes + decoderSlack

const decoderSlack = 64

// NewCodec makes a Codec.
func NewCodec() (*Codec, error) {
	// No CRC, since the digest says more. The fastest level: on the files of a Debian system the next one takes nearly
	// twice the time to save a twentieth of the space.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(ChunkBytes), zstd.WithSingleSegment(true))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxDeltaBytes),
		zstd.WithDecoderMaxWindow(maxDeltaBytes))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	c := &Codec{enc: enc, dec: dec}
	c.scratch.New = func() any { return new(make([]byte, 0, maxDeltaBytes+decoderSlack)) }
	return c, nil
}

// Seal compresses plain bytes into a new slice.
func (c *Codec) Seal(plain []byte) []byte {
	buf := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(buf)
	return bytes.Clone(c.enc.EncodeAll(plain, *buf))
}

// Open decompresses a sealed chunk, into buf's memory if its capacity suffices, and checks it against its digest.
// Whatever the frame claims, it takes hardly more memory than a chunk can have. Errors wrap ErrCorrupt.
func (c *Codec) Open(buf []byte, chunk Chunk) ([]byte, error) {
	if !chunk.Base.IsZero() {
		return nil, fmt.Errorf("open chunk %s: it is a delta to %s: %w", chunk.Digest, chunk.Base, ErrCorrupt)
	}
	plain, err := c.decompress(buf[:0], chunk.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open chunk %s: %w", chunk.Digest, err)
	}
	if have := Sum(plain); have != chunk.Digest || len(plain) == 0 || len(plain) > ChunkBytes {
		return nil, fmt.Errorf("open chunk %s: %d bytes have digest %s: %w", chunk.Digest, len(plain), have, ErrCorrupt)
	}
	return plain, nil
}

// decompress appends what was compressed to buf. Errors wrap ErrCorrupt.
func (c *Codec) decompress(buf, sealed []byte) ([]byte, error) {
	if len(sealed) > MaxSealedBytes {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", len(sealed), MaxSealedBytes, ErrCorrupt)
	}
	plain, err := c.dec.DecodeAll(sealed, buf)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrCorrupt)
	}
	return plain, nil
}

// OpenPiece opens the chunk of a piece and checks its length too. Zero pieces have no chunk.
func (c *Codec) OpenPiece(buf []byte, piece Piece, sealed []byte) ([]byte, error) {
	plain, err := c.Open(buf, Chunk{Digest: piece.Digest, Sealed: sealed})
	if err != nil {
		return nil, err
	}
	if len(plain) != piece.Length {
		return nil, fmt.Errorf("open chunk %s: %d bytes where the disk has %d: %w", piece.Digest, len(plain), piece.Length, ErrCorrupt)
	}
	return plain, nil
}

// AllZero says whether plain bytes are zeros only.
func AllZero(plain []byte) bool {
	// Comparing the bytes with themselves one further is as fast as memcmp is.
	return len(plain) == 0 || plain[0] == 0 && bytes.Equal(plain[1:], plain[:len(plain)-1])
}
