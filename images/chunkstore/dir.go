// Package chunkstore keeps chunks and manifests by their digests: the control plane's image store.
//
// Here: the store in a directory (Dir) and in a bucket (S3). In storetest: the contract, as tests that every store passes. Not here: which versions
// there are and who may use them (orchestrator/catalog), the hosts' bases (hostagent/disk). orchestrator/catalog, api and
// cmd call it.
package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"daybreak/images"
)

// Dir is a store in a directory:
//
//	chunks/ab/<digest>.zst   sealed chunks, 256 folders
//	manifests/<digest>       encoded manifests
//	tmp/                     what is being written
//	lock                     see hold
//	owner                    whose store it is
//
// What stands under its name is whole and on disk: it was checked, written under tmp, synced, and then linked without
// replacing anything. Nothing but its time is ever changed after that: the time when it was written, or called present. All
// methods may be called at the same time, by several processes too.
type Dir struct {
	root   string
	checks checker
}

// checker opens chunks to see whether they are what they claim to be.
type checker struct {
	codec *images.Codec
	plain *sync.Pool
}

func newChecker(codec *images.Codec) checker {
	return checker{codec: codec, plain: &sync.Pool{New: func() any { return new([images.OpenBytes]byte) }}}
}

func (c checker) check(chunk images.Chunk) error {
	buf := c.plain.Get().(*[images.OpenBytes]byte)
	defer c.plain.Put(buf)
	_, err := c.codec.Open(buf[:0], chunk)
	return err
}

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// abandoned is the age at which a temporary file is what a crash left. Younger ones may be another process's, since
// several control planes may share the directory.
const abandoned = 24 * time.Hour

