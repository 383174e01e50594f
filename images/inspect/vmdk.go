package inspect

import (
	"bytes"
	"encoding/binary"
)

// The format: VMware's "Virtual Disk Format 5.0", sparse extents. All numbers are little-endian; offsets in sectors.
const (
	sector = 512

	// vmdkHeaderBytes is what has a meaning in the header; the rest of its sector is zero.
	vmdkHeaderBytes = 79
	// vmdkFooterBytes: the marker of the footer, the footer, the marker of the end.
	vmdkFooterBytes = 3 * sector

	vmdkNewlines   = 1 << 0
	vmdkRedundant  = 1 << 1
	vmdkZeroGrains = 1 << 2
	vmdkCompressed = 1 << 16
	vmdkMarkers    = 1 << 17
	vmdkKnown      = vmdkNewlines | vmdkRedundant | vmdkZeroGrains | vmdkCompressed | vmdkMarkers

	// vmdkGTEs is how many grains a grain table has.
	vmdkGTEs = 512
	// The sizes of grains in sectors that are taken: 4 KiB to 1 MiB.
	minGrain = 8
	maxGrain = 2048

	vmdkAtEnd = 1<<64 - 1

	exportAnew = "export the disk anew as one file, monolithicSparse or streamOptimized"
)

type vmdkHeader struct {
	version, flags                 uint32
	capacity, grain                uint64
	descriptor, descriptorSize     uint64
	entries                        uint32
	redundant, directory, overhead uint64
	unclean                        byte
	newlines                       string
	compression                    uint16
}

func parseVMDK(raw []byte) vmdkHeader {
	le := binary.LittleEndian
	return vmdkHeader{
		version: le.Uint32(raw[4:]), flags: le.Uint32(raw[8:]), capacity: le.Uint64(raw[12:]), grain: le.Uint64(raw[20:]),
		descriptor: le.Uint64(raw[28:]), descriptorSize: le.Uint64(raw[36:]), entries: le.Uint32(raw[44:]), redundant: le.Uint64(raw[48:]),
		directory: le.Uint64(raw[56:]), overhead: le.Uint64(raw[64:]), unclean: raw[72], newlines: string(raw[73:77]), compression: le.Uint16(raw[77:]),
	}
}

func (h vmdkHeader) compressed() bool { return h.flags&vmdkCompressed != 0 }

