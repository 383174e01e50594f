package inspect_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"daybreak/images"
	"daybreak/images/inspect"
)

func look(t testing.TB, data []byte) inspect.Report {
	t.Helper()
	report, err := inspect.Inspect(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestTaken(t *testing.T) {
	for _, test := range []struct {
		name string
		data []byte
		want inspect.Report
	}{
		{"qcow2", madeQcow2(), inspect.Report{Format: inspect.QCOW2, Variant: "version 3", VirtualSize: diskSize, DataBytes: cluster}},
		{"qcow2 v2", madeQcow2V2(), inspect.Report{Format: inspect.QCOW2, Variant: "version 2", VirtualSize: diskSize, DataBytes: cluster}},
		{"vmdk", madeVMDK(), inspect.Report{Format: inspect.VMDK, Variant: "monolithicSparse", VirtualSize: diskSize, DataBytes: cluster}},
		{"vmdk stream", madeStream(), inspect.Report{Format: inspect.VMDK, Variant: "streamOptimized", VirtualSize: diskSize}},
		{"vhdx", madeVHDX(), inspect.Report{Format: inspect.VHDX, Variant: "dynamic", VirtualSize: diskSize, DataBytes: mib}},
		{"raw", at(make([]byte, mib), le, 510, "\x55\xaaEFI PART"), inspect.Report{Format: inspect.Raw, VirtualSize: mib, DataBytes: mib}},
	} {
		got := look(t, test.data)
		if err := got.Err(); err != nil || got.Format != test.want.Format || got.Variant != test.want.Variant ||
			got.VirtualSize != test.want.VirtualSize || got.DataBytes != test.want.DataBytes {
			t.Errorf("%s: %+v, %v\nwant %+v", test.name, got, err, test.want)
		}
	}
}

// row is a disk with one thing wrong.
type row struct {
	name string
	made func() []byte
	harm func(data []byte) []byte
	code inspect.Code
}

func big(offset int, values ...any) func([]byte) []byte {
	return func(data []byte) []byte { return at(data, be, offset, values...) }
}

func little(offset int, values ...any) func([]byte) []byte {
	return func(data []byte) []byte { return at(data, le, offset, values...) }
}

func cut(size int) func([]byte) []byte {
	return func(data []byte) []byte {
		if size < 0 {
			return data[:len(data)+size]
		}
		return data[:size]
	}
}

// extension makes the header 104 bytes long and puts extensions behind it.
func extension(values ...any) func([]byte) []byte { return big(104, values...) }

// checkRows says of each row that it is refused, for its reason, with a sentence that says what to do.
func checkRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		report := look(t, r.harm(r.made()))
		if report.Taken() || report.Problems[0].Code != r.code {
			t.Errorf("%s: %+v, want %s", r.name, report, r.code)
			continue
		}
		if err := report.Err(); !errors.Is(err, inspect.ErrRefused) || !strings.Contains(err.Error(), string(r.code)) {
			t.Errorf("%s: %v", r.name, err)
		}
		for _, p := range report.Problems {
			if !strings.Contains(p.Text, ": ") || len(p.Text) > 400 {
				t.Errorf("%s: %q does not say what to do", r.name, p.Text)
			}
		}
	}
}

