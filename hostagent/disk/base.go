package disk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"daybreak/hostagent"
	"daybreak/images"
)

// Bases lists the digests of the bases that may be used, in order. One that changed since it was compared is not among
// them any more.
func (s *Store) Bases(context.Context) ([]string, error) {
	var digests []string
	for _, d := range s.trusted() {
		if _, ok := s.usable(d); ok {
			digests = append(digests, d.String())
		}
	}
	slices.Sort(digests)
	return digests, nil
}

// trusted lists the bases that were whole when they were last looked at.
func (s *Store) trusted() []images.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.verified))
}

// flight is one base under construction and those who wait for it.
type flight struct {
	done chan struct{}
	err  error // set before done is closed

	mu        sync.Mutex
	percent   uint32
	listeners map[int]func(uint32)
	next      int
}

func (f *flight) report(percent uint32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if percent == f.percent {
		return
	}
	f.percent = percent
	for _, tell := range f.listeners {
		tell(percent)
	}
}

// listen has tell called from now on; when stop has returned it is called no more.
func (f *flight) listen(tell func(uint32)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := f.next
	f.next++
	f.listeners[id] = tell
	tell(f.percent)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners, id)
	}
}

// EnsureBase fetches and verifies a base unless it is there. Callers who want the same base share one fetch; when the
// caller who does it gives up, the next takes over where it was.
func (s *Store) EnsureBase(ctx context.Context, digest string, from hostagent.Source, progress func(percent uint32)) error {
	d, err := parseDigest(digest)
	if err != nil {
		return fmt.Errorf("ensure base: %w", err)
	}
	for {
		if s.present(d) {
			progress(100)
			return nil
		}
		f, mine := s.board(d)
		stop := f.listen(progress)
		if mine {
			f.err = s.build(ctx, d, from, f.report)
			s.land(d, f)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
		}
		stop()
		switch {
		case ctx.Err() != nil && !mine:
			return fmt.Errorf("ensure base %s: %w", d, ctx.Err())
		case mine && f.err != nil, f.err != nil && !gaveUp(f.err):
			return fmt.Errorf("ensure base %s: %w", d, f.err)
		case f.err == nil && mine:
			return nil
		}
	}
}

// errLookAgain ends a comparison for those who waited for it.
var errLookAgain = errors.New("the base was compared: look again")

// present says whether a base may be used, and notes that it is.
func (s *Store) present(d images.Digest) bool {
	s.using.RLock()
	defer s.using.RUnlock()
	_, ok := s.usable(d)
	if ok {
		s.use(d)
	}
	return ok
}

// gaveUp says whether a fetch ended for a reason that is none for others.
func gaveUp(err error) bool {
	return errors.Is(err, errLookAgain) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// board joins the construction of a base, or begins it.
func (s *Store) board(d images.Digest) (f *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[d]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{}), listeners: map[int]func(uint32){}}
	s.flights[d] = f
	return f, true
}

func (s *Store) land(d images.Digest, f *flight) {
	s.mu.Lock()
	delete(s.flights, d)
	s.mu.Unlock()
	close(f.done)
}

// build makes a base whole: by comparing the one that lies there, or by assembling it.
func (s *Store) build(ctx context.Context, d images.Digest, from hostagent.Source, report func(uint32)) error {
	m, err := s.manifest(ctx, d, from)
	if err != nil {
		return err
	}
	whole, err := s.recheck(ctx, m, atOnce())
	if err == nil && !whole {
		err = s.assemble(ctx, m, from, report)
	}
	if err != nil {
		return noSpace(err)
	}
	report(100)
	return nil
}

// manifest returns a base's manifest, kept beside the base, or from the source. It proves itself by its digest.
func (s *Store) manifest(ctx context.Context, d images.Digest, from hostagent.Source) (*images.Manifest, error) {
	if m, err := s.keptManifest(d); err == nil {
		return m, nil
	}
	encoded, err := from.Manifest(ctx, d.String())
	if err != nil {
		return nil, fmt.Errorf("fetch manifest: %w", err)
	}
	if len(encoded) > images.MaxManifestBytes || images.Sum(encoded) != d {
		return nil, fmt.Errorf("fetch manifest: the source gave another one: %w", hostagent.ErrCorrupt)
	}
	m, err := images.Parse(encoded)
	if err != nil {
		// It is what was asked for, and nothing that this release can use.
		return nil, fmt.Errorf("read manifest: %w: %w", err, hostagent.ErrPermanent)
	}
	return m, nil
}

// keptManifest reads the manifest that lies beside a base.
func (s *Store) keptManifest(d images.Digest) (*images.Manifest, error) {
	path := s.path(dirBases, manifestName(d))
	st, err := stampOf(path)
	if err != nil {
		return nil, err
	}
	if st.size > images.MaxManifestBytes {
		return nil, fmt.Errorf("read manifest %s: %d bytes", d, st.size)
	}
	encoded, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	m, err := images.Parse(encoded)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if m.Digest() != d {
		return nil, fmt.Errorf("read manifest %s: content has digest %s", d, m.Digest())
	}
	return m, nil
}
