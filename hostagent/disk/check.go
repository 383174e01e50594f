package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"daybreak/images"
)

const (
	// stripe is how many pieces are read at once.
	stripe      = 4
	stripeBytes = stripe * images.ChunkBytes
	// checkers is how many stripes are read and compared at once: the host has desktops to run, too.
	checkers = 4
	// pageBytes is what direct reads are aligned to; no disk has larger sectors.
	pageBytes = 4096
)

// picked is a choice of pieces by index; nil is all of them.
type picked map[int]bool

func (p picked) any(from, to int) bool {
	if p == nil {
		return true
	}
	for i := from; i < to; i++ {
		if p[i] {
			return true
		}
	}
	return false
}

// damage compares a file with a manifest and returns those of the suspects that differ, in order. Holes are not read: they are
// zeros. What was written is read from the disk and not from memory, where the file system can do that.
func damage(ctx context.Context, f *os.File, m *images.Manifest, suspects picked, how pace) ([]images.Piece, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("measure base: %w", err)
	}
	c := &check{m: m, f: f, size: info.Size()}
	// Only a hint, for file systems without direct reads: without it, what the kernel still holds in memory is compared.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	if direct, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY|unix.O_DIRECT, 0); err == nil {
		defer direct.Close()
		c.direct = direct
	}
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range how.workers {
		group.Go(func() error {
			// Direct reads want memory that is aligned to pages.
			buf, err := unix.Mmap(-1, 0, stripeBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
			if err != nil {
				return fmt.Errorf("get memory: %w", err)
			}
			defer unix.Munmap(buf) //nolint:errcheck // it is there
			for {
				if err := ctx.Err(); err != nil {
					return err
				}
				first := int(next.Add(stripe)) - stripe
				if first >= m.Len() {
					return nil
				}
				if last := min(first+stripe, m.Len()); suspects.any(first, last) {
					if how.limit != nil {
						if err := how.limit.WaitN(ctx, stripeBytes); err != nil {
							return err
						}
					}
					if err := c.stripe(buf, first, last); err != nil {
						return err
					}
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if suspects != nil {
		c.wrong = slices.DeleteFunc(c.wrong, func(p images.Piece) bool { return !suspects[p.Index] })
	}
	slices.SortFunc(c.wrong, func(a, b images.Piece) int { return a.Index - b.Index })
	return c.wrong, nil
}

// pace is how fast a file is compared.
type pace struct {
	workers int
	limit   *rate.Limiter // nil: as fast as can be
}

// atOnce is for who waits for the file.
func atOnce() pace { return pace{workers: min(checkers, runtime.GOMAXPROCS(0))} }

// slowly is for what nobody waits for: desktops shall not notice it.
func slowly(bytesPerSecond int64) pace {
	return pace{workers: 1, limit: rate.NewLimiter(rate.Limit(bytesPerSecond), stripeBytes)}
}

// check is one comparison of a file.
type check struct {
	m    *images.Manifest
	size int64
	f    *os.File
	// direct reads past the kernel's cache; nil where that cannot be.
	direct *os.File

	mu    sync.Mutex
	wrong []images.Piece // guarded by mu
}

// stripe compares some pieces that follow each other.
func (c *check) stripe(buf []byte, first, last int) error {
	begin, end := c.m.Piece(first).Offset, c.m.Piece(last-1).Offset+int64(c.m.Piece(last-1).Length)
	data, err := nextData(c.f, begin)
	if err != nil {
		return err
	}
	n := 0
	if data < end {
		if n, err = c.read(buf[:end-begin], begin); err != nil && !errors.Is(err, unix.EIO) {
			return fmt.Errorf("read base at %d: %w", begin, err)
		}
	} else if end <= c.size {
		n = int(end - begin)
		clear(buf[:n])
	}
	for i := first; i < last; i++ {
		p := c.m.Piece(i)
		at := int(p.Offset - begin)
		// A sector that cannot be read any more is damage as good as a flipped bit.
		if at+p.Length > n || !matches(buf[at:at+p.Length], p) {
			c.mu.Lock()
			c.wrong = append(c.wrong, p)
			c.mu.Unlock()
		}
	}
	return nil
}

func matches(plain []byte, p images.Piece) bool {
	if p.Zero() {
		return images.AllZero(plain)
	}
	return images.Sum(plain) == p.Digest
}

// read reads as much as there is, from the disk if it can.
func (c *check) read(buf []byte, at int64) (int, error) {
	want := int(min(int64(len(buf)), max(c.size-at, 0)))
	if c.direct != nil {
		whole := (want + pageBytes - 1) &^ (pageBytes - 1) // the end of the file ends the read
		if n, err := unix.Pread(int(c.direct.Fd()), buf[:whole:whole], at); err == nil && n == want {
			return n, nil
		}
	}
	n, err := c.f.ReadAt(buf[:want], at)
	return n, err
}

// nextData returns where the next data lies at or after a place; far away when there is none.
func nextData(f *os.File, from int64) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 1<<63 - 1, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for data: %w", err)
	}
	return at, nil
}
