package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// DefaultGrace is for how long what nobody needs is kept when nobody says otherwise.
	DefaultGrace = 7 * 24 * time.Hour
	// collectEvery is the time between two collections, and collectAfter that between the begin of leadership, or a collection
	// that failed, and the next.
	collectEvery = 24 * time.Hour
	collectAfter = time.Hour
	// markAge is how old a list of what is needed may be when something is removed by it; see recordTime.
	markAge = 10 * time.Minute
	// removeAtOnce is how much is removed by one look at that list.
	removeAtOnce = 1000
)

// Collector removes content that nobody needs from the image store. Collections may run at the same time as imports, as
// each other, and on several daybreakd. Killed at any point they leave nothing that promises what is not there: a version is
// marked collected before its content goes.
type Collector struct {
	chunks  chunkstore.Store
	cluster string
	log     zerolog.Logger
}

// NewCollector makes a Collector for the image store of a cluster.
func NewCollector(chunks chunkstore.Store, cluster string, log zerolog.Logger) *Collector {
	return &Collector{chunks: chunks, cluster: cluster, log: log}
}

// Run collects once a day until ctx ends and returns nil then. st is opened for WriterRollout and guarded by leadership. A
// collection that fails is told in the log and begun anew: nobody waits for it.
func (c *Collector) Run(ctx context.Context, st *store.Store) error {
	wait := time.NewTimer(collectAfter)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		did, err := c.Collect(ctx, st, time.Now(), DefaultGrace, false)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrNotLeader):
			return err
		case err != nil:
			c.log.Error().Err(err).Msg("the image store's garbage was not collected")
			wait.Reset(collectAfter)
		default:
			c.log.Info().Strs("versions", did.GetVersions()).Uint64("chunks", did.GetChunks()).Uint64("bytes", did.GetBytes()).
				Uint64("kept_bytes", did.GetKeptBytes()).Msg("the image store's garbage is collected")
			wait.Reset(collectEvery)
		}
	}
}

// Collect removes what nobody needs and what was neither changed nor called present for the grace, at least MinGrace; a dry
// run only says what that would be.
func (c *Collector) Collect(ctx context.Context, st *store.Store, now time.Time, grace time.Duration, dry bool) (*v1.CollectGarbageResponse, error) {
	if grace < MinGrace {
		return nil, fmt.Errorf("collect garbage: a grace of %v: want at least %v: %w", grace, MinGrace, store.ErrInvalid)
	}
	did, err := c.collect(ctx, st, now, grace, dry)
	if err != nil {
		return did, fmt.Errorf("collect garbage: %w", err)
	}
	return did, nil
}

func (c *Collector) collect(ctx context.Context, st *store.Store, now time.Time, grace time.Duration, dry bool) (*v1.CollectGarbageResponse, error) {
	if err := c.chunks.Own(ctx, c.cluster); err != nil {
		return nil, err
	}
	old, byImage, err := c.find(ctx, st, now, grace)
	if err != nil {
		return nil, err
	}
	did := &v1.CollectGarbageResponse{}
	gone := map[string][]uint32{}
	for _, image := range byImage {
		name := image.GetMeta().GetName()
		if len(old[name]) == 0 {
			continue
		}
		if !dry {
			err := mark(ctx, st, now, image, old[name])
			if errors.Is(err, store.ErrConflict) {
				continue // somebody did something about it a moment ago: the next collection looks again
			}
			if err != nil {
				return did, fmt.Errorf("mark what is collected: %w", err)
			}
		}
		gone[name] = old[name]
		for _, number := range old[name] {
			did.Versions = append(did.Versions, versionName(name, number))
		}
	}
	s := &sweeping{Collector: c, st: st, grace: grace, dry: dry, did: did}
	if dry {
		s.gone = gone
	}
	return did, s.run(ctx)
}

// find says which versions may be collected, and returns the images as they were before anything else was looked at: a mark
// holds only if nobody wrote the image since.
func (c *Collector) find(ctx context.Context, st *store.Store, now time.Time, grace time.Duration) (map[string][]uint32, []*v1.Image, error) {
	h := Holdings{Manifests: map[images.Digest]time.Duration{}}
	var err error
	if h.Images, _, err = store.List[*v1.Image](ctx, st); err != nil {
		return nil, nil, err
	}
	if h.Users, err = readUsers(ctx, st); err != nil {
		return nil, nil, err
	}
	for item, err := range c.chunks.List(ctx) {
		if err != nil {
			return nil, nil, err
		}
		if item.Manifest {
			h.Manifests[item.Digest] = item.Age
		}
	}
	return Collectable(now, grace, h), h.Images, nil
}

