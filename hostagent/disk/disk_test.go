package disk

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/hostagent/hosttest"
	"daybreak/images"
)

const uid = "6f9f3d0c-6a3d-4f0e-9a55-0123456789ab"

func life(generation int64) hostagent.Life {
	return hostagent.Life{Desktop: "office-1", UID: uid, Generation: generation}
}

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = filepath.Join(t.TempDir(), "store")
	}
	s, err := Open(cfg, zerolog.New(zerolog.NewTestWriter(t)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// content is a disk of n bytes: noise, then zeros, then the same noise again, then an odd end.
func content(seed uint64, n int) []byte {
	disk := make([]byte, n)
	noise := make([]byte, 2*images.ChunkBytes)
	source := rand.NewChaCha8([32]byte{byte(seed)})
	source.Read(noise)
	copy(disk, noise)
	copy(disk[5*images.ChunkBytes:], noise)
	copy(disk[n-512:], noise[:512])
	return disk
}

func image(t *testing.T, disk []byte) *hosttest.Image {
	t.Helper()
	return hosttest.NewImage(t, bytes.NewReader(disk), int64(len(disk)))
}

const diskSize = 12*images.ChunkBytes + 512

func noProgress(uint32) {}

func mustEnsure(t *testing.T, s *Store, im *hosttest.Image) {
	t.Helper()
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); err != nil {
		t.Fatal(err)
	}
}

func basePath(s *Store, im *hosttest.Image) string {
	return filepath.Join(s.cfg.Root, dirBases, im.Digest()+".raw")
}

func checkContent(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("content of %s differs (%v)", path, err)
	}
}

func TestEnsureBase(t *testing.T) {
	s, disk := open(t, Config{}), content(1, diskSize)
	im := image(t, disk)
	var seen []uint32
	if err := s.EnsureBase(t.Context(), im.Digest(), im, func(p uint32) { seen = append(seen, p) }); err != nil {
		t.Fatal(err)
	}
	checkContent(t, basePath(s, im), disk)
	if seen[0] != 0 || seen[len(seen)-1] != 100 || !slices.IsSorted(seen) {
		t.Errorf("progress %v", seen)
	}
	if n := im.Given(); n != 3 {
		t.Errorf("%d chunks fetched, want 3: equal chunks travel once and zeros never", n)
	}
	if blocks := allocated(t, basePath(s, im)); blocks > 6*images.ChunkBytes {
		t.Errorf("base takes %d bytes: it is not sparse", blocks)
	}
	if st, _ := os.Stat(basePath(s, im)); st.Mode().Perm() != 0o444 {
		t.Errorf("mode %v", st.Mode())
	}
	if got, err := s.Bases(t.Context()); err != nil || len(got) != 1 || got[0] != im.Digest() {
		t.Errorf("Bases = %v, %v", got, err)
	}
	mustEnsure(t, s, im)
	if n := im.Given(); n != 0 {
		t.Errorf("%d chunks fetched for a base that is there", n)
	}
}

func TestSourceGivesOtherContent(t *testing.T) {
	other, err := images.NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	spoilers := map[string]func(images.Digest, []byte) ([]byte, error){
		"bit flipped":     func(_ images.Digest, b []byte) ([]byte, error) { b[len(b)/2] ^= 1; return b, nil },
		"truncated":       func(_ images.Digest, b []byte) ([]byte, error) { return b[:len(b)-7], nil },
		"empty":           func(images.Digest, []byte) ([]byte, error) { return []byte{}, nil },
		"other content":   func(images.Digest, []byte) ([]byte, error) { return other.Seal([]byte("boo")), nil },
		"bomb":            func(images.Digest, []byte) ([]byte, error) { return other.Seal(make([]byte, 64<<20)), nil },
		"half the length": func(images.Digest, []byte) ([]byte, error) { return other.Seal(make([]byte, images.ChunkBytes/2)), nil },
	}
	for name, spoil := range spoilers {
		t.Run(name, func(t *testing.T) {
			s, im := open(t, Config{}), image(t, content(1, diskSize))
			im.Spoil(spoil)
			if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); !errors.Is(err, hostagent.ErrCorrupt) {
				t.Fatalf("EnsureBase = %v, want ErrCorrupt", err)
			}
			if got, _ := s.Bases(t.Context()); len(got) != 0 {
				t.Errorf("Bases = %v", got)
			}
			if _, err := os.Stat(basePath(s, im)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a base is visible: %v", err)
			}
			if _, _, err := s.CreateOverlay(t.Context(), life(1), im.Digest(), 1<<20); !errors.Is(err, hostagent.ErrNotFound) {
				t.Errorf("CreateOverlay = %v, want ErrNotFound", err)
			}
			im.Spoil(nil)
			mustEnsure(t, s, im)
		})
	}
}

// notAsked is a source that gives what nobody asked for, or another manifest.
type notAsked struct {
	*hosttest.Image
	manifest []byte
}

func (n notAsked) Manifest(ctx context.Context, digest string) ([]byte, error) {
	if n.manifest != nil {
		return n.manifest, nil
	}
	return n.Image.Manifest(ctx, digest)
}

func (n notAsked) Chunks(_ context.Context, _ []hostagent.Want, sink func(images.Chunk) error) error {
	return sink(images.Chunk{Digest: images.Sum([]byte("boo")), Sealed: []byte("boo")})
}

