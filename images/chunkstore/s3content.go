package chunkstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"daybreak/images"
)

const (
	// askSingly is up to how many chunks are asked for one by one; for more, listing all there are is cheaper.
	askSingly = 256
	// indexAge is how long a list of all chunks is used. What it lacks is looked for again, and what it has can only be gone when
	// it was garbage for long: PutManifest looks for itself.
	indexAge = time.Minute
)

// index is the last list of all chunks.
type index struct {
	sync.Mutex
	made  time.Time
	sizes map[images.Digest]uint32
}

// Missing returns those of the digests that have no chunk here, in their order. The zero digest needs none.
func (s *S3) Missing(ctx context.Context, digests []images.Digest) ([]images.Digest, error) {
	sizes, err := s.look(ctx, digests, indexAge)
	if err != nil {
		return nil, fmt.Errorf("look for chunks: %w", err)
	}
	return lacking(digests, sizes), nil
}

func lacking(digests []images.Digest, sizes map[images.Digest]uint32) (missing []images.Digest) {
	for _, digest := range digests {
		if _, here := sizes[digest]; !here && !digest.IsZero() {
			missing = append(missing, digest)
		}
	}
	return missing
}

// Size returns how many bytes the chunks take here in all; those that are not here take none.
func (s *S3) Size(ctx context.Context, digests []images.Digest) (uint64, error) {
	sizes, err := s.look(ctx, digests, indexAge)
	if err != nil {
		return 0, fmt.Errorf("measure chunks: %w", err)
	}
	var total uint64
	for _, digest := range digests {
		total += uint64(sizes[digest])
	}
	return total, nil
}

// look returns the sizes of those of the chunks that are here, as they were at most age ago. The map may have others, too.
func (s *S3) look(ctx context.Context, digests []images.Digest, age time.Duration) (map[images.Digest]uint32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	sizes, unknown := s.index.split(digests, age)
	if len(unknown) > askSingly {
		return s.listChunks(ctx)
	}
	found, err := s.statChunks(ctx, unknown)
	maps.Copy(sizes, found)
	return sizes, err
}

// split returns the sizes of those of the digests that the list has, if it is young enough, and the others.
func (x *index) split(digests []images.Digest, age time.Duration) (known map[images.Digest]uint32, unknown []images.Digest) {
	x.Lock()
	defer x.Unlock()
	known = map[images.Digest]uint32{}
	if time.Since(x.made) < age {
		for _, digest := range digests {
			if size, here := x.sizes[digest]; here {
				known[digest] = size
			}
		}
	}
	return known, lacking(digests, known)
}

// listChunks makes the list anew.
func (s *S3) listChunks(ctx context.Context) (map[images.Digest]uint32, error) {
	made, sizes := time.Now(), map[images.Digest]uint32{}
	for object, err := range s.objects(ctx, "chunks/") {
		if err != nil {
			return nil, err
		}
		if digest, ok := chunkOf(object.name); ok {
			sizes[digest] = uint32(min(object.size, images.MaxSealedBytes))
		}
	}
	s.index.Lock()
	defer s.index.Unlock()
	s.index.made, s.index.sizes = made, sizes // never changed from here on
	return sizes, nil
}

// chunkOf reads a key below the prefix; anything but chunks in their places is not ours.
func chunkOf(name string) (images.Digest, bool) {
	rest, ok := strings.CutPrefix(name, "chunks/")
	folder, file, slash := strings.Cut(rest, "/")
	text, suffix := strings.CutSuffix(file, ".zst")
	digest, err := images.ParseDigest(text)
	return digest, ok && slash && suffix && err == nil && folder == text[:2]
}

func (s *S3) statChunks(ctx context.Context, digests []images.Digest) (map[images.Digest]uint32, error) {
	var mu sync.Mutex
	sizes := map[images.Digest]uint32{}
	err := s.each(ctx, len(digests), func(ctx context.Context, i int) error {
		info, err := s.stat(ctx, s.chunkKey(digests[i]))
		if errors.Is(err, images.ErrNotFound) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		sizes[digests[i]] = uint32(min(info.Size, images.MaxSealedBytes))
		return err
	})
	return sizes, err
}

