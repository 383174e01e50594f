package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/images"
)

// TrashBases moves to the trash the bases that keep does not name and that nothing has used since a time: no overlay stands on
// them, no VM has them open, none is being made. It returns their digests. Those that are kept count as used now.
//
// No overlay comes to be meanwhile: CreateOverlay holds the lock that this takes. What it cannot look into, it takes for used.
func (s *Store) TrashBases(ctx context.Context, keep map[string]bool, unusedSince time.Time) (gone []string, err error) {
	s.using.Lock()
	defer s.using.Unlock()
	clear := func(d images.Digest, path string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if keep[d.String()] {
			s.use(d)
			return nil
		}
		used, err := s.inUse(d, path, unusedSince)
		if err != nil || used {
			return err
		}
		if err := s.retire(d, path); err != nil {
			return err
		}
		gone = append(gone, d.String())
		return nil
	}
	// Layers first: then it shows which of the others still have one on them.
	err = s.eachBase(func(d images.Digest, path string, layered bool) error {
		if !layered {
			return nil
		}
		return clear(d, path)
	})
	if err == nil {
		err = s.clearRaw(clear)
	}
	if err != nil {
		return gone, fmt.Errorf("clear bases: %w", err)
	}
	return gone, nil
}

// clearRaw clears those raw bases on which no layer stands, nor one that is being made.
func (s *Store) clearRaw(clear func(d images.Digest, path string) error) error {
	roots := map[images.Digest]bool{}
	for _, a := range s.onTheirWay() {
		roots[a.root] = true
	}
	unknown := false
	err := s.eachBase(func(_ images.Digest, path string, layered bool) error {
		if layered {
			root, _, err := s.headOfLayer(path)
			roots[root] = true
			unknown = unknown || err != nil
		}
		return nil
	})
	if err != nil || unknown {
		return err
	}
	return s.eachBase(func(d images.Digest, path string, layered bool) error {
		if layered || roots[d] {
			return nil
		}
		return clear(d, path)
	})
}

// inUse says whether a base is used, or was after a time.
func (s *Store) inUse(d images.Digest, path string, since time.Time) (bool, error) {
	s.mu.Lock()
	busy := s.flights[d] != nil
	s.mu.Unlock()
	if busy {
		return true, nil
	}
	last, err := s.lastUse(d, path)
	if err != nil || last.After(since) {
		return true, err
	}
	if open, err := locked(path); err != nil || open {
		return true, err
	}
	return s.overlaid(d)
}

// lastUse is kept as the time of the manifest: that of the base itself is part of its stamp.
func (s *Store) lastUse(d images.Digest, path string) (time.Time, error) {
	base, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at base: %w", err)
	}
	manifest, err := os.Lstat(s.path(dirBases, manifestName(d)))
	if errors.Is(err, fs.ErrNotExist) {
		return base.ModTime(), nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("look at manifest: %w", err)
	}
	return manifest.ModTime(), nil
}

// use notes that a base is used now. A note that fails makes it look older, at worst it is fetched again.
func (s *Store) use(d images.Digest) {
	now := time.Now()
	if err := os.Chtimes(s.path(dirBases, manifestName(d)), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn().Err(err).Stringer("base", d).Msg("use of a base not noted")
	}
}

// overlaid says whether an overlay stands on a base. It does not trust what the overlay's attribute says: it looks for the
// base's digest at the begin of the file, where the backing file is named, without reading the rest as anything.
func (s *Store) overlaid(d images.Digest) (bool, error) {
	name := []byte(d.String())
	for _, dir := range []string{dirOverlays, dirBuilds} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return true, err
		}
		for _, entry := range entries {
			head, err := headOf(s.path(dir, entry.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil || bytes.Contains(head, name) {
				return true, err
			}
			if known, _, err := aboutOf(s.path(dir, entry.Name())); err == nil && known.base == d {
				return true, nil
			}
		}
	}
	return false, nil
}

// headOf reads the first cluster of an overlay: no backing file is named after that.
func headOf(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, clusterSize))
}

// retire moves a base to the trash.
func (s *Store) retire(d images.Digest, path string) error {
	s.distrust(d)
	if err := s.moveToTrash(path, kindBase); err != nil {
		return err
	}
	s.log.Info().Stringer("base", d).Msg("a base that nothing needs any more went to the trash")
	// Its stamp and manifest say nothing of any other file.
	for _, name := range []string{stampName(d), manifestName(d)} {
		if err := os.Remove(s.path(dirBases, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Scrub compares the base whose last comparison is the longest ago, if that was before a time, reading at most so many bytes
// a second. It returns its digest, and whether it was damaged; a damaged one is set aside. Empty when none is due.
func (s *Store) Scrub(ctx context.Context, before time.Time, bytesPerSecond int64) (digest string, damaged bool, err error) {
	type due struct {
		d    images.Digest
		last time.Time
	}
	var all []due
	s.mu.Lock()
	for d := range s.verified {
		if last := s.comparedAt(d); last.Before(before) && s.flights[d] == nil {
			all = append(all, due{d, last})
		}
	}
	s.mu.Unlock()
	if len(all) == 0 {
		return "", false, nil
	}
	oldest := slices.MinFunc(all, func(a, b due) int { return a.last.Compare(b.last) }).d
	m, err := s.keptManifest(oldest)
	if err != nil {
		// Without it there is nothing to compare with; whoever wants the base fetches it.
		s.distrust(oldest)
		return oldest.String(), true, nil
	}
	f, mine := s.board(oldest)
	if !mine {
		return "", false, nil
	}
	whole, err := s.recheck(ctx, m, slowly(bytesPerSecond))
	if err == nil && !whole {
		s.distrust(oldest)
	}
	// Who waited for it meanwhile looks again.
	f.err = errLookAgain
	s.land(oldest, f)
	if err != nil {
		return "", false, fmt.Errorf("scrub: %w", err)
	}
	return oldest.String(), !whole, nil
}

// comparedAt is when all of a base was last compared with its manifest: when its stamp was written.
func (s *Store) comparedAt(d images.Digest) time.Time {
	info, err := os.Lstat(s.path(dirBases, stampName(d)))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
