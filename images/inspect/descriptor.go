package inspect

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	// maxDescriptor bounds the descriptor; those seen have 1 to 10 KiB.
	maxDescriptor = 64 << 10
	// qemuDescriptor is how much QEMU reads at the descriptor's place, whatever size it has.
	qemuDescriptor = 20 * sector
)

// vmdkDescriptor reads the text inside the file. It must describe this one file and no parent.
func (d *disk) vmdkDescriptor(h vmdkHeader) error {
	if h.descriptor == 0 || h.descriptorSize == 0 {
		d.refuse(NamesFiles, "it has no descriptor inside, so it is one of several files of a disk: %s", exportAnew)
		return nil
	}
	if h.descriptorSize > maxDescriptor/sector {
		d.refuse(Layout, "its descriptor has %d sectors, more than %d: %s", h.descriptorSize, maxDescriptor/sector, exportAnew)
		return nil
	}
	if !d.vmdkTable("descriptor", h.descriptor, h.descriptorSize*sector) {
		return nil
	}
	at := h.descriptor * sector
	raw, err := d.read(at, int(min(max(h.descriptorSize*sector, qemuDescriptor), d.size-at)))
	if err != nil {
		return err
	}
	text, _, _ := bytes.Cut(raw, []byte{0})
	if uint64(len(text)) > h.descriptorSize*sector {
		d.refuse(Corrupt, "its descriptor is longer than it says: %s", exportAnew)
		return nil
	}
	// Readers search for these words anywhere in the text, so they must not be anywhere.
	if bytes.Contains(text, []byte("parentFileNameHint")) {
		d.refuse(Parent, "it names a parent disk: consolidate the VM's snapshots, then %s", exportAnew)
	}
	for _, word := range []string{"createType", "parentCID"} {
		if bytes.Count(text, []byte(word)) > 1 {
			d.refuse(Corrupt, "its descriptor says %s twice: %s", word, exportAnew)
		}
	}
	d.vmdkLines(h, string(text))
	return nil
}

func (d *disk) vmdkLines(h vmdkHeader, text string) {
	extents, kind := 0, ""
	if !strings.HasPrefix(text, descriptorMark) {
		d.refuse(Corrupt, "there is no descriptor where its header says: %s", exportAnew)
		return
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if words := strings.Fields(line); access(words[0]) {
			extents++
			d.vmdkExtent(h, words)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			d.refuse(UnknownFeature, "its descriptor has a line that this release does not know: %.60q; %s", line, exportAnew)
			continue
		}
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"`)
		if key == "createType" {
			kind = value
		}
		d.vmdkKey(key, value)
	}
	switch {
	case kind != "monolithicSparse" && kind != "streamOptimized":
		d.refuse(NamesFiles, "it is a VMDK of type %.40q, and monolithicSparse and streamOptimized, which are one file, are taken: %s", kind, exportAnew)
	case extents != 1:
		d.refuse(NamesFiles, "it consists of %d files: %s", extents, exportAnew)
	}
	d.report.Variant = kind
}

func access(word string) bool {
	return word == "RW" || word == "RDONLY" || word == "NOACCESS" || word == "RDW"
}

// vmdkExtent checks the line that describes the file itself: RW 131072 SPARSE "name.vmdk".
func (d *disk) vmdkExtent(h vmdkHeader, words []string) {
	if len(words) < 4 || words[2] != "SPARSE" {
		d.refuse(NamesFiles, "its descriptor names other files for the data (%.80q): %s", strings.Join(words, " "), exportAnew)
		return
	}
	if sectors, err := strconv.ParseUint(words[1], 10, 64); err != nil || sectors != h.capacity {
		d.refuse(Corrupt, "its descriptor speaks of %.20s sectors, its header of %d: %s", words[1], h.capacity, exportAnew)
	}
	// Readers ignore the name of a file that describes itself; an honest one has no folder in it.
	if name := strings.Join(words[3:], " "); strings.ContainsAny(name, `/\:`) {
		d.refuse(NamesFiles, "its descriptor names a file in another place (%.80s): %s", name, exportAnew)
	}
}

func (d *disk) vmdkKey(key, value string) {
	switch {
	case key == "parentCID":
		if !strings.EqualFold(value, "ffffffff") {
			d.refuse(Parent, "it has a parent disk: consolidate the VM's snapshots, then %s", exportAnew)
		}
	case strings.HasPrefix(key, "ddb."), key == "version", key == "CID", key == "createType", key == "encoding", key == "isNativeSnapshot":
	case strings.HasPrefix(strings.ToLower(key), "encryption"), key == "keySafe":
		d.refuse(Encrypted, "it is encrypted: take the encryption away, then %s", exportAnew)
	case key == "parentFileNameHint": // refused already
	default:
		d.refuse(UnknownFeature, "its descriptor says %.40q, which this release does not know: %s", key, exportAnew)
	}
}
