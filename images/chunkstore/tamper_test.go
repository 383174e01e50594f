package chunkstore_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"daybreak/images"
	"daybreak/images/chunkstore"
)

// TestTamperedFiles: whatever becomes of a file of either kind of store, what it gives out is found not to be what was asked
// for: a manifest by the store, a chunk by whoever opens it.
func TestTamperedFiles(t *testing.T) {
	codec, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	for kind, open := range map[string]func(t *testing.T) (chunkstore.Store, string){
		"directory": func(t *testing.T) (chunkstore.Store, string) {
			dir := t.TempDir()
			store, err := chunkstore.OpenDir(dir, codec)
			if err != nil {
				t.Fatal(err)
			}
			return store, dir
		},
		"bucket": func(t *testing.T) (chunkstore.Store, string) {
			s := serve(t)
			dir := s.bucket(t, "tampered")
			return openS3(t, s.config(t, "s3://tampered")), dir
		},
	} {
		t.Run(kind, func(t *testing.T) {
			store, dir := open(t)
			good, other := tamperSample(t, store, codec, 1), tamperSample(t, store, codec, 2)
			digest := good.Piece(0).Digest
			chunk := filepath.Join(dir, "chunks", digest.String()[:2], digest.String()+".zst")
			another := filepath.Join(dir, "chunks", other.Piece(0).Digest.String()[:2], other.Piece(0).Digest.String()+".zst")
			tamper(t, chunk, another, func(name string) {
				sealed, err := store.Get(t.Context(), digest)
				if err == nil {
					_, err = codec.OpenPiece(nil, good.Piece(0), sealed)
				}
				if !errors.Is(err, images.ErrCorrupt) && !(name == "gone" && errors.Is(err, images.ErrNotFound)) {
					t.Errorf("chunk %s: %v", name, err)
				}
			})
			manifests := filepath.Join(dir, "manifests")
			tamper(t, filepath.Join(manifests, good.Digest().String()), filepath.Join(manifests, other.Digest().String()), func(name string) {
				_, err := store.GetManifest(t.Context(), good.Digest())
				if !errors.Is(err, images.ErrCorrupt) && !(name == "gone" && errors.Is(err, images.ErrNotFound)) {
					t.Errorf("manifest %s: %v", name, err)
				}
			})
		})
	}
}

// tamperSample puts a disk of one chunk into a store.
func tamperSample(t *testing.T, store chunkstore.Store, codec *images.Codec, i byte) *images.Manifest {
	t.Helper()
	plain := bytes.Repeat([]byte{i, 7, i + 1}, 4096)[:8192]
	chunk := images.Chunk{Digest: images.Sum(plain), Sealed: codec.Seal(plain)}
	manifest, err := images.NewManifest(8192, []images.Digest{chunk.Digest})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(t.Context(), []images.Chunk{chunk}); err != nil {
		t.Fatal(err)
	}
	if err := store.PutManifest(t.Context(), manifest); err != nil {
		t.Fatal(err)
	}
	return manifest
}

// tamper does all that can become of a file, one after the other, and has it checked each time.
func tamper(t *testing.T, path, other string, check func(name string)) {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	swapped, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	flipped, holed := bytes.Clone(good), bytes.Clone(good)
	flipped[len(good)/2] ^= 0xff
	clear(holed[len(good)/4 : len(good)*3/4])
	for name, content := range map[string][]byte{
		"flipped": flipped, "with a hole": holed, "cut off": good[:len(good)-1], "empty": {}, "longer": append(bytes.Clone(good), 0),
		"swapped": swapped, "gone": nil,
	} {
		if content == nil {
			err = os.Remove(path)
		} else {
			// In place: a server may keep what it knows of the file beside its content.
			_ = os.Chmod(path, 0o600)
			err = os.WriteFile(path, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		check(name)
	}
}
