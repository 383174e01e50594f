package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/images"
	"daybreak/images/pack"
)

// What an overlay holds of its guest's disk is read here by ourselves, from the tables that QEMU wrote and a guest that
// broke out of it could have written: every number is checked against the file and against what writeOverlay made, and
// what QEMU has no reason to write there is refused. No table can name any other file.

const (
	clustersPerPiece = images.ChunkBytes / clusterSize
	entriesPerTable  = clusterSize / 8

	// Bits of a table's entry, by docs/interop/qcow2.txt.
	entryOffset     = 0x00fffffffffffe00
	entryCopied     = 1 << 63
	entryCompressed = 1 << 62
	entryZero       = 1 << 0

	// headerCompression is the length of a header that names the way of compression, which newer releases of QEMU write.
	headerCompression = 112
)

// errOverlay: the overlay is not what QEMU makes of one of ours.
var errOverlay = errors.New("the overlay's tables are not valid")

// changes is an overlay with its base, read only.
type changes struct {
	overlay *os.File
	base    baseDisk
	size    int64
	// clusters is where the content of the overlay's clusters lies: 0 where it has none, zeroCluster where they are zeros.
	clusters [][]int64
}

// baseDisk is the disk that an overlay began as.
type baseDisk interface {
	io.ReaderAt
	io.Closer
}

// zeroCluster marks a cluster of zeros; no content lies at an odd place.
const zeroCluster = 1

var _ build.Changes = (*changes)(nil)

// Changes opens what a build's VM, which must have ended, wrote over a base, and returns the base's manifest with it.
func (s *Store) Changes(ctx context.Context, life hostagent.Life, digest string) (_ *images.Manifest, _ build.Changes, err error) {
	if err := checkLife(life); err != nil {
		return nil, nil, fmt.Errorf("read overlay: %w", err)
	}
	d, err := parseDigest(digest)
	if err != nil {
		return nil, nil, fmt.Errorf("read overlay: %w", err)
	}
	k, err := s.wholeBase(d)
	if err != nil {
		return nil, nil, fmt.Errorf("read overlay of %s: %w", life.Desktop, err)
	}
	parent, err := s.keptManifest(d)
	if err != nil {
		return nil, nil, fmt.Errorf("read overlay of %s: %w", life.Desktop, err)
	}
	path := s.overlayPath(life)
	inUse, err := locked(path)
	if err == nil && inUse {
		err = errors.New("a running QEMU has it open")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read overlay of %s: %w", life.Desktop, err)
	}
	c := &changes{size: int64(k.disk)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("read overlay of %s: %w", life.Desktop, err), c.Close())
		}
	}()
	if c.overlay, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err != nil {
		return nil, nil, err
	}
	base, err := s.openBase(parent, k)
	if err != nil {
		return nil, nil, err
	}
	c.base = base
	if err := c.load(ctx, s.filePath(d, false), s.filePath(d, true)); err != nil {
		return nil, nil, err
	}
	return parent, c, nil
}

// Close lets go of the files.
func (c *changes) Close() error {
	var err error
	if c.overlay != nil {
		err = c.overlay.Close()
	}
	if c.base != nil {
		err = errors.Join(err, c.base.Close())
	}
	return err
}

// begin reads and checks the header, which names one of the bases, and returns the first-level table and the size of the file.
func (c *changes) begin(bases ...string) (first []byte, size int64, err error) {
	info, err := c.overlay.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("not a regular file: %w", errOverlay)
	}
	header := make([]byte, clusterSize)
	switch n, err := c.overlay.ReadAt(header, 0); {
	case errors.Is(err, io.EOF) && n < qcow2HeaderBytes:
		return nil, 0, fmt.Errorf("read header: the file has %d bytes: %w", n, errOverlay)
	case err != nil && !errors.Is(err, io.EOF):
		return nil, 0, fmt.Errorf("read header: %w", err)
	}
	at, entries, err := checkHeader(header, bases, uint64(c.size))
	if err != nil {
		return nil, 0, err
	}
	if err := checkPlace(at, uint64(entries)*8, info.Size()); err != nil {
		return nil, 0, fmt.Errorf("first table: %w", err)
	}
	first = make([]byte, 8*entries)
	if _, err := c.overlay.ReadAt(first, int64(at)); err != nil {
		return nil, 0, fmt.Errorf("read first table: %w", err)
	}
	return first, info.Size(), nil
}

// load reads header and tables.
func (c *changes) load(ctx context.Context, bases ...string) error {
	first, size, err := c.begin(bases...)
	if err != nil {
		return err
	}
	c.clusters = make([][]int64, len(first)/8)
	for i := range c.clusters {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry := binary.BigEndian.Uint64(first[8*i:])
		if entry&^uint64(entryCopied|entryOffset) != 0 {
			return fmt.Errorf("entry %d of the first table is %#x: %w", i, entry, errOverlay)
		}
		if entry&entryOffset == 0 {
			continue
		}
		if c.clusters[i], err = c.second(entry&entryOffset, size); err != nil {
			return fmt.Errorf("table %d: %w", i, err)
		}
	}
	return nil
}

