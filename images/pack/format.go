package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"daybreak/images"
)

// magic is a mark by which a file says that it is something else than the bytes of a disk.
type magic struct {
	offset int64 // from the end when negative
	mark   string
	name   string
	// qemu is the format's name for qemu-img, empty when it does not read it.
	qemu string
	// unpack is what to do first with a packed file.
	unpack string
}

func magics() []magic {
	return []magic{
		{mark: "QFI\xfb", name: "a qcow2 (or qcow) disk", qemu: "qcow2"},
		{mark: "QED\x00", name: "a QED disk", qemu: "qed"},
		{mark: "KDMV", name: "a VMDK disk", qemu: "vmdk"},
		{mark: "COWD", name: "a VMDK disk", qemu: "vmdk"},
		{mark: "# Disk DescriptorFile", name: "a VMDK descriptor", qemu: "vmdk"},
		{mark: "vhdxfile", name: "a VHDX disk", qemu: "vhdx"},
		{mark: "conectix", name: "a VHD disk", qemu: "vpc"},
		{offset: -512, mark: "conectix", name: "a VHD disk of fixed size", qemu: "vpc"},
		{offset: 64, mark: "\x7f\x10\xda\xbe", name: "a VDI disk", qemu: "vdi"},
		{mark: "WithoutFreeSpace", name: "a Parallels disk", qemu: "parallels"},
		{mark: "WithouFreSpacExt", name: "a Parallels disk", qemu: "parallels"},
		{offset: -512, mark: "koly", name: "a DMG disk", qemu: "dmg"},
		{mark: "LUKS\xba\xbe", name: "an encrypted (LUKS) disk"},
		{mark: "\x1f\x8b", name: "compressed by gzip", unpack: "gunzip"},
		{mark: "\xfd7zXZ\x00", name: "compressed by xz", unpack: "unxz"},
		{mark: "\x28\xb5\x2f\xfd", name: "compressed by zstd", unpack: "unzstd"},
		{mark: "BZh", name: "compressed by bzip2", unpack: "bunzip2"},
		{mark: "PK\x03\x04", name: "a ZIP archive", unpack: "unzip"},
		{mark: "7z\xbc\xaf\x27\x1c", name: "a 7-Zip archive", unpack: "7z x"},
		{offset: 257, mark: "ustar", name: "a tar archive (or an OVA appliance)", unpack: "tar xf"},
		{mark: "\x7fELF", name: "a program"},
	}
}

// Check says whether a file is a raw disk of a size that a golden image can have, and returns the size. Errors wrap
// ErrNotRaw and say what to do.
func Check(file *os.File) (uint64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file: copy the disk into a file first: %w", file.Name(), ErrNotRaw)
	}
	for _, m := range magics() {
		there, err := m.marks(file, info.Size())
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", file.Name(), err)
		}
		if there {
			return 0, fmt.Errorf("%s is %s; %s: %w", file.Name(), m.name, m.remedy(file.Name()), ErrNotRaw)
		}
	}
	if err := images.CheckSize(uint64(info.Size())); err != nil {
		return 0, fmt.Errorf("%s: %w: %w", file.Name(), err, ErrNotRaw)
	}
	return uint64(info.Size()), nil
}

func (m magic) marks(file io.ReaderAt, size int64) (bool, error) {
	at := m.offset
	if at < 0 {
		at += size
	}
	if at < 0 || at+int64(len(m.mark)) > size {
		return false, nil
	}
	have := make([]byte, len(m.mark))
	if _, err := file.ReadAt(have, at); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	return bytes.Equal(have, []byte(m.mark)), nil
}

func (m magic) remedy(path string) string {
	switch {
	case m.qemu != "":
		return fmt.Sprintf("only raw disks are taken; convert a file that you trust with: qemu-img convert -f %s -O raw %s %s.raw",
			m.qemu, path, path)
	case m.unpack != "":
		return fmt.Sprintf("only raw disks are taken; unpack it first with: %s %s", m.unpack, path)
	}
	return "only raw disks are taken"
}
