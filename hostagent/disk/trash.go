package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kind is what a file in the trash was; it is the first part of its name there.
type kind string

const (
	kindOverlay kind = "overlay"
	kindData    kind = "data"
	// kindDamaged is a base that was not what its digest says.
	kindDamaged kind = "damaged"
	// kindBase is one that nothing needed any more.
	kindBase kind = "base"
)

// Half-made bases are kept for a while, since the next fetch goes on where they end; all else in tmp is garbage.
const (
	keepParts   = 7 * 24 * time.Hour
	keepTmp     = time.Hour
	keepDamaged = 72 * time.Hour
	keepBase    = time.Hour
)

// trash moves a file to the trash, under a name that says what it was and when it came. Absent is success. A file that a
// QEMU has open is left alone.
func (s *Store) trash(path string, k kind) error {
	inUse, err := locked(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if inUse {
		return fmt.Errorf("%s is in use by a running QEMU", path)
	}
	return s.moveToTrash(path, k)
}

// remove removes a file. Absent is success. A file that a QEMU has open is left alone.
func remove(path string) error {
	inUse, err := locked(path)
	if err == nil && inUse {
		return fmt.Errorf("%s is in use by a running QEMU", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *Store) moveToTrash(path string, k kind) error {
	name := fmt.Sprintf("%s.%s.%d", k, filepath.Base(path), time.Now().UnixNano())
	if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, s.path(dirTrash, name), unix.RENAME_NOREPLACE); err != nil {
		return fmt.Errorf("move %s to the trash: %w", path, err)
	}
	return errors.Join(syncDir(filepath.Dir(path)), syncDir(s.path(dirTrash)))
}

// locked says whether a QEMU has the image open: QEMU holds locks on bytes of the file from 100 on, one for each thing it
// may do with it. It asks, it does not lock, so it can disturb nobody.
func locked(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return false, nil // a link, which was none when QEMU was told of it
	}
	if err != nil {
		return false, fmt.Errorf("look at disk: %w", err)
	}
	defer f.Close()
	query := unix.Flock_t{Type: unix.F_WRLCK, Whence: 0, Start: 100, Len: 200}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &query); err != nil {
		return false, fmt.Errorf("ask for locks of %s: %w", path, err)
	}
	return query.Type != unix.F_UNLCK, nil
}

// Sweep removes what crashes left half made and what outlived the trash's retention.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	return errors.Join(s.sweepTrash(ctx, now), s.sweepTmp(ctx, now), s.sweepMemory(ctx, now))
}

func (s *Store) sweepTrash(ctx context.Context, now time.Time) error {
	keep := map[kind]time.Duration{kindOverlay: s.cfg.KeepOverlays, kindData: s.cfg.KeepData, kindDamaged: keepDamaged, kindBase: keepBase}
	entries, err := os.ReadDir(s.path(dirTrash))
	if err != nil {
		return fmt.Errorf("sweep trash: %w", err)
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sweep trash: %w", err)
		}
		k, _, came, ok := parseTrashName(entry.Name())
		if retention, known := keep[k]; !ok || !known || now.Sub(came) < retention {
			continue
		}
		if err := os.Remove(s.path(dirTrash, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep trash: %w", err)
		}
		s.log.Info().Str("file", entry.Name()).Msg("removed from trash")
	}
	return nil
}

// parseTrashName returns what a file in the trash was, its name before, and when it came there.
func parseTrashName(name string) (k kind, was string, came time.Time, ok bool) {
	first, rest, _ := strings.Cut(name, ".")
	last := strings.LastIndexByte(rest, '.')
	nanos, err := strconv.ParseInt(rest[last+1:], 10, 64)
	return kind(first), rest[:max(last, 0)], time.Unix(0, nanos), last > 0 && err == nil && nanos > 0
}

func (s *Store) sweepTmp(ctx context.Context, now time.Time) error {
	entries, err := os.ReadDir(s.path(dirTmp))
	if err != nil {
		return fmt.Errorf("sweep half-made files: %w", err)
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sweep half-made files: %w", err)
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sweep half-made files: %w", err)
		}
		keep := keepTmp
		if strings.HasSuffix(entry.Name(), partSuffix) {
			keep = keepParts
		}
		if now.Sub(info.ModTime()) < keep || s.underConstruction(entry.Name()) {
			continue
		}
		if err := os.Remove(s.path(dirTmp, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep half-made files: %w", err)
		}
		s.log.Info().Str("file", entry.Name()).Msg("removed half-made file")
	}
	return nil
}
