package images_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

func digests(n int) []images.Digest {
	list := make([]images.Digest, n)
	for i := range list {
		if i%3 != 2 {
			list[i] = images.Sum([]byte{byte(i % 5), byte(i >> 8)})
		}
	}
	return list
}

func TestManifestIsTheMessage(t *testing.T) {
	const size = 5*images.ChunkBytes + 1024
	m, err := images.NewManifest(size, digests(6))
	if err != nil {
		t.Fatal(err)
	}
	message := &v1.Manifest{}
	if err := proto.Unmarshal(m.Encoded(), message); err != nil {
		t.Fatal(err)
	}
	if message.Format != 1 || message.SizeBytes != size || message.ChunkBytes != images.ChunkBytes ||
		!bytes.Equal(message.ChunkDigests, images.JoinDigests(digests(6))) {
		t.Errorf("the encoded manifest reads as %v", message)
	}
	again, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil || !bytes.Equal(again, m.Encoded()) {
		t.Errorf("protobuf encodes it otherwise: %v", err)
	}
}

func TestManifestPieces(t *testing.T) {
	const size = 2*images.ChunkBytes + 512
	a, b := images.Sum([]byte("a")), images.Sum([]byte("b"))
	for _, test := range []struct {
		name   string
		list   []images.Digest
		chunks []images.Digest
	}{
		{"all differ", []images.Digest{a, {}, b}, []images.Digest{a, b}},
		{"one repeats", []images.Digest{a, a, b}, []images.Digest{a, b}},
		{"nothing but zeros", make([]images.Digest, 3), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := images.NewManifest(size, test.list)
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Collect(m.Chunks()); !slices.Equal(got, test.chunks) {
				t.Errorf("Chunks() = %v, want %v", got, test.chunks)
			}
			pieces := slices.Collect(m.Pieces())
			if len(pieces) != 3 || pieces[2].Length != 512 || pieces[2].Offset != 2*images.ChunkBytes || pieces[1].Length != images.ChunkBytes {
				t.Errorf("Pieces() = %v", pieces)
			}
			if pieces[0].Digest != test.list[0] || pieces[0].Zero() != test.list[0].IsZero() {
				t.Errorf("Piece(0) = %v", pieces[0])
			}
		})
	}
}

func encode(fields func(b []byte) []byte) []byte {
	return fields(nil)
}

func varint(b []byte, number protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func blob(b []byte, number protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), v)
}

func TestParseRefuses(t *testing.T) {
	ok, err := images.NewManifest(images.ChunkBytes, digests(1))
	if err != nil {
		t.Fatal(err)
	}
	message := func(format, size, chunk uint64, digests int) []byte {
		return encode(func(b []byte) []byte {
			return blob(varint(varint(varint(b, 1, format), 2, size), 3, chunk), 4, make([]byte, digests))
		})
	}
	for name, data := range map[string][]byte{
		"nothing":               nil,
		"garbage":               []byte("QFI\xfb golden image"),
		"format 2":              message(2, 512, images.ChunkBytes, 32),
		"format 0":              message(0, 512, images.ChunkBytes, 32),
		"no size":               message(1, 0, images.ChunkBytes, 0),
		"odd size":              message(1, 513, images.ChunkBytes, 32),
		"absurd size":           message(1, 1<<63, images.ChunkBytes, 32),
		"size over the limit":   message(1, images.MaxDiskBytes+512, images.ChunkBytes, 32),
		"other chunk size":      message(1, 512, 4096, 32),
		"too few digests":       message(1, images.ChunkBytes+512, images.ChunkBytes, 32),
		"too many digests":      message(1, images.ChunkBytes, images.ChunkBytes, 64),
		"half a digest":         message(1, 512, images.ChunkBytes, 31),
		"cut off":               ok.Encoded()[:len(ok.Encoded())-1],
		"something after it":    append(slices.Clone(ok.Encoded()), 0),
		"unknown field after":   varint(slices.Clone(ok.Encoded()), 5, 1),
		"unknown field before":  append(varint(nil, 9, 1), ok.Encoded()...),
		"a field twice":         append(varint(nil, 1, 1), ok.Encoded()...),
		"fields out of order":   blob(varint(varint(varint(nil, 2, 512), 1, 1), 3, images.ChunkBytes), 4, make([]byte, 32)),
		"a long varint":         append([]byte{8, 0x81, 0}, ok.Encoded()[2:]...),
		"a long tag":            append([]byte{0x88, 0, 1}, ok.Encoded()[2:]...),
		"digests of wrong kind": varint(varint(varint(varint(nil, 1, 1), 2, 512), 3, images.ChunkBytes), 4, 32),
	} {
		if m, err := images.Parse(data); !errors.Is(err, images.ErrInvalid) {
			t.Errorf("%s: Parse = %v, %v; want ErrInvalid", name, m, err)
		}
	}
}

func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(1, 64*images.ChunkBytes/512).Draw(t, "sectors") * 512
		list := digests(images.Count(size))
		m, err := images.NewManifest(size, list)
		if err != nil {
			t.Fatal(err)
		}
		again, err := images.Parse(m.Encoded())
		if err != nil {
			t.Fatal(err)
		}
		if again.Digest() != m.Digest() || again.Size() != size || again.Digest() != images.Sum(m.Encoded()) {
			t.Fatalf("read back as another: %v", again)
		}
		var total uint64
		for p := range again.Pieces() {
			if p.Digest != list[p.Index] || p.Offset != int64(p.Index)*images.ChunkBytes {
				t.Fatalf("piece %v", p)
			}
			total += uint64(p.Length)
		}
		if total != size {
			t.Fatalf("pieces have %d bytes, the disk %d", total, size)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, n := range []int{1, 3} {
		m, err := images.NewManifest(uint64(n)*images.ChunkBytes-512, digests(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m.Encoded())
		f.Add(m.Encoded()[:20])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := images.Parse(data)
		if err != nil {
			if !errors.Is(err, images.ErrInvalid) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		again, err := images.NewManifest(m.Size(), collect(m))
		if err != nil || !bytes.Equal(again.Encoded(), data) {
			t.Fatalf("two encodings of one content: %x and %x (%v)", data, again.Encoded(), err)
		}
	})
}

func collect(m *images.Manifest) []images.Digest {
	list := make([]images.Digest, 0, m.Len())
	for p := range m.Pieces() {
		list = append(list, p.Digest)
	}
	return list
}

func TestDigestText(t *testing.T) {
	d := images.Sum([]byte("daybreak"))
	if back, err := images.ParseDigest(d.String()); err != nil || back != d {
		t.Errorf("ParseDigest(%s) = %v, %v", d, back, err)
	}
	for _, bad := range []string{"", "ab", d.String() + "0", d.String()[:63] + "G", d.String()[:62] + "AB", d.String()[:63] + "\n"} {
		if _, err := images.ParseDigest(bad); !errors.Is(err, images.ErrInvalid) {
			t.Errorf("ParseDigest(%q): %v, want ErrInvalid", bad, err)
		}
	}
	list := digests(4)
	if back, err := images.SplitDigests(images.JoinDigests(list)); err != nil || !slices.Equal(back, list) {
		t.Errorf("SplitDigests gave %v, %v", back, err)
	}
	if _, err := images.SplitDigests(make([]byte, 33)); !errors.Is(err, images.ErrInvalid) {
		t.Errorf("SplitDigests of 33 bytes: %v", err)
	}
}
