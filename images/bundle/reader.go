package bundle

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/zeebo/blake3"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// Reader reads a bundle from its beginning to its end. It trusts nothing in it, and holds one chunk and the manifest at a
// time, whatever the file claims. Whether the signatures hold is not its business.
type Reader struct {
	in       *bufio.Reader
	hash     *blake3.Hasher
	codec    *images.Codec
	header   *v1.BundleHeader
	manifest *images.Manifest
	// included are the chunks that are still to come.
	included []images.Digest
	leftOut  []images.Digest
	read     int
	plain    []byte
	done     bool
}

// NewReader reads all that stands before the chunks. Errors wrap ErrInvalid, or are the file's.
func NewReader(r io.Reader, codec *images.Codec) (*Reader, error) {
	b := &Reader{in: bufio.NewReaderSize(r, 1<<20), hash: blake3.New(), codec: codec}
	if err := b.start(); err != nil {
		return nil, fmt.Errorf("read bundle: %w", err)
	}
	return b, nil
}

func (b *Reader) start() error {
	begin := make([]byte, len(magic))
	n, err := io.ReadFull(b.in, begin)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	case string(begin[:n]) != magic:
		return fmt.Errorf("the file does not begin as a bundle does: %w", ErrInvalid)
	}
	b.hash.Write(begin)
	encoded, err := b.section("header", maxHeader)
	if err != nil {
		return err
	}
	if b.header, err = parseHeader(encoded); err != nil {
		return err
	}
	if encoded, err = b.section("manifest", images.MaxManifestBytes); err != nil {
		return err
	}
	if b.manifest, err = images.Parse(encoded); err != nil {
		return fmt.Errorf("%w: %w", err, ErrInvalid)
	}
	if err := check(b.header, b.manifest); err != nil {
		return err
	}
	all := distinct(b.manifest)
	bitmap, err := b.section("list of chunks", (len(all)+7)/8)
	if err != nil {
		return err
	}
	return b.take(all, bitmap)
}

// take sorts the chunks into those in the bundle and those left out.
func (b *Reader) take(all []images.Digest, bitmap []byte) error {
	count := 0
	for _, eight := range bitmap {
		count += bits.OnesCount8(eight)
	}
	unused := len(all)%8 != 0 && len(bitmap) > 0 && bitmap[len(bitmap)-1]>>(len(all)%8) != 0
	if len(bitmap) != (len(all)+7)/8 || unused || uint64(count) != b.header.GetChunks() {
		return fmt.Errorf("the list of chunks does not fit the manifest: %w", ErrInvalid)
	}
	for i, digest := range all {
		if bitmap[i/8]>>(i%8)&1 == 1 {
			b.included = append(b.included, digest)
		} else {
			b.leftOut = append(b.leftOut, digest)
		}
	}
	if len(b.leftOut) > 0 && b.header.GetSince() == "" {
		return fmt.Errorf("%d chunks are left out, and the header does not say since when: %w", len(b.leftOut), ErrInvalid)
	}
	return nil
}

// Header says which version it is.
func (b *Reader) Header() *v1.BundleHeader { return b.header }

// Manifest is the version's content.
func (b *Reader) Manifest() *images.Manifest { return b.manifest }

// Digests are the chunks that Next has not returned yet, in its order.
func (b *Reader) Digests() []images.Digest { return b.included }

// LeftOut are the chunks of the manifest that the bundle does not hold.
func (b *Reader) LeftOut() []images.Digest { return b.leftOut }

// Next returns the next chunk, checked. After the last one it checks the end of the file and returns io.EOF: only then the
// bundle is known to be whole. Errors wrap ErrInvalid, or are the file's.
func (b *Reader) Next() (images.Chunk, error) {
	if len(b.included) == 0 {
		if err := b.finish(); err != nil {
			return images.Chunk{}, err
		}
		return images.Chunk{}, io.EOF
	}
	sealed, err := b.section("chunk", images.MaxSealedBytes)
	if err != nil {
		return images.Chunk{}, fmt.Errorf("read bundle: chunk %d: %w", b.read+1, err)
	}
	chunk := images.Chunk{Digest: b.included[0], Sealed: sealed}
	if b.plain, err = b.codec.Open(b.plain, chunk); err != nil {
		return images.Chunk{}, fmt.Errorf("read bundle: chunk %d: %w: %w", b.read+1, err, ErrInvalid)
	}
	b.included = b.included[1:]
	b.read++
	return chunk, nil
}

func (b *Reader) finish() error {
	if b.done {
		return nil
	}
	want := b.hash.Sum(nil)
	have := make([]byte, len(want))
	if _, err := io.ReadFull(b.in, have); err != nil {
		return fmt.Errorf("read bundle: %w", short("last digest", err))
	}
	if !bytes.Equal(have, want) {
		return fmt.Errorf("read bundle: the file is damaged: its digest is not the one at its end: copy it again: %w", ErrInvalid)
	}
	switch _, err := b.in.ReadByte(); {
	case err == nil:
		return fmt.Errorf("read bundle: something follows the end of the bundle: %w", ErrInvalid)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("read bundle: %w", err)
	}
	b.done = true
	return nil
}

// section reads a length and as many bytes. What it takes of memory grows with what is really there.
func (b *Reader) section(name string, most int) ([]byte, error) {
	var prefix [4]byte
	if _, err := io.ReadFull(b.in, prefix[:]); err != nil {
		return nil, short(name, err)
	}
	length := int64(binary.BigEndian.Uint32(prefix[:]))
	if length > int64(most) {
		return nil, fmt.Errorf("a %s of %d bytes, at most %d: %w", name, length, most, ErrInvalid)
	}
	var data bytes.Buffer
	if _, err := io.CopyN(&data, b.in, length); err != nil {
		return nil, short(name, err)
	}
	b.hash.Write(prefix[:])
	b.hash.Write(data.Bytes())
	return data.Bytes(), nil
}

// short says what a file that ends too early lacks.
func short(name string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file ends before its %s does: it was cut off, copy it again: %w", name, ErrInvalid)
	}
	return err
}
