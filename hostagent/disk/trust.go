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

// A base's file counts as whole when this host has read all of it and compared it with its manifest since the last stop of the
// host that was not orderly; then its stamp lies beside it, in a file of its own, since to write an attribute changes what
// the stamp is about. A layer may be used while the raw base below it may be, too. Two small files remember how the last stop was:
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
	return s.eachBase(func(d images.Digest, path string, layered bool) error {
		have, err := stampOf(path)
		if err != nil {
			s.log.Error().Err(err).Msg("a base cannot be looked at; it is compared anew before its next use")
			return nil
		}
		k := known{stamp: have, disk: uint64(have.size)}
		text, err := os.ReadFile(s.path(dirBases, stampName(d)))
		if err != nil || string(text) != have.encode() {
			return nil
		}
		if layered {
			// It looks as it did when all of it was compared, so its header is the one that was compared.
			if k.root, k.disk, err = s.headOfLayer(path); err != nil {
				s.log.Error().Err(err).Msg("a layer cannot be read; it is compared anew before its next use")
				return nil
			}
		}
		s.verified[d] = k
		return nil
	})
}

// known is a base that was compared.
type known struct {
	// How its file looked then.
	stamp
	// disk is the size of the version's disk, bytes.
	disk uint64
	// root is the raw base below a layer; zero where the file is raw itself.
	root images.Digest
}

func (k known) layered() bool { return !k.root.IsZero() }

// removeStamps forgets durably which bases were compared.
func (s *Store) removeStamps() error {
	err := s.eachBase(func(d images.Digest, _ string, _ bool) error { return s.removeStamp(d) })
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
func (s *Store) stampBase(d images.Digest, k known) error {
	if err := s.writeSmall(filepath.Join(dirBases, stampName(d)), []byte(k.encode())); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified[d] = k
	// What it said may be of another form of the base.
	delete(s.indexes, d)
	return nil
}

// eachBase calls do with each file that has the name of a base's.
func (s *Store) eachBase(do func(d images.Digest, path string, layered bool) error) error {
	entries, err := os.ReadDir(s.path(dirBases))
	if err != nil {
		return fmt.Errorf("list bases: %w", err)
	}
	for _, entry := range entries {
		if d, layered, ok := parseBaseName(entry.Name()); ok {
			if err := do(d, s.path(dirBases, entry.Name()), layered); err != nil {
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

// usable returns what is known of a base that was found whole and looks as it did then, as does the one below a layer.
func (s *Store) usable(d images.Digest) (k known, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, ok = s.looksWhole(d)
	if ok && k.layered() {
		// The layer is as good as it was, and used again when its root is whole.
		root, whole := s.looksWhole(k.root)
		ok = whole && !root.layered()
	}
	return k, ok
}

// usableRoot says whether a base is usable, and raw.
func (s *Store) usableRoot(d images.Digest) bool {
	k, ok := s.usable(d)
	return ok && !k.layered()
}

// looksWhole looks at one file; the caller holds mu.
func (s *Store) looksWhole(d images.Digest) (known, bool) {
	want, ok := s.verified[d]
	if !ok {
		return known{}, false
	}
	have, err := stampOf(s.filePath(d, want.layered()))
	if err != nil || have != want.stamp {
		s.log.Warn().Stringer("base", d).Msg("a base changed since it was compared; it is compared anew before its next use")
		s.forget(d)
		return known{}, false
	}
	return want, true
}

// filePath is where a base's file lies.
func (s *Store) filePath(d images.Digest, layered bool) string {
	if layered {
		return s.path(dirBases, layerName(d))
	}
	return s.path(dirBases, baseName(d))
}

// baseOf names the files of a base.
func (s *Store) baseOf(d images.Digest, k known) hostagent.Base {
	if k.layered() {
		return hostagent.Base{Raw: s.filePath(k.root, false), Layer: s.filePath(d, true)}
	}
	return hostagent.Base{Raw: s.filePath(d, false)}
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

func (s *Store) wholeBase(d images.Digest) (known, error) {
	k, ok := s.usable(d)
	if !ok {
		return k, fmt.Errorf("base %s: %w", d, hostagent.ErrNotFound)
	}
	return k, nil
}

// underConstruction says whether a file in tmp belongs to a base that is being fetched.
func (s *Store) underConstruction(name string) bool {
	stem, isPart := strings.CutSuffix(name, partSuffix)
	d, err := images.ParseDigest(strings.TrimSuffix(stem, layerSuffix))
	if !isPart || err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights[d] != nil
}
