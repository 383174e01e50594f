package chunkstore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"daybreak/images"
)

// batch is a group of files that are published together. Writing all, starting all writeback, and only then waiting for
// each costs one or two commits of the file system's journal instead of one a file.
type batch struct {
	dir   *Dir
	files []pending
	// folders to sync
	folders map[string]struct{}
}

type pending struct {
	file *os.File
	path string
	size uint64
}

// touch has the folder of path synced by publish.
func (b *batch) touch(path string) {
	if b.folders == nil {
		b.folders = map[string]struct{}{}
	}
	b.folders[filepath.Dir(path)] = struct{}{}
}

// write writes a file that publish will link to path.
func (b *batch) write(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Join(b.dir.root, "tmp"), "*")
	if err != nil {
		return named(err)
	}
	b.files = append(b.files, pending{file: file, path: path, size: uint64(len(data))})
	b.touch(path)
	if _, err := file.Write(data); err != nil {
		return named(err)
	}
	if err := file.Chmod(fileMode); err != nil {
		return err
	}
	// A hint only: file systems that lack it do the work in Sync.
	_ = unix.SyncFileRange(int(file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	return nil
}

// publish syncs the files, links them, and syncs the folders. It returns the bytes of those that were not there yet.
func (b *batch) publish() (uint64, error) {
	for _, p := range b.files {
		if err := p.file.Sync(); err != nil {
			return 0, named(err)
		}
	}
	var grown uint64
	for _, p := range b.files {
		// Content under its own digest: a file that is there already is the same.
		switch err := os.Link(p.file.Name(), p.path); {
		case err == nil:
			grown += p.size
		case !errors.Is(err, fs.ErrExist):
			return 0, named(err)
		}
	}
	for folder := range b.folders {
		if err := syncDir(folder); err != nil {
			return 0, err
		}
	}
	return grown, nil
}

// discard closes and removes the temporary names. What it cannot remove goes when the store is opened next.
func (b *batch) discard() {
	for _, p := range b.files {
		_ = p.file.Close()
		_ = os.Remove(p.file.Name())
	}
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync folder %s: %w", path, err)
	}
	return nil
}

// named gives a full disk its name.
func named(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", err, images.ErrFull)
	}
	return err
}
