package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// recheck compares the base that lies there with its manifest, and the one below a layer if that is not trusted. A damaged one
// is set aside in the trash: guests that run on it keep it open, and the next will start on the one that is fetched in its place.
func (s *Store) recheck(ctx context.Context, m *images.Manifest, how pace) (whole bool, err error) {
	whole, err = s.recheckFile(ctx, m, false, how)
	if err != nil || whole {
		return whole, err
	}
	return s.recheckFile(ctx, m, true, how)
}

func (s *Store) recheckFile(ctx context.Context, m *images.Manifest, layered bool, how pace) (whole bool, err error) {
	path := s.filePath(m.Digest(), layered)
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if errors.Is(err, unix.ELOOP) {
		s.log.Error().Stringer("base", m.Digest()).Msg("a link lies under a base's name; it is set aside and the base fetched anew")
		return false, s.moveToTrash(path, kindDamaged)
	}
	if err != nil {
		return false, fmt.Errorf("recheck base: %w", err)
	}
	defer f.Close()
	before, err := stampOfOpen(f)
	if err != nil {
		s.log.Error().Err(err).Stringer("base", m.Digest()).Msg("what lies under a base's name is none; it is set aside and the base fetched anew")
		return false, s.moveToTrash(path, kindDamaged)
	}
	file, k := m, known{stamp: before, disk: m.Size()}
	if layered {
		if file, k.root, err = s.checkRoot(ctx, f, m, how); err != nil {
			return false, fmt.Errorf("recheck base: %w", err)
		}
		if file == nil {
			s.log.Warn().Stringer("base", m.Digest()).Msg("a base whose root is damaged, or is not there, is set aside and fetched anew")
			return false, s.moveToTrash(path, kindDamaged)
		}
	}
	damaged, err := damage(ctx, f, file, nil, how)
	if err != nil {
		return false, fmt.Errorf("recheck base: %w", err)
	}
	if after, err := stampOf(path); err != nil || after != before {
		return false, fmt.Errorf("recheck base: %s changed while it was compared: who writes there? (%w)", path, errors.Join(err, hostagent.ErrCorrupt))
	}
	if len(damaged) == 0 && uint64(before.size) == file.Size() {
		if err := s.stampBase(m.Digest(), k); err != nil {
			return false, fmt.Errorf("recheck base: %w", err)
		}
		return true, nil
	}
	s.log.Error().Stringer("base", m.Digest()).Int("damaged_pieces", len(damaged)).Int64("size", before.size).Uint64("want_size", file.Size()).
		Msg("a base is damaged; it is set aside and fetched anew")
	return false, s.moveToTrash(path, kindDamaged)
}

// checkRoot says by which manifest a layer's file is to be compared, once the raw base below it is known to be whole; nil when
// that is damaged or not there.
func (s *Store) checkRoot(ctx context.Context, f *os.File, m *images.Manifest, how pace) (*images.Manifest, images.Digest, error) {
	root, err := s.rootOf(f)
	if err != nil {
		s.log.Error().Err(err).Stringer("base", m.Digest()).Msg("a layer does not look like one")
		return nil, root, nil
	}
	l, below, err := s.layerOn(m, root)
	if err == nil && root == m.Digest() {
		err = errors.New("it names itself")
	}
	if err != nil {
		s.log.Error().Err(err).Stringer("base", m.Digest()).Msg("a layer cannot be compared")
		return nil, root, nil
	}
	whole, err := s.compareRoot(ctx, below, how)
	if err != nil || !whole {
		return nil, root, err
	}
	return l.file, root, nil
}

// compareRoot says whether there is a raw base that may be used, and compares it if need be.
//
// It may wait for another flight. Who calls it has no raw file of the base of its own flight, and nobody waits for one that has
// none: so nobody waits in a circle, whatever the headers of layers name.
func (s *Store) compareRoot(ctx context.Context, m *images.Manifest, how pace) (whole bool, err error) {
	for {
		if s.usableRoot(m.Digest()) {
			return true, nil
		}
		if _, err := os.Lstat(s.filePath(m.Digest(), false)); err != nil {
			return false, nil
		}
		flight, mine := s.board(m.Digest())
		if mine {
			whole, err := s.recheckFile(ctx, m, false, how)
			flight.err = errLookAgain
			s.land(m.Digest(), flight)
			if err != nil || !whole {
				return false, err
			}
			continue
		}
		select {
		case <-flight.done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}