func TestQcow2Refused(t *testing.T) {
	rows := []row{
		{"magic only", madeQcow2, cut(4), inspect.Truncated},
		{"71 bytes", madeQcow2, cut(71), inspect.Truncated},
		{"103 bytes", madeQcow2, cut(103), inspect.Truncated},
		{"header only", madeQcow2, cut(104), inspect.OffsetOutside},
		{"half", madeQcow2, cut(3 * cluster), inspect.OffsetOutside},
		{"no L2", madeQcow2, cut(4*cluster + 8), inspect.Truncated},
		{"last byte missing", madeQcow2, cut(-1), inspect.Truncated},
		{"version 0", madeQcow2, big(4, uint32(0)), inspect.Version},
		{"version 1", madeQcow2, big(4, uint32(1)), inspect.Version},
		{"version 4", madeQcow2, big(4, uint32(4)), inspect.Version},
		{"backing file", madeQcow2, big(8, uint64(1024), uint32(11)), inspect.BackingFile},
		{"backing file in v2", madeQcow2V2, big(8, uint64(1024), uint32(11)), inspect.BackingFile},
		{"backing beyond the file", madeQcow2, big(8, uint64(1<<62), uint32(1024)), inspect.BackingFile},
		{"backing of length 0", madeQcow2, big(8, uint64(16)), inspect.BackingFile},
		{"backing format", madeQcow2, extension(uint32(0xe2792aca), uint32(3), "raw"), inspect.BackingFile},
		{"data file", madeQcow2, big(72, uint64(4)), inspect.DataFile},
		{"data file's name", madeQcow2, extension(uint32(0x44415441), uint32(5), "json:"), inspect.DataFile},
		{"raw external", madeQcow2, big(88, uint64(2)), inspect.DataFile},
		{"dirty", madeQcow2, big(72, uint64(1)), inspect.Dirty},
		{"corrupt", madeQcow2, big(72, uint64(2)), inspect.Corrupt},
		{"extended L2", madeQcow2, big(72, uint64(16)), inspect.ExtendedL2},
		{"compression without kind", madeQcow2, big(72, uint64(8)), inspect.UnknownFeature},
		{"compression unknown", madeQcow2, func(d []byte) []byte { return at(at(d, be, 72, uint64(8)), be, 100, uint32(112), byte(2)) }, inspect.UnknownFeature},
		{"unknown field", madeQcow2, big(100, uint32(120), uint64(0), uint64(1)), inspect.UnknownFeature},
		{"unknown extension", madeQcow2, extension(uint32(0xdeadbeef), uint32(0)), inspect.UnknownFeature},
		{"LUKS extension", madeQcow2, extension(uint32(0x0537be77), uint32(16), uint64(1<<62), uint64(1)), inspect.Encrypted},
		{"bitmaps", madeQcow2, extension(uint32(0x23852875), uint32(24)), inspect.Bitmaps},
		{"extension too long", madeQcow2, extension(uint32(0x6803f857), uint32(1<<31)), inspect.OffsetOutside},
		{"extension twice", madeQcow2, extension(uint32(0x6803f857), uint32(0), uint32(0x6803f857), uint32(0)), inspect.Corrupt},
		{"AES", madeQcow2, big(32, uint32(1)), inspect.Encrypted},
		{"LUKS", madeQcow2, big(32, uint32(2)), inspect.Encrypted},
		{"snapshots", madeQcow2, big(60, uint32(1)), inspect.Snapshots},
		{"snapshots 2^32-1", madeQcow2, big(60, ^uint32(0), uint64(1<<62)), inspect.Snapshots},
		{"size 0", madeQcow2, big(24, uint64(0)), inspect.Size},
		{"size odd", madeQcow2, big(24, uint64(diskSize+1)), inspect.Size},
		{"size 1 PiB", madeQcow2, big(24, uint64(1<<50)), inspect.Size},
		{"size 2^63-1", madeQcow2, big(24, uint64(1<<63-1)), inspect.Size},
		{"size 2^64-1", madeQcow2, big(24, ^uint64(0)), inspect.Size},
		{"size past L1", madeQcow2, big(24, uint64(images.MaxDiskBytes)), inspect.Corrupt},
		{"l1 none", madeQcow2, big(36, uint32(0)), inspect.Layout},
		{"l1 2^31", madeQcow2, big(36, uint32(1<<31)), inspect.Layout},
		{"l1 unaligned", madeQcow2, big(40, uint64(3*cluster+8)), inspect.Unaligned},
		{"l1 beyond", madeQcow2, big(40, uint64(1<<40)), inspect.OffsetOutside},
		{"l1 wraps", madeQcow2, big(40, ^uint64(0)-cluster+1), inspect.OffsetOutside},
		{"l1 on header", madeQcow2, big(40, uint64(0)), inspect.Overlap},
		{"l1 on refcounts", madeQcow2, big(40, uint64(cluster)), inspect.Overlap},
		{"refcounts unaligned", madeQcow2, big(48, uint64(cluster+512)), inspect.Unaligned},
		{"refcounts beyond", madeQcow2, big(48, uint64(1<<40)), inspect.OffsetOutside},
		{"refcounts huge", madeQcow2, big(56, ^uint32(0)), inspect.Layout},
		{"refcount order 7", madeQcow2, big(96, uint32(7)), inspect.Layout},
		{"header length 103", madeQcow2, big(100, uint32(103)), inspect.Layout},
		{"header length 108", madeQcow2, big(100, uint32(108)), inspect.Layout},
		{"header length 2^31", madeQcow2, big(100, uint32(1<<31)), inspect.Layout},
		{"L2 beyond", madeQcow2, big(3*cluster, uint64(1<<40)), inspect.Truncated},
		{"L2 unaligned", madeQcow2, big(3*cluster, uint64(4*cluster+512)), inspect.Unaligned},
		{"L1 reserved bits", madeQcow2, big(3*cluster, uint64(4*cluster|1)), inspect.Corrupt},
		{"cluster beyond", madeQcow2, big(4*cluster, uint64(1<<40)), inspect.Truncated},
		{"cluster unaligned", madeQcow2, big(4*cluster, uint64(5*cluster+512)), inspect.Unaligned},
		{"L2 reserved bits", madeQcow2, big(4*cluster, uint64(5*cluster|2)), inspect.Corrupt},
		{"compressed past the end", madeQcow2, big(4*cluster, uint64(1<<62|6*cluster)), inspect.Truncated},
		{"MBR, too", madeQcow2, big(510, "\x55\xaa"), inspect.TwoFormats},
		{"GPT, too", madeQcow2, big(512, "EFI PART"), inspect.TwoFormats},
		{"ISO, too", madeQcow2, big(0x8001, "CD001"), inspect.TwoFormats},
		{"VHD, too", madeQcow2, func(d []byte) []byte { return at(d, be, len(d)-512, "conectix") }, inspect.TwoFormats},
		{"tar, too", madeQcow2, big(257, "ustar"), inspect.TwoFormats},
	}
	for _, bits := range []uint32{0, 8, 11, 22, 31, 63, ^uint32(0)} {
		rows = append(rows, row{"cluster bits", madeQcow2, big(20, bits), inspect.Layout})
	}
	for bit := 5; bit < 64; bit++ {
		rows = append(rows, row{"feature", madeQcow2, big(72, uint64(1)<<bit), inspect.UnknownFeature})
	}
	checkRows(t, rows)
}

