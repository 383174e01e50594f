package bundle

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// group is how many chunks are asked for at once.
const group = 64

// Source gives chunks out. images/push has one.
type Source interface {
	// Chunks calls take with each of the chunks, in any order. There are at most 64, none of them twice.
	Chunks(ctx context.Context, digests []images.Digest, take func(images.Chunk) error) error
}

// Progress is how far a bundle is written or read.
type Progress struct {
	// Chunks of Total.
	Chunks, Total int
	// Bytes of chunks in the file.
	Bytes uint64
	// Sent is the bytes of those that the control plane lacked.
	Sent uint64
}

// Write writes the version of the header as a bundle. since is the manifest of a version whose chunks are left out; nil
// leaves out nothing. Every chunk is checked before it is written, so that a bundle is never worse than its version. The
// header's since and chunks are filled in.
func Write(ctx context.Context, w io.Writer, codec *images.Codec, header *v1.BundleHeader, manifest, since *images.Manifest,
	from Source, progress func(Progress)) error {
	all := distinct(manifest)
	included, bitmap := pick(all, since)
	header = proto.CloneOf(header)
	header.Since, header.Chunks = "", uint64(len(included))
	if since != nil {
		header.Since = since.Digest().String()
	}
	if err := check(header, manifest); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(header)
	if err != nil {
		return fmt.Errorf("write bundle: encode header: %w", err)
	}
	out := &hashing{w: w, hash: blake3.New()}
	if _, err := io.WriteString(out, magic); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	for _, section := range [][]byte{encoded, manifest.Encoded(), bitmap} {
		if err := out.section(section); err != nil {
			return fmt.Errorf("write bundle: %w", err)
		}
	}
	if err := writeChunks(ctx, out, codec, included, from, progress); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	if _, err := w.Write(out.hash.Sum(nil)); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	return nil
}

// pick says which of the chunks go into the bundle.
func pick(all []images.Digest, since *images.Manifest) (included []images.Digest, bitmap []byte) {
	there := map[images.Digest]struct{}{}
	if since != nil {
		for digest := range since.Chunks() {
			there[digest] = struct{}{}
		}
	}
	bitmap = make([]byte, (len(all)+7)/8)
	for i, digest := range all {
		if _, known := there[digest]; !known {
			included = append(included, digest)
			bitmap[i/8] |= 1 << (i % 8)
		}
	}
	return included, bitmap
}

func writeChunks(ctx context.Context, out *hashing, codec *images.Codec, included []images.Digest, from Source, progress func(Progress)) error {
	at := Progress{Total: len(included)}
	var plain []byte
	for len(included) > 0 {
		asked := included[:min(len(included), group)]
		included = included[len(asked):]
		got := make(map[images.Digest][]byte, len(asked))
		err := from.Chunks(ctx, asked, func(chunk images.Chunk) (err error) {
			if plain, err = codec.Open(plain, chunk); err == nil {
				got[chunk.Digest] = chunk.Sealed
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, digest := range asked {
			sealed, ok := got[digest]
			if !ok {
				return fmt.Errorf("chunk %s was not given out: %w", digest, images.ErrNotFound)
			}
			if err := out.section(sealed); err != nil {
				return err
			}
			at.Chunks++
			at.Bytes += uint64(len(sealed))
		}
		if progress != nil {
			progress(at)
		}
	}
	return nil
}

// hashing writes, and keeps the digest of all that was written.
type hashing struct {
	w    io.Writer
	hash *blake3.Hasher
}

func (h *hashing) Write(data []byte) (int, error) {
	n, err := h.w.Write(data)
	_, _ = h.hash.Write(data[:n]) // never fails
	return n, err
}

// section writes the length of some bytes, and them.
func (h *hashing) section(data []byte) error {
	if _, err := h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(data)))); err != nil {
		return err
	}
	_, err := h.Write(data)
	return err
}
