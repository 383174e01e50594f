package inspect

import (
	"encoding/binary"
)

// qcow2Tables checks where the tables lie that the header names.
func (d *disk) qcow2Tables(h qcow2Header) {
	l1Bytes, refcountBytes := uint64(h.l1Entries)*8, uint64(h.refcountSize)*h.cluster()
	for _, table := range []struct {
		name         string
		offset, size uint64
		most         uint64
	}{{"L1", h.l1, l1Bytes, maxL1Bytes}, {"reference count", h.refcounts, refcountBytes, maxRefcountBytes}} {
		switch {
		case table.size == 0 || table.size > table.most:
			d.refuse(Layout, "its %s table has %d bytes, and 1 to %d are taken: take another copy", table.name, table.size, table.most)
		case table.offset%h.cluster() != 0:
			d.refuse(Unaligned, "its %s table does not begin with a cluster: take another copy", table.name)
		case table.offset < h.cluster():
			d.refuse(Overlap, "its %s table lies on the header: take another copy", table.name)
		case !d.within(table.offset, table.size):
			d.refuse(OffsetOutside, "its %s table lies outside the file: it was cut off, or made up; copy it again", table.name)
		}
	}
	if l1Bytes > 0 && refcountBytes > 0 && h.l1 < h.refcounts+refcountBytes && h.refcounts < h.l1+l1Bytes {
		d.refuse(Overlap, "its tables lie on each other: take another copy")
	}
	if d.report.Taken() && uint64(h.l1Entries) < h.l1Needed() {
		d.refuse(Corrupt, "its L1 table is too short for its size: take another copy")
	}
}

// l1Needed is how many entries a disk of this size uses.
func (h qcow2Header) l1Needed() uint64 { return ceil(h.size, h.cluster()*(h.cluster()/8)) }

// qcow2Walk goes through the tables, and counts and bounds what they point at.
func (d *disk) qcow2Walk(h qcow2Header) error {
	l1, err := d.read(h.l1, int(h.l1Needed()*8))
	if err != nil {
		return err
	}
	// Tables that are all apart fit into the file: this bounds what is read below.
	budget := d.size / h.cluster()
	for i := uint64(0); i < h.l1Needed() && d.report.Taken(); i++ {
		entry := binary.BigEndian.Uint64(l1[i*8:])
		if entry&^(qcow2OffsetMask|qcow2Copied) != 0 {
			d.refuse(Corrupt, "entry %d of its L1 table is not valid: take another copy", i)
			return nil
		}
		offset := entry & qcow2OffsetMask
		if offset == 0 {
			continue
		}
		switch {
		case offset%h.cluster() != 0:
			d.refuse(Unaligned, "an L2 table does not begin with a cluster: take another copy")
		case !d.within(offset, h.cluster()):
			d.truncated("an L2 table")
		case budget == 0:
			d.refuse(Overlap, "L2 tables lie on each other: take another copy")
		default:
			budget--
			if err := d.qcow2L2(h, i, offset); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) qcow2L2(h qcow2Header, index, offset uint64) error {
	table, err := d.read(offset, int(h.cluster()))
	if err != nil {
		return err
	}
	entries := h.cluster() / 8
	for i := uint64(0); i < entries && d.report.Taken(); i++ {
		start := (index*entries + i) * h.cluster()
		if start >= h.size {
			break
		}
		if entry := binary.BigEndian.Uint64(table[i*8:]); entry != 0 {
			d.qcow2Entry(h, entry, min(h.cluster(), h.size-start))
		}
	}
	return nil
}

// qcow2Entry checks one L2 entry, which stands for so many bytes of the guest.
func (d *disk) qcow2Entry(h qcow2Header, entry, bytes uint64) {
	if entry&qcow2Compressed != 0 {
		shift := 62 - (h.clusterBits - 8)
		offset := entry & (1<<shift - 1)
		length := (((entry&(1<<62-1))>>shift)+1)*512 - offset%512
		// The file need not be filled up to a whole sector.
		if offset >= d.size || offset+length > (d.size+511)&^511 {
			d.truncated("a compressed cluster")
		}
		d.report.DataBytes += bytes
		return
	}
	zero := uint64(0)
	if h.version == 3 {
		zero = qcow2Zero
	}
	offset := entry & qcow2OffsetMask
	switch {
	case entry&^(qcow2OffsetMask|qcow2Copied|zero) != 0:
		d.refuse(Corrupt, "an entry of an L2 table is not valid: take another copy")
	case offset%h.cluster() != 0:
		d.refuse(Unaligned, "a cluster does not lie where clusters lie: take another copy")
	case entry&zero != 0 || offset == 0:
	case !d.within(offset, bytes):
		d.truncated("the data")
	default:
		d.report.DataBytes += bytes
	}
}
