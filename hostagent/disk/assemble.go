package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"daybreak/hostagent"
	"daybreak/images"
)

// Names of what is under construction: DIGEST.part for a raw base, DIGEST.layer.part for a layer.
const (
	partSuffix  = ".part"
	layerSuffix = ".layer"
)

// rounds is how often a base is read back before its content is given up.
const rounds = 2

// assembly is one base on its way: a sparse file under a name that nobody uses, and which of its pieces are there.
type assembly struct {
	store   *Store
	version *images.Manifest
	// m is what the file shall hold: the version, or its layer on root.
	m      *images.Manifest
	layer  *layer
	root   images.Digest
	f      *os.File
	seeds  []*seed
	room   *claim
	report func(uint32)

	// index says where each chunk is; made when it is first asked for.
	index sync.Once
	at    map[images.Digest]int

	mu   sync.Mutex
	have []bool
	// Bytes that are no zeros: how many there are, and how many are in place.
	total, done uint64
	told        uint32
}

// place counts a piece as there.
func (a *assembly) place(p images.Piece) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have[p.Index] {
		return
	}
	a.have[p.Index] = true
	a.done += uint64(p.Length)
	// The last percent is the comparison of the whole.
	if percent := uint32(a.done * 99 / max(a.total, 1)); percent > a.told {
		a.told = percent
		a.report(percent)
	}
}

// missed counts a piece as not there after all.
func (a *assembly) missed(p images.Piece) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have[p.Index] {
		a.have[p.Index] = false
		a.done -= uint64(p.Length)
	}
}

// missing lists the pieces that are not there yet, in order.
func (a *assembly) missing() []images.Piece {
	a.mu.Lock()
	defer a.mu.Unlock()
	var missing []images.Piece
	for p := range a.m.Pieces() {
		if !p.Zero() && !a.have[p.Index] {
			missing = append(missing, p)
		}
	}
	return missing
}

// origin says which piece of the version a piece of the file is; -1 for the tables of a layer.
func (a *assembly) origin(i int) int {
	if a.layer == nil {
		return i
	}
	if i -= a.layer.head(); i < 0 {
		return -1
	}
	return int(a.layer.origin[i])
}

// begin decides between a layer and a raw file, and opens that. From then on the root stays.
func (s *Store) begin(ctx context.Context, version *images.Manifest, report func(uint32)) (*assembly, error) {
	root, err := s.chooseRoot(ctx, version)
	if err != nil {
		return nil, fmt.Errorf("begin base: %w", err)
	}
	s.using.RLock()
	defer s.using.RUnlock()
	a := &assembly{store: s, version: version, m: version, report: report}
	// It may have gone meanwhile, as nothing needed it.
	if !root.IsZero() && s.usableRoot(root) {
		if a.layer, _, err = s.layerOn(version, root); err != nil {
			return nil, fmt.Errorf("begin base: %w", err)
		}
		a.root, a.m = root, a.layer.file
	}
	a.have = make([]bool, a.m.Len())
	for p := range a.m.Pieces() {
		if !p.Zero() {
			a.total += uint64(p.Length)
		}
	}
	name := s.path(dirTmp, partName(version.Digest(), a.layer != nil))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin base: %w", err)
	}
	a.f = f
	s.show(a)
	return a, nil
}

// assemble makes a base of what a broken-off fetch left, what other bases have, and what the source gives, in this order;
// then it reads the whole back from the disk, compares it, and gives it its name.
func (s *Store) assemble(ctx context.Context, m *images.Manifest, from hostagent.Source, report func(uint32)) error {
	a, err := s.begin(ctx, m, report)
	if err != nil {
		return err
	}
	defer a.f.Close()
	defer s.hide(a)
	if err := a.resume(ctx); err != nil {
		return err
	}
	if a.room, err = s.reserve(ctx, a.total-a.done, "base "+m.Digest().String()); err != nil {
		return err
	}
	defer s.release(a.room, nil) //nolint:errcheck // releases only
	if a.seeds, err = s.openSeeds(m); err != nil {
		return err
	}
	defer closeSeeds(a.seeds)
	if err := a.collect(ctx, from); err != nil {
		return err
	}
	if err := a.prove(ctx, from); err != nil {
		return err
	}
	return a.publish()
}

