package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

const (
	partSuffix = ".part"
	// batch is how many chunks are asked of a source at once: the contract's limit.
	batch = 256
)

// assembly is one base on its way: a sparse file under a name that nobody uses, and which of its pieces are there.
type assembly struct {
	m      *images.Manifest
	f      *os.File
	have   []bool
	report func(uint32)
	// Bytes that are no zeros: how many there are, and how many are in place.
	total, done uint64
}

// place counts a piece as there.
func (a *assembly) place(p images.Piece) {
	a.have[p.Index] = true
	a.done += uint64(p.Length)
	if a.total > 0 {
		// The last percent is the comparison of the whole.
		a.report(uint32(a.done * 99 / a.total))
	}
}

// missing yields the pieces that are not there yet, in order.
func (a *assembly) missing(yield func(images.Piece) bool) {
	for p := range a.m.Pieces() {
		if !p.Zero() && !a.have[p.Index] && !yield(p) {
			return
		}
	}
}

// assemble makes a base of what a broken-off fetch left, what other bases have, and what the source gives, in this order;
// then it reads the whole back from the disk, compares it, and gives it its name.
func (s *Store) assemble(ctx context.Context, m *images.Manifest, from hostagent.Source, report func(uint32)) error {
	f, err := os.OpenFile(s.path(dirTmp, m.Digest().String()+partSuffix), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("begin base: %w", err)
	}
	defer f.Close()
	a := &assembly{m: m, f: f, have: make([]bool, m.Len()), report: report}
	for p := range m.Pieces() {
		if !p.Zero() {
			a.total += uint64(p.Length)
		}
	}
	if err := s.resume(ctx, a); err != nil {
		return err
	}
	room, err := s.reserve(ctx, a.total-a.done, "base "+m.Digest().String())
	if err != nil {
		return err
	}
	defer s.release(room, nil) //nolint:errcheck // releases only
	if err := s.seed(ctx, a, room); err != nil {
		return err
	}
	if err := s.fetch(ctx, a, from, room); err != nil {
		return err
	}
	return s.finish(ctx, a, room)
}