// OpenDir opens the store at root, makes it if there is none, and removes what crashes left half written a day ago.
func OpenDir(root string, codec *images.Codec) (*Dir, error) {
	d := &Dir{root: root, checks: newChecker(codec)}
	for _, dir := range append(d.chunkDirs(), filepath.Join(root, "manifests"), filepath.Join(root, "tmp")) {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	for _, dir := range []string{filepath.Join(root, "chunks"), root, filepath.Dir(root)} {
		if err := syncDir(dir); err != nil {
			return nil, fmt.Errorf("open image store: %w", err)
		}
	}
	if err := sweep(filepath.Join(root, "tmp"), time.Now().Add(-abandoned)); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	return d, nil
}

// sweep removes the files of a folder that were last written before a time.
func sweep(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && info.ModTime().Before(before) {
			err = os.Remove(filepath.Join(dir, entry.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d *Dir) chunkDirs() []string {
	dirs := make([]string, 256)
	for i := range dirs {
		dirs[i] = filepath.Join(d.root, "chunks", fmt.Sprintf("%02x", i))
	}
	return dirs
}

func (d *Dir) chunkPath(digest images.Digest) string {
	name := digest.String()
	return filepath.Join(d.root, "chunks", name[:2], name+".zst")
}

func (d *Dir) manifestPath(digest images.Digest) string {
	return filepath.Join(d.root, "manifests", digest.String())
}

// Missing returns those of the digests that have no chunk here, in their order, and renews the others. The zero digest
// needs none.
func (d *Dir) Missing(ctx context.Context, digests []images.Digest) ([]images.Digest, error) {
	var missing []images.Digest
	for _, digest := range digests {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if digest.IsZero() {
			continue
		}
		switch err := renew(d.chunkPath(digest)); {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, digest)
		case err != nil:
			return nil, fmt.Errorf("look for chunk: %w", err)
		}
	}
	return missing, nil
}

// Put checks chunks against their digests and keeps those that are new. It returns the bytes that the store grew by. When
// it returns nil all are durable; when it fails some may have been kept. Errors wrap images.ErrCorrupt for a chunk that
// is not what it claims to be, images.ErrFull when the disk is full.
func (d *Dir) Put(ctx context.Context, chunks []images.Chunk) (uint64, error) {
	batch := batch{dir: d}
	defer batch.discard()
	for _, chunk := range chunks {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if err := d.checks.check(chunk); err != nil {
			return 0, err
		}
		path := d.chunkPath(chunk.Digest)
		if err := renew(path); err == nil {
			batch.touch(path)
		} else if err := batch.write(path, chunk.Sealed); err != nil {
			return 0, fmt.Errorf("put chunk %s: %w", chunk.Digest, err)
		}
	}
	grown, err := batch.publish()
	if err != nil {
		return 0, fmt.Errorf("put chunks: %w", err)
	}
	return grown, nil
}

// Get returns a sealed chunk, or images.ErrNotFound. It is not checked on its way out: hosts check what they get anyway,
// and a control plane that feeds a hundred hosts would spend most of its CPU on it.
func (d *Dir) Get(ctx context.Context, digest images.Digest) ([]byte, error) {
	sealed, err := d.read(ctx, d.chunkPath(digest), images.MaxSealedBytes)
	if err != nil {
		return nil, fmt.Errorf("get chunk %s: %w", digest, err)
	}
	return sealed, nil
}

// Size returns how many bytes the chunks take here in all; those that are not here take none.
func (d *Dir) Size(ctx context.Context, digests []images.Digest) (uint64, error) {
	var total uint64
	for _, digest := range digests {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		switch info, err := os.Lstat(d.chunkPath(digest)); {
		case err == nil:
			total += uint64(info.Size())
		case !errors.Is(err, fs.ErrNotExist):
			return 0, fmt.Errorf("measure chunk: %w", err)
		}
	}
	return total, nil
}

// PutManifest keeps a manifest whose chunks are all here, and makes it and them durable. It returns images.ErrIncomplete
// when some are not.
func (d *Dir) PutManifest(ctx context.Context, manifest *images.Manifest) error {
	if err := d.putManifest(ctx, manifest); err != nil {
		return fmt.Errorf("put manifest %s: %w", manifest.Digest(), err)
	}
	return nil
}

func (d *Dir) putManifest(ctx context.Context, manifest *images.Manifest) error {
	// While all chunks are being renewed none is removed; afterwards they are young.
	free, err := d.hold(ctx, unix.LOCK_SH)
	if err != nil {
		return err
	}
	defer free()
	missing, err := d.Missing(ctx, slices.Collect(manifest.Chunks()))
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%d chunks, the first is %s: %w", len(missing), missing[0], images.ErrIncomplete)
	}
	batch := batch{dir: d}
	defer batch.discard()
	// Another caller may have linked some of the chunks a moment ago and not synced the folders yet.
	for _, dir := range d.chunkDirs() {
		batch.touch(filepath.Join(dir, "any"))
	}
	path := d.manifestPath(manifest.Digest())
	if err := renew(path); err == nil {
		batch.touch(path)
	} else if err := batch.write(path, manifest.Encoded()); err != nil {
		return err
	}
	_, err = batch.publish()
	return err
}

// GetManifest returns a manifest, or images.ErrNotFound; images.ErrCorrupt when the file is damaged.
func (d *Dir) GetManifest(ctx context.Context, digest images.Digest) (*images.Manifest, error) {
	encoded, err := d.read(ctx, d.manifestPath(digest), images.MaxManifestBytes)
	if err != nil {
		return nil, fmt.Errorf("get manifest %s: %w", digest, err)
	}
	manifest, err := images.Parse(encoded)
	if err != nil || manifest.Digest() != digest {
		return nil, fmt.Errorf("get manifest %s: %w", digest, images.ErrCorrupt)
	}
	return manifest, nil
}

func (d *Dir) read(ctx context.Context, path string, limit int64) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, images.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%s is not a file of at most %d bytes: %w", path, limit, images.ErrCorrupt)
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, err
	}
	return data, nil
}
