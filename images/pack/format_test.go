package pack_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"daybreak/images/pack"
)

func TestCheckRefuses(t *testing.T) {
	sized := func(head string, at, size int) func(*os.File) error {
		return func(f *os.File) error {
			if err := f.Truncate(int64(size)); err != nil {
				return err
			}
			_, err := f.WriteAt([]byte(head), int64(at))
			return err
		}
	}
	for _, test := range []struct {
		name  string
		write func(*os.File) error
		says  string
	}{
		{"empty", func(*os.File) error { return nil }, "the disk is empty"},
		{"odd size", sized("x", 0, 1000), "not a multiple of 512"},
		{"absurd size", sized("x", 0, 1<<41), "1 TiB"},
		{"qcow2", sized("QFI\xfb\x00\x00\x00\x03", 0, 4096), "qemu-img convert -f qcow2"},
		{"vmdk", sized("KDMV", 0, 4096), "export the disk anew"},
		{"vmdk text", sized("# Disk DescriptorFile\nversion=1\n", 0, 4096), "names the files"},
		{"vhdx", sized("vhdxfile", 0, 4096), "copy it again"},
		{"vhd", sized("conectix", 0, 4096), "qemu-img convert -f vpc -O raw"},
		{"fixed vhd", sized("conectix", 4096-512, 4096), "qemu-img convert -f vpc -O raw"},
		{"vdi", sized("\x7f\x10\xda\xbe", 64, 4096), "qemu-img convert -f vdi -O raw"},
		{"gzip", sized("\x1f\x8b\x08", 0, 4096), "gunzip"},
		{"ova", sized("ustar", 257, 10240), "tar xf"},
		{"luks", sized("LUKS\xba\xbe", 0, 4096), "encrypted"},
	} {
		f := file(t, test.write)
		if _, err := pack.Check(f); !errors.Is(err, pack.ErrNotRaw) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), f.Name()) {
			t.Errorf("%s: %v\nwant ErrNotRaw that says %q", test.name, err, test.says)
		}
	}
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, err := pack.Check(dir); !errors.Is(err, pack.ErrNotRaw) {
		t.Errorf("a folder: %v", err)
	}
	if size, err := pack.Check(file(t, sized("\x00\x00", 510, 1536))); err != nil || size != 1536 {
		t.Errorf("a raw disk: %d, %v", size, err)
	}
}

// What qemu-img writes is recognised, in every format that it can write here.
func TestCheckKnowsWhatQemuWrites(t *testing.T) {
	qemu, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("no qemu-img on this machine")
	}
	for _, format := range []string{"qcow2", "qcow", "qed", "vmdk", "vhdx", "vpc", "vdi", "parallels"} {
		path := filepath.Join(t.TempDir(), "disk."+format)
		if out, err := exec.CommandContext(t.Context(), qemu, "create", "-q", "-f", format, path, "1M").CombinedOutput(); err != nil {
			t.Logf("qemu-img cannot write %s: %s", format, out)
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pack.Check(f); !errors.Is(err, pack.ErrNotRaw) {
			t.Errorf("%s: %v, want ErrNotRaw", format, err)
		}
		_ = f.Close()
	}
}
