package disk

import (
	"encoding/binary"
	"fmt"
	"os"

	"daybreak/hostagent"
)

// An empty overlay is a header, a reference count table of one block, and an empty first-level table: less than 12 KiB
// written. Doing it here rather than with qemu-img saves a process per desktop, and nothing is opened by guesswork. The
// layout is that of QEMU's docs/interop/qcow2.txt.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits
	// One second-level table maps this many bytes of the guest's disk.
	bytesPerL2 = clusterSize / 8 * clusterSize

	qcow2Magic       = 0x514649fb
	qcow2Version     = 3
	qcow2HeaderBytes = 104
	extBackingFormat = 0xe2792aca
	extEnd           = 0
	// References are counted in 1<<4 bits.
	refcountOrder = 4

	clusterRefTable = 1
	clusterRefBlock = 2
	clusterL1       = 3
	// backingAt is where the name of the backing file lies: behind the header and its two extensions.
	backingAt = qcow2HeaderBytes + 24
	// sizeAt is where the size of the disk is.
	sizeAt = 24

	// The names of formats have eight bytes in an extension, zeros included.
	formatRaw   = "raw"
	formatQcow2 = "qcow2"
	// QEMU's limit for the name of a backing file.
	maxBackingName = 1023
)

// writeOverlay writes an empty qcow2 image of size bytes into f, which must be empty. Its content is that of the image at
// backing.
func writeOverlay(f *os.File, backing, format string, size uint64) error {
	if len(backing) == 0 || len(backing) > maxBackingName {
		return fmt.Errorf("write overlay: path of the base has %d bytes, at most %d can be: %w", len(backing), maxBackingName, hostagent.ErrPermanent)
	}
	l1Entries := (size + bytesPerL2 - 1) / bytesPerL2
	l1Clusters := (l1Entries*8 + clusterSize - 1) / clusterSize
	clusters := clusterL1 + l1Clusters
	refcounts := make([]byte, 2*clusters)
	for i := range clusters {
		binary.BigEndian.PutUint16(refcounts[2*i:], 1)
	}
	// The tables that are all zero stay holes.
	if err := f.Truncate(int64(clusters * clusterSize)); err != nil {
		return fmt.Errorf("write overlay: %w", err)
	}
	refTable := binary.BigEndian.AppendUint64(nil, clusterRefBlock*clusterSize)
	for at, part := range map[int64][]byte{
		0: qcow2Header(layout{
			backing: backing, format: format, size: size, bits: clusterBits,
			l1: clusterL1 * clusterSize, l1Entries: uint32(l1Entries), refTable: clusterRefTable * clusterSize,
		}),
		clusterRefTable * clusterSize: refTable,
		clusterRefBlock * clusterSize: refcounts,
	} {
		if _, err := f.WriteAt(part, at); err != nil {
			return fmt.Errorf("write overlay: %w", err)
		}
	}
	return nil
}

// layout is what the headers of our images differ in.
type layout struct {
	backing, format string
	size            uint64
	bits            uint32
	l1              uint64
	l1Entries       uint32
	refTable        uint64
}

// qcow2Header is the header with its extensions and the backing file's name.
func qcow2Header(l layout) []byte {
	be := binary.BigEndian
	var ext []byte
	ext = be.AppendUint32(ext, extBackingFormat)
	ext = be.AppendUint32(ext, uint32(len(l.format)))
	ext = append(append(ext, l.format...), make([]byte, 8-len(l.format))...)
	ext = be.AppendUint32(ext, extEnd)
	ext = be.AppendUint32(ext, 0)

	var h []byte
	h = be.AppendUint32(h, qcow2Magic)
	h = be.AppendUint32(h, qcow2Version)
	h = be.AppendUint64(h, backingAt)
	h = be.AppendUint32(h, uint32(len(l.backing)))
	h = be.AppendUint32(h, l.bits)
	h = be.AppendUint64(h, l.size)
	h = be.AppendUint32(h, 0) // no encryption
	h = be.AppendUint32(h, l.l1Entries)
	h = be.AppendUint64(h, l.l1)
	h = be.AppendUint64(h, l.refTable)
	h = be.AppendUint32(h, 1) // clusters of the reference count table
	h = be.AppendUint32(h, 0) // no snapshots
	h = be.AppendUint64(h, 0)
	h = be.AppendUint64(h, 0) // no features that a reader must know,
	h = be.AppendUint64(h, 0) // may know,
	h = be.AppendUint64(h, 0) // or must clear
	h = be.AppendUint32(h, refcountOrder)
	h = be.AppendUint32(h, qcow2HeaderBytes)
	return append(append(h, ext...), l.backing...)
}
