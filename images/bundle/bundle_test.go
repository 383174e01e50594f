package bundle_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zeebo/blake3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images"
	"daybreak/images/bundle"
	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

// shop is a store in memory, with a publisher.
type shop struct {
	t      testing.TB
	codec  *images.Codec
	key    *sign.Key
	chunks map[images.Digest][]byte
}

func newShop(t testing.TB) *shop {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return &shop{t: t, codec: codec, key: key, chunks: map[images.Digest][]byte{}}
}

// version makes a disk whose i-th chunk is filled with the i-th byte; 0 makes a hole, and the last chunk is one sector.
func (s *shop) version(fill string) *images.Manifest {
	s.t.Helper()
	var digests []images.Digest
	for i, b := range []byte(fill) {
		size := images.ChunkBytes
		if i == len(fill)-1 {
			size = images.SectorBytes
		}
		if b == '0' {
			digests = append(digests, images.Digest{})
			continue
		}
		plain := bytes.Repeat([]byte{b}, size)
		digest := images.Sum(plain)
		s.chunks[digest] = s.codec.Seal(plain)
		digests = append(digests, digest)
	}
	manifest, err := images.NewManifest(uint64(len(fill)-1)*images.ChunkBytes+images.SectorBytes, digests)
	if err != nil {
		s.t.Fatal(err)
	}
	return manifest
}