// collect copies what seeds have while it fetches what none has, as deltas to what they have in its place. What turns out not
// to be there, or whose delta cannot be read, it fetches whole then.
func (a *assembly) collect(ctx context.Context, from hostagent.Source) error {
	if err := a.putTables(); err != nil {
		return err
	}
	planned := a.planned()
	gathering := a.gather(true, planned)
	group, both := errgroup.WithContext(ctx)
	fetching, fetched := context.WithCancel(both)
	group.Go(func() error { return a.copySeeds(both) })
	group.Go(func() error {
		defer fetched()
		return a.turn(both, from, gathering)
	})
	group.Go(func() error {
		gathering.writeBack(fetching)
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return a.fetch(ctx, from)
}

// putTables writes those tables of a layer that are not there.
func (a *assembly) putTables() error {
	for _, p := range a.missing() {
		if a.origin(p.Index) >= 0 {
			break
		}
		if _, err := a.f.WriteAt(a.layer.tables[p.Offset:p.Offset+int64(p.Length)], p.Offset); err != nil {
			return fmt.Errorf("write layer's tables: %w", err)
		}
		a.store.used(a.room, uint64(p.Length))
		a.place(p)
	}
	return nil
}

// resume keeps of a broken-off fetch what is right. It trusts nothing but the content: no journal of what was done can
// say what reached the disk.
func (a *assembly) resume(ctx context.Context) error {
	info, err := a.f.Stat()
	if err != nil {
		return fmt.Errorf("resume base: %w", err)
	}
	if err := a.f.Truncate(int64(a.m.Size())); err != nil {
		return fmt.Errorf("resume base: %w", err)
	}
	if info.Size() == 0 {
		return nil
	}
	wrong, err := damage(ctx, a.f, a.m, nil, atOnce())
	if err != nil {
		return fmt.Errorf("resume base: %w", err)
	}
	isWrong := make(map[int]bool, len(wrong))
	for _, p := range wrong {
		isWrong[p.Index] = true
		if err := a.clear(p); err != nil {
			return fmt.Errorf("resume base: %w", err)
		}
	}
	for p := range a.m.Pieces() {
		if !p.Zero() && !isWrong[p.Index] {
			a.place(p)
		}
	}
	return nil
}

// clear makes zeros of a piece that should be zeros and is not.
func (a *assembly) clear(p images.Piece) error {
	if !p.Zero() {
		return nil
	}
	return unix.Fallocate(int(a.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, p.Offset, int64(p.Length))
}

// prove syncs the base and compares every piece with the manifest, reading back what the disk has. What is wrong is fetched
// once more.
//
// This is the one comparison that everything passes, and the reason why pieces of other bases are copied unread: a seed
// that rots, a copy within the kernel that goes wrong, a bit that flips in memory after a chunk was checked or on its way
// to the disk are all found here, and none of them by a comparison before the write. It costs one pass over what was
// written at the speed of the disk, once per version and host, and is never left out. What a layer leaves to its root was
// compared when that was made, and is as good as that is: see usable.
func (a *assembly) prove(ctx context.Context, from hostagent.Source) error {
	if err := a.f.Chmod(0o444); err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	var suspects picked
	for range rounds {
		if err := a.f.Sync(); err != nil {
			return fmt.Errorf("finish base: %w", err)
		}
		began := time.Now()
		wrong, err := damage(ctx, a.f, a.m, suspects, atOnce())
		if err != nil {
			return fmt.Errorf("finish base: %w", err)
		}
		if suspects == nil {
			a.store.measure(a.f, time.Since(began))
		}
		if len(wrong) == 0 {
			return nil
		}
		a.store.log.Warn().Stringer("base", a.version.Digest()).Int("pieces", len(wrong)).Msg("pieces were read back other than they should be; they are fetched once more")
		suspects = make(picked, len(wrong))
		for _, p := range wrong {
			suspects[p.Index] = true
			a.blame(p)
			a.missed(p)
			if err := a.clear(p); err != nil {
				return fmt.Errorf("finish base: %w", err)
			}
		}
		if err := a.putTables(); err != nil {
			return err
		}
		if err := a.fetch(ctx, from); err != nil {
			return err
		}
	}
	os.Remove(a.f.Name())
	return fmt.Errorf("finish base: %d pieces were read back other than they were written, more than once: is the disk of %s failing? %w",
		len(suspects), a.store.cfg.Root, hostagent.ErrCorrupt)
}

// publish gives a base that was proven its name, beside its manifest.
func (a *assembly) publish() error {
	s, part, d := a.store, a.f.Name(), a.version.Digest()
	if err := errors.Join(a.f.Sync(), s.keepManifest(a.version)); err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	// What was not read now is as good as its root is.
	if a.layer != nil && !s.usableRoot(a.root) {
		return fmt.Errorf("finish base: base %s, on which it is a layer, changed meanwhile", a.root)
	}
	err := s.release(a.room, func() error { return publish(part, s.filePath(d, a.layer != nil)) })
	if err == nil {
		err = syncDir(s.path(dirBases))
	}
	var st stamp
	if err == nil {
		st, err = stampOfOpen(a.f) // of what was proven, under its last name
	}
	if err == nil {
		err = s.stampBase(d, known{stamp: st, disk: a.version.Size(), root: a.root})
	}
	if err != nil {
		return fmt.Errorf("finish base: %w", err)
	}
	return nil
}

// keepManifest puts a manifest beside its base, unless it is there.
func (s *Store) keepManifest(m *images.Manifest) error {
	if _, err := s.keptManifest(m.Digest()); err == nil {
		return nil
	}
	name := manifestName(m.Digest())
	f, err := os.CreateTemp(s.path(dirTmp), "new-")
	if err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	_, err = f.Write(m.Encoded())
	if err = errors.Join(err, f.Chmod(0o444), f.Sync(), f.Close()); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("keep manifest: %w", err)
	}
	// One that is there is damaged, or it would have been taken.
	if err := os.Rename(f.Name(), s.path(dirBases, name)); err != nil {
		return fmt.Errorf("keep manifest: %w", err)
	}
	return nil
}
