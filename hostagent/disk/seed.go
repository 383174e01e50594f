package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"daybreak/images"
)

const (
	// maxSeeds are looked at for one base; those that share most come first.
	maxSeeds = 8
	// copyStep bounds one call to the kernel, so that a fetch that is given up ends soon.
	copyStep = 32 << 20
)

// seed is a file of this host that shares content with a base on its way: another base, or the damaged one that it replaces.
type seed struct {
	m      *images.Manifest
	f      *os.File
	shared int
}

// openSeeds opens what shares most with a version.
func (s *Store) openSeeds(m *images.Manifest) ([]*seed, error) {
	paths, err := s.seedPaths(m.Digest())
	if err != nil {
		return nil, err
	}
	var seeds []*seed
	for path, d := range paths {
		other, err := m, error(nil)
		if d != m.Digest() {
			other, err = s.keptManifest(d)
		}
		if err != nil {
			s.log.Warn().Err(err).Stringer("base", d).Msg("a base without its manifest is no seed")
			continue
		}
		if shared := shared(m, other); shared > 0 {
			f, err := openPlain(path)
			if err != nil {
				s.log.Warn().Err(err).Stringer("base", d).Msg("a base that cannot be opened is no seed")
				continue
			}
			seeds = append(seeds, &seed{m: other, f: f, shared: shared})
		}
	}
	slices.SortFunc(seeds, func(a, b *seed) int {
		return cmp.Or(b.shared-a.shared, cmp.Compare(a.f.Name(), b.f.Name()))
	})
	if len(seeds) > maxSeeds {
		closeSeeds(seeds[maxSeeds:])
		seeds = seeds[:maxSeeds]
	}
	return seeds, nil
}

// openPlain opens a regular file, and nothing else: no link is followed, no pipe waited for.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if _, err := stampOfOpen(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// seedPaths lists the other bases, and what a damaged base of the same digest left in the trash, with their digests.
func (s *Store) seedPaths(own images.Digest) (map[string]images.Digest, error) {
	paths := map[string]images.Digest{}
	err := s.eachBase(func(d images.Digest, path string) error {
		if d != own {
			paths[path] = d
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for seeds: %w", err)
	}
	entries, err := os.ReadDir(s.path(dirTrash))
	if err != nil {
		return nil, fmt.Errorf("look for seeds: %w", err)
	}
	for _, entry := range entries {
		if k, name, _, ok := parseTrashName(entry.Name()); ok && (k == kindDamaged || k == kindBase) && name == baseName(own) {
			paths[s.path(dirTrash, entry.Name())] = own
		}
	}
	return paths, nil
}

// shared counts the pieces that two versions have at the same place.
func shared(a, b *images.Manifest) int {
	n := 0
	for i := range min(a.Len(), b.Len()) {
		if p := a.Piece(i); !p.Zero() && p == b.Piece(i) {
			n++
		}
	}
	return n
}

func closeSeeds(seeds []*seed) {
	for _, seed := range seeds {
		seed.f.Close()
	}
}

// planned are the pieces that copySeeds will copy.
func (a *assembly) planned() picked {
	planned := picked{}
	for _, p := range a.missing() {
		for _, seed := range a.seeds {
			if p.Index < seed.m.Len() && seed.m.Piece(p.Index) == p {
				planned[p.Index] = true
			}
		}
	}
	return planned
}

// copySeeds copies what seeds have at the same place, without reading it: prove does that.
func (a *assembly) copySeeds(ctx context.Context) error {
	for _, seed := range a.seeds {
		missing := a.missing()
		for len(missing) > 0 {
			n := a.run(seed, missing)
			if n > 0 {
				if err := a.copyRun(ctx, seed, missing[:n]); err != nil {
					return fmt.Errorf("copy from seed: %w", err)
				}
			}
			missing = missing[max(n, 1):]
		}
	}
	return nil
}

// run is how many of the pieces, from the first on, follow each other and are the same in a seed.
func (a *assembly) run(seed *seed, pieces []images.Piece) int {
	n := 0
	for n < len(pieces) && n < copyStep/images.ChunkBytes && pieces[n].Index == pieces[0].Index+n &&
		pieces[n].Index < seed.m.Len() && seed.m.Piece(pieces[n].Index) == pieces[n] {
		n++
	}
	return n
}

// copyRun copies pieces that follow each other, within the file system, which shares the blocks where it can (XFS, btrfs).
// Pieces that the seed cannot give stay missing.
func (a *assembly) copyRun(ctx context.Context, seed *seed, pieces []images.Piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	in := pieces[0].Offset
	out, last := in, pieces[len(pieces)-1]
	for left := int(last.Offset-in) + last.Length; left > 0; {
		n, err := unix.CopyFileRange(int(seed.f.Fd()), &in, int(a.f.Fd()), &out, left, 0)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return err
		}
		if err != nil || n == 0 {
			break
		}
		left -= n
	}
	// A hint: it shall be on its way to the disk while the next is copied.
	_ = unix.SyncFileRange(int(a.f.Fd()), pieces[0].Offset, out-pieces[0].Offset, unix.SYNC_FILE_RANGE_WRITE)
	for _, p := range pieces {
		if p.Offset+int64(p.Length) > out {
			if there, err := a.copyByHand(seed, p); err != nil || !there {
				return err
			}
		}
		a.store.used(a.room, uint64(p.Length))
		a.place(p)
	}
	return nil
}

// copyByHand reads and writes a piece, where the kernel does not copy; false when the seed cannot be read.
func (a *assembly) copyByHand(seed *seed, p images.Piece) (bool, error) {
	buf := a.store.buffers.Get().(*[images.ChunkBytes]byte)
	defer a.store.buffers.Put(buf)
	if _, err := seed.f.ReadAt(buf[:p.Length], p.Offset); err != nil {
		a.store.damagedSeed(seed, p)
		return false, nil
	}
	_, err := a.f.WriteAt(buf[:p.Length], p.Offset)
	return true, err
}

// blame has those seeds compared anew that gave a piece which turned out to be wrong.
func (a *assembly) blame(p images.Piece) {
	for _, seed := range a.seeds {
		// That the damaged one which this base replaces is damaged is known.
		if seed.m.Digest() != a.m.Digest() && p.Index < seed.m.Len() && seed.m.Piece(p.Index) == p {
			a.read(seed, p, func([]byte) error { return nil }) //nolint:errcheck // it says itself what is wrong
		}
	}
}

// read reads a piece of a seed, checks it, and hands it to use. False when it is damaged.
func (a *assembly) read(seed *seed, p images.Piece, use func(plain []byte) error) (bool, error) {
	buf := a.store.buffers.Get().(*[images.ChunkBytes]byte)
	defer a.store.buffers.Put(buf)
	plain := buf[:p.Length]
	if _, err := seed.f.ReadAt(plain, p.Offset); err != nil || images.Sum(plain) != p.Digest {
		a.store.damagedSeed(seed, p)
		return false, nil
	}
	return true, use(plain)
}

func (s *Store) damagedSeed(seed *seed, p images.Piece) {
	s.log.Error().Stringer("base", seed.m.Digest()).Int("piece", p.Index).Msg("a base is damaged; it is compared anew before its next use")
	s.distrust(seed.m.Digest())
}
