// Package convert makes a raw disk of a qcow2, VMDK or VHDX file that images/inspect takes.
//
// Here: running qemu-img on the one file, as nobody, without network, within limits of time, memory and size. Not here:
// deciding whether a file may be converted (images/inspect), what becomes of the raw disk (images/pack). cmd calls it.
package convert

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/images/inspect"
)

// Sentinels.
var (
	// ErrNoTool: a program that the conversion needs is not installed.
	ErrNoTool = errors.New("not installed")
	// ErrNoSpace: the raw disk would not fit.
	ErrNoSpace = errors.New("not enough space")
	// ErrTooSlow: the conversion took longer than it may.
	ErrTooSlow = errors.New("the conversion took too long")
	// ErrChanged: somebody wrote to the file while it was read.
	ErrChanged = errors.New("the file changed while it was converted")
)

// Config says how to convert. The zero value is right for most.
type Config struct {
	// Dir is where the raw disk lies while it is used; empty stands for the system's folder for temporary files.
	Dir string
	// User is as whom root lets qemu-img run; empty stands for nobody. Others convert as themselves.
	User string
	// Limit is how long it may take; 0 stands for ten minutes and the time for 20 MB of data a second.
	Limit time.Duration
	// Memory is how much address space it may have, in bytes; 0 stands for 1 GiB.
	Memory uint64
	// Progress, if not nil, is told how much is done, 0 to 100.
	Progress func(percent float64)
	// Warn, if not nil, is told what this machine could not do for the conversion's safety.
	Warn func(text string)
}

// ToRaw inspects a file and, if it is taken, converts it. The raw disk that it returns has no name any more: it is gone when
// it is closed, or when the process ends, however it ends. Errors wrap inspect.ErrRefused when qemu-img was not run because
// of what the file is.
func ToRaw(ctx context.Context, file *os.File, c Config) (*os.File, error) {
	before, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	report, err := inspect.Inspect(file, before.Size())
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if err := report.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", file.Name(), err)
	}
	who, err := c.account()
	if err != nil {
		return nil, err
	}
	command, err := c.command(report, file.Name())
	if err != nil {
		return nil, err
	}
	raw, err := c.target(report, who)
	if err != nil {
		return nil, err
	}
	if err := c.run(ctx, command, who, file, raw, c.limit(report)); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("convert %s: %w", file.Name(), err)
	}
	if err := unchanged(file, before, raw, report); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("convert %s: %w", file.Name(), err)
	}
	return raw, nil
}

// unchanged says whether the file is still the one that was inspected, and the raw disk as large as that said.
func unchanged(file *os.File, before os.FileInfo, raw *os.File, report inspect.Report) error {
	after, err := file.Stat()
	if err != nil {
		return err
	}
	if !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		return fmt.Errorf("%w: shut down the VM that uses it, then import it again", ErrChanged)
	}
	made, err := raw.Stat()
	if err != nil {
		return err
	}
	if uint64(made.Size()) != report.VirtualSize {
		return fmt.Errorf("qemu-img made a disk of %d bytes, want %d: take another copy of the file", made.Size(), report.VirtualSize)
	}
	return nil
}

// target makes the file for the raw disk, all hole, which belongs to whom qemu-img runs as.
func (c Config) target(report inspect.Report, who account) (*os.File, error) {
	dir := c.Dir
	if dir == "" {
		dir = os.TempDir()
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return nil, fmt.Errorf("look for space in %s: %w", dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < report.DataBytes {
		return nil, fmt.Errorf("%s has %d MiB free, and the raw disk takes up to %d MiB while it is imported: make room, or name another folder with --tmp-dir: %w",
			dir, free>>20, report.DataBytes>>20, ErrNoSpace)
	}
	raw, err := os.CreateTemp(dir, "daybreak-*.raw")
	if err != nil {
		return nil, fmt.Errorf("make a raw disk: %w", err)
	}
	err = errors.Join(os.Remove(raw.Name()), raw.Truncate(int64(report.VirtualSize)))
	if who.other {
		err = errors.Join(err, raw.Chown(int(who.uid), int(who.gid)))
	}
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("make a raw disk in %s: %w", dir, err)
	}
	return raw, nil
}

func (c Config) limit(report inspect.Report) time.Duration {
	if c.Limit > 0 {
		return c.Limit
	}
	return 10*time.Minute + time.Duration(report.DataBytes/20_000_000)*time.Second
}
