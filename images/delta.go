package images

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A delta is what a chunk has other than another chunk has at the same place: blocks do not move on disks. Sealed like a chunk,
// it is the chunk's length, a map with a bit for each part of 64 bytes, the lowest first, that is set where that differs, and
// those parts.
const (
	deltaMap  = 4
	deltaPart = 64
	// maxDeltaBytes is the most that a delta takes before it is sealed.
	maxDeltaBytes = deltaMap + ChunkBytes/deltaPart/8 + ChunkBytes
)

// SealDelta compresses what plain bytes have other than those of another chunk, into a new slice.
func (c *Codec) SealDelta(plain, base []byte) []byte {
	buf := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(buf)
	parts := (len(plain) + deltaPart - 1) / deltaPart
	content := binary.BigEndian.AppendUint32(*buf, uint32(len(plain)))
	content = append(content, make([]byte, (parts+7)/8)...)
	for n := range parts {
		from, to := n*deltaPart, min(n*deltaPart+deltaPart, len(plain))
		if to > len(base) || !bytes.Equal(plain[from:to], base[from:to]) {
			content[deltaMap+n/8] |= 1 << (n % 8)
			content = append(content, plain[from:to]...)
		}
	}
	return c.Seal(content)
}

// Diff makes the delta of one sealed chunk to another. It compares neither with its digest, as OpenDelta compares what comes out:
// damage of the base makes the delta larger or wrong, damage of the chunk makes it wrong. Errors wrap ErrCorrupt.
func (c *Codec) Diff(sealed, base []byte) ([]byte, error) {
	var plain [2][]byte
	for i, sealed := range [][]byte{sealed, base} {
		buf := c.scratch.Get().(*[]byte)
		defer c.scratch.Put(buf)
		var err error
		if plain[i], err = c.decompress(*buf, sealed); err != nil {
			return nil, fmt.Errorf("compare chunks: %w", err)
		}
		if len(plain[i]) == 0 || len(plain[i]) > ChunkBytes {
			return nil, fmt.Errorf("compare chunks: %d bytes: %w", len(plain[i]), ErrCorrupt)
		}
	}
	return c.SealDelta(plain[0], plain[1]), nil
}

// OpenDelta is Open for a chunk that has a Base, whose plain bytes are given and checked by the caller: what comes out is
// checked against the chunk's own digest whatever they are. buf must not be of their memory.
func (c *Codec) OpenDelta(buf []byte, chunk Chunk, base []byte) ([]byte, error) {
	refuse := func(what string) ([]byte, error) {
		return nil, fmt.Errorf("open delta of chunk %s: %s: %w", chunk.Digest, what, ErrCorrupt)
	}
	scratch := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(scratch)
	content, err := c.decompress(*scratch, chunk.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open delta of chunk %s: %w", chunk.Digest, err)
	}
	if len(content) < deltaMap {
		return refuse("it is cut off")
	}
	size := int(binary.BigEndian.Uint32(content))
	parts := (size + deltaPart - 1) / deltaPart
	if size == 0 || size > ChunkBytes || len(content) < deltaMap+(parts+7)/8 {
		return refuse(fmt.Sprintf("of %d bytes it makes %d", len(content), size))
	}
	plain, changed, rest := buf[:0], content[deltaMap:], content[deltaMap+(parts+7)/8:]
	for n := range parts {
		from, to := n*deltaPart, min(n*deltaPart+deltaPart, size)
		switch differs := changed[n/8]&(1<<(n%8)) != 0; {
		case differs && to-from > len(rest), !differs && to > len(base):
			return refuse(fmt.Sprintf("there is nothing for part %d", n))
		case differs:
			plain, rest = append(plain, rest[:to-from]...), rest[to-from:]
		default:
			plain = append(plain, base[from:to]...)
		}
	}
	if have := Sum(plain); have != chunk.Digest {
		return refuse(fmt.Sprintf("content has digest %s", have))
	}
	return plain, nil
}
