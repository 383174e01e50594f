package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"daybreak/hostagent"
	"daybreak/images"
	"daybreak/images/chunkstore"
)

// shelf gives out of a store what lies there, unchecked, as the control plane does.
type shelf struct{ chunkstore.Store }

func (s shelf) Manifest(ctx context.Context, digest string) ([]byte, error) {
	d, err := images.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	m, err := s.GetManifest(ctx, d)
	if err != nil {
		return nil, err
	}
	return m.Encoded(), nil
}

func (s shelf) Chunks(ctx context.Context, wants []hostagent.Want, sink func(images.Chunk) error) error {
	for _, want := range wants {
		sealed, err := s.Get(ctx, want.Digest)
		if err != nil {
			return err
		}
		if err := sink(images.Chunk{Digest: want.Digest, Sealed: sealed}); err != nil {
			return err
		}
	}
	return nil
}

// TestTamperedImageStore: whatever becomes of a file of the image store, no host makes a base of it, and one that has a base
// of the version before makes none either.
func TestTamperedImageStore(t *testing.T) {
	first, second := content(1, diskSize), content(1, diskSize)
	copy(second, []byte("patched"))
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	filled := t.TempDir()
	store, err := chunkstore.OpenDir(filled, codec)
	if err != nil {
		t.Fatal(err)
	}
	older, newer := fill(t, store, codec, first), fill(t, store, codec, second)
	for _, what := range []string{"chunk", "manifest"} {
		for name, tamper := range map[string]func(t *testing.T, path, other string){
			"bit flipped": func(t *testing.T, path, _ string) {
				data, _ := os.ReadFile(path)
				data[len(data)/2] ^= 8
				replace(t, path, data)
			},
			"hole punched": func(t *testing.T, path, _ string) {
				info, _ := os.Stat(path)
				writeAt(t, path, make([]byte, info.Size()/2), info.Size()/4)
			},
			"cut off": func(t *testing.T, path, _ string) {
				info, _ := os.Stat(path)
				os.Truncate(path, info.Size()-1)
			},
			"empty":   func(t *testing.T, path, _ string) { os.Truncate(path, 0) },
			"swapped": func(t *testing.T, path, other string) { os.Rename(other, path) },
			"gone":    func(t *testing.T, path, _ string) { os.Remove(path) },
		} {
			t.Run(what+" "+name, func(t *testing.T) {
				root := filepath.Join(t.TempDir(), "images")
				if err := os.CopyFS(root, os.DirFS(filled)); err != nil {
					t.Fatal(err)
				}
				store, err := chunkstore.OpenDir(root, codec)
				if err != nil {
					t.Fatal(err)
				}
				s := open(t, Config{})
				if err := s.EnsureBase(t.Context(), older.Digest().String(), shelf{store}, noProgress); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(root, "manifests", newer.Digest().String())
				other := filepath.Join(root, "manifests", older.Digest().String())
				if what == "chunk" {
					digest, another := newer.Piece(0).Digest.String(), older.Piece(0).Digest.String()
					path = filepath.Join(root, "chunks", digest[:2], digest+".zst")
					other = filepath.Join(root, "chunks", another[:2], another+".zst")
				}
				tamper(t, path, other)
				if err := s.EnsureBase(t.Context(), newer.Digest().String(), shelf{store}, noProgress); err == nil {
					t.Error("a base was made of it")
				}
				if bases, _ := s.Bases(t.Context()); len(bases) != 1 || bases[0] != older.Digest().String() {
					t.Errorf("Bases = %v", bases)
				}
				if _, _, err := s.CreateOverlay(t.Context(), life(7), newer.Digest().String(), 1<<20); !errors.Is(err, hostagent.ErrNotFound) {
					t.Errorf("overlay on it: %v", err)
				}
			})
		}
	}
}

// fill puts a disk into an image store.
func fill(t *testing.T, store chunkstore.Store, codec *images.Codec, disk []byte) *images.Manifest {
	t.Helper()
	var digests []images.Digest
	for at := 0; at < len(disk); at += images.ChunkBytes {
		plain := disk[at:min(len(disk), at+images.ChunkBytes)]
		if images.AllZero(plain) {
			digests = append(digests, images.Digest{})
			continue
		}
		chunk := images.Chunk{Digest: images.Sum(plain), Sealed: codec.Seal(bytes.Clone(plain))}
		if _, err := store.Put(t.Context(), []images.Chunk{chunk}); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, chunk.Digest)
	}
	manifest, err := images.NewManifest(uint64(len(disk)), digests)
	if err == nil {
		err = store.PutManifest(t.Context(), manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}