func TestVMDKRefused(t *testing.T) {
	text := func(text string) func([]byte) []byte {
		return func(d []byte) []byte {
			clear(d[512 : 21*512])
			return at(d, le, 512, text)
		}
	}
	say := func(old, new string) func([]byte) []byte {
		return text(strings.Replace(vmdkText("monolithicSparse", vmdkExtent), old, new, 1))
	}
	flat := `RW 131072 FLAT "/etc/shadow" 0`
	descriptor := func([]byte) []byte { return []byte(vmdkText("monolithicFlat", flat)) }
	checkRows(t, []row{
		{"magic only", madeVMDK, cut(4), inspect.Truncated},
		{"header only", madeVMDK, cut(1024), inspect.OffsetOutside},
		{"last byte missing", madeVMDK, cut(-1), inspect.Truncated},
		{"descriptor alone", madeVMDK, descriptor, inspect.NamesFiles},
		{"descriptor after comments", madeVMDK, func([]byte) []byte { return []byte("# x\n\n  \r\nversion=1\n" + flat) }, inspect.NamesFiles},
		{"COWD", madeVMDK, little(0, "COWD"), inspect.NamesFiles},
		{"flat inside", madeVMDK, say(vmdkExtent, flat), inspect.NamesFiles},
		{"two extents", madeVMDK, say(vmdkExtent, vmdkExtent+"\n"+vmdkExtent), inspect.NamesFiles},
		{"no extent", madeVMDK, say(vmdkExtent, ""), inspect.NamesFiles},
		{"extent with a path", madeVMDK, say("disk.vmdk", "/etc/shadow"), inspect.NamesFiles},
		{"extent of another size", madeVMDK, say("131072", "131073"), inspect.Corrupt},
		{"twoGbMax", madeVMDK, say("monolithicSparse", "twoGbMaxExtentSparse"), inspect.NamesFiles},
		{"type twice", madeVMDK, say("\n\n#", "\n# createType=\"vmfs\"\n#"), inspect.Corrupt},
		{"parent by name", madeVMDK, say("\n\n#", "\nparentFileNameHint=\"/etc/shadow\"\n#"), inspect.Parent},
		{"parent in a comment", madeVMDK, say("\n\n#", "\n# parentFileNameHint=\"x\"\n#"), inspect.Parent},
		{"parent by id", madeVMDK, say("ffffffff", "12345678"), inspect.Parent},
		{"encrypted", madeVMDK, say("\n\n#", "\nencryption.keySafe = \"x\"\n#"), inspect.Encrypted},
		{"change tracking", madeVMDK, say("\n\n#", "\nchangeTrackPath=\"x-ctk.vmdk\"\n#"), inspect.UnknownFeature},
		{"nonsense", madeVMDK, say("\n\n#", "\nnonsense\n#"), inspect.UnknownFeature},
		{"no descriptor", madeVMDK, little(28, uint64(0), uint64(0)), inspect.NamesFiles},
		{"empty descriptor", madeVMDK, text(""), inspect.Corrupt},
		{"descriptor longer than said", madeVMDK, func(d []byte) []byte {
			return at(at(d, le, 512, vmdkText("monolithicSparse", vmdkExtent+strings.Repeat("\n#", 400))), le, 36, uint64(1))
		}, inspect.Corrupt},
		{"descriptor of 2 GiB", madeVMDK, little(36, uint64(1<<22)), inspect.Layout},
		{"descriptor beyond", madeVMDK, little(28, uint64(1<<40)), inspect.OffsetOutside},
		{"version 0", madeVMDK, little(4, uint32(0)), inspect.Version},
		{"version 4", madeVMDK, little(4, uint32(4)), inspect.Version},
		{"unknown flag", madeVMDK, little(8, uint32(1<<5|3)), inspect.UnknownFeature},
		{"newlines", madeVMDK, little(73, "\n \n\n"), inspect.Corrupt},
		{"unclean", madeVMDK, little(72, byte(1)), inspect.Dirty},
		{"compression", madeVMDK, little(77, uint16(1)), inspect.UnknownFeature},
		{"capacity 0", madeVMDK, little(12, uint64(0)), inspect.Size},
		{"capacity 1 PiB", madeVMDK, little(12, uint64(1<<41)), inspect.Size},
		{"capacity 2^64-1", madeVMDK, little(12, ^uint64(0)), inspect.Size},
		{"grain 0", madeVMDK, little(20, uint64(0)), inspect.Layout},
		{"grain 2^40", madeVMDK, little(20, uint64(1<<40)), inspect.Layout},
		{"table of 0", madeVMDK, little(44, uint32(0)), inspect.Layout},
		{"directory beyond", madeVMDK, little(56, uint64(1<<40)), inspect.OffsetOutside},
		{"directory wraps", madeVMDK, little(56, uint64(1<<63-1)), inspect.OffsetOutside},
		{"directory on header", madeVMDK, little(56, uint64(0)), inspect.Overlap},
		{"redundant directory beyond", madeVMDK, little(48, uint64(1<<40)), inspect.OffsetOutside},
		{"table beyond", madeVMDK, little(30*512, ^uint32(0)), inspect.OffsetOutside},
		{"grain beyond", madeVMDK, little(31*512, ^uint32(0)), inspect.Truncated},
		{"grain beyond, redundant table", madeVMDK, little(22*512, ^uint32(0)), inspect.Truncated},
		{"MBR, too", madeVMDK, little(510, "\x55\xaa"), inspect.TwoFormats},
		{"VHD, too", madeVMDK, func(d []byte) []byte { return at(d, le, len(d)-512, "conectix") }, inspect.TwoFormats},
		{"stream cut", madeStream, cut(-512), inspect.Truncated},
		{"stream without last byte", madeStream, cut(-1), inspect.Truncated},
		{"footer of another size", madeStream, func(d []byte) []byte { return at(d, le, len(d)-1024+12, uint64(1)) }, inspect.Corrupt},
		{"footer of another descriptor", madeStream, func(d []byte) []byte { return at(d, le, len(d)-1024+28, uint64(9)) }, inspect.Corrupt},
		{"footer that points nowhere", madeStream, func(d []byte) []byte { return at(d, le, len(d)-1024+56, ^uint64(0)) }, inspect.OffsetOutside},
	})
}

