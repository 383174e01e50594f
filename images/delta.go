package images

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// A delta is a chunk's sealed form with the plain bytes of another chunk as zstd's raw dictionary. Where two versions of a
// disk differ by a few blocks in a chunk, it takes little more than those.
const (
	// deltaWindow reaches from the end of a chunk back to the begin of the other one.
	deltaWindow = 2 * ChunkBytes
	// deltaDictionary stands in the frame, so that nothing opens a delta without its dictionary by mistake.
	deltaDictionary = 1
)

// SealDelta compresses plain bytes against those of another chunk, into a new slice. It takes about 4 MiB of memory and a
// few milliseconds: the caller bounds how many run at once.
func SealDelta(plain, base []byte) ([]byte, error) {
	// The level above the fastest: the fastest loses the thread where the content does not compress by itself.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(deltaWindow), zstd.WithEncoderDictRaw(deltaDictionary, base))
	if err != nil {
		return nil, fmt.Errorf("make compressor: %w", err)
	}
	sealed := enc.EncodeAll(plain, make([]byte, 0, 8<<10))
	return sealed, enc.Close()
}

// OpenDelta is Open for a chunk that has a Base, whose plain bytes are given and checked by the caller: what comes out is
// checked against the chunk's own digest whatever they are.
func OpenDelta(buf []byte, chunk Chunk, base []byte) ([]byte, error) {
	if len(chunk.Sealed) > MaxSealedBytes || len(base) > ChunkBytes {
		return nil, fmt.Errorf("open delta of chunk %s: %d bytes on %d: %w", chunk.Digest, len(chunk.Sealed), len(base), ErrCorrupt)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(ChunkBytes),
		zstd.WithDecoderMaxWindow(deltaWindow), zstd.WithDecoderDictRaw(deltaDictionary, base))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	defer dec.Close()
	plain, err := dec.DecodeAll(chunk.Sealed, buf[:0])
	if err != nil {
		return nil, fmt.Errorf("open delta of chunk %s: %w: %w", chunk.Digest, err, ErrCorrupt)
	}
	if have := Sum(plain); have != chunk.Digest || len(plain) == 0 {
		return nil, fmt.Errorf("open delta of chunk %s: content has digest %s: %w", chunk.Digest, have, ErrCorrupt)
	}
	return plain, nil
}
