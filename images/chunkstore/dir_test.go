package chunkstore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/chunkstore/storetest"
)

func open(t testing.TB, root string) (*chunkstore.Dir, *images.Codec) {
	t.Helper()
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := chunkstore.OpenDir(root, codec)
	if err != nil {
		t.Fatal(err)
	}
	return dir, codec
}

func TestDir(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		root := filepath.Join(t.TempDir(), "images")
		dir, _ := open(t, root)
		another, _ := open(t, root)
		return storetest.Opened{Store: dir, Another: another, MakeOld: func(t *testing.T, by time.Duration) { makeOld(t, root, by) }}
	})
}

// makeOld sets the times of all files back.
func makeOld(t *testing.T, root string, by time.Duration) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return os.Chtimes(path, time.Time{}, info.ModTime().Add(-by))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) {
	root := t.TempDir()
	dir, codec := open(t, root)
	chunk := storetest.Sample(codec, 5)
	if _, err := dir.Put(t.Context(), []images.Chunk{chunk}); err != nil {
		t.Fatal(err)
	}
	// Crashes in the middle of a Put leave temporary files; one may also be another process's, just being written.
	for name, age := range map[string]time.Duration{"old": 48 * time.Hour, "young": time.Minute} {
		path := filepath.Join(root, "tmp", name)
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	dir, _ = open(t, root)
	if got, err := dir.Get(t.Context(), chunk.Digest); err != nil || string(got) != string(chunk.Sealed) {
		t.Errorf("Get after reopening: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, "tmp"))
	if err != nil || len(left) != 1 || left[0].Name() != "young" {
		t.Errorf("tmp has %v, %v", left, err)
	}
}

func TestNothingIsLeftInTmp(t *testing.T) {
	root := t.TempDir()
	dir, codec := open(t, root)
	chunks := []images.Chunk{storetest.Sample(codec, 1), storetest.Sample(codec, 2), {Digest: images.Sum([]byte("x"))}}
	if _, err := dir.Put(t.Context(), chunks); !errors.Is(err, images.ErrCorrupt) {
		t.Fatalf("Put: %v", err)
	}
	left, err := os.ReadDir(filepath.Join(root, "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("tmp has %v, %v", left, err)
	}
}

// A file that somebody put under a digest's name is not served when it cannot be a chunk or is another manifest.
func TestPlanted(t *testing.T) {
	root := t.TempDir()
	dir, _ := open(t, root)
	digest := images.Sum([]byte("planted"))
	chunk := filepath.Join(root, "chunks", digest.String()[:2], digest.String()+".zst")
	manifest := filepath.Join(root, "manifests", digest.String())
	if err := os.WriteFile(chunk, make([]byte, images.MaxSealedBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Get(t.Context(), digest); !errors.Is(err, images.ErrCorrupt) {
		t.Errorf("Get of a file too long: %v", err)
	}
	other, err := images.NewManifest(512, []images.Digest{digest})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, other.Encoded(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.GetManifest(t.Context(), digest); !errors.Is(err, images.ErrCorrupt) {
		t.Errorf("GetManifest of another's bytes: %v", err)
	}
	if err := os.Remove(chunk); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", chunk); err != nil {
		t.Fatal(err)
	}
	if data, err := dir.Get(t.Context(), digest); err == nil {
		t.Errorf("a symbolic link was followed to %q", data)
	}
}

// A full disk is named, and leaves nothing behind. Needs a small file system, so root.
func TestFull(t *testing.T) {
	root := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer func() { _ = unix.Unmount(root, 0) }()
	dir, codec := open(t, root)
	var chunks []images.Chunk
	for i := range 4 {
		plain := make([]byte, images.ChunkBytes)
		rand.NewChaCha8([32]byte{byte(i)}).Read(plain)
		chunks = append(chunks, images.Chunk{Digest: images.Sum(plain), Sealed: codec.Seal(plain)})
	}
	if _, err := dir.Put(t.Context(), chunks); !errors.Is(err, images.ErrFull) {
		t.Errorf("Put: %v, want ErrFull", err)
	}
	missing, err := dir.Missing(t.Context(), []images.Digest{chunks[0].Digest, chunks[3].Digest})
	if err != nil || len(missing) != 2 {
		t.Errorf("a failed Put published something: missing %v, %v", missing, err)
	}
	if _, err := dir.Put(t.Context(), chunks[:1]); err != nil {
		t.Errorf("the room was not given back: %v", err)
	}
}

func BenchmarkPut64(b *testing.B) {
	dir, codec := open(b, b.TempDir())
	seed := 0
	b.SetBytes(64 * images.ChunkBytes)
	for b.Loop() {
		b.StopTimer()
		var chunks []images.Chunk
		for range 64 {
			seed++
			plain := make([]byte, images.ChunkBytes)
			rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%32d", seed)))).Read(plain[:images.ChunkBytes/2])
			chunks = append(chunks, images.Chunk{Digest: images.Sum(plain), Sealed: codec.Seal(plain)})
		}
		b.StartTimer()
		if _, err := dir.Put(b.Context(), chunks); err != nil {
			b.Fatal(err)
		}
	}
}
