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

// seed is what this host has of a version that shares content with a base on its way: another base, or one in the trash, where
// damaged ones are.
type seed struct {
	*baseFiles
	shared int
	trash  bool
}

// openSeeds opens what shares most with a version.
func (s *Store) openSeeds(m *images.Manifest) ([]*seed, error) {
	paths, err := s.seedPaths(m.Digest())
	if err != nil {
		return nil, err
	}
	var seeds []*seed
	for path, is := range paths {
		other, err := m, error(nil)
		if is.version != m.Digest() {
			other, err = s.keptManifest(is.version)
		}
		if err != nil {
			s.log.Warn().Err(err).Stringer("base", is.version).Msg("a base without its manifest is no seed")
			continue
		}
		if shared := shared(m, other); shared > 0 {
			c, err := s.openFile(other, path, is.layered)
			if err != nil {
				s.log.Warn().Err(err).Stringer("base", is.version).Msg("a base that cannot be opened is no seed")
				continue
			}
			seeds = append(seeds, &seed{baseFiles: c, shared: shared, trash: is.trash})
		}
	}
	slices.SortFunc(seeds, func(a, b *seed) int {
		return cmp.Or(b.shared-a.shared, cmp.Compare(a.top.Name(), b.top.Name()))
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

// seedFile is whose file it is.
type seedFile struct {
	version        images.Digest
	layered, trash bool
}

// seedPaths lists the other bases, and what damaged ones, and one of the same digest, left in the trash.
func (s *Store) seedPaths(own images.Digest) (map[string]seedFile, error) {
	paths := map[string]seedFile{}
	err := s.eachBase(func(d images.Digest, path string, layered bool) error {
		if d != own {
			paths[path] = seedFile{version: d, layered: layered}
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
		k, name, _, ok := parseTrashName(entry.Name())
		d, layered, isBase := parseBaseName(name)
		if ok && isBase && (k == kindDamaged || k == kindBase && d == own) {
			paths[s.path(dirTrash, entry.Name())] = seedFile{version: d, layered: layered, trash: true}
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
		_ = seed.Close() // they were only read
	}
}

// same says where a seed has a piece of the file, at the same place of the disk; no file when it has another there.
func (a *assembly) same(seed *seed, p images.Piece) (f *os.File, at int64) {
	i := a.origin(p.Index)
	if i < 0 || i >= seed.m.Len() || seed.m.Piece(i) != a.version.Piece(i) {
		return nil, 0
	}
	return seed.find(i)
}

// planned are the pieces that copySeeds will copy.
func (a *assembly) planned() picked {
	planned := picked{}
	for _, p := range a.missing() {
		for _, seed := range a.seeds {
			if f, _ := a.same(seed, p); f != nil {
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
			n, f, at := a.run(seed, missing)
			if n > 0 {
				if err := a.copyRun(ctx, seed, f, at, missing[:n]); err != nil {
					return fmt.Errorf("copy from seed: %w", err)
				}
			}
			missing = missing[max(n, 1):]
		}
	}
	return nil
}

// run is how many of the pieces, from the first on, follow each other in a file of a seed as they do here, and from where.
func (a *assembly) run(seed *seed, pieces []images.Piece) (n int, from *os.File, at int64) {
	from, at = a.same(seed, pieces[0])
	if from == nil {
		return 0, nil, 0
	}
	for n < len(pieces) && n < copyStep/images.ChunkBytes && pieces[n].Index == pieces[0].Index+n {
		if f, there := a.same(seed, pieces[n]); f != from || there != at+int64(n)*images.ChunkBytes {
			break
		}
		n++
	}
	return n, from, at
}

// copyRun copies pieces that follow each other, within the file system, which shares the blocks where it can (XFS, btrfs).
// Pieces that the seed cannot give stay missing.
func (a *assembly) copyRun(ctx context.Context, seed *seed, from *os.File, in int64, pieces []images.Piece) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	out, last := pieces[0].Offset, pieces[len(pieces)-1]
	for left := int(last.Offset-out) + last.Length; left > 0; {
		n, err := unix.CopyFileRange(int(from.Fd()), &in, int(a.f.Fd()), &out, left, 0)
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
	return a.read(seed, a.origin(p.Index), func(plain []byte) error {
		_, err := a.f.WriteAt(plain, p.Offset)
		return err
	})
}

// blame has those bases compared anew that gave a piece which turned out to be wrong.
func (a *assembly) blame(p images.Piece) {
	for _, seed := range a.seeds {
		if f, _ := a.same(seed, p); f != nil {
			a.read(seed, a.origin(p.Index), func([]byte) error { return nil }) //nolint:errcheck // it says itself what is wrong
		}
	}
}

// read reads a piece of a seed, checks it, and hands it to use. False when it is damaged.
func (a *assembly) read(seed *seed, i int, use func(plain []byte) error) (bool, error) {
	buf := a.store.buffers.Get().(*[images.OpenBytes]byte)
	defer a.store.buffers.Put(buf)
	p := seed.m.Piece(i)
	plain := buf[:p.Length]
	if _, err := seed.ReadAt(plain, p.Offset); err != nil || images.Sum(plain) != p.Digest {
		a.store.damagedSeed(seed, i)
		return false, nil
	}
	return true, use(plain)
}

func (s *Store) damagedSeed(seed *seed, i int) {
	if seed.trash {
		return // that it is damaged is known
	}
	owner := seed.owner(i)
	s.log.Error().Stringer("base", owner).Int("piece", i).Msg("a base is damaged; it is compared anew before its next use")
	s.distrust(owner)
}
