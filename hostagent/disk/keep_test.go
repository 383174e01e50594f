package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"

	"daybreak/hostagent"
	"daybreak/hostagent/hosttest"
	v1 "daybreak/proto/daybreak/v1"
)

// qemuImg runs qemu-img, which reads what this package wrote with eyes of its own.
func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("qemu-img is not installed")
	}
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func withBase(t *testing.T) (*Store, *hosttest.Image, []byte) {
	t.Helper()
	s, disk := open(t, Config{}), content(1, diskSize)
	im := image(t, disk)
	mustEnsure(t, s, im)
	return s, im, disk
}

func TestOverlayByQEMUsEyes(t *testing.T) {
	s, im, disk := withBase(t)
	base, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if n := allocated(t, overlay); n > 16<<10 {
		t.Errorf("an empty overlay takes %d bytes", n)
	}
	if out := qemuImg(t, "check", "-f", "qcow2", overlay); !strings.Contains(out, "No errors were found") {
		t.Error(out)
	}
	chain := qemuImg(t, "info", "--backing-chain", "-f", "qcow2", overlay)
	for _, want := range []string{"backing file format: raw", "backing file: " + base.Raw, fmt.Sprintf("virtual size: 3 MiB (%d bytes)", diskSize)} {
		if !strings.Contains(chain, want) {
			t.Errorf("no %q in\n%s", want, chain)
		}
	}
	flat := filepath.Join(t.TempDir(), "flat.raw")
	qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", overlay, flat)
	checkContent(t, flat, disk)
}

func TestOverlaySizes(t *testing.T) {
	for _, size := range []uint64{512, 1 << 20, 512<<20 - 512, 512 << 20, 512<<20 + 512, 1 << 40} {
		dir := t.TempDir()
		base := filepath.Join(dir, "base.raw")
		f, err := os.Create(filepath.Join(dir, "overlay.qcow2"))
		if err == nil {
			err = errors.Join(os.WriteFile(base, nil, 0o600), os.Truncate(base, int64(size)), writeOverlay(f, base, formatRaw, size), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		qemuImg(t, "check", "-f", "qcow2", f.Name())
		if out := qemuImg(t, "info", "-f", "qcow2", f.Name()); !strings.Contains(out, fmt.Sprintf("(%d bytes)", size)) {
			t.Error(out)
		}
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "long"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeOverlay(f, strings.Repeat("x", 1024), formatRaw, 512); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("a path of 1024 bytes: %v", err)
	}
}

func TestOverlayIsLeftAsItIs(t *testing.T) {
	s, im, _ := withBase(t)
	_, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(overlay, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("the user's work"), 100_000); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(overlay)
	if _, again, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 9<<20); err != nil || again != overlay {
		t.Fatalf("again: %s, %v", again, err)
	}
	checkContent(t, overlay, before)
	other := image(t, content(2, diskSize))
	mustEnsure(t, s, other)
	if _, _, err := s.CreateOverlay(t.Context(), life(7), other.Digest(), 1<<20); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("the same life on another base: %v, want ErrPermanent", err)
	}
	if left, _ := os.ReadDir(s.path(dirTmp)); len(left) != 0 {
		t.Errorf("left in tmp: %v", left)
	}
}

