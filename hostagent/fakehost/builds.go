package fakehost

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/images"
	"daybreak/images/pack"
)

// WriteFile is a program that every guest here has. Its arguments are a path, what to write there, and its exit status.
const WriteFile = "write-file"

// Program is a program in a guest.
type Program struct {
	Life hostagent.Life
	Argv []string
	// Files of the guest, by path: to be read and changed.
	Files map[string][]byte
	// Status is what it exits with, After so much time.
	Status int
	After  time.Duration
	// Forgotten: the guest agent does not know it any more.
	Forgotten bool
	// WriteDisk has it write the i-th piece of the disk of a life; zeros are zeros.
	WriteDisk func(life hostagent.Life, i int, content []byte)

	ends time.Time
}

// Builds implements build.Hypervisor.
func (h *Host) Builds(ctx context.Context) ([]hostagent.Domain, error) {
	var list []hostagent.Domain
	err := h.hypervisor(ctx, OpBuilds, hostagent.Life{}, func() error {
		for _, d := range h.domains {
			if d.machine.Build {
				list = append(list, hostagent.Domain{Life: d.machine.Life, VMUUID: d.machine.VMUUID, State: d.state})
			}
		}
		return nil
	})
	slices.SortFunc(list, func(a, b hostagent.Domain) int { return cmp.Compare(a.UID, b.UID) })
	return list, err
}

// PowerOff implements build.Hypervisor.
func (h *Host) PowerOff(ctx context.Context, life hostagent.Life) error {
	h.mu.Lock()
	d := h.domains[keyOf(life)]
	h.mu.Unlock()
	if err := h.Shutdown(ctx, life); err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		h.mu.Lock()
		gone, poweredOff := h.domains[keyOf(life)] != d, d.poweredOff
		h.mu.Unlock()
		switch {
		case gone && poweredOff:
			return nil
		case gone:
			return errors.New("power off: the VM ended in another way")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("power off: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// System implements build.Guest.
func (h *Host) System(ctx context.Context, life hostagent.Life) (system build.System, err error) {
	err = h.guest(ctx, OpDescribe, life, func(d *domain) error {
		system = h.cfg.System
		system.Hostname = d.machine.Desktop
		return nil
	})
	return system, err
}

// Begin implements build.Guest.
func (h *Host) Begin(ctx context.Context, life hostagent.Life, argv []string) (pid int64, err error) {
	if len(argv) == 0 {
		return 0, errors.New("run program in guest: none was given")
	}
	err = h.guest(ctx, OpBegin, life, func(d *domain) error {
		p := &Program{Life: life, Argv: argv, Files: d.files, Status: d.boot.Probe, WriteDisk: func(life hostagent.Life, i int, content []byte) {
			h.overlays[keyOf(life)].written[i] = content
		}}
		switch {
		case argv[0] == WriteFile && len(argv) == 4:
			d.files[argv[1]] = []byte(argv[2])
			p.Status, _ = strconv.Atoi(argv[3])
		case h.cfg.Program != nil:
			h.cfg.Program(p)
		}
		p.ends = time.Now().Add(p.After)
		d.programs = append(d.programs, p)
		pid = int64(len(d.programs))
		return nil
	})
	return pid, err
}

// Ended implements build.Guest.
func (h *Host) Ended(ctx context.Context, life hostagent.Life, pid int64) (status int, ended bool, err error) {
	err = h.guest(ctx, OpEnded, life, func(d *domain) error {
		if pid < 1 || pid > int64(len(d.programs)) || d.programs[pid-1] == nil || d.programs[pid-1].Forgotten {
			return fmt.Errorf("no process %d: %w", pid, hostagent.ErrGuest)
		}
		p := d.programs[pid-1]
		if status, ended = p.Status, !time.Now().Before(p.ends); ended {
			d.programs[pid-1] = nil
		}
		return nil
	})
	return status, ended, err
}

// Put implements build.Files. Every folder is there.
func (h *Host) Put(ctx context.Context, life hostagent.Life, path string, content io.Reader) error {
	data, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	return h.guest(ctx, OpPut, life, func(d *domain) error {
		d.files[path] = data
		return nil
	})
}

// Get implements build.Files.
func (h *Host) Get(ctx context.Context, life hostagent.Life, path string, offset int64, limit int) (part []byte, err error) {
	err = h.guest(ctx, OpGet, life, func(d *domain) error {
		data, ok := d.files[path]
		if !ok {
			return fmt.Errorf("no file %s: %w", path, hostagent.ErrGuest)
		}
		data = data[min(offset, int64(len(data))):]
		part = bytes.Clone(data[:min(limit, len(data))])
		return nil
	})
	return part, err
}

// BuildOverlays implements build.Disks.
func (h *Host) BuildOverlays(ctx context.Context) ([]hostagent.Life, error) {
	return h.overlaysOf(ctx, true)
}

// Changes implements build.Disks. What the guest did not write cannot be read here.
func (h *Host) Changes(ctx context.Context, life hostagent.Life, digest string) (parent *images.Manifest, disk build.Changes, err error) {
	err = h.call(ctx, OpChanges, life, func() error {
		o := h.overlays[keyOf(life)]
		if o == nil || o.digest != digest || h.manifests[digest] == nil {
			return fmt.Errorf("read overlay: %w", hostagent.ErrNotFound)
		}
		if d := h.domains[keyOf(life)]; d != nil && d.state != hostagent.DomainGone {
			return errors.New("read overlay: its VM runs")
		}
		parent, disk = h.manifests[digest], written(o.written)
		return nil
	})
	return parent, disk, err
}

// written is what a guest wrote of its disk.
type written map[int][]byte

// Close implements build.Changes.
func (w written) Close() error { return nil }

// Piece implements build.Changes.
func (w written) Piece(i int) pack.State {
	content, ok := w[i]
	switch {
	case !ok:
		return pack.Kept
	case images.AllZero(content):
		return pack.Zeroed
	}
	return pack.Written
}

// ReadAt implements build.Changes.
func (w written) ReadAt(p []byte, off int64) (int, error) {
	content, ok := w[int(off/images.ChunkBytes)]
	if !ok || off%images.ChunkBytes != 0 {
		return 0, fmt.Errorf("read at %d: nobody wrote there", off)
	}
	clear(p[copy(p, content):])
	return len(p), nil
}
