package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
)

// The memory of a VM that sleeps is a file that libvirtd writes and reads as root: what is in a guest's memory is nobody
// else's business. Until all of it is there its name ends in partSave.
const (
	saveSuffix = ".save"
	partSave   = ".save.part"
)

func saveStem(life hostagent.Life) string {
	return strings.TrimSuffix(overlayName(life), ".qcow2")
}

// KeepMemory implements hostagent.MemoryFiles.
func (s *Store) KeepMemory(ctx context.Context, life hostagent.Life, bytes uint64, write func(file string) error) (err error) {
	what := fmt.Sprintf("the memory of %s generation %d", life.Desktop, life.Generation)
	if err := checkLife(life); err != nil {
		return fmt.Errorf("keep memory: %w", err)
	}
	whole, part := s.path(dirMemory, saveStem(life)+saveSuffix), s.path(dirMemory, saveStem(life)+partSave)
	if _, err := os.Lstat(whole); err == nil {
		return nil
	}
	// What an earlier call wrote takes no more room.
	room, err := s.reserve(ctx, bytes-min(bytes, roomOf(part)), what)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.release(room, nil)) }()
	f, err := os.OpenFile(part, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("keep %s: %w", what, noSpace(err))
	}
	// A name that a power cut takes away is one that nothing was saved under.
	err = errors.Join(f.Close(), syncDir(s.path(dirMemory)))
	if err == nil {
		err = write(part)
	}
	if err == nil {
		err = s.checkAge(life, part)
	}
	if err == nil {
		err = publishMemory(part, whole)
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", what, noSpace(err))
	}
	return nil
}

func publishMemory(part, whole string) error {
	f, err := os.OpenFile(part, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, whole, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	return syncDir(filepath.Dir(whole))
}

// checkAge finds out whether a guest ran on its disks after its memory was saved: a libvirtd that dies at the last moment of a
// save leaves a whole file, and lets the guest run on when it is back. Waking from that would undo what is on the disks.
func (s *Store) checkAge(life hostagent.Life, part string) error {
	var saved unix.Stat_t
	if err := unix.Lstat(part, &saved); err != nil {
		return fmt.Errorf("look at %s: %w", part, err)
	}
	for _, path := range []string{s.overlayPath(life), s.path(dirData, dataName(life.UID))} {
		var st unix.Stat_t
		err := unix.Lstat(path, &st)
		if errors.Is(err, fs.ErrNotExist) && path != s.overlayPath(life) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at %s: %w", path, err)
		}
		if st.Mtim.Nano() > saved.Mtim.Nano() {
			return fmt.Errorf("%s was written to after it: %w", path, hostagent.ErrCorrupt)
		}
	}
	return nil
}

// roomOf is the room that a file takes; 0 when it is not there.
func roomOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return uint64(st.Blocks) * 512
}

// Memory implements hostagent.MemoryFiles.
func (s *Store) Memory(_ context.Context, life hostagent.Life) (file string, kept hostagent.Kept, err error) {
	if err := checkLife(life); err != nil {
		return "", hostagent.KeptNone, fmt.Errorf("look for memory: %w", err)
	}
	for _, form := range []struct {
		suffix string
		kept   hostagent.Kept
	}{{saveSuffix, hostagent.KeptWhole}, {partSave, hostagent.KeptBegun}} {
		path := s.path(dirMemory, saveStem(life)+form.suffix)
		switch _, err := os.Lstat(path); {
		case err == nil:
			return path, form.kept, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", hostagent.KeptNone, fmt.Errorf("look for memory of %s: %w", life.Desktop, err)
		}
	}
	return "", hostagent.KeptNone, nil
}

// DropMemory implements hostagent.MemoryFiles.
func (s *Store) DropMemory(_ context.Context, life hostagent.Life) error {
	if err := checkLife(life); err != nil {
		return fmt.Errorf("drop memory: %w", err)
	}
	for _, suffix := range []string{saveSuffix, partSave} {
		if err := os.Remove(s.path(dirMemory, saveStem(life)+suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("drop memory of %s: %w", life.Desktop, err)
		}
	}
	// Even when nothing was there: a call before this one may have ended before it was durable.
	if err := syncDir(s.path(dirMemory)); err != nil {
		return fmt.Errorf("drop memory of %s: %w", life.Desktop, err)
	}
	return nil
}

// sweepMemory removes memory whose disk is gone, which nothing can be woken with.
func (s *Store) sweepMemory(ctx context.Context, now time.Time) error {
	entries, err := os.ReadDir(s.path(dirMemory))
	if err != nil {
		return fmt.Errorf("sweep memory: %w", err)
	}
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sweep memory: %w", err)
		}
		stem, ok := strings.CutSuffix(strings.TrimSuffix(entry.Name(), ".part"), saveSuffix)
		_, _, named := parseOverlayName(stem + ".qcow2")
		info, err := entry.Info()
		if !ok || !named || err != nil || now.Sub(info.ModTime()) < keepTmp {
			continue
		}
		if _, err := os.Lstat(s.path(dirOverlays, stem+".qcow2")); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Remove(s.path(dirMemory, entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep memory: %w", err)
		}
		s.log.Info().Str("file", entry.Name()).Msg("removed memory whose disk is gone")
	}
	return nil
}
