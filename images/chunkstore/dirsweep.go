package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/images"
)

// lockPoll is the time between two tries for the lock.
const lockPoll = 10 * time.Millisecond

// removeGroup is how many files are removed under one lock.
const removeGroup = 1000

// hold takes the store's lock, shared (unix.LOCK_SH) or alone (unix.LOCK_EX), between processes too. Whoever vouches for
// chunks shares it while it renews them, whoever removes some has it alone while it looks at their age and removes them.
func (d *Dir) hold(ctx context.Context, how int) (free func(), err error) {
	file, err := os.OpenFile(filepath.Join(d.root, "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock image store: %w", err)
	}
	for {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock image store: %w", err)
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

// renew sets a file's time to now, by the clock of the file system.
func renew(path string) error {
	now := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "renew", Path: path, Err: err}
	}
	return nil
}

// now is the time by the clock that gives files theirs.
func (d *Dir) now() (time.Time, error) {
	file, err := os.CreateTemp(filepath.Join(d.root, "tmp"), "clock")
	if err != nil {
		return time.Time{}, named(err)
	}
	defer func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	if err := renew(file.Name()); err != nil {
		return time.Time{}, err
	}
	info, err := file.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return info.ModTime(), nil
}

// List yields all chunks and manifests, in no order.
func (d *Dir) List(ctx context.Context) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		now, err := d.now()
		if err != nil {
			yield(Item{}, fmt.Errorf("list image store: %w", err))
			return
		}
		for i, folder := range append(d.chunkDirs(), filepath.Join(d.root, "manifests")) {
			entries, err := os.ReadDir(folder)
			if err != nil {
				yield(Item{}, fmt.Errorf("list image store: %w", err))
				return
			}
			for _, entry := range entries {
				if err := ctx.Err(); err != nil {
					yield(Item{}, err)
					return
				}
				item, ok := itemOf(entry, i == 256, now)
				if ok && !yield(item, nil) {
					return
				}
			}
		}
	}
}

// itemOf says what a file of the store is; one that is none of ours, or has just been removed, is nothing.
func itemOf(entry fs.DirEntry, manifest bool, now time.Time) (Item, bool) {
	text, suffix := strings.CutSuffix(entry.Name(), ".zst")
	digest, err := images.ParseDigest(text)
	if err != nil || suffix == manifest {
		return Item{}, false
	}
	info, err := entry.Info()
	if err != nil || !info.Mode().IsRegular() {
		return Item{}, false
	}
	return Item{Digest: digest, Manifest: manifest, Bytes: uint64(info.Size()), Age: max(0, now.Sub(info.ModTime()))}, true
}

// Remove removes those of the items that are at least so old now.
func (d *Dir) Remove(ctx context.Context, items []Item, age time.Duration) (removed uint64, err error) {
	for len(items) > 0 {
		group := items[:min(len(items), removeGroup)]
		items = items[len(group):]
		bytes, err := d.removeGroup(ctx, group, age)
		removed += bytes
		if err != nil {
			return removed, fmt.Errorf("remove from image store: %w", err)
		}
	}
	return removed, nil
}

func (d *Dir) removeGroup(ctx context.Context, items []Item, age time.Duration) (removed uint64, err error) {
	free, err := d.hold(ctx, unix.LOCK_EX)
	if err != nil {
		return 0, err
	}
	defer free()
	now, err := d.now()
	if err != nil {
		return 0, err
	}
	for _, item := range items {
		path := d.chunkPath(item.Digest)
		if item.Manifest {
			path = d.manifestPath(item.Digest)
		}
		info, err := os.Lstat(path)
		if err == nil && now.Sub(info.ModTime()) >= age {
			if err = os.Remove(path); err == nil {
				removed += uint64(info.Size())
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return removed, err
		}
	}
	return removed, nil
}

// Own writes down whose the store is when it is nobody's yet.
func (d *Dir) Own(ctx context.Context, owner string) error {
	path := filepath.Join(d.root, "owner")
	has, err := d.read(ctx, path, 256)
	if errors.Is(err, images.ErrNotFound) {
		batch := batch{dir: d}
		defer batch.discard()
		if err := batch.write(path, []byte(owner)); err != nil {
			return fmt.Errorf("take image store: %w", err)
		}
		if _, err := batch.publish(); err != nil {
			return fmt.Errorf("take image store: %w", err)
		}
		has, err = d.read(ctx, path, 256) // another may have been quicker
	}
	if err != nil {
		return fmt.Errorf("find the image store's owner: %w", err)
	}
	return checkOwner(d.root, string(has), owner)
}
