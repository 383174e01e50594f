package inspect_test

import (
	"bytes"
	"io"
	"testing"

	"daybreak/images"
	"daybreak/images/inspect"
)

// counting counts what is read.
type counting struct {
	io.ReaderAt
	read, largest int
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.read, c.largest = c.read+len(p), max(c.largest, len(p))
	return c.ReaderAt.ReadAt(p, off)
}

func everyDisk() [][]byte {
	return [][]byte{make([]byte, 4096), madeQcow2(), madeQcow2V2(), madeVMDK(), madeStream(), madeVHDX()}
}

// damaged is one of the disks above with bytes written over, and cut off.
func damaged(disks [][]byte, base uint8, offset uint32, patch []byte, size uint32) []byte {
	data := bytes.Clone(disks[int(base)%len(disks)])
	copy(data[int(offset)%len(data):], patch)
	if bytes.HasPrefix(data, []byte("vhdxfile")) {
		reseal(data) // or nothing but checksums would be tried
	}
	return data[:len(data)-int(size)%len(data)]
}

// FuzzInspect: whatever the bytes, there is a verdict, little is read for it, and what is taken has a lawful size.
func FuzzInspect(f *testing.F) {
	disks := everyDisk()
	for base := range disks {
		f.Add(uint8(base), uint32(0), []byte{}, uint32(0))
		f.Add(uint8(base), uint32(20), []byte{0xff, 0xff, 0xff, 0xff}, uint32(0))
		f.Add(uint8(base), uint32(0), []byte{}, uint32(512))
	}
	f.Add(uint8(5), uint32(vhdxMetadata+64<<10), []byte{0, 0, 0x10, 0}, uint32(0))
	f.Add(uint8(3), uint32(512), []byte(vmdkText("vmfs", `RW 1 FLAT "/etc/shadow" 0`)), uint32(0))
	f.Fuzz(func(t *testing.T, base uint8, offset uint32, patch []byte, size uint32) {
		data := damaged(disks, base, offset, patch, size)
		file := &counting{ReaderAt: bytes.NewReader(data)}
		report, err := inspect.Inspect(file, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if file.read > 2*len(data)+1<<20 || file.largest > 4<<20 {
			t.Errorf("read %d bytes, at most %d at once, of a file of %d", file.read, file.largest, len(data))
		}
		if report.Taken() && (images.CheckSize(report.VirtualSize) != nil || report.DataBytes > report.VirtualSize || report.Format == "") {
			t.Errorf("taken: %+v", report)
		}
	})
}