func TestVHDXRefused(t *testing.T) {
	sealed := func(harm func([]byte) []byte) func([]byte) []byte {
		return func(d []byte) []byte { return reseal(harm(d)) }
	}
	both := func(offset int, values ...any) func([]byte) []byte {
		return sealed(func(d []byte) []byte { return at(at(d, le, offset, values...), le, offset+vhdxFirst, values...) })
	}
	const header, regions = vhdxFirst, 3 * vhdxFirst
	const items, values = vhdxMetadata + 32, vhdxMetadata + 64<<10
	checkRows(t, []row{
		{"magic only", madeVHDX, cut(8), inspect.Truncated},
		{"regions cut", madeVHDX, cut(2 * mib), inspect.OffsetOutside},
		{"last byte missing", madeVHDX, cut(-1), inspect.Truncated},
		{"header's bit flipped", madeVHDX, little(header+100, byte(1)), inspect.Checksum},
		{"second header's bit flipped", madeVHDX, little(2*header+100, byte(1)), inspect.Checksum},
		{"region's bit flipped", madeVHDX, little(regions+60000, byte(1)), inspect.Checksum},
		{"no header", madeVHDX, little(header, "HEAD"), inspect.Corrupt},
		{"no regions", madeVHDX, little(regions, "REGI"), inspect.Corrupt},
		{"headers contradict", madeVHDX, sealed(little(header+8, uint64(2), byte(1))), inspect.Corrupt},
		{"regions contradict", madeVHDX, sealed(little(regions+32, uint64(4*mib))), inspect.Corrupt},
		{"version", madeVHDX, both(header+66, uint16(2)), inspect.Version},
		{"log version", madeVHDX, both(header+64, uint16(1)), inspect.Version},
		{"log not empty", madeVHDX, both(header+48, byte(1)), inspect.LogNotEmpty},
		{"log beyond", madeVHDX, both(header+72, uint64(1<<40)), inspect.OffsetOutside},
		{"log unaligned", madeVHDX, both(header+72, uint64(mib+4096)), inspect.Unaligned},
		{"log on metadata", madeVHDX, both(header+72, uint64(vhdxMetadata)), inspect.Overlap},
		{"regions 2^32-1", madeVHDX, both(regions+8, ^uint32(0)), inspect.Layout},
		{"region unknown", madeVHDX, both(regions+16, byte(0)), inspect.UnknownFeature},
		{"region missing", madeVHDX, both(regions+8, uint32(1)), inspect.Corrupt},
		{"BAT beyond", madeVHDX, both(regions+32, uint64(1<<40)), inspect.OffsetOutside},
		{"BAT wraps", madeVHDX, both(regions+32, ^uint64(0)-mib+1), inspect.OffsetOutside},
		{"BAT on header", madeVHDX, both(regions+32, uint64(0)), inspect.Overlap},
		{"metadata missing", madeVHDX, little(vhdxMetadata, "METADATA"), inspect.Corrupt},
		{"metadata too many", madeVHDX, little(vhdxMetadata+10, ^uint16(0)), inspect.Corrupt},
		{"item unknown", madeVHDX, little(items, byte(0)), inspect.UnknownFeature},
		{"item outside", madeVHDX, little(items+16, ^uint32(0)), inspect.OffsetOutside},
		{"item twice", madeVHDX, little(items+32, guid("3767a1ca36fa434db3b633f0aa44e76b")), inspect.OffsetOutside},
		{"item too long", madeVHDX, little(items+20, uint32(1<<31)), inspect.OffsetOutside},
		{"item missing", madeVHDX, little(vhdxMetadata+10, uint16(3)), inspect.Corrupt},
		{"parent locator", madeVHDX, little(items, guid("2d5fd3a80bb34d45abf7d3d84834ab0c")), inspect.Parent},
		{"parent flag", madeVHDX, little(values+4, uint32(2)), inspect.Parent},
		{"unknown flag", madeVHDX, little(values+4, uint32(4)), inspect.UnknownFeature},
		{"block of 0", madeVHDX, little(values, uint32(0)), inspect.Layout},
		{"block of 2 GiB", madeVHDX, little(values, uint32(1<<31)), inspect.Layout},
		{"size 0", madeVHDX, little(values+16, uint64(0)), inspect.Size},
		{"size 60 TiB", madeVHDX, little(values+16, uint64(60<<40)), inspect.Size},
		{"BAT too short", madeVHDX, little(values+16, uint64(1<<39)), inspect.Corrupt},
		{"sectors of 4096", madeVHDX, little(values+48, uint32(4096)), inspect.SectorSize},
		{"block beyond", madeVHDX, little(vhdxBAT, uint64(1<<40|6)), inspect.Truncated},
		{"block on header", madeVHDX, little(vhdxBAT, uint64(6)), inspect.Overlap},
		{"block partly", madeVHDX, little(vhdxBAT, uint64(vhdxData|7)), inspect.Parent},
		{"block of state 5", madeVHDX, little(vhdxBAT, uint64(vhdxData|5)), inspect.UnknownFeature},
		{"block reserved bits", madeVHDX, little(vhdxBAT, uint64(vhdxData|6|1<<10)), inspect.Corrupt},
		{"ISO, too", madeVHDX, little(0x8001, "CD001"), inspect.TwoFormats},
	})
}

