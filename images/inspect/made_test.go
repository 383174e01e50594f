package inspect_test

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"
)

// The disks below are made by hand, each the smallest that holds 64 KiB or more of data.

const (
	cluster  = 64 << 10
	mib      = 1 << 20
	diskSize = 64 * mib
)

var (
	be = binary.BigEndian
	le = binary.LittleEndian
)

// at writes numbers, strings and bytes at an offset.
func at(data []byte, order binary.ByteOrder, offset int, values ...any) []byte {
	for _, value := range values {
		switch v := value.(type) {
		case string:
			offset += copy(data[offset:], v)
		case []byte:
			offset += copy(data[offset:], v)
		case byte:
			data[offset] = v
			offset++
		case uint16:
			order.PutUint16(data[offset:], v)
			offset += 2
		case uint32:
			order.PutUint32(data[offset:], v)
			offset += 4
		case uint64:
			order.PutUint64(data[offset:], v)
			offset += 8
		default:
			panic(fmt.Sprintf("%T", v))
		}
	}
	return data
}

// madeQcow2: header, reference counts, L1, L2, data.
func madeQcow2() []byte {
	data := make([]byte, 6*cluster)
	at(data, be, 0, "QFI\xfb", uint32(3), uint64(0), uint32(0), uint32(16), uint64(diskSize), uint32(0), uint32(1), uint64(3*cluster),
		uint64(cluster), uint32(1), uint32(0), uint64(0))
	at(data, be, 96, uint32(4), uint32(104))
	at(data, be, cluster, uint64(2*cluster))
	for i := range 6 {
		at(data, be, 2*cluster+2*i, uint16(1))
	}
	at(data, be, 3*cluster, uint64(4*cluster|1<<63))
	at(data, be, 4*cluster, uint64(5*cluster|1<<63))
	at(data, be, 5*cluster, "content")
	return data
}

func madeQcow2V2() []byte {
	data := madeQcow2()
	clear(data[72:200])
	return at(data, be, 4, uint32(2))
}

// vmdkText describes one extent.
func vmdkText(kind, extents string) string {
	return "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"" + kind + "\"\n\n# Extent description\n" +
		extents + "\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.adapterType = \"ide\"\n"
}

const vmdkExtent = `RW 131072 SPARSE "disk.vmdk"`

// madeVMDK: header, descriptor, directory, two tables for 32 MiB each, a grain.
func madeVMDK() []byte {
	data := make([]byte, 128*512+cluster)
	at(data, le, 0, "KDMV", uint32(1), uint32(3), uint64(diskSize/512), uint64(128), uint64(1), uint64(20), uint32(512), uint64(21), uint64(30),
		uint64(128), byte(0), "\n \r\n", uint16(0))
	at(data, le, 512, vmdkText("monolithicSparse", vmdkExtent))
	at(data, le, 21*512, uint32(22), uint32(26))
	at(data, le, 30*512, uint32(31), uint32(35))
	at(data, le, 22*512, uint32(128))
	at(data, le, 31*512, uint32(128))
	at(data, le, 128*512, "content")
	return data
}

// madeStream has its directory at the end, and no data.
func madeStream() []byte {
	data := make([]byte, 40*512)
	header := make([]byte, 512)
	at(header, le, 0, "KDMV", uint32(3), uint32(1|1<<16|1<<17), uint64(diskSize/512), uint64(128), uint64(1), uint64(20), uint32(512), uint64(0),
		^uint64(0), uint64(22), byte(0), "\n \r\n", uint16(1))
	at(data, le, 0, header)
	at(data, le, 512, vmdkText("streamOptimized", strings.Replace(vmdkExtent, "RW", "RDONLY", 1)))
	footer := at(header, le, 56, uint64(25))
	at(data, le, len(data)-3*512, uint64(1), uint32(0), uint32(3))
	at(data, le, len(data)-2*512, footer)
	return data
}

func guid(text string) []byte {
	raw, err := hex.DecodeString(text)
	if err != nil {
		panic(err)
	}
	return raw
}

const vhdxFirst, vhdxMetadata, vhdxBAT, vhdxData = 64 << 10, 2 * mib, 3 * mib, 4 * mib

// madeVHDX: headers, log, metadata, BAT, one block of 1 MiB.
func madeVHDX() []byte {
	data := make([]byte, 5*mib)
	at(data, le, 0, "vhdxfile")
	for i := range 2 {
		at(data, le, vhdxFirst*(1+i), "head", uint32(0), uint64(i+1))
		at(data, le, vhdxFirst*(1+i)+66, uint16(1), uint32(mib), uint64(mib))
		at(data, le, vhdxFirst*(3+i), "regi", uint32(0), uint32(2), uint32(0),
			guid("6677c22d23f600429d64115e9bfd4a08"), uint64(vhdxBAT), uint32(mib), uint32(1),
			guid("06a27c8b90479a4bb8fe575f050f886e"), uint64(vhdxMetadata), uint32(mib), uint32(1))
	}
	at(data, le, vhdxMetadata, "metadata", uint16(0), uint16(5))
	for i, item := range []struct {
		id    string
		value any
		size  uint32
	}{
		{"3767a1ca36fa434db3b633f0aa44e76b", uint64(mib), 8},
		{"2442a52f1bcd7648b2115dbed83bf4b8", uint64(diskSize), 8},
		{"ab12cabee6b2234593efc309e000c746", make([]byte, 16), 16},
		{"1dbf41816fa90947ba47f233a8faab5f", uint32(512), 4},
		{"c748a3cd5d4471449cc9e9885251c556", uint32(4096), 4},
	} {
		at(data, le, vhdxMetadata+32+32*i, guid(item.id), uint32(64<<10+16*i), item.size, uint32(6))
		at(data, le, vhdxMetadata+64<<10+16*i, item.value)
	}
	at(data, le, vhdxBAT, uint64(vhdxData|6))
	at(data, le, vhdxData, "content")
	return reseal(data)
}

// reseal puts the checksums of a VHDX right again.
func reseal(data []byte) []byte {
	for i, size := range []int{4096, 4096, 64 << 10, 64 << 10} {
		part := data[vhdxFirst*(1+i):][:size]
		clear(part[4:8])
		le.PutUint32(part[4:], crc32.Checksum(part, crc32.MakeTable(crc32.Castagnoli)))
	}
	return data
}
