package disk

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestScrubFindsDamage(t *testing.T) {
	s, disk := open(t, Config{}), noisy(6)
	im := image(t, disk)
	mustEnsure(t, s, im)
	im.Given()
	st, err := os.Stat(basePath(s, im))
	if err != nil {
		t.Fatal(err)
	}
	// As rot does it: no time of the file tells.
	rotten := s.verified[mustDigest(t, im)]
	spoilFile(t, basePath(s, im), 3*1<<18)
	if err := os.Chtimes(basePath(s, im), st.ModTime(), st.ModTime()); err != nil {
		t.Fatal(err)
	}
	now, err := stampOf(basePath(s, im))
	if err != nil {
		t.Fatal(err)
	}
	rotten.ctime = now.ctime
	s.verified[mustDigest(t, im)] = rotten
	if digest, damaged, err := s.Scrub(t.Context(), time.Now().Add(-time.Hour), 1<<40); digest != "" || damaged || err != nil {
		t.Fatalf("one that was just compared: %q, %v, %v", digest, damaged, err)
	}
	digest, damaged, err := s.Scrub(t.Context(), time.Now().Add(time.Hour), 1<<40)
	if digest != im.Digest() || !damaged || err != nil {
		t.Fatalf("Scrub = %q, %v, %v", digest, damaged, err)
	}
	if bases, _ := s.Bases(t.Context()); len(bases) != 0 {
		t.Errorf("Bases = %v", bases)
	}
	mustEnsure(t, s, im)
	checkContent(t, basePath(s, im), disk)
	if n := im.Given(); n != 1 {
		t.Errorf("%d chunks fetched to mend one", n)
	}
}

// An overlay whose attribute was lost or changed keeps its base by what it says itself, and so does a QEMU.
func TestBasesThatStay(t *testing.T) {
	s, im, _ := withBase(t)
	_, overlay, err := s.CreateOverlay(t.Context(), life(7), im.Digest(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	stays := func(what string) {
		t.Helper()
		if gone, err := s.TrashBases(t.Context(), nil, time.Now().Add(time.Hour)); err != nil || len(gone) != 0 {
			t.Errorf("%s: went %v, %v", what, gone, err)
		}
	}
	if err := unix.Removexattr(overlay, attribute); err != nil {
		t.Fatal(err)
	}
	stays("an overlay without its attribute")
	if err := s.TrashOverlay(t.Context(), life(7)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(basePath(s, im))
	if err != nil {
		t.Fatal(err)
	}
	// As QEMU does it for what it only reads.
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 100, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	stays("one that a QEMU has open")
	f.Close()
	gone, err := s.TrashBases(t.Context(), nil, time.Now().Add(time.Hour))
	if err != nil || len(gone) != 1 {
		t.Fatalf("went %v, %v", gone, err)
	}
	left, err := os.ReadDir(s.path(dirBases))
	if err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	// What is in the trash still is used again before it is fetched.
	im.Given()
	mustEnsure(t, s, im)
	if n := im.Given(); n != 0 {
		t.Errorf("%d chunks fetched of a base in the trash", n)
	}
	if err := s.Sweep(t.Context(), time.Now().Add(2*keepBase)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(s.path(dirTrash))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), string(kindBase)) {
			t.Errorf("%s is in the trash still", entry.Name())
		}
	}
}

// Desktops begin while bases go: whoever got an overlay has its base.
func TestBasesGoWhileDesktopsBegin(t *testing.T) {
	s, im, _ := withBase(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 15 {
			if _, err := s.TrashBases(t.Context(), nil, time.Now().Add(time.Hour)); err != nil {
				t.Error(err)
			}
		}
	}()
	for generation := int64(1); ; generation++ {
		select {
		case <-done:
			return
		default:
		}
		mustEnsure(t, s, im)
		base, _, err := s.CreateOverlay(t.Context(), life(generation), im.Digest(), 1<<20)
		if err != nil {
			continue // it went in between: the caller fetches it again
		}
		if _, err := os.Stat(base.Top()); err != nil {
			t.Fatalf("an overlay without its base: %v", err)
		}
		if err := s.TrashOverlay(t.Context(), life(generation)); err != nil {
			t.Fatal(err)
		}
	}
}
