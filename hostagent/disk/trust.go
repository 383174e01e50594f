package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"daybreak/hostagent"
	"daybreak/images"
)

// A base counts as whole when this host has read all of it and compared it with its manifest since the last stop of the
// host that was not orderly; then it bears a stamp in its attribute. Two small files remember how the last stop was:
// fileBoot holds the boot that the store was last open in, fileClean is there when it was closed in order. The death of
// the agent alone damages no file. After a stop that was not orderly all stamps go before fileBoot says that it was seen:
// however often the agent starts then, only a comparison makes a new one.
const (
	fileBoot   = "boot"
	fileClean  = "clean"
	bootIDPath = "/proc/sys/kernel/random/boot_id"
)

// trustBases decides at the opening which bases need not be read anew.
func (s *Store) trustBases() error {
	current, err := os.ReadFile(bootIDPath)
	if err != nil {
		return fmt.Errorf("read boot id: %w", err)
	}
	last, err := os.ReadFile(s.path(fileBoot))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read last boot: %w", err)
	}
	if _, err := os.Stat(s.path(fileClean)); err == nil || string(last) == string(current) {
		if err := s.loadStamps(); err != nil {
			return err
		}
	} else {
		if len(last) > 0 {
			s.log.Warn().Msg("the host did not stop in order: bases are compared anew before they are used")
		}
		if err := s.removeStamps(); err != nil {
			return err
		}
	}
	if err := s.writeSmall(fileBoot, current); err != nil {
		return err
	}
	if err := os.Remove(s.path(fileClean)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove mark of orderly stop: %w", err)
	}
	return syncDir(s.cfg.Root)
}

// loadStamps trusts the bases that look as they did when they were compared.
func (s *Store) loadStamps() error {
	return s.eachBase(func(d images.Digest, path string) error {
		have, err := stampOf(path)
		if err != nil {
			return fmt.Errorf("list bases: %w", err)
		}
		if text, err := readAttribute(path); err == nil && text == have.encode() {
			s.verified[d] = have
		}
		return nil
	})
}

// removeStamps forgets durably which bases were compared.
func (s *Store) removeStamps() error {
	return s.eachBase(func(_ images.Digest, path string) error {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("remove stamp: %w", err)
		}
		defer f.Close()
		return removeAttribute(f)
	})
}

func (s *Store) eachBase(do func(d images.Digest, path string) error) error {
	entries, err := os.ReadDir(s.path(dirBases))
	if err != nil {
		return fmt.Errorf("list bases: %w", err)
	}
	for _, entry := range entries {
		if d, ok := parseBaseName(entry.Name()); ok {
			if err := do(d, s.path(dirBases, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// markClean says that the stop is in order. Bases are synced when they are published, so there is nothing to flush.
func (s *Store) markClean() error {
	if err := s.writeSmall(fileClean, nil); err != nil {
		return err
	}
	return syncDir(s.cfg.Root)
}

// writeSmall writes a small file whole or not at all.
func (s *Store) writeSmall(name string, content []byte) error {
	tmp := s.path(dirTmp, "small-"+name)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp, s.path(name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// usable returns the size of a base that is known to be whole, and looks as it did then.
func (s *Store) usable(d images.Digest) (size int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want, known := s.verified[d]
	if !known {
		return 0, false
	}
	have, err := stampOf(s.path(dirBases, baseName(d)))
	if err != nil || have != want {
		s.log.Warn().Stringer("base", d).Msg("a base changed since it was compared; it is compared anew before its next use")
		delete(s.verified, d)
		return 0, false
	}
	return have.size, true
}

// distrust has a base compared anew before its next use.
func (s *Store) distrust(d images.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.verified, d)
}

func (s *Store) trustBase(d images.Digest, st stamp) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[d] = st
}

func (s *Store) baseSize(d images.Digest) (int64, error) {
	size, ok := s.usable(d)
	if !ok {
		return 0, fmt.Errorf("base %s: %w", d, hostagent.ErrNotFound)
	}
	return size, nil
}

// underConstruction says whether a file in tmp belongs to a base that is being fetched.
func (s *Store) underConstruction(name string) bool {
	stem, isPart := strings.CutSuffix(name, partSuffix)
	d, err := images.ParseDigest(stem)
	if !isPart || err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights[d] != nil
}
