package inspect_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"daybreak/images/inspect"
)

func qemuImg(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (Debian: qemu-utils), so there is nothing to compare with")
	}
	return path
}

func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// What qemu-img writes is taken when it is whole, and understood as qemu-img understands it.
func TestWhatQemuWrites(t *testing.T) {
	qemu := qemuImg(t)
	dir := t.TempDir()
	const size = 66000 << 10 // no whole clusters, grains or blocks
	raw := filepath.Join(dir, "raw")
	content := make([]byte, 300<<10)
	rand.NewChaCha8([32]byte{1}).Read(content[:100<<10]) // the rest compresses well, and is not zero
	for i := 100 << 10; i < len(content); i++ {
		content[i] = 'x'
	}
	file, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{0, 30 << 20, size - 512} {
		if _, err := file.WriteAt(content[:min(int64(len(content)), size-at)], at); err != nil {
			t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		format string
		args   []string
		code   inspect.Code
	}{
		{"qcow2", nil, ""},
		{"qcow2", []string{"-c"}, ""},
		{"qcow2", []string{"-c", "-o", "compression_type=zstd"}, ""},
		{"qcow2", []string{"-o", "compat=0.10"}, ""},
		{"qcow2", []string{"-o", "cluster_size=4k,lazy_refcounts=on"}, ""},
		{"qcow2", []string{"-o", "cluster_size=2M,preallocation=metadata"}, ""},
		{"qcow2", []string{"-o", "extended_l2=on"}, inspect.ExtendedL2},
		{"qcow2", []string{"-o", "cluster_size=512"}, inspect.Layout},
		{"qcow2", []string{"-o", "data_file=" + filepath.Join(dir, "data")}, inspect.DataFile},
		{"vmdk", nil, ""},
		{"vmdk", []string{"-o", "subformat=streamOptimized"}, ""},
		{"vmdk", []string{"-o", "zeroed_grain=on"}, ""},
		{"vmdk", []string{"-o", "subformat=monolithicFlat"}, inspect.NamesFiles},
		{"vmdk", []string{"-o", "subformat=twoGbMaxExtentSparse"}, inspect.NamesFiles},
		{"vhdx", nil, ""},
		{"vhdx", []string{"-o", "subformat=fixed,block_size=1M"}, ""},
		{"vpc", nil, inspect.UnsupportedFormat},
		{"vdi", nil, inspect.UnsupportedFormat},
		{"qed", nil, inspect.UnsupportedFormat},
		{"qcow", nil, inspect.Version},
		{"parallels", nil, inspect.UnsupportedFormat},
	} {
		name := strings.Join(append([]string{test.format}, test.args...), " ")
		path := filepath.Join(t.TempDir(), "disk")
		args := append([]string{"convert", "-f", "raw", "-O", test.format}, test.args...)
		if out, err := exec.CommandContext(t.Context(), qemu, append(args, raw, path)...).CombinedOutput(); err != nil {
			t.Errorf("%s: qemu-img cannot write it: %s", name, out)
			continue
		}
		report := lookFile(t, path)
		if test.code != "" {
			if report.Taken() || report.Problems[0].Code != test.code {
				t.Errorf("%s: %+v, want %s", name, report, test.code)
			}
			continue
		}
		// The three pieces lie in at least three clusters, and at most in as many blocks.
		if err := report.Err(); err != nil || string(report.Format) != test.format || report.VirtualSize != size || report.DataBytes < 600<<10 {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		if got := virtualSize(t, qemu, test.format, path); got != report.VirtualSize {
			t.Errorf("%s: qemu-img says %d bytes, the inspector %d", name, got, report.VirtualSize)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, info.Size()/2); err != nil {
			t.Fatal(err)
		}
		if report := lookFile(t, path); report.Taken() && report.DataBytes > 0 {
			t.Errorf("%s: half of it is taken: %+v", name, report)
		}
	}
}

func TestQemuSnapshotsAndBacking(t *testing.T) {
	qemu := qemuImg(t)
	dir := t.TempDir()
	base, overlay := filepath.Join(dir, "base"), filepath.Join(dir, "overlay")
	run(t, qemu, "create", "-q", "-f", "qcow2", base, "1M")
	run(t, qemu, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
	if report := lookFile(t, overlay); report.Taken() || report.Problems[0].Code != inspect.BackingFile {
		t.Errorf("overlay: %+v", report)
	}
	run(t, qemu, "snapshot", "-q", "-c", "one", base)
	if report := lookFile(t, base); report.Taken() || report.Problems[0].Code != inspect.Snapshots {
		t.Errorf("with a snapshot: %+v", report)
	}
	run(t, qemu, "snapshot", "-q", "-d", "one", base)
	if err := lookFile(t, base).Err(); err != nil {
		t.Errorf("without snapshots again: %v", err)
	}
}

// Of damaged disks, those that are taken are of the format and the size that QEMU sees.
func TestTakenMeansWhatQemuSees(t *testing.T) {
	qemu := qemuImg(t)
	disks := everyDisk()
	rng := rand.New(rand.NewPCG(1, 2))
	// Where damage means something: headers, descriptors, tables, metadata.
	places := []int{0, 512, 21 * 512, cluster, 3 * cluster, 4 * cluster, vhdxMetadata, vhdxMetadata + 64<<10, vhdxBAT}
	taken := 0
	for try := range 400 {
		place := places[rng.IntN(len(places))]
		patch := []byte{byte(rng.UintN(256)), byte(rng.UintN(256))}[:1+rng.IntN(2)]
		data := damaged(disks, uint8(1+rng.IntN(len(disks)-1)), uint32(place+rng.IntN(160)), patch, 0)
		report := look(t, data)
		if !report.Taken() || report.Format == inspect.Raw {
			continue
		}
		if taken++; taken > 40 {
			break // each costs a process
		}
		path := filepath.Join(t.TempDir(), fmt.Sprint("disk", try))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := virtualSize(t, qemu, string(report.Format), path); got != report.VirtualSize {
			t.Errorf("try %d: qemu-img says %d bytes, the inspector %+v", try, got, report)
		}
	}
	if taken < 10 {
		t.Errorf("only %d damaged disks were taken: nothing was compared", taken)
	}
}

func virtualSize(t *testing.T, qemu, format, path string) uint64 {
	t.Helper()
	var info struct {
		Format string `json:"format"`
		Size   uint64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(run(t, qemu, "info", "-f", format, "--output=json", path), &info); err != nil {
		t.Fatal(err)
	}
	if info.Format != format {
		t.Errorf("%s: qemu-img says %s", format, info.Format)
	}
	return info.Size
}

func lookFile(t *testing.T, path string) inspect.Report {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	report, err := inspect.Inspect(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return report
}