// resume keeps of a broken-off fetch what is right. It trusts nothing but the content: no journal of what was done can
// say what reached the disk.
func (s *Store) resume(ctx context.Context, a *assembly) error {
	info, err := a.f.Stat()
	if err != nil {
		return fmt.Errorf("resume base: %w", err)
	}
	if err := a.f.Truncate(int64(a.m.Size())); err != nil {
		return fmt.Errorf("resume base: %w", err)
	}
	if info.Size() == 0 {
		return nil
	}
	wrong, err := s.damage(ctx, a.f, a.m)
	if err != nil {
		return fmt.Errorf("resume base: %w", err)
	}
	isWrong := make(map[int]bool, len(wrong))
	for _, p := range wrong {
		isWrong[p.Index] = true
		if !p.Zero() {
			continue
		}
		if err := unix.Fallocate(int(a.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, p.Offset, int64(p.Length)); err != nil {
			return fmt.Errorf("resume base: %w", err)
		}
	}
	for p := range a.m.Pieces() {
		if !p.Zero() && !isWrong[p.Index] {
			a.place(p)
		}
	}
	return nil
}

// seed copies pieces that lie at the same place in another base of this host: the version before, mostly.
func (s *Store) seed(ctx context.Context, a *assembly, room *claim) error {
	entries, err := os.ReadDir(s.path(dirBases))
	if err != nil {
		return fmt.Errorf("look for seeds: %w", err)
	}
	for _, entry := range entries {
		d, ok := parseBaseName(entry.Name())
		if !ok || d == a.m.Digest() {
			continue
		}
		m, err := s.keptManifest(d)
		if err != nil {
			s.log.Warn().Err(err).Stringer("base", d).Msg("a base without its manifest is no seed")
			continue
		}
		if err := s.seedFrom(ctx, a, m, room); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) seedFrom(ctx context.Context, a *assembly, m *images.Manifest, room *claim) error {
	f, err := os.Open(s.path(dirBases, baseName(m.Digest())))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open seed: %w", err)
	}
	defer f.Close()
	buf := make([]byte, images.ChunkBytes)
	for p := range a.missing {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p.Index >= m.Len() || m.Piece(p.Index) != p {
			continue
		}
		plain := buf[:p.Length]
		if _, err := f.ReadAt(plain, p.Offset); err != nil || images.Sum(plain) != p.Digest {
			s.log.Error().Err(err).Stringer("base", m.Digest()).Int("piece", p.Index).Msg("a base is damaged; it is compared anew before its next use")
			s.distrust(m.Digest())
			return nil
		}
		if err := copyPiece(a.f, f, p, plain); err != nil {
			return fmt.Errorf("copy from seed: %w", err)
		}
		s.used(room, uint64(p.Length))
		a.place(p)
	}
	return nil
}

// copyPiece copies within the file system, which shares the blocks where it can (XFS, btrfs), or writes what was read.
func copyPiece(to, from *os.File, p images.Piece, plain []byte) error {
	in, out := p.Offset, p.Offset
	for left := p.Length; left > 0; {
		n, err := unix.CopyFileRange(int(from.Fd()), &in, int(to.Fd()), &out, left, 0)
		if err != nil || n == 0 {
			_, err := to.WriteAt(plain, p.Offset)
			return err
		}
		left -= n
	}
	return nil
}

// fetch gets what is still missing from the source.
func (s *Store) fetch(ctx context.Context, a *assembly, from hostagent.Source, room *claim) error {
	// Where each chunk goes; the same content may stand in several places.
	places := map[images.Digest][]images.Piece{}
	var order [][]byte
	for p := range a.missing {
		if places[p.Digest] == nil {
			order = append(order, append([]byte(nil), p.Digest[:]...))
		}
		places[p.Digest] = append(places[p.Digest], p)
	}
	for len(order) > 0 {
		n := min(batch, len(order))
		if err := s.fetchBatch(ctx, a, from, room, order[:n], places); err != nil {
			return fmt.Errorf("fetch chunks: %w", err)
		}
		order = order[n:]
	}
	return nil
}

func (s *Store) fetchBatch(ctx context.Context, a *assembly, from hostagent.Source, room *claim, digests [][]byte, places map[images.Digest][]images.Piece) error {
	wanted := make(map[images.Digest]bool, len(digests))
	for _, raw := range digests {
		wanted[images.Digest(raw)] = true
	}
	var refused error
	buf := make([]byte, images.ChunkBytes)
	err := from.Chunks(ctx, digests, func(raw, sealed []byte) error {
		refused = func() error {
			if len(raw) != images.DigestBytes || !wanted[images.Digest(raw)] {
				return fmt.Errorf("the source gave a chunk that nobody asked for: %w", hostagent.ErrCorrupt)
			}
			d := images.Digest(raw)
			for _, p := range places[d] {
				plain, err := s.codec.OpenPiece(buf, p, sealed)
				if err != nil {
					return fmt.Errorf("%w: %w", err, hostagent.ErrCorrupt)
				}
				if _, err := a.f.WriteAt(plain, p.Offset); err != nil {
					return fmt.Errorf("write piece %d: %w", p.Index, err)
				}
				s.used(room, uint64(p.Length))
				a.place(p)
			}
			delete(wanted, d)
			return nil
		}()
		return refused
	})
	// The source may wrap what it was told in words of its own.
	if refused != nil {
		return refused
	}
	if err != nil {
		return err
	}
	if len(wanted) > 0 {
		return fmt.Errorf("the source left out %d of %d chunks", len(wanted), len(digests))
	}
	return nil
}

// finish syncs a base, reads it back from the disk, compares it, and publishes it with its manifest.
//
// Every piece was compared before it was written. The reading back finds what went wrong after that, in memory, on the
// way, or in this code; it costs one pass at the speed of the disk, once per version and host.
func (s *Store) finish(ctx context.Context, a *assembly, room *claim) error {
	part, d := a.f.Name(), a.m.Digest()
	if err := errors.Join(a.f.Chmod(0o444), a.f.Sync()); err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	// Only a hint: without it, the pass compares what the kernel still holds in memory.
	_ = unix.Fadvise(int(a.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	wrong, err := s.damage(ctx, a.f, a.m)
	if err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	if len(wrong) > 0 {
		os.Remove(part)
		return fmt.Errorf("finish base: %d pieces, the first at %d, were read back other than they were written: %w",
			len(wrong), wrong[0].Offset, hostagent.ErrCorrupt)
	}
	st, err := stampOf(part)
	if err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	if err := errors.Join(writeAttribute(a.f, st.encode()), a.f.Sync(), s.keepManifest(a.m)); err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	err = s.release(room, func() error { return publish(part, s.path(dirBases, baseName(d))) })
	if err == nil {
		err = syncDir(s.path(dirBases))
	}
	if err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	s.trustBase(d, st)
	return nil
}

// keepManifest puts a manifest beside its base, unless it is there.
func (s *Store) keepManifest(m *images.Manifest) error {
	if _, err := s.keptManifest(m.Digest()); err == nil {
		return nil
	}
	name := manifestName(m.Digest())
	f, err := os.CreateTemp(s.path(dirTmp), "new-")
	if err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	_, err = f.Write(m.Encoded())
	if err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("keep manifest: %w", err)
	}
	// One that is there is damaged, or it would have been taken.
	if err := os.Rename(f.Name(), s.path(dirBases, name)); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	return nil
}

// damage compares a file with a manifest and returns the pieces that differ. Holes are not read: they are zeros.
func (s *Store) damage(ctx context.Context, f *os.File, m *images.Manifest) ([]images.Piece, error) {
	var wrong []images.Piece
	buf := make([]byte, images.ChunkBytes)
	// data is the begin of the data at or after the place that was last asked for.
	data := int64(-1)
	for p := range m.Pieces() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if p.Zero() && data < p.Offset {
			var err error
			if data, err = nextData(f, p.Offset); err != nil {
				return nil, err
			}
		}
		if p.Zero() && data >= p.Offset+int64(p.Length) {
			continue
		}
		plain := buf[:p.Length]
		if _, err := f.ReadAt(plain, p.Offset); errors.Is(err, io.EOF) {
			wrong = append(wrong, p)
			continue
		} else if err != nil {
			return nil, fmt.Errorf("read piece %d: %w", p.Index, err)
		}
		if p.Zero() && !images.AllZero(plain) || !p.Zero() && images.Sum(plain) != p.Digest {
			wrong = append(wrong, p)
		}
	}
	return wrong, nil
}

// nextData returns where the next data lies at or after a place; far away when there is none.
func nextData(f *os.File, from int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 1<<63 - 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for data: %w", err)
	}
	return at, nil
}
