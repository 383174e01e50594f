package disk

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"daybreak/images"
)

// A base is a raw file, or a layer: a qcow2 image on the raw base of another version, its root, that holds the pieces in which
// its own version differs. There is never a layer on a layer.
//
// The two versions say every byte of a layer's file, its tables included. So the file has a manifest as a raw one has, and is
// written, resumed, compared and mended by it as that is. Its tables are compared and never interpreted, here; QEMU opens only
// what was found equal.

const (
	// One cluster of a layer holds one piece.
	layerBits = 18
	// What one table maps, in clusters.
	perRefBlock = images.ChunkBytes / 2
	perL2       = images.ChunkBytes / 8

	layerRefTable  = 1
	layerRefBlocks = 2

	// worthwhile: a layer holds at most one of so many pieces of its version. Else it is made whole again.
	worthwhile = 4
)

var _ [0]struct{} = [images.ChunkBytes - 1<<layerBits]struct{}{}

// layer is what a layer's file is made of.
type layer struct {
	// file is the manifest of the file.
	file *images.Manifest
	// tables are its begin, whole clusters.
	tables []byte
	// origin says which piece of the version follows behind the tables.
	origin []int32
	// place is the inverse: the piece of the file that holds a piece of the version; 0 where none does.
	place []int32
}

// held counts the pieces of a version that a layer on root would hold, and those that are no zeros.
func held(version, root *images.Manifest) (held, all int) {
	for p := range version.Pieces() {
		if p.Zero() {
			continue
		}
		all++
		if differs(p, root) {
			held++
		}
	}
	return held, all
}

// differs says whether a piece does not read from root as it should. QEMU reads zeros behind the root's end.
func differs(p images.Piece, root *images.Manifest) bool {
	if p.Index >= root.Len() {
		return !p.Zero()
	}
	below := root.Piece(p.Index)
	return p != below && !(p.Zero() && below.Zero())
}

// newLayer works out the layer of a version on the raw base of another.
func newLayer(version, root *images.Manifest, rootPath string) (*layer, error) {
	l := &layer{place: make([]int32, version.Len())}
	var zeros []int32
	for p := range version.Pieces() {
		switch {
		case !differs(p, root):
		case p.Zero():
			zeros = append(zeros, int32(p.Index))
		default:
			l.origin = append(l.origin, int32(p.Index))
		}
	}
	l.makeTables(version.Size(), zeros, rootPath)
	digests := make([]images.Digest, 0, l.head()+len(l.origin))
	for at := 0; at < len(l.tables); at += images.ChunkBytes {
		var digest images.Digest
		if part := l.tables[at : at+images.ChunkBytes]; !images.AllZero(part) {
			digest = images.Sum(part)
		}
		digests = append(digests, digest)
	}
	size := uint64(len(l.tables))
	for n, i := range l.origin {
		p := version.Piece(int(i))
		l.place[i] = int32(l.head() + n)
		digests = append(digests, p.Digest)
		size += uint64(p.Length) // only the last can be short, and it comes last
	}
	var err error
	if l.file, err = images.NewManifest(size, digests); err != nil {
		return nil, fmt.Errorf("lay out layer: %w", err)
	}
	return l, nil
}

// head is how many clusters the tables have.
func (l *layer) head() int { return len(l.tables) / images.ChunkBytes }

