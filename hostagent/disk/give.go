package disk

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// Chunk returns the plain bytes of a chunk that a verified base or one on its way has. They are compared with the digest
// now, whatever was known of the file.
func (s *Store) Chunk(ctx context.Context, digest images.Digest) ([]byte, error) {
	for _, a := range s.onTheirWay() {
		if plain, ok := a.chunk(digest); ok {
			return plain, nil
		}
	}
	bases, err := s.Bases(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range bases {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := images.ParseDigest(name)
		if err != nil {
			return nil, err
		}
		if plain, ok := s.chunkOf(d, digest); ok {
			return plain, nil
		}
	}
	return nil, fmt.Errorf("read chunk %s: %w", digest, hostagent.ErrNotFound)
}

// show lets chunks be taken of a base on its way, hide ends that.
func (s *Store) show(a *assembly) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown[a.version.Digest()] = a
}

func (s *Store) hide(a *assembly) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.shown, a.version.Digest())
}

func (s *Store) onTheirWay() []*assembly {
	s.mu.Lock()
	defer s.mu.Unlock()
	shown := make([]*assembly, 0, len(s.shown))
	for _, a := range s.shown {
		shown = append(shown, a)
	}
	return shown
}

// chunk reads a chunk if it is in place already. The file may be closed at any moment, when all of it is.
func (a *assembly) chunk(digest images.Digest) ([]byte, bool) {
	a.index.Do(func() { a.at = indexOf(a.m) })
	i, ok := a.at[digest]
	if !ok {
		return nil, false
	}
	a.mu.Lock()
	have := a.have[i]
	a.mu.Unlock()
	if !have {
		return nil, false
	}
	return readPiece(a.f, a.m.Piece(i))
}

// chunkOf reads a chunk that lies in a base's own file. A base that turns out to be damaged is compared anew before its next use.
func (s *Store) chunkOf(base, digest images.Digest) ([]byte, bool) {
	k, ok := s.usable(base)
	if !ok {
		return nil, false
	}
	index, err := s.indexOfBase(base, k)
	if err != nil {
		s.log.Warn().Err(err).Msg("a base without its manifest gives no chunks")
		return nil, false
	}
	i, ok := index[digest]
	if !ok {
		return nil, false
	}
	f, err := os.OpenFile(s.filePath(base, k.layered()), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	p := images.Piece{Index: i, Offset: int64(i) * images.ChunkBytes, Length: images.ChunkBytes, Digest: digest}
	if info, err := f.Stat(); err == nil {
		p.Length = int(min(images.ChunkBytes, max(info.Size()-p.Offset, 0)))
	}
	plain, ok := readPiece(f, p)
	if !ok {
		s.log.Error().Stringer("base", base).Int("piece", i).Msg("a base is damaged; it is compared anew before its next use")
		s.distrust(base)
	}
	return plain, ok
}

func readPiece(f *os.File, p images.Piece) ([]byte, bool) {
	plain := make([]byte, p.Length)
	if _, err := f.ReadAt(plain, p.Offset); err != nil || images.Sum(plain) != p.Digest {
		return nil, false
	}
	return plain, true
}

// indexOfBase says at which pieces of its file the chunks of a base are. Indexes of bases that are gone are forgotten.
func (s *Store) indexOfBase(base images.Digest, k known) (map[images.Digest]int, error) {
	s.mu.Lock()
	index := s.indexes[base]
	for d := range s.indexes {
		if _, ok := s.verified[d]; !ok {
			delete(s.indexes, d)
		}
	}
	s.mu.Unlock()
	if index != nil {
		return index, nil
	}
	m, err := s.keptManifest(base)
	if err != nil {
		return nil, err
	}
	if k.layered() {
		l, _, err := s.layerOn(m, k.root)
		if err != nil {
			return nil, err
		}
		m = l.file
	}
	index = indexOf(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.indexes[base] = index
	return index, nil
}

// indexOf says at which piece each chunk of a version is first.
func indexOf(m *images.Manifest) map[images.Digest]int {
	index := make(map[images.Digest]int, m.Len())
	for p := range m.Pieces() {
		if _, known := index[p.Digest]; !known && !p.Zero() {
			index[p.Digest] = p.Index
		}
	}
	return index
}
