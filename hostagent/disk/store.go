// Package disk keeps the files of a host's disks: bases assembled from verified chunks, raw or as a layer of what differs from
// a raw one, qcow2 overlays on them, and raw data disks.
//
// Here: where files lie, how they come to be whole or not at all, what is promised to whom, the trash. Not here: what a
// manifest or a chunk is (images), QEMU and libvirt (hostagent/libvirt), when a disk is made or goes (hostagent). Nothing
// here ever opens a disk's content as anything but bytes: no image header that a guest could have written is read, and no
// tool that would read one is run. Only cmd/daybreak-agent and tests call it.
package disk

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// Config says where the store is and whose its disks are.
type Config struct {
	// Root is the store's directory, absolute. It is made when it is not there.
	Root string
	// UID and GID are those that QEMU runs as. Overlays and data disks are given to them when the agent is root.
	UID, GID int
	// How long the trash keeps what was removed. 0 means 72 h for data disks and 1 h for overlays.
	KeepData, KeepOverlays time.Duration
}

// Store is one host's store. It implements hostagent.Disks. Safe for concurrent use.
type Store struct {
	cfg   Config
	log   zerolog.Logger
	codec *images.Codec
	// buffers hold one chunk each.
	buffers sync.Pool
	lock    *os.File
	// alloc is held while free space is measured and promised, so that two promises never count the same room.
	alloc sync.Mutex
	// claims is the room that files under construction will still take. Guarded by alloc.
	claims map[*claim]struct{}

	// using is held for reading while a base is taken into use, for writing while those go that nothing uses.
	using sync.RWMutex

	// readRate is how fast the disk gave the last base that was compared, bytes per second.
	readRate atomic.Uint64
	// rate is held while that is written down.
	rate sync.Mutex

	mu sync.Mutex
	// verified holds the bases that may be used, as they looked when they were last known to be whole. Guarded by mu.
	verified map[images.Digest]known
	// flights holds the bases under construction. Guarded by mu.
	flights map[images.Digest]*flight
	// shown are the bases on their way that chunks may be taken of. Guarded by mu.
	shown map[images.Digest]*assembly
	// indexes say where chunks are in bases. Guarded by mu.
	indexes map[images.Digest]map[images.Digest]int
}

var _ hostagent.Disks = (*Store)(nil)

// The store's directories.
const (
	dirBases    = "bases"
	dirOverlays = "overlays"
	dirBuilds   = "builds"
	dirData     = "data"
	dirTrash    = "trash"
	dirTmp      = "tmp"
	// dirMemory holds the memory of VMs that sleep; nobody but root may look in.
	dirMemory = "memory"
)

// Open opens or makes a store. Only one process at a time can have it open. After a stop of the host that was not orderly,
// bases count as there only when they have been read and compared anew.
func Open(cfg Config, log zerolog.Logger) (*Store, error) {
	if !filepath.IsAbs(cfg.Root) || filepath.Clean(cfg.Root) != cfg.Root || strings.ContainsAny(cfg.Root, ",\n\x00") {
		return nil, fmt.Errorf("open store: directory %q must be an absolute, clean path without comma", cfg.Root)
	}
	if cfg.KeepData == 0 {
		cfg.KeepData = 72 * time.Hour
	}
	if cfg.KeepOverlays == 0 {
		cfg.KeepOverlays = time.Hour
	}
	codec, err := images.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		cfg: cfg, log: log.With().Str("store", cfg.Root).Logger(), codec: codec,
		claims: map[*claim]struct{}{}, verified: map[images.Digest]known{}, flights: map[images.Digest]*flight{},
		shown: map[images.Digest]*assembly{}, indexes: map[images.Digest]map[images.Digest]int{},
	}
	s.buffers.New = func() any { return new([images.OpenBytes]byte) }
	if err := s.makeDirs(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.lockStore(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := errors.Join(s.checkAttributes(), s.checkReach(), s.trustBases()); err != nil {
		return nil, errors.Join(fmt.Errorf("open store: %w", err), s.unlock())
	}
	s.loadRate()
	return s, nil
}

// Close marks the stop as orderly and lets go of the store.
func (s *Store) Close() error {
	return errors.Join(s.markClean(), s.unlock())
}

// makeDirs makes what is missing. QEMU must pass through, and nobody but root may change what is in there.
func (s *Store) makeDirs() error {
	if err := os.MkdirAll(s.cfg.Root, 0o711); err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	modes := map[string]os.FileMode{dirMemory: 0o700}
	for _, dir := range []string{dirBases, dirOverlays, dirBuilds, dirData, dirTrash, dirTmp, dirMemory} {
		if err := os.Mkdir(s.path(dir), cmp.Or(modes[dir], 0o711)); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make store: %w", err)
		}
	}
	return nil
}

// lockStore makes sure that no second agent works on the same store. The kernel lets go of the lock when the process ends.
func (s *Store) lockStore() error {
	lock, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock store: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return fmt.Errorf("lock store: %s is in use by another agent: %w", s.cfg.Root, err)
	}
	s.lock = lock
	return nil
}

// unlock lets go by name: closing alone would not while a command that is just being started has a copy of the open file.
func (s *Store) unlock() error {
	return errors.Join(unix.Flock(int(s.lock.Fd()), unix.LOCK_UN), s.lock.Close())
}

// checkReach says early, and by name, which directory would keep QEMU from its disks.
func (s *Store) checkReach() error {
	if os.Geteuid() != 0 || s.cfg.UID == 0 {
		return nil
	}
	for dir := s.path(dirOverlays); ; dir = filepath.Dir(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		may := uint32(0o001)
		if int(st.Uid) == s.cfg.UID {
			may = 0o100
		} else if int(st.Gid) == s.cfg.GID {
			may = 0o010
		}
		if st.Mode&may == 0 {
			return fmt.Errorf("QEMU's user %d cannot pass through %s (mode %04o): run chmod o+x %s, or choose another store",
				s.cfg.UID, dir, st.Mode&0o7777, dir)
		}
		if dir == "/" {
			return nil
		}
	}
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, elem...)...)
}

// give hands an open file to QEMU's user. Without privilege files stay whose they are: the agent's and QEMU's user are
// the same one then.
func (s *Store) give(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := f.Chown(s.cfg.UID, s.cfg.GID); err != nil {
		return fmt.Errorf("give disk to QEMU: %w", err)
	}
	return nil
}

// noSpace adds the sentinel to the kernel's word for it.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", err, hostagent.ErrNoSpace)
	}
	return err
}

// publish gives a finished file its name. It never replaces: os.ErrExist when the name is taken.
func publish(tmp, name string) error {
	if err := os.Link(tmp, name); err != nil {
		return fmt.Errorf("publish %s: %w", filepath.Base(name), err)
	}
	if err := os.Remove(tmp); err != nil {
		return fmt.Errorf("publish %s: %w", filepath.Base(name), err)
	}
	return nil
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