func TestListsAndTrash(t *testing.T) {
	s, im, _ := withBase(t)
	for _, generation := range []int64{7, 12} {
		if _, _, err := s.CreateOverlay(t.Context(), life(generation), im.Digest(), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	data, err := s.CreateData(t.Context(), "office-1", uid, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(dirOverlays, "foreign.qcow2"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantDisks := []*v1.KeptDisk{{Desktop: "office-1", DesktopUid: uid, Bytes: 1 << 20}}
	check := func(want []hostagent.Life) {
		t.Helper()
		got, err := s.Overlays(t.Context())
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("overlays: %v\n%s", err, diff)
		}
		disks, err := s.DataDisks(t.Context())
		if diff := cmp.Diff(wantDisks, disks, protocmp.Transform()); diff != "" || err != nil {
			t.Errorf("data disks: %v\n%s", err, diff)
		}
	}
	check([]hostagent.Life{life(12), life(7)})
	for range 2 {
		if err := s.TrashOverlay(t.Context(), life(7)); err != nil {
			t.Fatal(err)
		}
	}
	check([]hostagent.Life{life(12)})
	for range 2 {
		if err := s.TrashData(t.Context(), uid); err != nil {
			t.Fatal(err)
		}
	}
	wantDisks = nil
	check([]hostagent.Life{life(12)})
	checkTrash := func(want int, after time.Duration) {
		t.Helper()
		if err := s.Sweep(t.Context(), time.Now().Add(after)); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(s.path(dirTrash)); len(left) != want {
			t.Errorf("after %v: %d files in the trash, want %d", after, len(left), want)
		}
	}
	checkTrash(2, time.Hour-time.Minute)
	checkTrash(1, time.Hour+time.Minute)
	checkTrash(1, 71*time.Hour)
	checkTrash(0, 73*time.Hour)
	if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the data disk is still under its name")
	}
	check([]hostagent.Life{life(12)})
}

func TestTrashLeavesRunningGuestsDiskAlone(t *testing.T) {
	s, im, _ := withBase(t)
	_, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(overlay, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// As QEMU does it: shared locks on single bytes from 100 and 200 on.
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 101, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if err := s.TrashOverlay(t.Context(), life(7)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("TrashOverlay = %v, want in use", err)
	}
	f.Close()
	if err := s.TrashOverlay(t.Context(), life(7)); err != nil {
		t.Error(err)
	}
}

func TestDataDiskGrowsAndNeverShrinks(t *testing.T) {
	s := open(t, Config{})
	for _, step := range []struct{ ask, want uint64 }{{1 << 20, 1 << 20}, {4 << 20, 4 << 20}, {1 << 20, 4 << 20}} {
		path, err := s.CreateData(t.Context(), "office-1", uid, step.ask)
		if err != nil {
			t.Fatal(err)
		}
		if st, _ := os.Stat(path); uint64(st.Size()) != step.want {
			t.Errorf("asked for %d: %d bytes, want %d", step.ask, st.Size(), step.want)
		}
	}
	for _, size := range []uint64{0, 1000, 1 << 60} {
		if _, err := s.CreateData(t.Context(), "office-1", uid, size); !errors.Is(err, hostagent.ErrPermanent) {
			t.Errorf("size %d: %v, want ErrPermanent", size, err)
		}
	}
}

func available(t *testing.T, s *Store) uint64 {
	t.Helper()
	space, err := s.Space(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return space.Available
}

// about the machine's own use of its disk while a test runs.
const noise = 2 << 30

func TestPromisesAreCounted(t *testing.T) {
	s, im, _ := withBase(t)
	before := available(t, s)
	if before < 4*noise {
		t.Skip("not enough free space to tell promises from noise")
	}
	promise := before / 2
	if _, _, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), promise); err != nil {
		t.Fatal(err)
	}
	if now := available(t, s); now > before-promise+noise || now+noise < before-promise {
		t.Errorf("available %d after promising %d of %d", now, promise, before)
	}
	if _, _, err := s.CreateOverlay(t.Context(), life(8), im.Digest(), promise+noise); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("promising more than there is: %v, want ErrNoSpace", err)
	}
	if _, err := s.CreateData(t.Context(), "office-1", uid, (promise+noise)&^511); !errors.Is(err, hostagent.ErrNoSpace) {
		t.Errorf("a data disk larger than what is left: %v, want ErrNoSpace", err)
	}
	if got, _ := s.Overlays(t.Context()); len(got) != 1 {
		t.Errorf("overlays %v: one that was refused is there", got)
	}
	if err := s.TrashOverlay(t.Context(), life(7)); err != nil {
		t.Fatal(err)
	}
	if now := available(t, s); now+noise < before {
		t.Errorf("available %d of %d after the overlay went", now, before)
	}
}

func TestNamesAreChecked(t *testing.T) {
	s, im, _ := withBase(t)
	for _, bad := range []string{"", ".", "..", "../../etc", "%2e%2e", "a\x00b", "a\nb", `"/><disk`, "]]>", "机", "admin ", "x/y", "-x", strings.Repeat("a", 65), "{6f9f3d0c-6a3d-4f0e-9a55-0123456789ab}", strings.ToUpper(uid)} {
		for _, l := range []hostagent.Life{{Desktop: bad, UID: uid, Generation: 1}, {Desktop: "office-1", UID: bad, Generation: 1}} {
			_, _, err := s.CreateOverlay(t.Context(), l, im.Digest(), 1)
			if !errors.Is(err, hostagent.ErrPermanent) || !errors.Is(s.TrashOverlay(t.Context(), l), hostagent.ErrPermanent) {
				t.Errorf("%+v was taken (%v)", l, err)
			}
			if _, err := s.CreateData(t.Context(), l.Desktop, l.UID, 512); !errors.Is(err, hostagent.ErrPermanent) {
				t.Errorf("data disk of %+v: %v", l, err)
			}
		}
		if err := s.EnsureBase(t.Context(), bad, im, noProgress); !errors.Is(err, hostagent.ErrPermanent) {
			t.Errorf("digest %q: %v", bad, err)
		}
	}
	if _, _, err := s.CreateOverlay(t.Context(), life(0), im.Digest(), 1); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("generation 0: %v", err)
	}
	for _, root := range []string{"", "store", "/a/../b", "/a,b", "/a\nb"} {
		if _, err := Open(Config{Root: root}, s.log); err == nil {
			t.Errorf("store at %q was opened", root)
		}
	}
}

func FuzzParseAbout(f *testing.F) {
	f.Add(about{desktop: "office-1", reserve: 1 << 30}.encode())
	f.Add("1 a 99999999999999999999 00")
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := parseAbout(text); err == nil && a.encode() != text {
			t.Errorf("%q was read as %q", text, a.encode())
		}
	})
}

func FuzzFileNames(f *testing.F) {
	f.Add(overlayName(life(7)))
	f.Add(dataName(uid))
	f.Add("overlay." + overlayName(life(7)) + ".1700000000000000000")
	f.Fuzz(func(t *testing.T, name string) {
		if u, g, ok := parseOverlayName(name); ok && overlayName(hostagent.Life{UID: u, Generation: g}) != name {
			t.Errorf("%q was read as %s, %d", name, u, g)
		}
		if u, ok := parseDataName(name); ok && dataName(u) != name {
			t.Errorf("%q was read as %s", name, u)
		}
		parseTrashName(name)
	})
}

// What a clone costs, its fsync included.
func BenchmarkCreateOverlay(b *testing.B) {
	s, err := Open(Config{Root: filepath.Join(b.TempDir(), "store")}, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	disk := content(1, diskSize)
	im := hosttest.NewImage(b, bytes.NewReader(disk), int64(len(disk)))
	if err := s.EnsureBase(b.Context(), im.Digest(), im, noProgress); err != nil {
		b.Fatal(err)
	}
	generation := int64(0)
	for b.Loop() {
		generation++
		if _, _, err := s.CreateOverlay(b.Context(), life(generation), im.Digest(), 1<<10); err != nil {
			b.Fatal(err)
		}
	}
}
