//go:build e2e

package disk

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// These tests make file systems of their own on loop devices. As root:
//
//	go test -tags e2e ./hostagent/disk

// fileSystem is one that can lose its power.
type fileSystem struct {
	image, mount string
}

func mkfs(t *testing.T, size int64, command ...string) *fileSystem {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	f := &fileSystem{image: filepath.Join(dir, "fs.img"), mount: filepath.Join(dir, "fs")}
	if err := errors.Join(os.Mkdir(f.mount, 0o711), os.WriteFile(f.image, nil, 0o600), os.Truncate(f.image, size)); err != nil {
		t.Fatal(err)
	}
	run(t, append(command, f.image)...)
	f.up(t)
	t.Cleanup(func() { f.down(t) })
	return f
}

func run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

func (f *fileSystem) up(t *testing.T)   { t.Helper(); run(t, "mount", "-o", "loop", f.image, f.mount) }
func (f *fileSystem) down(t *testing.T) { t.Helper(); run(t, "umount", f.mount) }

// cut is a power cut: what was not synced is gone, journal included.
func (f *fileSystem) cut(t *testing.T) {
	t.Helper()
	d, err := os.Open(f.mount)
	if err != nil {
		t.Fatal(err)
	}
	const (
		shutdown   = 0x8004587d // EXT4_IOC_SHUTDOWN
		noLogFlush = 2
	)
	err = unix.IoctlSetPointerInt(int(d.Fd()), shutdown, noLogFlush)
	if err = errors.Join(err, d.Close()); err != nil {
		t.Fatal(err)
	}
	f.down(t)
	f.up(t)
}

func TestPowerCut(t *testing.T) {
	fsys := mkfs(t, 256<<20, "mkfs.ext4", "-q")
	root := filepath.Join(fsys.mount, "store")
	disk := content(1, diskSize)
	im := image(t, disk)
	for round := range int64(5) {
		s := open(t, Config{Root: root})
		mustEnsure(t, s, im)
		_, overlay, err := s.CreateOverlay(t.Context(), life(round+1), im.Digest(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		data, err := s.CreateData(t.Context(), "office-1", uid, uint64(round+1)<<20)
		if err != nil {
			t.Fatal(err)
		}
		kill(s)
		fsys.cut(t)
		checkContent(t, basePath(s, im), disk)
		if st, err := os.Stat(data); err != nil || st.Size() != (round+1)<<20 {
			t.Errorf("round %d: data disk after the cut: %v", round, err)
		}
		// An overlay that no guest flushed may be gone; it is never half there.
		if _, err := os.Stat(overlay); !errors.Is(err, fs.ErrNotExist) {
			qemuImg(t, "check", "-f", "qcow2", overlay)
		}
		s = open(t, Config{Root: root})
		if _, err := s.DataDisks(t.Context()); err != nil {
			t.Error(err)
		}
		mustEnsure(t, s, im)
		if _, _, err := s.CreateOverlay(t.Context(), life(round+1), im.Digest(), 1<<20); err != nil {
			t.Errorf("round %d: the same overlay after the cut: %v", round, err)
		}
		qemuImg(t, "check", "-f", "qcow2", overlay)
		kill(s)
	}
	if n := im.Given(); n != 3 {
		t.Errorf("%d chunks fetched, want 3: a base that was published survives every cut", n)
	}
}

// A layer that was published survives every cut with its root, and what a cut leaves of one on its way is gone on with.
func TestPowerCutOfLayer(t *testing.T) {
	fsys := mkfs(t, 256<<20, "mkfs.ext4", "-q")
	root := filepath.Join(fsys.mount, "store")
	disk := noisy(40)
	before := image(t, disk)
	s := open(t, Config{Root: root})
	mustEnsure(t, s, before)
	for round := range 5 {
		disk = bytes.Clone(disk)
		copy(disk[(7*round+1)*images.ChunkBytes:], "a patch")
		im := image(t, disk)
		im.Spoil(func(_ images.Digest, b []byte) ([]byte, error) { return nil, errors.New("the host's power goes") })
		if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); err == nil {
			t.Fatal("EnsureBase succeeded")
		}
		cut := func() {
			kill(s)
			fsys.cut(t)
			// The kernel is the same one, so that the store must be told.
			if err := os.WriteFile(filepath.Join(root, fileBoot), []byte("another boot"), 0o600); err != nil {
				t.Fatal(err)
			}
			s = open(t, Config{Root: root})
			if bases, _ := s.Bases(t.Context()); len(bases) != 0 {
				t.Errorf("round %d: %v are trusted after a cut", round, bases)
			}
		}
		cut()
		im.Spoil(nil)
		mustEnsure(t, s, im)
		im.Given()
		mustLayer(t, s, im, true)
		cut()
		mustEnsure(t, s, im)
		mustLayer(t, s, im, true)
		checkBase(t, s, im.Digest(), disk)
		checkQEMU(t, layerPath(s, im), disk)
		if n := im.Given(); n != 0 {
			t.Errorf("round %d: %d chunks were fetched again", round, n)
		}
	}
	kill(s)
}

func TestCutWhileFetching(t *testing.T) {
	fsys := mkfs(t, 256<<20, "mkfs.ext4", "-q")
	root := filepath.Join(fsys.mount, "store")
	disk := content(1, diskSize)
	im := image(t, disk)
	s := open(t, Config{Root: root})
	left := 2
	im.Spoil(func(_ images.Digest, b []byte) ([]byte, error) {
		if left--; left < 0 {
			return nil, errors.New("the host's power goes")
		}
		return b, nil
	})
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); err == nil {
		t.Fatal("EnsureBase succeeded")
	}
	kill(s)
	fsys.cut(t)
	s = open(t, Config{Root: root})
	defer s.Close()
	if got, err := s.Bases(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("Bases = %v, %v", got, err)
	}
	im.Spoil(nil)
	mustEnsure(t, s, im)
	checkContent(t, basePath(s, im), disk)
}

