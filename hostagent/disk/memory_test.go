package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
)

// sleeper makes the overlay of a life, and returns what writes its memory.
func sleeper(t *testing.T) (*Store, hostagent.Life, func(string) error) {
	t.Helper()
	s, im, _ := withBase(t)
	l := life(7)
	if _, _, err := s.CreateOverlay(t.Context(), l, im.Digest(), 1<<20); err != nil {
		t.Fatal(err)
	}
	return s, l, func(file string) error { return os.WriteFile(file, []byte("memory"), 0o600) }
}

func keptIs(t *testing.T, s *Store, l hostagent.Life, want hostagent.Kept) (file string) {
	t.Helper()
	file, kept, err := s.Memory(t.Context(), l)
	if err != nil || kept != want || (file == "") != (want == hostagent.KeptNone) {
		t.Errorf("Memory = %q, %d, %v; want %d", file, kept, err, want)
	}
	return file
}

func TestMemoryIsKeptWholeOrNotAtAll(t *testing.T) {
	s, l, write := sleeper(t)
	broken := errors.New("libvirtd died")
	err := s.KeepMemory(t.Context(), l, 1<<20, func(file string) error { return errors.Join(write(file), broken) })
	if !errors.Is(err, broken) {
		t.Fatalf("KeepMemory = %v", err)
	}
	// Somebody may still be writing to it, or have done so to the end: only the hypervisor can tell.
	keptIs(t, s, l, hostagent.KeptBegun)
	if err := s.KeepMemory(t.Context(), l, 1<<20, write); err != nil {
		t.Fatal(err)
	}
	file := keptIs(t, s, l, hostagent.KeptWhole)
	for path, mode := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): fs.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode(), err, mode)
		}
	}
	never := func(string) error { t.Error("memory that is kept was written again"); return nil }
	if err := s.KeepMemory(t.Context(), l, 1<<20, never); err != nil {
		t.Errorf("KeepMemory of what is kept: %v", err)
	}
	if err := errors.Join(s.DropMemory(t.Context(), l), s.DropMemory(t.Context(), l)); err != nil {
		t.Error(err)
	}
	keptIs(t, s, l, hostagent.KeptNone)
	if _, _, err := s.Memory(t.Context(), hostagent.Life{Desktop: "../x", UID: "..", Generation: 1}); !errors.Is(err, hostagent.ErrPermanent) {
		t.Errorf("a name that is none: %v", err)
	}
}

// A guest that ran on after its memory was saved must not be woken from it.
func TestMemoryThatIsOlderThanItsDiskIsNotKept(t *testing.T) {
	s, l, write := sleeper(t)
	data, err := s.CreateData(t.Context(), l.Desktop, l.UID, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{"overlay": s.overlayPath(l), "data disk": data} {
		err := s.KeepMemory(t.Context(), l, 1<<20, func(file string) error {
			later := time.Now().Add(time.Second)
			return errors.Join(write(file), os.Chtimes(path, later, later))
		})
		if !errors.Is(err, hostagent.ErrCorrupt) {
			t.Errorf("its %s was written to since: %v, want ErrCorrupt", what, err)
		}
		keptIs(t, s, l, hostagent.KeptBegun)
		before := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, before, before); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.KeepMemory(t.Context(), l, 1<<20, write); err != nil {
		t.Errorf("with older disks: %v", err)
	}
}

func TestMemoryHasItsRoomOrIsNotBegun(t *testing.T) {
	s, l, write := sleeper(t)
	called := false
	err := s.KeepMemory(t.Context(), l, 1<<62, func(string) error { called = true; return nil })
	if !errors.Is(err, hostagent.ErrNoSpace) || called {
		t.Errorf("KeepMemory = %v, written %v; want ErrNoSpace before anything is", err, called)
	}
	keptIs(t, s, l, hostagent.KeptNone)
	during := uint64(0)
	before := available(t, s)
	err = s.KeepMemory(t.Context(), l, 64<<20, func(file string) error { during = available(t, s); return write(file) })
	if err != nil || before-during < 63<<20 || before-during > 65<<20 {
		t.Errorf("while it is written %d MiB are promised to it, want 64 (%v)", (before-during)>>20, err)
	}
}

func TestMemoryWithoutItsDiskIsSwept(t *testing.T) {
	s, l, write := sleeper(t)
	gone := life(8)
	if err := s.KeepMemory(t.Context(), l, 1<<20, write); err != nil {
		t.Fatal(err)
	}
	stray := s.path(dirMemory, saveStem(gone)+partSave)
	foreign := s.path(dirMemory, "notes.txt")
	for _, path := range []string{stray, foreign} {
		if err := write(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, late := range []time.Duration{0, 2 * keepTmp} {
		if err := s.Sweep(t.Context(), time.Now().Add(late)); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(stray)
		if (late == 0) != (err == nil) {
			t.Errorf("after %v: %v", late, err)
		}
	}
	keptIs(t, s, l, hostagent.KeptWhole)
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
	// A link that somebody put there leads nowhere.
	if err := unix.Symlink(foreign, s.path(dirMemory, saveStem(gone)+partSave)); err != nil {
		t.Fatal(err)
	}
	if err := s.KeepMemory(t.Context(), gone, 1<<20, write); err == nil {
		t.Error("memory was written through a link")
	}
}
