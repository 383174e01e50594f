package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRestart(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, Config{Root: root})
	im := image(t, content(1, diskSize))
	mustEnsure(t, s, im)
	im.Given()
	if _, err := Open(Config{Root: root}, s.log); err == nil || !strings.Contains(err.Error(), "in use by another agent") {
		t.Errorf("a second agent opened the store: %v", err)
	}
	for name, c := range map[string]struct {
		stop    func(*Store) error
		between func()
		// again, if set, is a second stop before anything was compared.
		again   func(*Store) error
		bases   int
		fetched int
	}{
		"orderly":                       {stop: (*Store).Close, between: func() { os.WriteFile(filepath.Join(root, fileBoot), []byte("another boot"), 0o600) }, bases: 1},
		"agent killed":                  {stop: kill, between: func() {}, bases: 1},
		"power cut":                     {stop: kill, between: func() { os.WriteFile(filepath.Join(root, fileBoot), []byte("another boot"), 0o600) }},
		"changed while closed":          {stop: (*Store).Close, between: func() { spoilFile(t, basePath(s, im), 100) }, fetched: 1},
		"power cut and rot":             {stop: kill, between: func() { rot(t, root, basePath(s, im)) }, fetched: 1},
		"rot, then killed again":        {stop: kill, between: func() { rot(t, root, basePath(s, im)) }, again: kill, fetched: 1},
		"rot, then an orderly stop":     {stop: kill, between: func() { rot(t, root, basePath(s, im)) }, again: (*Store).Close, fetched: 1},
		"truncated while closed":        {stop: (*Store).Close, between: func() { os.Truncate(basePath(s, im), 4096) }, fetched: 3},
		"manifest lost":                 {stop: kill, between: func() { os.Remove(filepath.Join(root, dirBases, im.Digest()+".manifest")) }, bases: 1},
		"base lost, the manifest there": {stop: (*Store).Close, between: func() { os.Remove(basePath(s, im)) }, fetched: 3},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.stop(s); err != nil {
				t.Fatal(err)
			}
			c.between()
			// What is good of a damaged base is used again; here only of this case's.
			if err := errors.Join(os.RemoveAll(s.path(dirTrash)), os.Mkdir(s.path(dirTrash), 0o711)); err != nil {
				t.Fatal(err)
			}
			s = open(t, Config{Root: root})
			if c.again != nil {
				if err := c.again(s); err != nil {
					t.Fatal(err)
				}
				s = open(t, Config{Root: root})
			}
			if got, _ := s.Bases(t.Context()); len(got) != c.bases {
				t.Errorf("Bases = %v, want %d", got, c.bases)
			}
			mustEnsure(t, s, im)
			checkContent(t, basePath(s, im), content(1, diskSize))
			if n := im.Given(); n != c.fetched {
				t.Errorf("%d chunks fetched, want %d", n, c.fetched)
			}
		})
	}
}

// kill lets go of the store as the death of the process does.
func kill(s *Store) error {
	return s.unlock()
}

// A command that another goroutine is starting has a copy of every open file for a moment: it must not keep the store closed.
func TestReopenedDuringFork(t *testing.T) {
	root := filepath.Join(t.TempDir(), "store")
	s := open(t, Config{Root: root})
	copied, err := unix.Dup(int(s.lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Root: root})
}

// rot changes a base without a trace in its times, and the boot.
func rot(t *testing.T, root, base string) {
	t.Helper()
	st, err := os.Stat(base)
	if err != nil {
		t.Fatal(err)
	}
	spoilFile(t, base, 100)
	if err := errors.Join(os.Chtimes(base, st.ModTime(), st.ModTime()), os.WriteFile(filepath.Join(root, fileBoot), []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
}
