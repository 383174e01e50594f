package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

const (
	clusterBytes = 64 << 10
	// filler is copied into the image so that its content is more than 1 GiB: real files, of this machine's packages.
	filler = "/usr/share"
	// partition is where the file system begins in golden images.
	partition = 1 << 20
)

// patch is what is installed: a version control system, a file manager and some tools, about 12 MB of packages.
var patch = []string{"git", "git-man", "liberror-perl", "mc", "mc-data", "htop", "tree"}

// disks are the two versions as raw files.
type disks struct{ before, after string }

// makeDisks makes both versions, or takes those that are in dir.
func makeDisks(ctx context.Context, dir, change string) (disks, error) {
	d := disks{before: filepath.Join(dir, "n.raw"), after: filepath.Join(dir, change+".raw")}
	if _, err := os.Stat(d.before); err != nil {
		if err := makeBefore(ctx, dir, d.before); err != nil {
			return d, fmt.Errorf("make version N: %w", err)
		}
	}
	if _, err := os.Stat(d.after); err != nil {
		work := d.after + ".new"
		if err := do(ctx, "", "cp", "--sparse=always", d.before, work); err != nil {
			return d, err
		}
		make := func() error { return install(ctx, dir, work) }
		if change == "two-percent" {
			make = func() error { return scatter(work) }
		}
		if err := make(); err != nil {
			return d, fmt.Errorf("make version N+1: %w", err)
		}
		if err := os.Rename(work, d.after); err != nil {
			return d, err
		}
	}
	return d, nil
}

func makeBefore(ctx context.Context, dir, path string) error {
	root, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("find the checkout: %w", err)
	}
	work := path + ".new"
	if err := do(ctx, "", filepath.Join(strings.TrimSpace(string(root)), "deploy/golden/desktop"), work, "--version", "1"); err != nil {
		return err
	}
	err = mounted(ctx, dir, work, func(root string) error {
		return do(ctx, "", "cp", "-a", filler, filepath.Join(root, "opt/content"))
	})
	if err != nil {
		return err
	}
	return os.Rename(work, path)
}

// install installs real packages into the image, by its own dpkg.
func install(ctx context.Context, dir, path string) error {
	debs := filepath.Join(dir, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	if have, _ := filepath.Glob(filepath.Join(debs, "*.deb")); len(have) < len(patch) {
		if err := do(ctx, debs, "apt-get", append([]string{"-o", "APT::Sandbox::User=root", "download"}, patch...)...); err != nil {
			return err
		}
	}
	return mounted(ctx, dir, path, func(root string) error {
		inside := filepath.Join(root, "var/cache/patch")
		if err := do(ctx, "", "cp", "-r", debs, inside); err != nil {
			return err
		}
		err := do(ctx, "", "chroot", root, "/bin/sh", "-c", "DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin dpkg --force-depends --install /var/cache/patch/*.deb")
		return errors.Join(err, os.RemoveAll(inside))
	})
}

// mounted runs something on the image's file system, and trims it then. It is one of our own making: a guest's is never mounted.
func mounted(ctx context.Context, dir, path string, what func(root string) error) (err error) {
	root := filepath.Join(dir, "mnt")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := do(ctx, "", "mount", "-o", fmt.Sprintf("loop,offset=%d", partition), path, root); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, do(context.WithoutCancel(ctx), "", "umount", root)) }()
	if err := what(root); err != nil {
		return err
	}
	return do(ctx, "", "fstrim", root)
}

// scatter changes one cluster in fifty of those with content, each whole: half of it noise, half text.
func scatter(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	source := rand.NewChaCha8([32]byte{2})
	random := rand.New(source)
	cluster := bytes.Repeat([]byte("the desktops are warm before the doors open. "), clusterBytes)[:clusterBytes]
	return eachCluster(f, func(at int64, have []byte) error {
		if at < partition || random.IntN(50) != 0 {
			return nil
		}
		source.Read(cluster[:clusterBytes/2])
		_, err := f.WriteAt(cluster, at)
		return err
	})
}

// eachCluster reads the clusters that are no holes.
func eachCluster(f *os.File, what func(at int64, content []byte) error) error {
	buf := make([]byte, clusterBytes)
	for at := int64(0); ; at += clusterBytes {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		at = max(at, data/clusterBytes*clusterBytes)
		n, err := f.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return err
		}
		if err := what(at, buf[:n]); err != nil {
			return err
		}
	}
}

// describe fills in what the disks are and how they differ.
func (d disks) describe(line *result) error {
	before, err := os.Open(d.before)
	if err != nil {
		return err
	}
	defer before.Close()
	after, err := os.Open(d.after)
	if err != nil {
		return err
	}
	defer after.Close()
	info, err := after.Stat()
	if err != nil {
		return err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(false))
	if err != nil {
		return err
	}
	defer enc.Close()
	old, sealed := make([]byte, clusterBytes), make([]byte, 0, 2*clusterBytes)
	var content, changed, compressed int64
	err = eachCluster(after, func(at int64, now []byte) error {
		content += int64(len(now))
		n, err := before.ReadAt(old[:len(now)], at)
		if err != nil && err != io.EOF {
			return err
		}
		if !bytes.Equal(old[:n], now) {
			changed += int64(len(now))
			compressed += int64(len(enc.EncodeAll(now, sealed)))
		}
		return nil
	})
	line.DiskMiB, line.ContentMiB = info.Size()>>20, content>>20
	line.ChangedMiB, line.ChangedSealedMiB = mib(changed), mib(compressed)
	return err
}

func do(ctx context.Context, dir, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, out)
	}
	return nil
}
