package inspect

import (
	"encoding/binary"
	"fmt"
)

// The format: QEMU's docs/interop/qcow2.txt. All numbers are big-endian.
const (
	qcow2HeaderV2 = 72
	qcow2HeaderV3 = 104

	// minClusterBits is above the format's 9: so small clusters come from nobody, and make tables large.
	minClusterBits = 12
	maxClusterBits = 21

	// The bounds that QEMU sets.
	maxL1Bytes       = 32 << 20
	maxRefcountBytes = 8 << 20

	qcow2OffsetMask = 0x00fffffffffffe00
	qcow2Copied     = 1 << 63
	qcow2Compressed = 1 << 62
	qcow2Zero       = 1

	anew = "make a copy without it where you trust it: qemu-img convert -f qcow2 -O qcow2 FILE COPY"
)

type qcow2Header struct {
	version      uint32
	backing      uint64
	backingSize  uint32
	clusterBits  uint32
	size         uint64
	crypt        uint32
	l1Entries    uint32
	l1           uint64
	refcounts    uint64
	refcountSize uint32 // clusters
	snapshots    uint32

	// Version 3 only.
	incompatible, autoclear uint64
	refcountOrder, length   uint32
}

func (h qcow2Header) cluster() uint64 { return 1 << h.clusterBits }

func (d *disk) qcow2() error {
	if d.size < qcow2HeaderV2 {
		d.truncated("the header")
		return nil
	}
	raw, err := d.read(0, int(min(d.size, qcow2HeaderV3)))
	if err != nil {
		return err
	}
	big := binary.BigEndian
	h := qcow2Header{
		version: big.Uint32(raw[4:]), backing: big.Uint64(raw[8:]), backingSize: big.Uint32(raw[16:]), clusterBits: big.Uint32(raw[20:]),
		size: big.Uint64(raw[24:]), crypt: big.Uint32(raw[32:]), l1Entries: big.Uint32(raw[36:]), l1: big.Uint64(raw[40:]),
		refcounts: big.Uint64(raw[48:]), refcountSize: big.Uint32(raw[56:]), snapshots: big.Uint32(raw[60:]), length: qcow2HeaderV2,
	}
	if h.version != 2 && h.version != 3 {
		d.refuse(Version, "it is qcow of version %d, and 2 and 3 are taken: convert it where you trust it, with 'qemu-img convert -O qcow2'", h.version)
		return nil
	}
	d.report.Variant = fmt.Sprintf("version %d", h.version)
	d.report.VirtualSize = h.size
	if h.version == 3 {
		if len(raw) < qcow2HeaderV3 {
			d.truncated("the header")
			return nil
		}
		h.incompatible, h.autoclear = big.Uint64(raw[72:]), big.Uint64(raw[88:])
		h.refcountOrder, h.length = big.Uint32(raw[96:]), big.Uint32(raw[100:])
	}
	d.qcow2Whole(h)
	d.qcow2Features(h)
	if h.clusterBits < minClusterBits || h.clusterBits > maxClusterBits {
		d.refuse(Layout, "its clusters have 2^%d bytes, and 2^%d to 2^%d are taken: %s", h.clusterBits, minClusterBits, maxClusterBits, anew)
		return nil // nothing else has a meaning
	}
	if err := d.qcow2Extensions(h); err != nil {
		return err
	}
	if err := d.refuseHidden(h.cluster()); err != nil {
		return err
	}
	d.qcow2Tables(h)
	if !d.report.Taken() {
		return nil
	}
	return d.qcow2Walk(h)
}

// qcow2Whole refuses what is not one whole disk.
func (d *disk) qcow2Whole(h qcow2Header) {
	if h.backing != 0 || h.backingSize != 0 {
		d.refuse(BackingFile, "it names a backing file under it: join the two where both are, with 'qemu-img convert -f qcow2 -O qcow2 FILE WHOLE', and import that")
	}
	if h.crypt != 0 {
		d.refuse(Encrypted, "it is encrypted: %s", anew)
	}
	if h.snapshots != 0 {
		d.refuse(Snapshots, "it holds %d internal snapshots: %s", h.snapshots, anew)
	}
	d.checkSize()
}

