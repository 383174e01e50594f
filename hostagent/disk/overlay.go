package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// CreateOverlay makes the overlay of a life on a base that EnsureBase has made, promising reserve bytes to it.
//
// Its content is synced before it gets its name, so that a power cut never leaves half an image under a good name: that
// would be taken for an overlay ever after. The name itself is not synced: until the guest's first flush, which syncs it,
// nothing is lost with it, and the next call makes it again.
func (s *Store) CreateOverlay(ctx context.Context, life hostagent.Life, digest string, reserve uint64) (base hostagent.Base, overlay string, err error) {
	if err := checkLife(life); err != nil {
		return base, "", fmt.Errorf("create overlay: %w", err)
	}
	d, err := parseDigest(digest)
	if err != nil {
		return hostagent.Base{}, "", fmt.Errorf("create overlay: %w", err)
	}
	// The base stays until the overlay is there, which keeps it from then on.
	s.using.RLock()
	defer s.using.RUnlock()
	k, err := s.wholeBase(d)
	if err != nil {
		return hostagent.Base{}, "", fmt.Errorf("create overlay of %s: %w", life.Desktop, err)
	}
	base, overlay = s.baseOf(d, k), s.overlayPath(life)
	if life.Build {
		// No more than the disk itself and its tables: a build asks for much, as nobody knows what its script does.
		reserve = min(reserve, k.disk+k.disk/64+1<<20)
	}
	switch err := s.checkOverlay(overlay, life, d, int64(k.disk)); {
	case err == nil:
		s.use(d)
		return base, overlay, nil
	case !errors.Is(err, fs.ErrNotExist):
		return hostagent.Base{}, "", fmt.Errorf("create overlay of %s generation %d: %w", life.Desktop, life.Generation, err)
	}
	what := fmt.Sprintf("the overlay of %s generation %d", life.Desktop, life.Generation)
	err = s.create(ctx, overlay, what, reserve, func(f *os.File) error {
		format := formatRaw
		if k.layered() {
			format = formatQcow2
		}
		if err := writeOverlay(f, base.Top(), format, k.disk); err != nil {
			return err
		}
		return writeAttribute(f, about{desktop: life.Desktop, reserve: reserve, base: d}.encode())
	})
	if err != nil {
		return hostagent.Base{}, "", err
	}
	s.use(d)
	return base, overlay, nil
}

// checkOverlay says what keeps the overlay that lies there from being the one of a life on a base; nil when it is. What QEMU
// opens beside it is named by us and not by the overlay, so that one which names another file could not make it read that;
// but it is none that we or QEMU made. It may name the other of the two forms that a base can have: the content is the same.
func (s *Store) checkOverlay(path string, life hostagent.Life, d images.Digest, size int64) error {
	known, isKnown, err := aboutOf(path)
	switch {
	case err != nil:
		return err
	case isKnown && known.base != d:
		return fmt.Errorf("there is one on base %s, wanted %s: %w", known.base, d, hostagent.ErrPermanent)
	case isKnown && known.desktop != life.Desktop:
		return fmt.Errorf("the one that is there is of desktop %s: %w", known.desktop, hostagent.ErrPermanent)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("a link is there: %w", hostagent.ErrPermanent)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c := &changes{overlay: f, size: size}
	if _, _, err := c.begin(s.filePath(d, false), s.filePath(d, true)); errors.Is(err, errOverlay) {
		return fmt.Errorf("the one that is there is damaged: %w: %w", err, hostagent.ErrPermanent)
	} else if err != nil {
		return err
	}
	return nil
}

// create makes a disk: reserve, fill a file without a proper name, sync, publish. It is success when another call made
// the same disk meanwhile.
func (s *Store) create(ctx context.Context, path, what string, reserve uint64, fill func(*os.File) error) (err error) {
	room, err := s.reserve(ctx, reserve, what)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.release(room, nil)) }()
	f, err := os.CreateTemp(s.path(dirTmp), "new-")
	if err != nil {
		return fmt.Errorf("create %s: %w", what, err)
	}
	defer f.Close()
	err = errors.Join(fill(f), s.give(f))
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.release(room, func() error { return publish(f.Name(), path) })
	}
	if err != nil {
		os.Remove(f.Name())
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create %s: %w", what, noSpace(err))
	}
	return nil
}

// Overlays lists the lives whose overlay lies in the store.
func (s *Store) Overlays(ctx context.Context) ([]hostagent.Life, error) {
	return s.overlaysIn(ctx, dirOverlays)
}

// BuildOverlays lists the lives of builds whose overlay lies in the store.
func (s *Store) BuildOverlays(ctx context.Context) ([]hostagent.Life, error) {
	return s.overlaysIn(ctx, dirBuilds)
}

func (s *Store) overlaysIn(ctx context.Context, dir string) ([]hostagent.Life, error) {
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return nil, fmt.Errorf("list overlays: %w", err)
	}
	var lives []hostagent.Life
	for _, entry := range entries {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("list overlays: %w", err)
		}
		uid, generation, ok := parseOverlayName(entry.Name())
		if !ok {
			continue
		}
		known, _, err := aboutOf(s.path(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list overlays: %w", err)
		}
		lives = append(lives, hostagent.Life{Desktop: known.desktop, UID: uid, Generation: generation, Build: dir == dirBuilds})
	}
	return lives, nil
}

// overlayPath is where the overlay of a life lies. Those of builds lie apart.
func (s *Store) overlayPath(life hostagent.Life) string {
	if life.Build {
		return s.path(dirBuilds, overlayName(life))
	}
	return s.path(dirOverlays, overlayName(life))
}

// TrashOverlay moves the overlay of a life to the trash; that of a build, which nobody will ask for, it removes. Absent is
// success.
func (s *Store) TrashOverlay(_ context.Context, life hostagent.Life) error {
	if err := checkLife(life); err != nil {
		return fmt.Errorf("trash overlay: %w", err)
	}
	do := func(path string) error { return s.trash(path, kindOverlay) }
	if life.Build {
		do = remove
	}
	if err := do(s.overlayPath(life)); err != nil {
		return fmt.Errorf("trash overlay of %s generation %d: %w", life.Desktop, life.Generation, err)
	}
	return nil
}