// second reads a second-level table. One without any content is nil.
func (c *changes) second(at uint64, fileSize int64) ([]int64, error) {
	if err := checkPlace(at, clusterSize, fileSize); err != nil {
		return nil, err
	}
	table := make([]byte, clusterSize)
	if _, err := c.overlay.ReadAt(table, int64(at)); err != nil {
		return nil, err
	}
	clusters, any := make([]int64, entriesPerTable), false
	for i := range clusters {
		entry := binary.BigEndian.Uint64(table[8*i:])
		if entry&entryCompressed != 0 {
			return nil, fmt.Errorf("entry %d is of a compressed cluster: %w", i, errOverlay)
		}
		if entry&^uint64(entryCopied|entryOffset|entryZero) != 0 {
			return nil, fmt.Errorf("entry %d is %#x: %w", i, entry, errOverlay)
		}
		place := entry & entryOffset
		if place != 0 {
			if err := checkPlace(place, 1, fileSize); err != nil {
				return nil, fmt.Errorf("entry %d: %w", i, err)
			}
		}
		switch {
		case entry&entryZero != 0:
			clusters[i] = zeroCluster // a place may be kept for it all the same
		case place != 0:
			clusters[i] = int64(place)
		}
		any = any || clusters[i] != 0
	}
	if !any {
		return nil, nil
	}
	return clusters, nil
}

// checkPlace says whether a part of the file lies on a cluster's begin, behind the header and within the file.
func checkPlace(at, length uint64, fileSize int64) error {
	if at%clusterSize != 0 || at < clusterSize || at > uint64(fileSize) || length > uint64(fileSize)-at {
		return fmt.Errorf("%d bytes at %d of a file of %d: %w", length, at, fileSize, errOverlay)
	}
	return nil
}

// checkHeader takes the header that writeOverlay wrote, but for what QEMU may change: where tables lie. It returns place and
// entries of the first-level table.
func checkHeader(h []byte, bases []string, size uint64) (l1 uint64, entries uint32, err error) {
	be := binary.BigEndian
	length := be.Uint32(h[100:])
	for _, field := range []struct {
		what       string
		have, want uint64
	}{
		{"magic", uint64(be.Uint32(h[0:])), qcow2Magic},
		{"version", uint64(be.Uint32(h[4:])), qcow2Version},
		{"size of clusters", uint64(be.Uint32(h[20:])), clusterBits},
		{"size of the disk", be.Uint64(h[24:]), size},
		{"encryption", uint64(be.Uint32(h[32:])), 0},
		{"size of the first table", uint64(be.Uint32(h[36:])), (size + bytesPerL2 - 1) / bytesPerL2},
		{"snapshots", uint64(be.Uint32(h[60:])), 0},
		{"features that a reader must know", be.Uint64(h[72:]), 0},
		{"bits of a reference", uint64(be.Uint32(h[96:])), refcountOrder},
	} {
		if field.have != field.want {
			return 0, 0, fmt.Errorf("header: %s is %d, want %d: %w", field.what, field.have, field.want, errOverlay)
		}
	}
	if length != qcow2HeaderBytes && length != headerCompression {
		return 0, 0, fmt.Errorf("header: it has %d bytes: %w", length, errOverlay)
	}
	if length == headerCompression && h[104] != 0 {
		return 0, 0, fmt.Errorf("header: way of compression %d: %w", h[104], errOverlay)
	}
	at, bytes := be.Uint64(h[8:]), uint64(be.Uint32(h[16:]))
	if at > uint64(len(h)) || bytes > uint64(len(h))-at || !slices.Contains(bases, string(h[at:at+bytes])) {
		return 0, 0, fmt.Errorf("header: another backing file: %w", errOverlay)
	}
	return be.Uint64(h[40:]), be.Uint32(h[36:]), nil
}

// cluster returns where the content of a cluster lies; see changes.
func (c *changes) cluster(i int64) int64 {
	table := c.clusters[i/entriesPerTable]
	if table == nil {
		return 0
	}
	return table[i%entriesPerTable]
}

// Piece implements pack.Overlay.
func (c *changes) Piece(i int) pack.State {
	first := int64(i) * clustersPerPiece
	last := min(first+clustersPerPiece, (c.size+clusterSize-1)/clusterSize)
	zeros, written := int64(0), false
	for n := first; n < last; n++ {
		switch c.cluster(n) {
		case 0:
		case zeroCluster:
			zeros++
		default:
			written = true
		}
	}
	switch {
	case written:
		return pack.Written
	case zeros == last-first:
		return pack.Zeroed
	case zeros > 0:
		return pack.Thinned
	}
	return pack.Kept
}

// ReadAt reads the disk as the guest saw it.
func (c *changes) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		if at >= c.size {
			return n, io.EOF
		}
		within := at % clusterSize
		part := p[n:min(int64(len(p)), int64(n)+clusterSize-within)]
		part = part[:min(int64(len(part)), c.size-at)]
		switch place := c.cluster(at / clusterSize); place {
		case 0:
			_, err = c.base.ReadAt(part, at)
		case zeroCluster:
			clear(part)
		default:
			err = readCluster(c.overlay, part, place+within)
		}
		if err != nil {
			return n, fmt.Errorf("read overlay at %d: %w", at, err)
		}
		n += len(part)
	}
	return n, nil
}

// readCluster reads within a cluster. The last one of the file may end early: what is not there are zeros.
func readCluster(f *os.File, part []byte, at int64) error {
	n, err := f.ReadAt(part, at)
	if errors.Is(err, io.EOF) {
		clear(part[n:])
		return nil
	}
	return err
}
