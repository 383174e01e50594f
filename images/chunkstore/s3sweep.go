package chunkstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"daybreak/images"
)

const (
	// sweepTime is how long one sweep may take, and deadSweep the age at which its mark is what a crash left. Between the two is
	// the time that a request may be on its way.
	sweepTime = 3 * time.Minute
	deadSweep = 5 * time.Minute
	// sweepPoll is the time between two looks whether a sweep has ended.
	sweepPoll = 200 * time.Millisecond
	// sweepItems is how many objects one sweep removes at most.
	sweepItems = 1000
	// shelter is how long a manifest's chunks stay after it was put, when Remove asks for a longer age.
	shelter = time.Hour
)

// object is what a listing says of one.
type object struct {
	// name is the key without the store's prefix.
	name string
	size int64
	time time.Time
}

// objects yields all whose names begin with a folder.
func (s *S3) objects(ctx context.Context, folder string) iter.Seq2[object, error] {
	return func(yield func(object, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		for info := range s.client.Client.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + folder, Recursive: true}) {
			if info.Err != nil {
				yield(object{}, s.explain(ctx, info.Err))
				return
			}
			if !yield(object{name: strings.TrimPrefix(info.Key, s.prefix), size: info.Size, time: info.LastModified}, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(object{}, err)
		}
	}
}

// mark writes a small object and returns its time, which is the server's now.
func (s *S3) mark(ctx context.Context, key string) (time.Time, error) {
	if err := s.put(ctx, key, []byte("mark\n"), minio.PutObjectOptions{}); err != nil {
		return time.Time{}, err
	}
	info, err := s.stat(ctx, key)
	return info.LastModified, err
}

// List yields all chunks and manifests, in no order.
func (s *S3) List(ctx context.Context) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		now, err := s.mark(ctx, s.prefix+"clock")
		if err != nil {
			yield(Item{}, fmt.Errorf("list image store: %w", err))
			return
		}
		for _, folder := range []string{"manifests/", "chunks/"} {
			for object, err := range s.objects(ctx, folder) {
				if err != nil {
					yield(Item{}, fmt.Errorf("list image store: %w", err))
					return
				}
				item := Item{Bytes: uint64(object.size), Age: max(0, now.Sub(object.time))}
				var ok bool
				if item.Digest, ok = chunkOf(object.name); !ok {
					item.Digest, ok = manifestOf(object.name)
					item.Manifest = true
				}
				if ok && !yield(item, nil) {
					return
				}
			}
		}
	}
}

func manifestOf(name string) (images.Digest, bool) {
	text, ok := strings.CutPrefix(name, "manifests/")
	digest, err := images.ParseDigest(text)
	return digest, ok && err == nil
}

// Remove removes those of the items that are at least so old now.
func (s *S3) Remove(ctx context.Context, items []Item, age time.Duration) (removed uint64, err error) {
	for len(items) > 0 {
		group := items[:min(len(items), sweepItems)]
		items = items[len(group):]
		bytes, err := s.sweep(ctx, group, age)
		removed += bytes
		if err != nil {
			return removed, fmt.Errorf("remove from image store: %w", err)
		}
	}
	return removed, nil
}

// sweep removes some items, under a mark of its own; see PutManifest.
func (s *S3) sweep(ctx context.Context, items []Item, age time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	mark := s.prefix + "sweeps/" + rand.Text()
	defer s.drop(ctx, mark)
	now, err := s.mark(ctx, mark)
	if err != nil {
		return 0, err
	}
	spared, err := s.spared(ctx, now, min(age, shelter))
	if err != nil {
		return 0, err
	}
	sizes := make([]uint64, len(items))
	err = s.each(ctx, len(items), func(ctx context.Context, i int) error {
		key := s.chunkKey(items[i].Digest)
		if items[i].Manifest {
			key = s.manifestKey(items[i].Digest)
		}
		if _, spare := spared[items[i].Digest]; spare {
			return nil
		}
		info, err := s.stat(ctx, key)
		if errors.Is(err, images.ErrNotFound) || err == nil && now.Sub(info.LastModified) < age {
			return nil
		}
		if err != nil {
			return err
		}
		err = s.ask(ctx, func() error { return s.client.RemoveObject(ctx, s.bucket, key, minio.RemoveObjectOptions{}) })
		if err == nil {
			sizes[i] = uint64(info.Size)
		}
		if errors.Is(err, images.ErrNotFound) {
			return nil // another process that removes was quicker
		}
		return err
	})
	s.forget()
	var removed uint64
	for _, size := range sizes {
		removed += size
	}
	return removed, err
}

// forget drops the list of what is there.
func (s *S3) forget() {
	s.index.Lock()
	defer s.index.Unlock()
	s.index.sizes = nil
}

// spared returns what belongs to manifests younger than an age, put or being put. What is being put is listed first: when its
// mark has gone by then, the manifest itself is there. Marks that crashes left are removed.
func (s *S3) spared(ctx context.Context, now time.Time, age time.Duration) (map[images.Digest]struct{}, error) {
	spared := map[images.Digest]struct{}{}
	for _, folder := range []string{"intake/", "manifests/"} {
		for object, err := range s.objects(ctx, folder) {
			if err != nil {
				return nil, err
			}
			old := now.Sub(object.time)
			switch {
			case folder == "intake/" && old > max(age, 24*time.Hour):
				s.drop(ctx, s.prefix+object.name)
				continue
			case folder == "manifests/" && (age <= 0 || old >= age):
				continue
			}
			manifest, err := s.readManifest(ctx, s.prefix+object.name)
			if errors.Is(err, images.ErrNotFound) || errors.Is(err, images.ErrCorrupt) {
				continue // its writer was done, or whoever planted it has no claim to anything
			}
			if err != nil {
				return nil, err
			}
			spared[manifest.Digest()] = struct{}{}
			for digest := range manifest.Chunks() {
				spared[digest] = struct{}{}
			}
		}
	}
	return spared, nil
}

// waitSweeps waits until the sweeps under way have ended. Those that begin later see what is marked.
func (s *S3) waitSweeps(ctx context.Context) error {
	waiting := map[string]time.Time{}
	for object, err := range s.objects(ctx, "sweeps/") {
		if err != nil {
			return err
		}
		waiting[object.name] = object.time
	}
	for len(waiting) > 0 {
		now, err := s.mark(ctx, s.prefix+"clock")
		if err != nil {
			return err
		}
		for name, since := range waiting {
			_, err := s.stat(ctx, s.prefix+name)
			switch {
			case errors.Is(err, images.ErrNotFound):
				delete(waiting, name)
			case err != nil:
				return err
			case now.Sub(since) > deadSweep:
				s.drop(ctx, s.prefix+name)
				delete(waiting, name)
			}
		}
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-time.After(sweepPoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