func TestOthersRefused(t *testing.T) {
	raw := func() []byte { return make([]byte, mib) }
	rows := []row{
		{"empty", raw, cut(0), inspect.Size},
		{"odd", raw, cut(1000), inspect.Size},
		{"VHD", raw, little(0, "conectix"), inspect.UnsupportedFormat},
		{"fixed VHD", raw, little(mib-512, "conectix"), inspect.UnsupportedFormat},
		{"VDI", raw, little(64, "\x7f\x10\xda\xbe"), inspect.UnsupportedFormat},
		{"QED", raw, little(0, "QED\x00"), inspect.UnsupportedFormat},
		{"DMG", raw, little(mib-512, "koly"), inspect.UnsupportedFormat},
		{"LUKS", raw, little(0, "LUKS\xba\xbe"), inspect.Encrypted},
		{"gzip", raw, little(0, "\x1f\x8b\x08"), inspect.Packed},
		{"OVA", raw, little(257, "ustar"), inspect.Packed},
		{"ZIP", raw, little(0, "PK\x03\x04"), inspect.Packed},
		{"program", raw, little(0, "\x7fELF"), inspect.UnsupportedFormat},
	}
	checkRows(t, rows)
}

// A file that shrinks while it is read is an error, not a verdict.
func TestFileIsShorterThanSaid(t *testing.T) {
	for _, made := range []func() []byte{madeQcow2, madeVMDK, madeVHDX} {
		data := made()
		if _, err := inspect.Inspect(bytes.NewReader(data[:600]), int64(len(data))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%.4q: %v", data, err)
		}
	}
}