// mark writes down that versions of an image have no content any more.
func mark(ctx context.Context, st *store.Store, now time.Time, image *v1.Image, numbers []uint32) error {
	marked := proto.CloneOf(image)
	var names []string
	for _, number := range numbers {
		store.Version(marked, number).Collected = true
		names = append(names, strconv.Itoa(int(number)))
	}
	message := fmt.Sprintf("nobody needs the content of version %s any more; it is removed from the image store", listed(names, len(names)))
	_, err := st.Commit(ctx, store.Update(marked), store.Create(store.NewEvent(now, image, ReasonCollected, message, false)))
	return err
}

func versionName(image string, number uint32) string {
	return fmt.Sprintf("%s/%d", image, number)
}

// sweeping is the second half of one collection: removing what no version names.
type sweeping struct {
	*Collector
	st    *store.Store
	grace time.Duration
	dry   bool
	// gone are the versions that a dry run takes for collected.
	gone map[string][]uint32
	did  *v1.CollectGarbageResponse

	marked time.Time
	// needed has every manifest and chunk that a version names, and which one.
	needed map[images.Digest]string
	// read has the manifests whose chunks are among them.
	read map[images.Digest]bool
}

func (s *sweeping) run(ctx context.Context) error {
	s.needed, s.read = map[images.Digest]string{}, map[images.Digest]bool{}
	if err := s.look(ctx); err != nil {
		return err
	}
	var group []chunkstore.Item
	for item, err := range s.chunks.List(ctx) {
		if err != nil {
			return err
		}
		if _, needed := s.needed[item.Digest]; needed || item.Age < s.grace {
			s.did.KeptBytes += item.Bytes
			continue
		}
		if group = append(group, item); len(group) == removeAtOnce {
			if err := s.remove(ctx, group); err != nil {
				return err
			}
			group = group[:0]
		}
	}
	return s.remove(ctx, group)
}

// remove removes items that nobody needs, by a list that is young enough.
func (s *sweeping) remove(ctx context.Context, group []chunkstore.Item) error {
	if time.Since(s.marked) > markAge {
		if err := s.look(ctx); err != nil {
			return err
		}
	}
	var chunks, bytes uint64
	garbage := slices.DeleteFunc(group, func(item chunkstore.Item) bool {
		_, needed := s.needed[item.Digest]
		if needed {
			s.did.KeptBytes += item.Bytes
			return true
		}
		if bytes += item.Bytes; !item.Manifest {
			chunks++
		}
		return false
	})
	if len(garbage) == 0 {
		return nil
	}
	if !s.dry {
		removed, err := s.chunks.Remove(ctx, garbage, s.grace)
		if err != nil {
			s.did.Bytes += removed
			return err
		}
		bytes = removed
	}
	s.did.Chunks += chunks
	s.did.Bytes += bytes
	return nil
}

// look adds what is needed by now to the list. It fails when a version's manifest cannot be read, since its chunks are not
// known then.
func (s *sweeping) look(ctx context.Context) error {
	s.marked = time.Now()
	for again := false; ; again = true {
		all, _, err := store.List[*v1.Image](ctx, s.st)
		if err != nil {
			return err
		}
		manifests, chunks := needs(all, s.gone)
		maps.Copy(s.needed, chunks)
		err = s.add(ctx, manifests)
		// Another daybreakd may have collected the version between the two.
		if again || !errors.Is(err, images.ErrNotFound) {
			return err
		}
	}
}

// add reads manifests, each once since they are immutable, and adds what they name to the list.
func (s *sweeping) add(ctx context.Context, manifests map[images.Digest]string) error {
	for digest, name := range manifests {
		if s.read[digest] {
			continue
		}
		manifest, err := s.chunks.GetManifest(ctx, digest)
		if errors.Is(err, images.ErrNotFound) || errors.Is(err, images.ErrCorrupt) {
			return fmt.Errorf("version %s: %w; nothing more is removed, since it is not known what the version needs: import its disk again, or withdraw it", name, err)
		}
		if err != nil {
			return err
		}
		s.read[digest], s.needed[digest] = true, name
		for piece := range manifest.Pieces() {
			s.needed[piece.Digest] = name
		}
	}
	return nil
}
