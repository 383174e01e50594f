package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"daybreak/images"
)

const (
	// groupChunks is how many chunks a worker holds, asks for and sends at once: 16 MiB plain.
	groupChunks = 64
	// maxWorkers bounds the memory to 256 MiB on machines with many CPUs.
	maxWorkers = 16
)

// Disk packs a raw disk: it sends the sink the chunks that it lacks and returns the manifest. progress, if not nil, is
// called from one goroutine at a time. Started again after a failure, it sends only what is missing then.
func Disk(ctx context.Context, file *os.File, codec *images.Codec, sink Sink, progress func(Progress)) (*images.Manifest, Progress, error) {
	size, err := Check(file)
	if err != nil {
		return nil, Progress{}, err
	}
	before, err := file.Stat()
	if err != nil {
		return nil, Progress{}, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	p := &packer{
		disk: file, file: file, size: size, codec: codec, sink: sink,
		digests: make([]images.Digest, images.Count(size)), progress: progress, at: Progress{Size: size},
	}
	if err := p.run(ctx, p.walk); err != nil {
		return nil, p.at, fmt.Errorf("pack %s: %w", file.Name(), err)
	}
	after, err := file.Stat()
	if err != nil {
		return nil, p.at, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if !after.ModTime().Equal(before.ModTime()) || after.Size() != before.Size() {
		return nil, p.at, fmt.Errorf("pack %s: %w: shut down the VM that uses it", file.Name(), ErrChanged)
	}
	manifest, err := images.NewManifest(size, p.digests)
	return manifest, p.at, err
}

type packer struct {
	disk io.ReaderAt
	// file is disk where that is a raw one.
	file  *os.File
	size  uint64
	codec *images.Codec
	sink  Sink
	// digests by index; every worker writes those of its own groups. They begin as those of the parent, or as zeros.
	digests []images.Digest
	// only are the pieces to be read; nil means all.
	only []bool

	progress func(Progress)
	mu       sync.Mutex
	at       Progress
}

// span is pieces [from, to) of the disk that hold data.
type span struct{ from, to int }

func (p *packer) run(ctx context.Context, walk func(context.Context, chan<- span) error) error {
	group, ctx := errgroup.WithContext(ctx)
	spans := make(chan span)
	group.Go(func() error {
		defer close(spans)
		return walk(ctx, spans)
	})
	// One more than there are CPUs, since some wait for the sink.
	for range min(runtime.GOMAXPROCS(0)+1, maxWorkers) {
		group.Go(func() error {
			w := worker{packer: p}
			for s := range spans {
				if err := w.pack(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// walk cuts what is not a hole into spans of at most groupChunks. Holes stay zero digests and are never read.
func (p *packer) walk(ctx context.Context, spans chan<- span) error {
	total := len(p.digests)
	for next := 0; next < total; {
		from, to, err := p.data(int64(next) * images.ChunkBytes)
		if err != nil {
			return err
		}
		if hole := min(from, total) - next; hole > 0 {
			p.advance(func(at *Progress) { at.Scanned = min(at.Scanned+uint64(hole)*images.ChunkBytes, at.Size) })
		}
		for next = max(next, from); next < min(to, total); {
			s := span{next, min(next+groupChunks, to, total)}
			select {
			case spans <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
			next = s.to
		}
	}
	return nil
}

// data finds the pieces [from, to) that the next data at or after offset touches; from is past the end when there is none.
func (p *packer) data(offset int64) (from, to int, err error) {
	end := len(p.digests)
	start, err := unix.Seek(int(p.file.Fd()), offset, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return end, end, nil
	}
	if errors.Is(err, unix.EINVAL) {
		return int(offset / images.ChunkBytes), end, nil // a file system that knows no holes: all is data
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find data: %w", err)
	}
	stop, err := unix.Seek(int(p.file.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find hole: %w", err)
	}
	return int(start / images.ChunkBytes), int((stop + images.ChunkBytes - 1) / images.ChunkBytes), nil
}

func (p *packer) advance(change func(*Progress)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.at)
	if p.progress != nil {
		p.progress(p.at)
	}
}

// worker packs one span after another in its own memory.
type worker struct {
	*packer
	plain [groupChunks][]byte
}

func (w *worker) pack(ctx context.Context, s span) error {
	var want []images.Digest
	where := map[images.Digest]int{} // into plain
	var read uint64
	for i := s.from; i < s.to; i++ {
		if !w.touched(i) {
			continue
		}
		plain, err := w.read(i, i-s.from)
		if err != nil {
			return err
		}
		read += uint64(len(plain))
		digest := images.Digest{}
		if !images.AllZero(plain) {
			digest = images.Sum(plain)
		}
		if w.digests[i] == digest { // zeros, or what the parent has at this place
			continue
		}
		w.digests[i] = digest
		if digest.IsZero() {
			continue
		}
		if _, again := where[digest]; !again {
			where[digest] = i - s.from
			want = append(want, digest)
		}
	}
	var sent, stored uint64
	if len(want) > 0 {
		missing, err := w.sink.Missing(ctx, want)
		if err != nil {
			return fmt.Errorf("ask for missing chunks: %w", err)
		}
		if sent, stored, err = w.send(ctx, missing, where); err != nil {
			return err
		}
	}
	w.advance(func(at *Progress) {
		at.Scanned = min(at.Scanned+read, at.Size)
		at.Read += read
		at.Sent += sent
		at.Stored += stored
	})
	return ctx.Err()
}

func (p *packer) touched(index int) bool {
	return p.only == nil || p.only[index]
}

// read reads a piece into the worker's own memory.
func (w *worker) read(index, slot int) ([]byte, error) {
	if cap(w.plain[slot]) == 0 {
		w.plain[slot] = make([]byte, images.ChunkBytes)
	}
	offset := int64(index) * images.ChunkBytes
	plain := w.plain[slot][:min(images.ChunkBytes, w.size-uint64(offset))]
	w.plain[slot] = plain
	n, err := w.disk.ReadAt(plain, offset)
	if errors.Is(err, io.EOF) && n < len(plain) {
		return nil, fmt.Errorf("it became shorter: %w", ErrChanged)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return plain, nil
}

func (w *worker) send(ctx context.Context, missing []images.Digest, where map[images.Digest]int) (sent, stored uint64, err error) {
	chunks := make([]images.Chunk, 0, len(missing))
	for _, digest := range missing {
		slot, asked := where[digest]
		if !asked {
			return 0, 0, fmt.Errorf("the store asks for chunk %s, which was not offered", digest)
		}
		delete(where, digest)
		sealed := w.codec.Seal(w.plain[slot])
		sent += uint64(len(sealed))
		chunks = append(chunks, images.Chunk{Digest: digest, Sealed: sealed})
	}
	if len(chunks) == 0 {
		return 0, 0, nil
	}
	if stored, err = w.sink.Put(ctx, chunks); err != nil {
		return 0, 0, fmt.Errorf("send chunks: %w", err)
	}
	return sent, stored, nil
}
