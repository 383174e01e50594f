package inspect

import (
	"bytes"
	"fmt"
)

// mark is what a file shows to say that it is something else than the bytes of a disk.
type mark struct {
	offset int64 // from the end when negative
	bytes  string
	name   string
	format Format
	packed bool
	// remedy is empty for formats that are read further.
	remedy string
}

func (m mark) code() Code {
	switch {
	case m.packed:
		return Packed
	case m.format == "luks":
		return Encrypted
	case m.format == VMDK:
		return NamesFiles
	}
	return UnsupportedFormat
}

const (
	elsewhere = "convert it where you trust it, with 'qemu-img convert -f %s -O raw FILE FILE.raw', and import that"
	unpack    = "unpack it first with '%s FILE', and import the disk that is in it"

	descriptorMark   = "# Disk DescriptorFile"
	descriptorName   = "a VMDK descriptor, a text that names the files with the data"
	descriptorRemedy = "export the disk as one file, monolithicSparse or streamOptimized, and import that"
)

func knownMarks() []mark {
	other := func(offset int64, bytes, name string, format Format) mark {
		return mark{offset: offset, bytes: bytes, name: name, format: format, remedy: fmt.Sprintf(elsewhere, format)}
	}
	packed := func(offset int64, bytes, name string, format Format, with string) mark {
		return mark{offset: offset, bytes: bytes, name: name, format: format, packed: true, remedy: fmt.Sprintf(unpack, with)}
	}
	return []mark{
		{bytes: "QFI\xfb", name: "a qcow2 (or qcow) disk", format: QCOW2},
		{bytes: "KDMV", name: "a VMDK disk", format: VMDK},
		{bytes: "vhdxfile", name: "a VHDX disk", format: VHDX},
		{bytes: descriptorMark, name: descriptorName, format: VMDK, remedy: descriptorRemedy},
		other(0, "COWD", "a VMDK disk of an ESX host", VMDK),
		other(0, "QED\x00", "a QED disk", "qed"),
		other(0, "conectix", "a VHD disk", "vpc"),
		other(-512, "conectix", "a VHD disk", "vpc"),
		other(64, "\x7f\x10\xda\xbe", "a VDI disk", "vdi"),
		other(0, "WithoutFreeSpace", "a Parallels disk", "parallels"),
		other(0, "WithouFreSpacExt", "a Parallels disk", "parallels"),
		other(-512, "koly", "a DMG disk", "dmg"),
		{bytes: "LUKS\xba\xbe", name: "an encrypted (LUKS) disk", format: "luks", remedy: "copy the disk that is in it into a raw file, and import that"},
		packed(0, "\x1f\x8b", "compressed by gzip", "gzip", "gunzip"),
		packed(0, "\xfd7zXZ\x00", "compressed by xz", "xz", "unxz"),
		packed(0, "\x28\xb5\x2f\xfd", "compressed by zstd", "zstd", "unzstd"),
		packed(0, "BZh", "compressed by bzip2", "bzip2", "bunzip2"),
		packed(0, "PK\x03\x04", "a ZIP archive", "zip", "unzip"),
		packed(0, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z", "7z x"),
		packed(257, "ustar", "a tar archive (or an OVA appliance)", "tar", "tar xf"),
		{bytes: "\x7fELF", name: "a program", format: "elf", remedy: "import a disk"},
	}
}

// marks finds what the file may be read as, one mark for each format; none for a raw disk.
func (d *disk) marks() ([]mark, error) {
	var found []mark
	seen := map[Format]bool{}
	add := func(m mark) {
		if !seen[m.format] {
			seen[m.format] = true
			found = append(found, m)
		}
	}
	for _, m := range knownMarks() {
		there, err := d.shows(m.offset, m.bytes)
		if err != nil {
			return nil, err
		}
		if there {
			add(m)
		}
	}
	text, err := d.looksLikeDescriptor()
	if err != nil {
		return nil, err
	}
	if text {
		add(mark{name: descriptorName, format: VMDK, remedy: descriptorRemedy})
	}
	return found, nil
}

func (d *disk) shows(offset int64, want string) (bool, error) {
	at := uint64(offset)
	if offset < 0 {
		if d.size < uint64(-offset) {
			return false, nil
		}
		at = d.size - uint64(-offset)
	}
	if !d.within(at, uint64(len(want))) {
		return false, nil
	}
	have, err := d.read(at, len(want))
	return string(have) == want, err
}

// looksLikeDescriptor probes as QEMU does: comments and empty lines, then the version.
func (d *disk) looksLikeDescriptor() (bool, error) {
	head, err := d.read(0, int(min(d.size, 2048)))
	if err != nil {
		return false, err
	}
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\n"))
		line = bytes.TrimRight(line, " \r")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		return bytes.HasPrefix(line, []byte("version=")), nil
	}
	return false, nil
}

// refuseHidden refuses a file whose first bytes, up to the given end of its header, are also the beginning of a bootable
// disk: what boots would depend on who reads it.
func (d *disk) refuseHidden(end uint64) error {
	for _, m := range []struct {
		offset      uint64
		bytes, name string
	}{
		{510, "\x55\xaa", "a disk with a master boot record"},
		{512, "EFI PART", "a disk with a GPT"},
		{0x8001, "CD001", "an ISO image"},
	} {
		if m.offset+uint64(len(m.bytes)) > end {
			continue
		}
		there, err := d.shows(int64(m.offset), m.bytes)
		if err != nil {
			return err
		}
		if there {
			d.refuse(TwoFormats, "it can be read as a %s disk and as %s: make it anew with a tool that you trust", d.report.Format, m.name)
		}
	}
	return nil
}
