package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

// maxDataBytes is the largest data disk: what ext4 can hold in one file.
const maxDataBytes = 16 << 40

// CreateData makes the data disk of a desktop, or finds it and lets it grow to size. The user's data will lie in it, so
// its name is durable when this returns.
func (s *Store) CreateData(ctx context.Context, desktop, uid string, size uint64) (string, error) {
	if err := errors.Join(checkDesktop(desktop), checkUID(uid)); err != nil {
		return "", fmt.Errorf("create data disk: %w", err)
	}
	if size == 0 || size%512 != 0 || size > maxDataBytes {
		return "", fmt.Errorf("create data disk of %s: size %d is not a multiple of 512 up to %d: %w", desktop, size, uint64(maxDataBytes), hostagent.ErrPermanent)
	}
	path := s.path(dirData, dataName(uid))
	what := "the data disk of " + desktop
	have, err := stampOf(path)
	switch {
	case err == nil && uint64(have.size) < size:
		err = s.grow(ctx, path, what, uint64(have.size), size)
	case errors.Is(err, fs.ErrNotExist):
		err = s.create(ctx, path, what, size, func(f *os.File) error {
			if err := f.Truncate(int64(size)); err != nil {
				return fmt.Errorf("size data disk: %w", err)
			}
			return writeAttribute(f, about{desktop: desktop}.encode())
		})
	}
	if err != nil {
		return "", fmt.Errorf("create data disk: %w", err)
	}
	if err := syncDir(s.path(dirData)); err != nil {
		return "", fmt.Errorf("create data disk: %w", err)
	}
	return path, nil
}

// grow makes a data disk longer. The guest sees it at its next start.
func (s *Store) grow(ctx context.Context, path, what string, from, to uint64) (err error) {
	room, err := s.reserve(ctx, to-from, what)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.release(room, nil)) }()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("grow %s: %w", what, err)
	}
	defer f.Close()
	// A fallocate of nothing would do the same; Truncate must never be given less than there is, and to > from.
	if err := f.Truncate(int64(to)); err != nil {
		return fmt.Errorf("grow %s: %w", what, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("grow %s: %w", what, err)
	}
	return nil
}

// DataDisks lists the data disks by desktop.
func (s *Store) DataDisks(ctx context.Context) ([]*v1.KeptDisk, error) {
	entries, err := os.ReadDir(s.path(dirData))
	if err != nil {
		return nil, fmt.Errorf("list data disks: %w", err)
	}
	var disks []*v1.KeptDisk
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list data disks: %w", err)
		}
		uid, ok := parseDataName(entry.Name())
		if !ok {
			continue
		}
		path := s.path(dirData, entry.Name())
		known, _, err := aboutOf(path)
		if err == nil {
			var have stamp
			if have, err = stampOf(path); err == nil {
				disks = append(disks, &v1.KeptDisk{Desktop: known.desktop, DesktopUid: uid, Bytes: uint64(have.size)})
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list data disks: %w", err)
		}
	}
	return disks, nil
}

// TrashData moves the data disk of a desktop to the trash. Absent is success.
func (s *Store) TrashData(_ context.Context, uid string) error {
	if err := checkUID(uid); err != nil {
		return fmt.Errorf("trash data disk: %w", err)
	}
	if err := s.trash(s.path(dirData, dataName(uid)), kindData); err != nil {
		return fmt.Errorf("trash data disk of desktop %s: %w", uid, err)
	}
	return nil
}
