package convert_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"daybreak/images/convert"
	"daybreak/images/inspect"
)

// room is a folder that everybody may reach, as nobody must reach a stub.
func room(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func qemuImg(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed (Debian: qemu-utils), so nothing can be converted")
	}
	return path
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func digest(t *testing.T, file *os.File) string {
	t.Helper()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

const size = 66000 << 10 // no whole clusters, grains or blocks

// content makes a raw disk with data at its beginning, in the middle and at its end.
func content(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "content")
	data := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{7}).Read(data[:1<<20])
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, at := range []int64{0, 31 << 20, size - 4096} {
		if _, err := file.WriteAt(data[:min(int64(len(data)), size-at)], at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestContentComesOutAsItWas(t *testing.T) {
	qemu, dir := qemuImg(t), room(t)
	raw := content(t, dir)
	want := digest(t, open(t, raw))
	for _, args := range [][]string{
		{"qcow2"}, {"qcow2", "-c"}, {"qcow2", "-c", "-o", "compression_type=zstd"}, {"qcow2", "-o", "compat=0.10"},
		{"vmdk"}, {"vmdk", "-o", "subformat=streamOptimized"}, {"vhdx"}, {"vhdx", "-o", "subformat=fixed"},
	} {
		name := strings.Join(args, " ")
		path := filepath.Join(dir, "disk")
		run(t, qemu, append(append([]string{"convert", "-f", "raw", "-O"}, args...), raw, path)...)
		spare := filepath.Join(dir, "spare")
		if err := os.MkdirAll(spare, 0o700); err != nil {
			t.Fatal(err)
		}
		told := -1.0
		got, err := convert.ToRaw(t.Context(), open(t, path), convert.Config{Dir: spare, Progress: func(p float64) {
			if p < told {
				t.Errorf("%s: progress went from %v to %v", name, told, p)
			}
			told = p
		}, Warn: func(text string) { t.Log(text) }})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if have := digest(t, got); have != want {
			t.Errorf("%s: came out as another", name)
		}
		if told != 100 {
			t.Errorf("%s: progress ended at %v", name, told)
		}
		info, err := got.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if blocks := blocks(t, info); blocks > 16<<20 {
			t.Errorf("%s: the raw disk takes %d bytes, so it is not sparse", name, blocks)
		}
		if left, err := os.ReadDir(spare); err != nil || len(left) > 0 {
			t.Errorf("%s: %v was left, %v", name, left, err)
		}
		_ = got.Close()
	}
}

// stub puts a program in qemu-img's place that runs the script, and returns the path that the script knows as $said.
func stub(t *testing.T, script string) string {
	t.Helper()
	dir := room(t)
	said := filepath.Join(dir, "said")
	if err := os.WriteFile(said, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(said, 0o666); err != nil {
		t.Fatal(err)
	}
	program := "#!/bin/sh\nsaid='" + said + "'\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(dir, "qemu-img"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return said
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Of what the inspector refuses, qemu-img never hears.
func TestHostileFilesNeverReachQemu(t *testing.T) {
	qemu, dir := qemuImg(t), room(t)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	hostile := map[string]inspect.Code{}
	add := func(name string, code inspect.Code, args ...string) {
		run(t, qemu, append(args, filepath.Join(dir, name))...)
		hostile[name] = code
	}
	add("backing", inspect.BackingFile, "create", "-q", "-f", "qcow2", "-u", "-b", secret, "-F", "raw", "-o", "size=1M")
	add("json", inspect.BackingFile, "create", "-q", "-f", "qcow2", "-u", "-b", `json:{"driver":"raw","file":{"driver":"file","filename":"`+secret+`"}}`,
		"-F", "raw", "-o", "size=1M")
	add("nbd", inspect.BackingFile, "create", "-q", "-f", "qcow2", "-u", "-b", "nbd://127.0.0.1:1/x", "-F", "raw", "-o", "size=1M")
	add("data", inspect.DataFile, "convert", "-f", "raw", "-O", "qcow2", "-o", "data_file="+filepath.Join(dir, "other")+",data_file_raw=on", secret)
	add("aes", inspect.Encrypted, "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s,size=1M")
	add("huge", inspect.Size, "create", "-q", "-f", "qcow2", "-o", "size=60T")
	add("flat", inspect.NamesFiles, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", secret)
	good := filepath.Join(dir, "good")
	run(t, qemu, "create", "-q", "-f", "qcow2", good, "1M")

	said := stub(t, `echo "$@" >>"$said"; exit 3`)
	for name, code := range hostile {
		raw, err := convert.ToRaw(t.Context(), open(t, filepath.Join(dir, name)), convert.Config{Dir: dir})
		if raw != nil || !errors.Is(err, inspect.ErrRefused) || !strings.Contains(err.Error(), "("+string(code)+")") {
			t.Errorf("%s: %v, want %s", name, err, code)
		}
		if words := read(t, said); words != "" {
			t.Fatalf("%s: qemu-img was run: %s", name, words)
		}
	}
	// Or else the stub says nothing whatever happens.
	if _, err := convert.ToRaw(t.Context(), open(t, good), convert.Config{Dir: dir}); err == nil || errors.Is(err, inspect.ErrRefused) {
		t.Errorf("a good file: %v, want the stub's failure", err)
	}
	if words := read(t, said); !strings.Contains(words, `"backing":null`) || !strings.Contains(words, `"driver":"qcow2"`) || strings.Contains(words, dir) {
		t.Errorf("qemu-img was run with %q", words)
	}
}

// empty makes a qcow2 of 1 MiB with the real qemu-img, before a stub takes its place.
func empty(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(room(t), "disk")
	run(t, qemuImg(t), "create", "-q", "-f", "qcow2", path, "1M")
	return open(t, path)
}

func TestSandbox(t *testing.T) {
	file := empty(t)
	said := stub(t, `{
id -u; ulimit -v; ulimit -t; ulimit -c
grep -c : /proc/self/net/dev
awk '$1 == "NoNewPrivs:" {print $2}' /proc/self/status
awk '$1 == "CapEff:" {print $2}' /proc/self/status
pwd; ls -l /proc/$$/fd | grep -c -e ' [0-9]* -> '
} >>"$said"; exit 7`)
	warned := ""
	_, err := convert.ToRaw(t.Context(), file, convert.Config{Memory: 512 << 20, Warn: func(text string) { warned = text }})
	if err == nil {
		t.Fatal("the stub's failure was not told")
	}
	lines := strings.Fields(read(t, said))
	if len(lines) != 9 {
		t.Fatalf("%v; the stub said %q", err, lines)
	}
	if os.Geteuid() == 0 && lines[0] == "0" {
		t.Error("it runs as root")
	}
	if lines[1] != fmt.Sprint(512<<10) || lines[2] == "unlimited" || lines[3] != "0" {
		t.Errorf("limits: memory %s KiB, CPU %s s, core %s", lines[1], lines[2], lines[3])
	}
	if lines[4] != "1" && warned == "" {
		t.Errorf("it sees %s network devices, want the loopback alone, and nobody was warned", lines[4])
	}
	if lines[5] != "1" || strings.Trim(lines[6], "0") != "" {
		t.Errorf("NoNewPrivs %s, capabilities %s", lines[5], lines[6])
	}
}

func TestLimits(t *testing.T) {
	file := empty(t)
	t.Run("time", func(t *testing.T) {
		stub(t, `exec sleep 100`)
		began := time.Now()
		if _, err := convert.ToRaw(t.Context(), file, convert.Config{Limit: 300 * time.Millisecond}); !errors.Is(err, convert.ErrTooSlow) || time.Since(began) > 20*time.Second {
			t.Errorf("%v after %v, want ErrTooSlow", err, time.Since(began))
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		said := stub(t, `echo run >>"$said"; exec sleep 100`)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := convert.ToRaw(ctx, file, convert.Config{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want the context's end (%q)", err, read(t, said))
		}
	})
	t.Run("size", func(t *testing.T) {
		said := stub(t, `dd if=/dev/zero of=/proc/self/fd/4 bs=1M seek=1 count=1 conv=notrunc 2>>"$said" || stat -L -c 'size %s' /proc/self/fd/4 >>"$said"; exit 5`)
		if _, err := convert.ToRaw(t.Context(), file, convert.Config{}); err == nil || !strings.Contains(read(t, said), fmt.Sprint("size ", 1<<20)) {
			t.Errorf("%v; the stub said %q, want that it could not write past the disk's end", err, read(t, said))
		}
	})
	t.Run("memory", func(t *testing.T) {
		if _, err := convert.ToRaw(t.Context(), file, convert.Config{Memory: 16 << 20}); err == nil {
			t.Error("qemu-img ran in 16 MiB")
		}
	})
	t.Run("space", func(t *testing.T) {
		if _, err := convert.ToRaw(t.Context(), file, convert.Config{Dir: "/nonexistent"}); err == nil {
			t.Error("a folder that is not there")
		}
		large := filepath.Join(room(t), "large") // tables, and a hole where its data would be
		run(t, qemuImg(t), "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata,cluster_size=2M", large, "1000G")
		var fs syscall.Statfs_t
		if err := syscall.Statfs(t.TempDir(), &fs); err != nil || fs.Bavail*uint64(fs.Bsize) > 1000<<30 {
			t.Skip("this machine has more than 1000 GiB free")
		}
		said := stub(t, `echo run >>"$said"`)
		if _, err := convert.ToRaw(t.Context(), open(t, large), convert.Config{Dir: t.TempDir()}); !errors.Is(err, convert.ErrNoSpace) || read(t, said) != "" {
			t.Errorf("%v, want ErrNoSpace before qemu-img runs", err)
		}
	})
}

func TestOddEnds(t *testing.T) {
	file := empty(t)
	t.Run("changed", func(t *testing.T) {
		dir := room(t)
		path := filepath.Join(dir, "disk")
		data := read(t, file.Name())
		if err := os.WriteFile(path, []byte(data), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		writable := open(t, path)
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
		stub(t, `echo x >>'`+path+`'; exit 0`)
		if _, err := convert.ToRaw(t.Context(), writable, convert.Config{}); !errors.Is(err, convert.ErrChanged) {
			t.Errorf("%v, want ErrChanged", err)
		}
	})
	t.Run("other size", func(t *testing.T) {
		stub(t, `truncate -s 512 /proc/self/fd/4`)
		if _, err := convert.ToRaw(t.Context(), file, convert.Config{}); err == nil || !strings.Contains(err.Error(), "512 bytes") {
			t.Errorf("%v, want the size", err)
		}
	})
	t.Run("not readable", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root converts as somebody else")
		}
		secret := open(t, file.Name())
		if err := os.Chmod(file.Name(), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := convert.ToRaw(t.Context(), secret, convert.Config{}); err == nil || !strings.Contains(err.Error(), "chmod o+r") {
			t.Errorf("%v, want what to do", err)
		}
		open(t, file.Name())
		if _, err := convert.ToRaw(t.Context(), secret, convert.Config{User: "root"}); err == nil || !strings.Contains(err.Error(), "that is root") {
			t.Errorf("as root: %v", err)
		}
	})
	t.Run("not installed", func(t *testing.T) {
		t.Setenv("PATH", room(t))
		if _, err := convert.ToRaw(t.Context(), file, convert.Config{}); !errors.Is(err, convert.ErrNoTool) || !strings.Contains(err.Error(), "apt install qemu-utils") {
			t.Errorf("%v, want ErrNoTool", err)
		}
	})
}

func blocks(t *testing.T, info os.FileInfo) int64 {
	t.Helper()
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%T", info.Sys())
	}
	return stat.Blocks * 512
}
