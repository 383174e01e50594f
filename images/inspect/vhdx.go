package inspect

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
)

// The format: Microsoft's [MS-VHDX]. All numbers are little-endian; GUIDs are compared as the bytes in the file.
const (
	kib64 = 64 << 10
	mib   = 1 << 20

	vhdxHeaderBytes = 4096
	// The fixed places.
	vhdxHeader1, vhdxHeader2   = kib64, 2 * kib64
	vhdxRegions1, vhdxRegions2 = 3 * kib64, 4 * kib64

	maxVHDXItems = 2047

	regionBAT      = "6677c22d23f600429d64115e9bfd4a08"
	regionMetadata = "06a27c8b90479a4bb8fe575f050f886e"

	itemFile     = "3767a1ca36fa434db3b633f0aa44e76b"
	itemSize     = "2442a52f1bcd7648b2115dbed83bf4b8"
	itemPage83   = "ab12cabee6b2234593efc309e000c746"
	itemLogical  = "1dbf41816fa90947ba47f233a8faab5f"
	itemPhysical = "c748a3cd5d4471449cc9e9885251c556"
	itemParent   = "2d5fd3a80bb34d45abf7d3d84834ab0c"

	vhdxAnew   = "make a copy where you trust it, with Hyper-V's Convert-VHD, and import that"
	vhdxAttach = "shut down the VM that uses it, attach it once ('Mount-VHD -ReadOnly' is not enough) and detach it, then import it again"
)

// extent is a part of the file.
type extent struct{ offset, length uint64 }

func (d *disk) vhdx() error {
	if d.size < mib {
		d.truncated("the first MiB")
		return nil
	}
	if err := d.refuseHidden(kib64); err != nil {
		return err
	}
	log, err := d.vhdxHeaders()
	if err != nil || !d.report.Taken() {
		return err
	}
	regions, err := d.vhdxRegions()
	if err != nil || !d.report.Taken() {
		return err
	}
	all := []struct {
		name string
		extent
	}{{"log", log}, {"BAT", regions[regionBAT]}, {"metadata", regions[regionMetadata]}}
	for i, r := range all {
		switch {
		case r.offset%mib != 0 || r.length%mib != 0:
			d.refuse(Unaligned, "its %s region does not lie on whole MiB: %s", r.name, vhdxAnew)
		case r.offset < mib:
			d.refuse(Overlap, "its %s region lies on the header: %s", r.name, vhdxAnew)
		case !d.within(r.offset, r.length):
			d.refuse(OffsetOutside, "its %s region lies outside the file: it was cut off, or made up; copy it again", r.name)
		}
		for _, other := range all[:i] {
			if r.offset < other.offset+other.length && other.offset < r.offset+r.length {
				d.refuse(Overlap, "its %s and %s regions lie on each other: %s", other.name, r.name, vhdxAnew)
			}
		}
	}
	if !d.report.Taken() {
		return nil
	}
	block, err := d.vhdxMetadata(regions[regionMetadata])
	if err != nil || !d.report.Taken() {
		return err
	}
	return d.vhdxWalk(regions[regionBAT], block)
}

// sealed says whether a structure has its signature, and its CRC-32C at offset 4.
func (d *disk) sealed(raw []byte, signature, name string) bool {
	if string(raw[:4]) != signature {
		d.refuse(Corrupt, "its %s is not there: the file was damaged; copy it again", name)
		return false
	}
	want := binary.LittleEndian.Uint32(raw[4:])
	plain := bytes.Clone(raw)
	clear(plain[4:8])
	if crc32.Checksum(plain, crc32.MakeTable(crc32.Castagnoli)) != want {
		d.refuse(Checksum, "the checksum of its %s does not match: the file was damaged, or written when the power went; copy it again, or %s", name, vhdxAttach)
		return false
	}
	return true
}

// vhdxHeaders reads both headers. An honest file at rest has both whole, with the log empty.
func (d *disk) vhdxHeaders() (extent, error) {
	le := binary.LittleEndian
	var active []byte
	for i, at := range []uint64{vhdxHeader1, vhdxHeader2} {
		raw, err := d.read(at, vhdxHeaderBytes)
		if err != nil {
			return extent{}, err
		}
		if !d.sealed(raw, "head", []string{"first header", "second header"}[i]) {
			return extent{}, nil
		}
		switch {
		case active == nil || le.Uint64(raw[8:]) > le.Uint64(active[8:]):
			active = raw
		case le.Uint64(raw[8:]) == le.Uint64(active[8:]) && !bytes.Equal(raw, active):
			d.refuse(Corrupt, "its two headers contradict each other: %s", vhdxAttach)
		}
	}
	if version, log := le.Uint16(active[66:]), le.Uint16(active[64:]); version != 1 || log != 0 {
		d.refuse(Version, "it is VHDX of version %d, log %d, and 1 and 0 are taken: %s", version, log, vhdxAnew)
	}
	if !zero(active[48:64]) {
		d.refuse(LogNotEmpty, "its log holds changes that are not in the disk yet: %s", vhdxAttach)
	}
	return extent{le.Uint64(active[72:]), uint64(le.Uint32(active[68:]))}, nil
}

// vhdxRegions reads the region tables, which must be equal.
func (d *disk) vhdxRegions() (map[string]extent, error) {
	le := binary.LittleEndian
	first, err := d.read(vhdxRegions1, kib64)
	if err != nil {
		return nil, err
	}
	second, err := d.read(vhdxRegions2, kib64)
	if err != nil {
		return nil, err
	}
	if !d.sealed(first, "regi", "first region table") || !d.sealed(second, "regi", "second region table") {
		return nil, nil
	}
	count := le.Uint32(first[8:])
	if count > maxVHDXItems {
		d.refuse(Layout, "its region table has %d entries, more than %d: %s", count, maxVHDXItems, vhdxAnew)
		return nil, nil
	}
	if used := 16 + 32*count; !bytes.Equal(first[:used], second[:used]) {
		d.refuse(Corrupt, "its two region tables contradict each other: %s", vhdxAnew)
	}
	regions := map[string]extent{}
	for i := range count {
		entry := first[16+32*i:][:32]
		id := hex.EncodeToString(entry[:16])
		if _, again := regions[id]; again {
			d.refuse(Corrupt, "its region table names a region twice: %s", vhdxAnew)
		}
		if id != regionBAT && id != regionMetadata {
			d.refuse(UnknownFeature, "it has a region (%s) that this release does not know: %s", id, vhdxAnew)
		}
		regions[id] = extent{le.Uint64(entry[16:]), uint64(le.Uint32(entry[24:]))}
	}
	for _, id := range []string{regionBAT, regionMetadata} {
		if regions[id].length == 0 {
			d.refuse(Corrupt, "it lacks a region (%s) that every VHDX has: %s", id, vhdxAnew)
		}
	}
	return regions, nil
}

func zero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
