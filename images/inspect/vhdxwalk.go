package inspect

import (
	"encoding/binary"
	"encoding/hex"
)

const (
	minVHDXBlock = mib
	maxVHDXBlock = 256 * mib

	vhdxHasParent = 2
)

// vhdxMetadata reads the items that say what disk it is, and returns the size of a block.
func (d *disk) vhdxMetadata(region extent) (uint64, error) {
	le := binary.LittleEndian
	table, err := d.read(region.offset, kib64)
	if err != nil {
		return 0, err
	}
	count := le.Uint16(table[10:])
	if string(table[:8]) != "metadata" || count > maxVHDXItems {
		d.refuse(Corrupt, "its metadata table is not there: the file was damaged; copy it again")
		return 0, nil
	}
	items := map[string][]byte{}
	for i := range int(count) {
		entry := table[32+32*i:][:32]
		id := hex.EncodeToString(entry[:16])
		length, known := map[string]uint64{itemFile: 8, itemSize: 8, itemPage83: 16, itemLogical: 4, itemPhysical: 4}[id]
		if id == itemParent {
			d.refuse(Parent, "it is a differencing disk, with a parent: merge them with Hyper-V's Merge-VHD, and import that")
			return 0, nil
		}
		if !known {
			d.refuse(UnknownFeature, "it has a metadata item (%s) that this release does not know: %s", id, vhdxAnew)
			return 0, nil
		}
		offset := uint64(le.Uint32(entry[16:]))
		if have := uint64(le.Uint32(entry[20:])); items[id] != nil || have != length || offset < kib64 || offset > region.length-length {
			d.refuse(OffsetOutside, "a metadata item (%s) is there twice, or not where such items lie: %s", id, vhdxAnew)
			return 0, nil
		}
		if items[id], err = d.read(region.offset+offset, int(length)); err != nil {
			return 0, err
		}
	}
	return d.vhdxItems(items), nil
}

func (d *disk) vhdxItems(items map[string][]byte) uint64 {
	le := binary.LittleEndian
	for _, id := range []string{itemFile, itemSize, itemLogical} {
		if items[id] == nil {
			d.refuse(Corrupt, "it lacks a metadata item (%s) that every VHDX has: %s", id, vhdxAnew)
			return 0
		}
	}
	d.report.VirtualSize = le.Uint64(items[itemSize])
	d.checkSize()
	if sector := le.Uint32(items[itemLogical]); sector != 512 {
		d.refuse(SectorSize, "its logical sectors have %d bytes, and desktops have disks of 512: %s", sector, "make it anew with 'New-VHD -LogicalSectorSizeBytes 512'")
	}
	block, bits := uint64(le.Uint32(items[itemFile])), le.Uint32(items[itemFile][4:])
	if bits&vhdxHasParent != 0 {
		d.refuse(Parent, "it is a differencing disk, with a parent: merge them with Hyper-V's Merge-VHD, and import that")
	} else if bits > 1 {
		d.refuse(UnknownFeature, "it has flags (%#x) that this release does not know: %s", bits, vhdxAnew)
	}
	if !powerOfTwo(block) || block < minVHDXBlock || block > maxVHDXBlock {
		d.refuse(Layout, "its blocks have %d bytes, and 1 MiB to 256 MiB are taken: %s", block, vhdxAnew)
	}
	if bits&1 != 0 {
		d.report.Variant = "fixed"
	} else {
		d.report.Variant = "dynamic"
	}
	return block
}

// vhdxWalk goes through the block allocation table, and counts and bounds what it points at.
func (d *disk) vhdxWalk(region extent, block uint64) error {
	blocks := ceil(d.report.VirtualSize, block)
	// After so many entries for blocks there is one for a bitmap, which only differencing disks use.
	ratio := uint64(1<<23) * 512 / block
	entries := blocks + (blocks-1)/ratio
	if entries*8 > region.length {
		d.refuse(Corrupt, "its block table is too short for its size: %s", vhdxAnew)
		return nil
	}
	for at := uint64(0); at < entries && d.report.Taken(); {
		piece, err := d.read(region.offset+at*8, int(min(kib64, (entries-at)*8)))
		if err != nil {
			return err
		}
		for ; len(piece) > 0; piece, at = piece[8:], at+1 {
			if (at+1)%(ratio+1) == 0 {
				continue
			}
			start := (at - at/(ratio+1)) * block
			d.vhdxBlock(binary.LittleEndian.Uint64(piece), min(block, d.report.VirtualSize-start))
		}
	}
	return nil
}

// vhdxBlock checks one entry, which stands for so many bytes of the guest.
func (d *disk) vhdxBlock(entry, bytes uint64) {
	const notPresent, undefined, isZero, unmapped, present, partly = 0, 1, 2, 3, 6, 7
	if !d.report.Taken() {
		return
	}
	offset := entry >> 20 * mib
	switch state := entry & 7; {
	case entry>>3&(1<<17-1) != 0:
		d.refuse(Corrupt, "an entry of its block table is not valid: %s", vhdxAnew)
	case state == notPresent, state == undefined, state == isZero, state == unmapped:
	case state == partly:
		d.refuse(Parent, "it holds parts of blocks only, as a differencing disk does: merge it with its parent with Hyper-V's Merge-VHD, and import that")
	case state != present:
		d.refuse(UnknownFeature, "an entry of its block table has state %d, which this release does not know: %s", state, vhdxAnew)
	case offset < mib:
		d.refuse(Overlap, "a block lies on the header: %s", vhdxAnew)
	case !d.within(offset, bytes):
		d.truncated("the data")
	default:
		d.report.DataBytes += bytes
	}
}
