package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
)

// A thin disk can be made on a file system that is full: what was promised must be counted, or the guests find out.

// claim is room that something under construction will take.
type claim struct {
	bytes uint64
}

// Space says how much room there is.
func (s *Store) Space(ctx context.Context) (hostagent.Space, error) {
	s.alloc.Lock()
	defer s.alloc.Unlock()
	return s.space(ctx)
}

// reserve claims room until release, or says ErrNoSpace.
func (s *Store) reserve(ctx context.Context, bytes uint64, what string) (*claim, error) {
	s.alloc.Lock()
	defer s.alloc.Unlock()
	space, err := s.space(ctx)
	if err != nil {
		return nil, err
	}
	if bytes > space.Available {
		return nil, fmt.Errorf("reserve %d MiB for %s: %d MiB of %s are not promised yet: %w",
			bytes>>20, what, space.Available>>20, s.cfg.Root, hostagent.ErrNoSpace)
	}
	c := &claim{bytes: bytes}
	s.claims[c] = struct{}{}
	return c, nil
}

// release ends a claim. With publish, the file that it was for gets its name in the same moment, and is counted from then
// on by what it is.
func (s *Store) release(c *claim, publish func() error) error {
	s.alloc.Lock()
	defer s.alloc.Unlock()
	delete(s.claims, c)
	if publish == nil {
		return nil
	}
	return publish()
}

// used takes from a claim what was written.
func (s *Store) used(c *claim, bytes uint64) {
	s.alloc.Lock()
	defer s.alloc.Unlock()
	c.bytes -= min(c.bytes, bytes)
}

// space measures; the caller holds alloc.
func (s *Store) space(ctx context.Context) (hostagent.Space, error) {
	promised, err := s.promised(ctx)
	if err != nil {
		return hostagent.Space{}, fmt.Errorf("count promises: %w", err)
	}
	// What is free is read after what is used: a disk that grows in between is counted twice rather than not at all.
	var st unix.Statfs_t
	if err := unix.Statfs(s.cfg.Root, &st); err != nil {
		return hostagent.Space{}, fmt.Errorf("measure store: %w", err)
	}
	size, free := st.Blocks*uint64(st.Bsize), st.Bavail*uint64(st.Bsize)
	// The tables of images and file system grow with the content and are in nobody's promise.
	promised += min(size/64, 1<<30)
	space := hostagent.Space{Size: size, ReadRate: s.readRate.Load()}
	if free > promised {
		space.Available = free - promised
	}
	return space, nil
}

// promised is what overlays, data disks and what is under construction may still grow by; the caller holds alloc.
func (s *Store) promised(ctx context.Context) (uint64, error) {
	var sum uint64
	for c := range s.claims {
		sum += c.bytes
	}
	for _, dir := range []string{dirOverlays, dirBuilds, dirData} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return 0, err
		}
		for _, entry := range entries {
			if err := ctx.Err(); err != nil {
				return 0, err
			}
			left, err := growth(s.path(dir, entry.Name()), dir != dirData)
			// One that went to the trash meanwhile grows no more.
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return 0, err
			}
			sum += left
		}
	}
	return sum, nil
}

// growth is what a disk was promised and has not used yet.
func growth(path string, overlay bool) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, fmt.Errorf("look at %s: %w", path, err)
	}
	promise, used := uint64(st.Size), uint64(st.Blocks)*512
	if overlay {
		a, _, err := aboutOf(path)
		if err != nil {
			return 0, err
		}
		promise = a.reserve
	}
	if promise <= used {
		return 0, nil
	}
	return promise - used, nil
}
