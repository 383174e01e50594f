package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"daybreak/images"
)

// baseFiles is the disk of a version as it lies in files of this host.
type baseFiles struct {
	m *images.Manifest
	// top is the raw file, or the layer's.
	top *os.File
	// layer is nil where top is raw. root is the raw file below it then; nil where that is not there.
	layer    *layer
	root     *os.File
	rootName images.Digest
}

// openBase opens a base that may be used.
func (s *Store) openBase(m *images.Manifest, k known) (*baseFiles, error) {
	c, err := s.openFile(m, s.filePath(m.Digest(), k.layered()), k.layered())
	if err != nil {
		return nil, err
	}
	if c.layer != nil && c.root == nil {
		return nil, errors.Join(fmt.Errorf("open base %s: the one below it is not there", m.Digest()), c.Close())
	}
	return c, nil
}

// openFile opens what is, or was, a file of a version.
func (s *Store) openFile(m *images.Manifest, path string, layered bool) (*baseFiles, error) {
	top, err := openPlain(path)
	if err != nil {
		return nil, err
	}
	c := &baseFiles{m: m, top: top}
	if !layered {
		return c, nil
	}
	if c.rootName, err = s.rootOf(top); err == nil {
		c.layer, _, err = s.layerOn(m, c.rootName)
	}
	if err != nil {
		return nil, errors.Join(err, top.Close())
	}
	if root, err := openPlain(s.path(dirBases, baseName(c.rootName))); err == nil {
		c.root = root
	}
	return c, nil
}

// Close lets go of the files.
func (c *baseFiles) Close() error {
	var err error
	for _, f := range []*os.File{c.top, c.root} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// find says in which file a piece that is not zeros lies, and where; no file when that is not there.
func (c *baseFiles) find(i int) (f *os.File, at int64) {
	if c.layer != nil {
		if place := c.layer.place[i]; place != 0 {
			return c.top, int64(place) * images.ChunkBytes
		}
		return c.root, int64(i) * images.ChunkBytes
	}
	return c.top, int64(i) * images.ChunkBytes
}

// owner is the base whose file a piece lies in.
func (c *baseFiles) owner(i int) images.Digest {
	if c.layer != nil && c.layer.place[i] == 0 {
		return c.rootName
	}
	return c.m.Digest()
}

// ReadAt reads the disk. It does not compare.
func (c *baseFiles) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at >= int64(c.m.Size()) {
			return n, io.EOF
		}
		piece := c.m.Piece(int(at / images.ChunkBytes))
		within := at - piece.Offset
		part := p[n:min(int64(len(p)), int64(n)+int64(piece.Length)-within)]
		if piece.Zero() {
			clear(part)
		} else if f, place := c.find(piece.Index); f == nil {
			return n, fmt.Errorf("read base at %d: the file is not there", at)
		} else if _, err := f.ReadAt(part, place+within); err != nil {
			return n, fmt.Errorf("read base at %d: %w", at, err)
		}
		n += len(part)
	}
	return n, nil
}