// makeTables makes header, reference counts and the tables that say where pieces lie, as QEMU's docs/interop/qcow2.txt has it.
// Only parts of the disk in which something differs have a second-level table.
func (l *layer) makeTables(size uint64, zeros []int32, rootPath string) {
	firstEntries := (len(l.place) + perL2 - 1) / perL2
	second := map[int]int{} // in which cluster the table of a part of the disk is
	for _, i := range slices.Concat(zeros, l.origin) {
		second[int(i)/perL2] = 0
	}
	clusters := layerRefBlocks + 1 + len(second) + len(l.origin)
	refBlocks := 1
	for clusters+refBlocks > refBlocks*perRefBlock {
		refBlocks++
	}
	clusters += refBlocks
	l1 := layerRefBlocks + refBlocks
	next := l1 + 1
	for n := range firstEntries {
		if _, used := second[n]; used {
			second[n] = next
			next++
		}
	}
	l.tables = make([]byte, next*images.ChunkBytes)
	be := binary.BigEndian
	put := func(cluster, entry int, value uint64) {
		be.PutUint64(l.tables[cluster*images.ChunkBytes+8*entry:], value)
	}
	copy(l.tables, qcow2Header(layout{
		backing: rootPath, format: formatRaw, size: size, bits: layerBits,
		l1: uint64(l1) * images.ChunkBytes, l1Entries: uint32(firstEntries), refTable: layerRefTable * images.ChunkBytes,
	}))
	for n := range refBlocks {
		put(layerRefTable, n, uint64(layerRefBlocks+n)*images.ChunkBytes)
	}
	for n := range clusters {
		be.PutUint16(l.tables[layerRefBlocks*images.ChunkBytes+2*n:], 1)
	}
	for n, cluster := range second {
		put(l1, n, entryCopied|uint64(cluster)*images.ChunkBytes)
	}
	for _, i := range zeros {
		put(second[int(i)/perL2], int(i)%perL2, entryZero)
	}
	for n, i := range l.origin {
		put(second[int(i)/perL2], int(i)%perL2, entryCopied|uint64(next+n)*images.ChunkBytes)
	}
}

// rootOf reads the digest of the root that a layer's file names. It is not believed: what the file shall be on that root is
// worked out then, and compared.
func (s *Store) rootOf(f *os.File) (images.Digest, error) {
	before, after, _ := strings.Cut(s.path(dirBases, baseName(images.Digest{})), images.Digest{}.String())
	name := make([]byte, len(before)+2*images.DigestBytes+len(after))
	if _, err := f.ReadAt(name, backingAt); err != nil && err != io.EOF {
		return images.Digest{}, fmt.Errorf("read layer: %w", err)
	}
	hex, ok := strings.CutPrefix(string(name), before)
	hex, end := strings.CutSuffix(hex, after)
	d, err := images.ParseDigest(hex)
	if err != nil || !ok || !end || d.IsZero() {
		return images.Digest{}, fmt.Errorf("read layer %s: it names no base of this store", f.Name())
	}
	return d, nil
}

// headOfLayer reads the root and the disk's size of a layer that was compared.
func (s *Store) headOfLayer(path string) (root images.Digest, size uint64, err error) {
	f, err := openPlain(path)
	if err != nil {
		return root, 0, err
	}
	defer f.Close()
	field := make([]byte, 8)
	if _, err := f.ReadAt(field, sizeAt); err != nil {
		return root, 0, fmt.Errorf("read layer: %w", err)
	}
	root, err = s.rootOf(f)
	return root, binary.BigEndian.Uint64(field), err
}

// layerOn works out the layer of a version on a raw base of this host.
func (s *Store) layerOn(version *images.Manifest, root images.Digest) (*layer, *images.Manifest, error) {
	m, err := s.keptManifest(root)
	if err != nil {
		return nil, nil, fmt.Errorf("read root of layer: %w", err)
	}
	l, err := newLayer(version, m, s.path(dirBases, baseName(root)))
	return l, m, err
}

// chooseRoot finds the raw base on which a version's layer is smallest, and compares it if it is not trusted; zero when none
// is worth it. Not to be called where there is a raw file of the version: see compareRoot.
func (s *Store) chooseRoot(ctx context.Context, version *images.Manifest) (images.Digest, error) {
	damaged := map[images.Digest]bool{version.Digest(): true}
	for {
		var best *images.Manifest
		least := -1
		err := s.eachBase(func(d images.Digest, _ string, layered bool) error {
			if layered || damaged[d] {
				return nil
			}
			m, err := s.keptManifest(d)
			if err != nil {
				return nil // whoever wants that base says so
			}
			if n, all := held(version, m); n*worthwhile <= all && (least < 0 || n < least) {
				best, least = m, n
			}
			return nil
		})
		if err != nil || best == nil {
			return images.Digest{}, err
		}
		whole, err := s.compareRoot(ctx, best, atOnce())
		if err != nil {
			return images.Digest{}, err
		}
		if whole {
			return best.Digest(), nil
		}
		damaged[best.Digest()] = true
	}
}
