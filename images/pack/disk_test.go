package pack_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/pack"
)

func store(t testing.TB) (*chunkstore.Dir, *images.Codec) {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := chunkstore.OpenDir(t.TempDir(), codec)
	if err != nil {
		t.Fatal(err)
	}
	return dir, codec
}

func file(t testing.TB, write func(*os.File) error) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := write(f); err != nil {
		t.Fatal(err)
	}
	return f
}

// unpack writes what the manifest says, as a host does.
func unpack(t interface{ Fatal(...any) }, ctx context.Context, m *images.Manifest, dir *chunkstore.Dir, codec *images.Codec) []byte {
	disk := make([]byte, m.Size())
	for piece := range m.Pieces() {
		if piece.Zero() {
			continue
		}
		sealed, err := dir.Get(ctx, piece.Digest)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := codec.OpenPiece(nil, piece, sealed)
		if err != nil {
			t.Fatal(err)
		}
		copy(disk[piece.Offset:], plain)
	}
	return disk
}

func TestDiskComesBackAsItWas(t *testing.T) {
	dir, codec := store(t)
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.Int64Range(1, 150*images.ChunkBytes/512).Draw(rt, "sectors") * 512
		f := file(t, func(f *os.File) error { return f.Truncate(size) })
		for range rapid.IntRange(0, 5).Draw(rt, "writes") {
			at := rapid.Int64Range(0, size-1).Draw(rt, "at")
			n := min(rapid.Int64Range(1, 3*images.ChunkBytes).Draw(rt, "length"), size-at)
			data := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, int(n)) // zeros that are data, too
			if _, err := f.WriteAt(data, at); err != nil {
				rt.Fatal(err)
			}
		}
		want, err := os.ReadFile(f.Name())
		if err != nil {
			rt.Fatal(err)
		}
		var last pack.Progress
		m, total, err := pack.Disk(t.Context(), f, codec, dir, func(p pack.Progress) {
			if p.Scanned < last.Scanned || p.Scanned > p.Size {
				rt.Errorf("progress went from %v to %v", last, p)
			}
			last = p
		})
		if err != nil {
			rt.Fatal(err)
		}
		if total.Scanned != uint64(size) || total.Size != uint64(size) || last != total {
			rt.Errorf("progress ended at %+v, last told %+v, of %d bytes", total, last, size)
		}
		if !bytes.Equal(unpack(rt, t.Context(), m, dir, codec), want) {
			rt.Fatal("the disk came back as another")
		}
		again, second, err := pack.Disk(t.Context(), f, codec, dir, nil)
		if err != nil || again.Digest() != m.Digest() || second.Sent != 0 {
			rt.Errorf("packed again: digest %v, want %v; sent %d bytes; %v", again.Digest(), m.Digest(), second.Sent, err)
		}
	})
}

// breaking is a sink whose line breaks after the first chunks it took.
type breaking struct {
	pack.Sink
	mu    sync.Mutex
	taken int
}

func (b *breaking) Put(ctx context.Context, chunks []images.Chunk) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.taken > 0 {
		return 0, errors.New("line broke")
	}
	b.taken = len(chunks)
	return b.Sink.Put(ctx, chunks)
}

func noise(seed byte, n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func TestGoesOnWhereItBroke(t *testing.T) {
	dir, codec := store(t)
	f := file(t, func(f *os.File) error {
		_, err := f.Write(noise(1, 200*images.ChunkBytes))
		return err
	})
	broken := &breaking{Sink: dir}
	if _, _, err := pack.Disk(t.Context(), f, codec, broken, nil); err == nil || !strings.Contains(err.Error(), "line broke") {
		t.Fatalf("Disk: %v", err)
	}
	_, total, err := pack.Disk(t.Context(), f, codec, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if left := uint64(200 - broken.taken); total.Sent < left*images.ChunkBytes || total.Sent > (left+1)*images.ChunkBytes {
		t.Errorf("the first run kept %d chunks of 200, the second sent %d bytes", broken.taken, total.Sent)
	}
}

// asking is a sink that does something when it is asked what it lacks, and answers with what that returns.
type asking struct {
	pack.Sink
	missing func(asked []images.Digest) []images.Digest
}

func (a *asking) Missing(_ context.Context, asked []images.Digest) ([]images.Digest, error) {
	return a.missing(asked), nil
}

func TestChangedMeanwhile(t *testing.T) {
	dir, codec := store(t)
	for name, change := range map[string]func(*os.File) error{
		"grown":   func(f *os.File) error { return f.Truncate(10 * images.ChunkBytes) },
		"shrunk":  func(f *os.File) error { return f.Truncate(images.ChunkBytes) },
		"written": func(f *os.File) error { return os.Chtimes(f.Name(), time.Time{}, time.Unix(1, 0)) },
	} {
		f := file(t, func(f *os.File) error {
			_, err := f.Write(noise(2, 5*images.ChunkBytes))
			return err
		})
		sink := &asking{Sink: dir, missing: func(asked []images.Digest) []images.Digest {
			if err := change(f); err != nil {
				t.Error(err)
			}
			return asked
		}}
		if _, _, err := pack.Disk(t.Context(), f, codec, sink, nil); !errors.Is(err, pack.ErrChanged) {
			t.Errorf("%s: %v, want ErrChanged", name, err)
		}
	}
}

func TestSinkAsksForSomethingElse(t *testing.T) {
	dir, codec := store(t)
	f := file(t, func(f *os.File) error {
		_, err := f.Write(noise(3, 512))
		return err
	})
	for name, answer := range map[string]func([]images.Digest) []images.Digest{
		"never offered": func([]images.Digest) []images.Digest { return []images.Digest{images.Sum([]byte("x"))} },
		"twice":         func(d []images.Digest) []images.Digest { return append(d, d...) },
	} {
		if _, _, err := pack.Disk(t.Context(), f, codec, &asking{Sink: dir, missing: answer}, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestHolesCostNothing(t *testing.T) {
	const size = 128 << 30
	dir, codec := store(t)
	f := file(t, func(f *os.File) error {
		if err := f.Truncate(size); err != nil {
			return err
		}
		_, err := f.WriteAt([]byte("far away"), size-4096)
		return err
	})
	began := time.Now()
	m, total, err := pack.Disk(t.Context(), f, codec, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second { // reading 128 GiB of zeros takes far longer
		t.Errorf("took %v", took)
	}
	if total.Scanned != size || m.Piece(m.Len()-1).Zero() || !m.Piece(0).Zero() {
		t.Errorf("packed %+v", total)
	}
}