func (d *disk) qcow2Features(h qcow2Header) {
	for bit := range 64 {
		if h.incompatible&(1<<bit) == 0 {
			continue
		}
		switch bit {
		case 0:
			d.refuse(Dirty, "it was not closed by who wrote it last: shut down the VM that uses it, then 'qemu-img check -f qcow2 -r all FILE'")
		case 1:
			d.refuse(Corrupt, "it is marked as corrupt: mend it with 'qemu-img check -f qcow2 -r all FILE', or take another copy")
		case 2:
			d.refuse(DataFile, "it keeps its data in another file: %s", anew)
		case 3: // the header says which compression
		case 4:
			d.refuse(ExtendedL2, "it has extended L2 entries (subclusters): %s", anew)
		default:
			d.refuse(UnknownFeature, "it needs feature %d of the format, which this release does not know: %s", bit, anew)
		}
	}
	if h.autoclear&2 != 0 {
		d.refuse(DataFile, "it speaks of an external data file: %s", anew)
	}
	if h.refcountOrder > 6 {
		d.refuse(Layout, "its reference counts have 2^%d bits, more than 64: %s", h.refcountOrder, anew)
	}
}

// qcow2Extensions reads what stands between the header's fields and the end of the first cluster.
func (d *disk) qcow2Extensions(h qcow2Header) error {
	end := min(h.cluster(), d.size)
	at := uint64(h.length)
	if h.version == 3 && (at < qcow2HeaderV3 || at%8 != 0 || at > h.cluster()) {
		d.refuse(Layout, "its header says that it is %d bytes long, which cannot be: take another copy", at)
		return nil
	}
	if at > end {
		d.truncated("the header")
		return nil
	}
	if err := d.qcow2Compression(h); err != nil {
		return err
	}
	seen := map[uint32]bool{}
	for at+8 <= end {
		raw, err := d.read(at, 8)
		if err != nil {
			return err
		}
		kind, length := binary.BigEndian.Uint32(raw), uint64(binary.BigEndian.Uint32(raw[4:]))
		if kind == 0 {
			return nil
		}
		if at += 8; length > end-at {
			d.refuse(OffsetOutside, "a header extension (%#08x) goes past the header: take another copy", kind)
			return nil
		}
		if seen[kind] {
			d.refuse(Corrupt, "a header extension (%#08x) is there twice: take another copy", kind)
			return nil
		}
		seen[kind] = true
		d.qcow2Extension(kind)
		at += (length + 7) &^ 7
	}
	return nil
}

func (d *disk) qcow2Extension(kind uint32) {
	switch kind {
	case 0x6803f857: // names of features, for people
	case 0xe2792aca:
		d.refuse(BackingFile, "it names the format of a backing file: join the two where both are, with 'qemu-img convert -f qcow2 -O qcow2 FILE WHOLE', and import that")
	case 0x44415441:
		d.refuse(DataFile, "it names an external data file: %s", anew)
	case 0x0537be77:
		d.refuse(Encrypted, "it is encrypted (LUKS): %s", anew)
	case 0x23852875:
		d.refuse(Bitmaps, "it holds dirty bitmaps of a backup tool: %s", anew)
	default:
		d.refuse(UnknownFeature, "it has a header extension (%#08x) that this release does not know: %s", kind, anew)
	}
}

// qcow2Compression reads the fields that follow those that every version 3 has.
func (d *disk) qcow2Compression(h qcow2Header) error {
	more := int(min(h.length-min(h.length, qcow2HeaderV3), 4096))
	if h.version != 3 {
		return nil
	}
	var kind byte
	if more > 0 {
		raw, err := d.read(qcow2HeaderV3, more)
		if err != nil {
			return err
		}
		kind = raw[0]
		for _, b := range raw[1:] {
			if b != 0 {
				d.refuse(UnknownFeature, "its header has fields that this release does not know: %s", anew)
				break
			}
		}
	}
	if flagged := h.incompatible&(1<<3) != 0; kind > 1 || flagged != (kind == 1) {
		d.refuse(UnknownFeature, "its compression (%d) is not one that this release knows: %s", kind, anew)
	}
	return nil
}