// Chunks implements bundle.Source, backwards.
func (s *shop) Chunks(_ context.Context, digests []images.Digest, take func(images.Chunk) error) error {
	for _, digest := range slices.Backward(digests) {
		if sealed, ok := s.chunks[digest]; ok {
			if err := take(images.Chunk{Digest: digest, Sealed: sealed}); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *shop) header(manifest *images.Manifest) *v1.BundleHeader {
	s.t.Helper()
	signature, err := s.key.Sign("debian", manifest.Digest().String())
	if err != nil {
		s.t.Fatal(err)
	}
	return &v1.BundleHeader{
		Image: "debian", Number: 7, Digest: manifest.Digest().String(), SizeBytes: manifest.Size(), Note: "11月のパッチ", By: "taro",
		Created: &timestamppb.Timestamp{Seconds: 1795000000}, Signatures: []*v1.Signature{signature},
	}
}

func (s *shop) write(manifest, since *images.Manifest) []byte {
	s.t.Helper()
	var file bytes.Buffer
	if err := bundle.Write(s.t.Context(), &file, s.codec, s.header(manifest), manifest, since, s, nil); err != nil {
		s.t.Fatal(err)
	}
	return file.Bytes()
}

// read reads a bundle to its end.
func (s *shop) read(file []byte) (*bundle.Reader, []images.Digest, error) {
	from, err := bundle.NewReader(bytes.NewReader(file), s.codec)
	if err != nil {
		return nil, nil, err
	}
	var digests []images.Digest
	for {
		chunk, err := from.Next()
		if errors.Is(err, io.EOF) {
			return from, digests, nil
		}
		if err != nil {
			return from, digests, err
		}
		digests = append(digests, chunk.Digest)
	}
}

func TestRoundTrip(t *testing.T) {
	s := newShop(t)
	older, newer := s.version("ab0ca"), s.version("abd0cde")
	for name, test := range map[string]struct {
		manifest, since *images.Manifest
		chunks, leftOut int
	}{
		"whole":          {newer, nil, 5, 0},
		"delta":          {newer, older, 2, 3},
		"nothing is new": {older, older, 0, 4},
		"a hole only":    {s.version("000"), nil, 0, 0},
	} {
		file := s.write(test.manifest, test.since)
		from, digests, err := s.read(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := s.header(test.manifest)
		want.Chunks = uint64(test.chunks)
		if test.since != nil {
			want.Since = test.since.Digest().String()
		}
		if diff := cmp.Diff(want, from.Header(), protocmp.Transform()); diff != "" {
			t.Errorf("%s: header (-want +got):\n%s", name, diff)
		}
		if len(digests) != test.chunks || len(from.LeftOut()) != test.leftOut || from.Manifest().Digest() != test.manifest.Digest() {
			t.Errorf("%s: %d chunks and %d left out", name, len(digests), len(from.LeftOut()))
		}
		if _, err := from.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the end: %v", name, err)
		}
		if !bytes.Equal(file, s.write(test.manifest, test.since)) {
			t.Errorf("%s: written twice, it differs", name)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	s := newShop(t)
	manifest := s.version("abc")
	for name, spoil := range map[string]func(header *v1.BundleHeader){
		"no signature": func(h *v1.BundleHeader) { h.Signatures = nil }, "bad name": func(h *v1.BundleHeader) { h.Image = "../x" },
		"other digest": func(h *v1.BundleHeader) { h.Digest = images.Sum(nil).String() }, "other size": func(h *v1.BundleHeader) { h.SizeBytes++ },
	} {
		header := s.header(manifest)
		spoil(header)
		if err := bundle.Write(t.Context(), io.Discard, s.codec, header, manifest, nil, s, nil); !errors.Is(err, bundle.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for digest := range s.chunks {
		s.chunks[digest] = s.codec.Seal([]byte("another chunk"))
		if err := bundle.Write(t.Context(), io.Discard, s.codec, s.header(manifest), manifest, nil, s, nil); !errors.Is(err, images.ErrCorrupt) {
			t.Errorf("a spoilt chunk: %v", err)
		}
		delete(s.chunks, digest)
		if err := bundle.Write(t.Context(), io.Discard, s.codec, s.header(manifest), manifest, nil, s, nil); !errors.Is(err, images.ErrNotFound) {
			t.Errorf("a chunk that is not there: %v", err)
		}
		break
	}
}

// parts cuts a bundle into its regions.
func parts(file []byte) (regions []string, ends []int) {
	at := len("daybreak bundle 1\n")
	regions, ends = append(regions, "magic"), append(ends, at)
	section := func(name string) {
		at += 4 + int(binary.BigEndian.Uint32(file[at:]))
		regions, ends = append(regions, name), append(ends, at)
	}
	for _, name := range []string{"header", "manifest", "list of chunks"} {
		section(name)
	}
	for n := 1; at < len(file)-32; n++ {
		section(fmt.Sprintf("chunk %d", n))
	}
	return append(regions, "last digest"), append(ends, len(file))
}

// resealed is what somebody who knows the format makes of a changed file.
func resealed(file []byte) []byte {
	body := file[:len(file)-32]
	sum := blake3.Sum256(body)
	return append(bytes.Clone(body), sum[:]...)
}

// TestEveryByte: whatever byte of a bundle is another one, it is refused, and so is every bundle that is cut off. When who
// changed it also made the last digest fit, what is read is refused, or is not signed, or is still the signed content and only
// words for people differ.
func TestEveryByte(t *testing.T) {
	s := newShop(t)
	older, newer := s.version("ab"), s.version("a0cd")
	trusted, err := sign.NewPublishers(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, since := range map[string]*images.Manifest{"whole": nil, "delta": older} {
		file := s.write(newer, since)
		regions, ends := parts(file)
		region := 0
		for i := range file {
			for i >= ends[region] {
				region++
			}
			if _, _, err := s.read(file[:i]); !errors.Is(err, bundle.ErrInvalid) {
				t.Fatalf("%s cut off in its %s, byte %d: %v", name, regions[region], i, err)
			}
			changed := bytes.Clone(file)
			changed[i] ^= 1 << (i % 8)
			if _, _, err := s.read(changed); !errors.Is(err, bundle.ErrInvalid) {
				t.Fatalf("%s with a bit flipped in its %s, byte %d: %v", name, regions[region], i, err)
			}
			from, _, err := s.read(resealed(changed))
			if err != nil || i >= len(file)-32 {
				continue
			}
			if trusted.Check(from.Header().GetImage(), from.Header().GetDigest(), from.Header().GetSignatures()) != nil {
				continue
			}
			same := proto.CloneOf(from.Header())
			same.Note, same.By, same.Created, same.Number, same.Since = "", "", nil, 0, ""
			want := s.header(newer)
			want.Note, want.By, want.Created, want.Number, want.Chunks = "", "", nil, 0, from.Header().GetChunks()
			// Some bits of a zstd frame mean nothing: the chunk in it is the same.
			if regions[region] != "header" && !strings.HasPrefix(regions[region], "chunk ") || from.Manifest().Digest() != newer.Digest() || !proto.Equal(same, want) {
				t.Fatalf("%s with byte %d of its %s changed is taken: %v", name, i, regions[region], from.Header())
			}
		}
		if _, _, err := s.read(append(bytes.Clone(file), 0)); !errors.Is(err, bundle.ErrInvalid) {
			t.Errorf("%s with something after its end: %v", name, err)
		}
	}
}

// TestSwapped: chunks that change places, or are another bundle's, are found; so are parts of two bundles put together.
func TestSwapped(t *testing.T) {
	s := newShop(t)
	one, two := s.version("abcd"), s.version("abce")
	first, second := s.write(one, nil), s.write(two, nil)
	regions, ends := parts(first)
	_, otherEnds := parts(second)
	piece := func(file []byte, ends []int, i int) []byte {
		if i == 0 {
			return file[:ends[0]]
		}
		return file[ends[i-1]:ends[i]]
	}
	for i := range regions {
		for j := range regions {
			if i == j && regions[i] == "magic" {
				continue
			}
			var swapped, mixed []byte
			for k := range regions {
				from := map[int]int{i: j, j: i}
				at, moved := from[k]
				if !moved {
					at = k
				}
				swapped = append(swapped, piece(first, ends, at)...)
				if k == i {
					mixed = append(mixed, piece(second, otherEnds, j)...)
				} else {
					mixed = append(mixed, piece(first, ends, k)...)
				}
			}
			for name, file := range map[string][]byte{"swapped": resealed(swapped), "mixed": resealed(mixed)} {
				if bytes.Equal(file, first) {
					continue
				}
				if _, _, err := s.read(file); !errors.Is(err, bundle.ErrInvalid) {
					t.Errorf("%s %s and %s: %v", name, regions[i], regions[j], err)
				}
			}
		}
	}
}

// TestLies: lengths that lie cost no memory, and a list of chunks that does not fit is refused.
func TestLies(t *testing.T) {
	s := newShop(t)
	file := s.write(s.version("abcdefghij"), nil)
	_, ends := parts(file)
	for name, change := range map[string]func(file []byte){
		"header of 4 GiB":    func(f []byte) { binary.BigEndian.PutUint32(f[ends[0]:], 1<<32-1) },
		"manifest of 64 MiB": func(f []byte) { binary.BigEndian.PutUint32(f[ends[1]:], 64<<20) },
		"short list":         func(f []byte) { binary.BigEndian.PutUint32(f[ends[2]:], 1) },
		"a chunk less":       func(f []byte) { f[ends[3]-2] &^= 1 },
		"a chunk beyond":     func(f []byte) { f[ends[3]-1] |= 0x80 },
		"chunk of 1 MiB":     func(f []byte) { binary.BigEndian.PutUint32(f[ends[3]:], 1<<20) },
	} {
		changed := bytes.Clone(file)
		change(changed)
		if _, _, err := s.read(resealed(changed)); !errors.Is(err, bundle.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzRead: no file makes the reader panic, and what it takes to the end is what its header says.
func FuzzRead(f *testing.F) {
	s := newShop(f)
	f.Add(s.write(s.version("ab0c"), nil))
	f.Add(s.write(s.version("abd"), s.version("ab0c")))
	f.Add([]byte("daybreak bundle 1\n\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, file []byte) {
		from, digests, err := s.read(file)
		if err != nil {
			if !errors.Is(err, bundle.ErrInvalid) {
				t.Errorf("another error: %v", err)
			}
			return
		}
		all := slices.Collect(from.Manifest().Chunks())
		if len(digests)+len(from.LeftOut()) != len(all) || images.Sum(from.Manifest().Encoded()).String() != from.Header().GetDigest() {
			t.Error("taken, and not what its header says")
		}
	})
}