func TestStoreReallyFull(t *testing.T) {
	fsys := mkfs(t, 64<<20, "mkfs.ext4", "-q", "-m", "0")
	s := open(t, Config{Root: filepath.Join(fsys.mount, "store")})
	defer s.Close()
	large := make([]byte, 80<<20)
	for i := 0; i < len(large); i += images.ChunkBytes {
		copy(large[i:], content(uint64(i/images.ChunkBytes), diskSize)[:images.ChunkBytes])
	}
	im := image(t, large)
	if err := s.EnsureBase(t.Context(), im.Digest(), im, noProgress); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("a base larger than the store: %v, want ErrNoSpace", err)
	}
	if n := im.Given(); n != 0 {
		t.Errorf("%d chunks were fetched for nothing", n)
	}
	// Somebody else fills the file system after the room was promised.
	small := image(t, content(1, diskSize))
	ballast := filepath.Join(fsys.mount, "ballast")
	small.Spoil(func(_ images.Digest, b []byte) ([]byte, error) {
		f, err := os.Create(ballast)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var st unix.Statfs_t
		if err := unix.Statfs(fsys.mount, &st); err != nil {
			return nil, err
		}
		return b, unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize)
	})
	if err := s.EnsureBase(t.Context(), small.Digest(), small, noProgress); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("the store fills under the fetch: %v, want ErrNoSpace", err)
	}
	if got, _ := s.Bases(t.Context()); len(got) != 0 {
		t.Errorf("Bases = %v", got)
	}
	small.Spoil(nil)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustEnsure(t, s, small)
}

// Where the file system can share blocks, a next version that is no layer costs what is new in it, too.
func TestSeedSharesBlocks(t *testing.T) {
	fsys := mkfs(t, 512<<20, "mkfs.xfs", "-q", "-m", "reflink=1")
	s := open(t, Config{Root: filepath.Join(fsys.mount, "store")})
	defer s.Close()
	disk := bytes.Repeat(content(1, diskSize)[:2*images.ChunkBytes], 100)
	mustEnsure(t, s, image(t, disk))
	before := available(t, s)
	patched := bytes.Clone(disk)
	for i := range 60 {
		copy(patched[3*i*images.ChunkBytes:], strconv.Itoa(i))
	}
	im := image(t, patched)
	mustEnsure(t, s, im)
	mustLayer(t, s, im, false)
	checkBase(t, s, im.Digest(), patched)
	if used := before - available(t, s); used > 60*images.ChunkBytes+8<<20 {
		t.Errorf("a patch of 60 chunks took %d bytes of the store", used)
	}
}