func (d *disk) vmdk() error {
	if d.size < 2*sector {
		d.truncated("the header")
		return nil
	}
	raw, err := d.read(0, sector)
	if err != nil {
		return err
	}
	h := parseVMDK(raw)
	if h.capacity > 1<<53 { // in bytes it would not fit
		d.refuse(Size, "it claims a disk of %d sectors: %s", h.capacity, exportAnew)
		return nil
	}
	d.report.VirtualSize = h.capacity * sector
	d.checkSize()
	d.vmdkFields(h)
	if err := d.refuseHidden(2 * sector); err != nil {
		return err
	}
	if !d.report.Taken() {
		return nil
	}
	if err := d.vmdkDescriptor(h); err != nil {
		return err
	}
	if h.directory == vmdkAtEnd {
		if h.directory, err = d.vmdkFooter(raw); err != nil {
			return err
		}
	}
	directories := []uint64{h.directory}
	if h.flags&vmdkRedundant != 0 {
		directories = append(directories, h.redundant)
	}
	for _, directory := range directories {
		if d.report.Taken() {
			d.report.DataBytes = 0
			if err := d.vmdkWalk(h, directory); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *disk) vmdkFields(h vmdkHeader) {
	if h.version < 1 || h.version > 3 {
		d.refuse(Version, "it is VMDK of version %d, and 1 to 3 are taken: %s", h.version, exportAnew)
	}
	if unknown := h.flags &^ vmdkKnown; unknown != 0 {
		d.refuse(UnknownFeature, "it has flags (%#x) that this release does not know: %s", unknown, exportAnew)
	}
	if h.flags&vmdkNewlines != 0 && h.newlines != "\n \r\n" {
		d.refuse(Corrupt, "its line ends were changed when it was copied as a text: copy it again, as binary")
	}
	if h.unclean != 0 {
		d.refuse(Dirty, "it was not closed by who wrote it last: shut down the VM that uses it, or mend it with 'vmware-vdiskmanager -R'")
	}
	if h.compression > 1 || (h.compression == 1) != h.compressed() {
		d.refuse(UnknownFeature, "its compression (%d) is not one that this release knows: %s", h.compression, exportAnew)
	}
	if h.entries != vmdkGTEs || !powerOfTwo(h.grain) || h.grain < minGrain || h.grain > maxGrain {
		d.refuse(Layout, "it has grains of %d sectors, %d to a table, and %d to %d sectors, %d to a table, are taken: %s",
			h.grain, h.entries, minGrain, maxGrain, vmdkGTEs, exportAnew)
	}
	if h.compressed() && d.size%sector != 0 {
		d.truncated("its last sector")
	}
}

// vmdkFooter reads the directory's place from the end of a file that was written as a stream.
func (d *disk) vmdkFooter(header []byte) (uint64, error) {
	if d.size < vmdkFooterBytes+sector || d.size%sector != 0 {
		d.truncated("the footer")
		return 0, nil
	}
	raw, err := d.read(d.size-vmdkFooterBytes, vmdkFooterBytes)
	if err != nil {
		return 0, err
	}
	le := binary.LittleEndian
	const markerFooter, markerEnd = 3, 0
	marker, footer, end := raw[:sector], raw[sector:2*sector], raw[2*sector:]
	if le.Uint32(marker[8:]) != 0 || le.Uint32(marker[12:]) != markerFooter || le.Uint32(end[8:]) != 0 || le.Uint32(end[12:]) != markerEnd {
		d.truncated("the footer")
		return 0, nil
	}
	// All but the directory's place must be said twice alike: readers differ in which of the two they believe.
	if !bytes.Equal(footer[:56], header[:56]) || !bytes.Equal(footer[64:vmdkHeaderBytes], header[64:vmdkHeaderBytes]) {
		d.refuse(Corrupt, "its header and its footer contradict each other: %s", exportAnew)
	}
	directory := parseVMDK(footer).directory
	if directory == vmdkAtEnd {
		d.refuse(OffsetOutside, "its grain directory is nowhere: %s", exportAnew)
	}
	return directory, nil
}

// table refuses a table outside the file or on the header.
func (d *disk) vmdkTable(name string, at, bytes uint64) bool {
	switch {
	case at == 0:
		d.refuse(Overlap, "its %s lies on the header: %s", name, exportAnew)
	case at > d.size/sector || !d.within(at*sector, bytes):
		d.refuse(OffsetOutside, "its %s lies outside the file: it was cut off, or made up; copy it again", name)
	default:
		return true
	}
	return false
}

// vmdkWalk goes through a grain directory and its tables, and counts and bounds what they point at.
func (d *disk) vmdkWalk(h vmdkHeader, at uint64) error {
	tables := ceil(h.capacity, h.grain*vmdkGTEs)
	if !d.vmdkTable("grain directory", at, tables*4) {
		return nil
	}
	directory, err := d.read(at*sector, int(tables*4))
	if err != nil {
		return err
	}
	// Tables that are all apart fit into the file: this bounds what is read below.
	budget := d.size / (vmdkGTEs * 4)
	for i := uint64(0); i < tables && d.report.Taken(); i++ {
		at := uint64(binary.LittleEndian.Uint32(directory[i*4:]))
		if at == 0 {
			continue
		}
		if !d.vmdkTable("grain table", at, vmdkGTEs*4) {
			return nil
		}
		if budget == 0 {
			d.refuse(Overlap, "its grain tables lie on each other: %s", exportAnew)
			return nil
		}
		budget--
		table, err := d.read(at*sector, vmdkGTEs*4)
		if err != nil {
			return err
		}
		for j := range uint64(vmdkGTEs) {
			start := (i*vmdkGTEs + j) * h.grain
			if start >= h.capacity {
				break
			}
			d.vmdkGrain(h, uint64(binary.LittleEndian.Uint32(table[j*4:])), min(h.grain, h.capacity-start)*sector)
		}
	}
	return nil
}

// vmdkGrain checks one entry, which stands for so many bytes of the guest.
func (d *disk) vmdkGrain(h vmdkHeader, at, bytes uint64) {
	if at == 0 || at == 1 && h.flags&vmdkZeroGrains != 0 || !d.report.Taken() {
		return
	}
	length := bytes
	if h.compressed() {
		length = sector // at least its marker
	}
	if !d.within(at*sector, length) {
		d.truncated("the data")
	}
	d.report.DataBytes += bytes
}