func TestSourceGivesWhatNobodyAskedFor(t *testing.T) {
	s, im := open(t, Config{}), image(t, content(1, diskSize))
	if err := s.EnsureBase(t.Context(), im.Digest(), notAsked{Image: im}, noProgress); !errors.Is(err, hostagent.ErrCorrupt) {
		t.Errorf("unknown chunk: %v, want ErrCorrupt", err)
	}
	other := image(t, content(2, diskSize))
	manifest, _ := other.Manifest(t.Context(), other.Digest())
	if err := s.EnsureBase(t.Context(), im.Digest(), notAsked{Image: im, manifest: manifest}, noProgress); !errors.Is(err, hostagent.ErrCorrupt) {
		t.Errorf("other manifest: %v, want ErrCorrupt", err)
	}
	im.Spoil(func(images.Digest, []byte) ([]byte, error) { return nil, nil })
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); err == nil {
		t.Error("a source that leaves everything out was taken for complete")
	}
}

func TestResume(t *testing.T) {
	s, disk := open(t, Config{}), content(1, diskSize)
	im, broken := image(t, disk), errors.New("line cut")
	left := 2
	im.Spoil(func(_ images.Digest, b []byte) ([]byte, error) {
		if left--; left < 0 {
			return nil, broken
		}
		return b, nil
	})
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); !errors.Is(err, broken) {
		t.Fatalf("EnsureBase = %v", err)
	}
	part := filepath.Join(s.cfg.Root, dirTmp, im.Digest()+partSuffix)
	// What lies there was changed meanwhile, in a piece and in a hole.
	f, err := os.OpenFile(part, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{10, 5*images.ChunkBytes + 10, 3 * images.ChunkBytes} {
		if _, err := f.WriteAt([]byte{1, 2, 3}, at); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	if err := s.Sweep(t.Context(), time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	im.Given()
	im.Spoil(nil)
	mustEnsure(t, s, im)
	checkContent(t, basePath(s, im), disk)
	if n := im.Given(); n != 2 {
		t.Errorf("%d chunks fetched, want the damaged and the missing one", n)
	}
	if _, err := os.Stat(part); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half-made file is still there: %v", err)
	}
}

func TestSeedFromAnotherVersion(t *testing.T) {
	s, disk := open(t, Config{}), content(1, diskSize)
	mustEnsure(t, s, image(t, disk))
	patched := bytes.Clone(disk)
	copy(patched[7*images.ChunkBytes:], "a patch")
	im := image(t, patched)
	mustEnsure(t, s, im)
	checkBase(t, s, im.Digest(), patched)
	if n := im.Given(); n != 1 {
		t.Errorf("%d chunks fetched for a patch of one", n)
	}
}

func TestDamagedSeedIsNotCopied(t *testing.T) {
	s, disk := open(t, Config{}), content(1, diskSize)
	old := image(t, disk)
	mustEnsure(t, s, old)
	spoilFile(t, basePath(s, old), 0)
	patched := bytes.Clone(disk)
	copy(patched[7*images.ChunkBytes:], "a patch")
	im := image(t, patched)
	mustEnsure(t, s, im)
	checkBase(t, s, im.Digest(), patched)
	if got, _ := s.Bases(t.Context()); len(got) != 1 || got[0] != im.Digest() {
		t.Errorf("Bases = %v, want only the new one", got)
	}
}

func TestEnsureBaseTogether(t *testing.T) {
	s, im := open(t, Config{}), image(t, content(1, diskSize))
	giveUp, cancel := context.WithCancel(t.Context())
	began := make(chan struct{})
	var once sync.Once
	im.Spoil(func(_ images.Digest, b []byte) ([]byte, error) {
		once.Do(func() { close(began) })
		<-giveUp.Done()
		return b, nil
	})
	first := make(chan error, 1)
	go func() { first <- s.EnsureBase(giveUp, im.Digest(), im, noProgress) }()
	<-began
	rest := make(chan error, 4)
	for range cap(rest) {
		joined := make(chan struct{})
		var once sync.Once
		go func() {
			rest <- s.EnsureBase(t.Context(), im.Digest(), im, func(uint32) { once.Do(func() { close(joined) }) })
		}()
		<-joined
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that gave up: %v", err)
	}
	for range cap(rest) {
		if err := <-rest; err != nil {
			t.Error(err)
		}
	}
}

// spoilFile changes one byte of a base at rest.
func spoilFile(t *testing.T, path string, at int64) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// checkBase reads a base as hosts and builds do, in whichever form it is.
func checkBase(t *testing.T, s *Store, digest string, want []byte) {
	t.Helper()
	d, err := images.ParseDigest(digest)
	if err != nil {
		t.Fatal(err)
	}
	k, ok := s.usable(d)
	if !ok {
		t.Fatalf("base %s is not usable", d)
	}
	m, err := s.keptManifest(d)
	if err != nil {
		t.Fatal(err)
	}
	files, err := s.openBase(m, k)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	got := make([]byte, k.disk)
	if n, err := files.ReadAt(got, 0); err != nil || n != len(want) || !bytes.Equal(got, want) {
		t.Fatalf("content of base %s differs (%d bytes, %v)", d, n, err)
	}
}