// each calls work for 0 … n-1, many at a time, until one fails.
func (s *S3) each(ctx context.Context, n int, work func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRequests)
	for i := range n {
		group.Go(func() error { return work(ctx, i) })
	}
	return group.Wait()
}

// Put checks chunks against their digests and keeps those that are new. It returns the bytes that the store grew by. When
// it returns nil all are durable, as far as the server keeps its word; when it fails some may have been kept. Errors wrap
// images.ErrCorrupt for a chunk that is not what it claims to be, images.ErrFull when there is no room.
func (s *S3) Put(ctx context.Context, chunks []images.Chunk) (uint64, error) {
	fresh := make(map[images.Digest]struct{}, len(chunks))
	once := make([]images.Chunk, 0, len(chunks))
	for _, chunk := range chunks {
		if err := s.checks.check(chunk); err != nil {
			return 0, err
		}
		if _, again := fresh[chunk.Digest]; !again {
			fresh[chunk.Digest] = struct{}{}
			once = append(once, chunk)
		}
	}
	var mu sync.Mutex
	var grown uint64
	err := s.each(ctx, len(once), func(ctx context.Context, i int) error {
		made, err := s.create(ctx, s.chunkKey(once[i].Digest), once[i].Sealed)
		if err != nil {
			return fmt.Errorf("put chunk %s: %w", once[i].Digest, err)
		}
		if made {
			mu.Lock()
			defer mu.Unlock()
			grown += uint64(len(once[i].Sealed))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return grown, nil
}

// Get returns a sealed chunk, or images.ErrNotFound. It is not checked on its way out: hosts check what they get.
func (s *S3) Get(ctx context.Context, digest images.Digest) ([]byte, error) {
	sealed, err := s.read(ctx, s.chunkKey(digest), images.MaxSealedBytes)
	if err != nil {
		return nil, fmt.Errorf("get chunk %s: %w", digest, err)
	}
	return sealed, nil
}

// PutManifest keeps a manifest whose chunks are all here. It returns images.ErrIncomplete when some are not.
//
// No Remove may take a chunk away between the look and the caller's record. Either side first leaves a mark and then looks for
// the other's: a Remove that began before our mark was there is waited for, and one that begins after it spares the chunks of
// what is marked. When our mark goes the manifest is there, and young, which has the same effect.
func (s *S3) PutManifest(ctx context.Context, manifest *images.Manifest) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("put manifest %s: %w", manifest.Digest(), err)
		}
	}()
	mark := s.prefix + "intake/" + manifest.Digest().String() + "-" + rand.Text()
	if err := s.put(ctx, mark, manifest.Encoded(), minio.PutObjectOptions{}); err != nil {
		return err
	}
	defer s.drop(ctx, mark)
	if err := s.waitSweeps(ctx); err != nil {
		return err
	}
	digests := slices.Collect(manifest.Chunks())
	sizes, err := s.look(ctx, digests, 0)
	if err != nil {
		return err
	}
	if missing := lacking(digests, sizes); len(missing) > 0 {
		return fmt.Errorf("%d chunks, the first is %s: %w", len(missing), missing[0], images.ErrIncomplete)
	}
	// Written even when it is there, so that it is young.
	return s.put(ctx, s.manifestKey(manifest.Digest()), manifest.Encoded(), minio.PutObjectOptions{})
}

// drop removes a mark of ours, also when ctx has ended. One that stays is removed when it is old.
func (s *S3) drop(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), headerTimeout)
	defer cancel()
	_ = s.ask(ctx, func() error { return s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}) })
}

// GetManifest returns a manifest, or images.ErrNotFound; images.ErrCorrupt when the object is damaged.
func (s *S3) GetManifest(ctx context.Context, digest images.Digest) (*images.Manifest, error) {
	manifest, err := s.readManifest(ctx, s.manifestKey(digest))
	if err == nil && manifest.Digest() != digest {
		err = images.ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("get manifest %s: %w", digest, err)
	}
	return manifest, nil
}

func (s *S3) readManifest(ctx context.Context, key string) (*images.Manifest, error) {
	encoded, err := s.read(ctx, key, images.MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	manifest, err := images.Parse(encoded)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, images.ErrCorrupt)
	}
	return manifest, nil
}
