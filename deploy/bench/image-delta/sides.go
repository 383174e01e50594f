package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/deploy/bench/fleet"
	"daybreak/deploy/bench/measure"
)

// ours is a control plane that has both versions, and a host that has the first.
type ours struct {
	dir           string
	d             disks
	before, after string // digests
}

func newOurs(ctx context.Context, work string, d disks) (o *ours, err error) {
	o = &ours{dir: filepath.Join(work, "ours"), d: d}
	plane, host, err := o.start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close(), plane.Close()) }()
	if o.before, err = plane.Import(ctx, d.before); err != nil {
		return nil, err
	}
	if o.after, err = plane.Import(ctx, d.after); err != nil {
		return nil, err
	}
	_, err = fetch(ctx, plane, host, o.before)
	return o, err
}

// start starts plane and host anew: what the plane remembers of deltas is gone.
func (o *ours) start(ctx context.Context) (*fleet.Plane, *fleet.Host, error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, nil, err
	}
	plane, err := fleet.NewPlane(filepath.Join(o.dir, "plane"), fleet.NewLine(0), fleet.Quiet())
	if err != nil {
		return nil, nil, err
	}
	host, err := plane.AddHost(ctx, "kvm1", filepath.Join(o.dir, "kvm1"), fleet.NewLine(0), false)
	if err == nil {
		err = plane.Up(ctx, []*fleet.Host{host})
	}
	return plane, host, err
}

// fetch has the host hold a version, and says when it did.
func fetch(ctx context.Context, plane *fleet.Plane, host *fleet.Host, digest string) (time.Time, error) {
	if err := plane.Want(ctx, []*fleet.Host{host}, digest); err != nil {
		return time.Time{}, err
	}
	return host.Await(ctx, digest)
}

func (o *ours) run(ctx context.Context) (s sample, err error) {
	plane, host, err := o.start(ctx)
	if err != nil {
		return s, err
	}
	began, cpu, received := time.Now(), measure.CPUSeconds(), host.Line.Received()
	at, err := fetch(ctx, plane, host, o.after)
	s = sample{wall: at.Sub(began).Seconds(), cpu: measure.CPUSeconds() - cpu, bytes: host.Line.Received() - received}
	if err = errors.Join(err, host.Close(), plane.Close()); err != nil {
		return s, err
	}
	// As guests see it, through a layer and the base below it, where there is one.
	base, file, format := filepath.Join(o.dir, "kvm1", "store", "bases", o.after), "", ""
	for _, format = range []string{"raw", "qcow2"} {
		if file = base + "." + format; exists(file) {
			break
		}
	}
	err = do(ctx, "", "qemu-img", "compare", "-f", format, "-F", "raw", file, o.d.after)
	return s, errors.Join(err, os.Remove(file), os.Remove(base+".manifest"))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// timed runs a program, syncs what it wrote, and compares it with N+1.
func timed(ctx context.Context, d disks, out, program string, args ...string) (s sample, text string, err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	began := time.Now()
	output, err := cmd.CombinedOutput()
	if err != nil {
		return s, "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, output)
	}
	f, err := os.Open(out)
	if err != nil {
		return s, "", err
	}
	defer f.Close()
	if err := unix.Fsync(int(f.Fd())); err != nil {
		return s, "", err
	}
	s = sample{wall: time.Since(began).Seconds(), cpu: (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}
	return s, string(output), do(ctx, "", "cmp", out, d.after)
}

// casync is its two stores: what the publisher has, and what a host that keeps chunks has of N.
type casync struct {
	dir string
	d   disks
	// moved is the bytes of chunks that N+1 has and N has not, and of its index.
	moved int64
}

func newCasync(ctx context.Context, work string, d disks) (*casync, error) {
	c := &casync{dir: filepath.Join(work, "casync"), d: d}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return nil, err
	}
	for _, v := range []struct{ index, store, raw string }{
		{"n.caibx", "n.castr", d.before}, {"after.caibx", "after.castr", d.after}, {"n.caibx", "after.castr", d.before},
	} {
		if err := do(ctx, c.dir, "casync", "make", "--store="+v.store, v.index, v.raw); err != nil {
			return nil, err
		}
	}
	err := filepath.WalkDir(filepath.Join(c.dir, "after.castr"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		in := filepath.Join(c.dir, "n.castr", filepath.Base(filepath.Dir(path)), entry.Name())
		if _, err := os.Stat(in); err == nil {
			return nil
		}
		info, err := entry.Info()
		if err == nil {
			c.moved += info.Size()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(filepath.Join(c.dir, "after.caibx"))
	if err == nil {
		c.moved += info.Size()
	}
	return c, err
}

func (c *casync) extract(ctx context.Context, with string) (sample, error) {
	out := filepath.Join(c.dir, "out.raw")
	defer os.Remove(out)
	s, _, err := timed(ctx, c.d, out, "casync", "extract", "--store="+filepath.Join(c.dir, "after.castr"), with,
		filepath.Join(c.dir, "after.caibx"), out)
	s.bytes = c.moved
	return s, err
}

// seeded uses N's raw disk, as we do.
func (c *casync) seeded(ctx context.Context) (sample, error) {
	return c.extract(ctx, "--seed="+c.d.before)
}

// stored uses a store of N's chunks that the host keeps beside the disk.
func (c *casync) stored(ctx context.Context) (sample, error) {
	return c.extract(ctx, "--extra-store="+filepath.Join(c.dir, "n.castr"))
}

var rsyncBytes = regexp.MustCompile(`Total bytes (?:sent|received): ([0-9,.]+)`)

// runRsync makes N+1 with N as the basis. Not in place: desktops run on N.
func runRsync(ctx context.Context, work string, d disks) (sample, error) {
	const name = "disk.raw"
	from, basis, to := filepath.Join(work, "from"), filepath.Join(work, "basis"), filepath.Join(work, "to")
	err := errors.Join(os.MkdirAll(from, 0o755), os.MkdirAll(basis, 0o755), os.MkdirAll(to, 0o755))
	for link, target := range map[string]string{filepath.Join(from, name): d.after, filepath.Join(basis, name): d.before} {
		if linkErr := os.Link(target, link); !errors.Is(linkErr, fs.ErrExist) {
			err = errors.Join(err, linkErr)
		}
	}
	if err != nil {
		return sample{}, err
	}
	out := filepath.Join(to, name)
	defer os.Remove(out)
	s, text, err := timed(ctx, d, out, "rsync", "--sparse", "--no-whole-file", "--ignore-times", "--stats", "--copy-dest="+basis,
		filepath.Join(from, name), to+"/")
	for _, match := range rsyncBytes.FindAllStringSubmatch(text, -1) {
		n, _ := strconv.ParseInt(strings.NewReplacer(",", "", ".", "").Replace(match[1]), 10, 64)
		s.bytes += n
	}
	return s, err
}

// runCopy copies all of N+1.
func runCopy(ctx context.Context, work string, d disks) (sample, error) {
	out := filepath.Join(work, "copy.raw")
	defer os.Remove(out)
	s, _, err := timed(ctx, d, out, "cp", "--sparse=always", "--reflink=never", d.after, out)
	if err != nil {
		return s, err
	}
	var st unix.Stat_t
	err = unix.Stat(d.after, &st)
	s.bytes = st.Blocks * 512
	return s, err
}
