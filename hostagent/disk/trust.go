package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"daybreak/hostagent"
	"daybreak/images"
)

// A base counts as whole when this host has read all of it and compared it with its manifest since the last stop of the
// host that was not orderly; then its stamp lies beside it, in a file of its own, since to write an attribute changes what
// the stamp is about. Two small files remember how the last stop was:
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
			s.log.Error().Err(err).Msg("a base cannot be looked at; it is compared anew before its next use")
			return nil
		}
		if text, err := os.ReadFile(s.path(dirBases, stampName(d))); err == nil && string(text) == have.encode() {
			s.verified[d] = have
		}
		return nil
	})
}

// removeStamps forgets durably which bases were compared.
func (s *Store) removeStamps() error {
	err := s.eachBase(func(d images.Digest, _ string) error { return s.removeStamp(d) })
	// Synced even when they are gone already: an earlier removal may have been interrupted before this.
	return errors.Join(err, syncDir(s.path(dirBases)))
}

func (s *Store) removeStamp(d images.Digest) error {
	if err := os.Remove(s.path(dirBases, stampName(d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove stamp: %w", err)
	}
	return nil
}

// stampBase says durably that a base was compared, and trusts it.
func (s *Store) stampBase(d images.Digest, st stamp) error {
	if err := s.writeSmall(filepath.Join(dirBases, stampName(d)), []byte(st.encode())); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[d] = st
	return nil
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
	tmp := s.path(dirTmp, "small-"+filepath.Base(name))
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
		s.forget(d)
		return 0, false
	}
	return have.size, true
}

// distrust has a base compared anew before its next use.
func (s *Store) distrust(d images.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(d)
}

// forget has a base compared anew, also by the next agent. The caller holds mu.
func (s *Store) forget(d images.Digest) {
	delete(s.verified, d)
	if err := s.removeStamp(d); err != nil {
		s.log.Error().Err(err).Stringer("base", d).Msg("the stamp of a base that is not trusted is still there")
	}
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
