package pack_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"daybreak/images"
	"daybreak/images/pack"
)

// overlay is a disk in memory with what is known of its pieces. It counts what is read of it.
type overlay struct {
	disk   []byte
	states []pack.State
	read   atomic.Int64
}

func (o *overlay) Piece(i int) pack.State { return o.states[i] }

func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(o.disk)) {
		return 0, io.EOF
	}
	n := copy(p, o.disk[off:])
	o.read.Add(int64(n))
	if n < len(p) {
		return n, fmt.Errorf("read at %d: the disk is shorter", off)
	}
	return n, nil
}

// Whatever an overlay says, truly, of its pieces: the manifest is that of the whole disk, nothing is read that need not be,
// and the store has all that the manifest names.
func TestChangedIsAsDisk(t *testing.T) {
	dir, codec := store(t)
	rapid.Check(t, func(rt *rapid.T) {
		size := rapid.IntRange(1, 4*images.ChunkBytes/512).Draw(rt, "sectors") * 512
		disk := make([]byte, size)
		count := images.Count(uint64(size))
		piece := func(i int) []byte { return disk[i*images.ChunkBytes : min((i+1)*images.ChunkBytes, size)] }
		for i := range count {
			fill(piece(i), rapid.IntRange(0, 3).Draw(rt, "content"))
		}
		parentFile := file(t, func(f *os.File) error { _, err := f.Write(disk); return err })
		parent, _, err := pack.Disk(t.Context(), parentFile, codec, dir, nil)
		if err != nil {
			rt.Fatal(err)
		}
		o := &overlay{disk: disk, states: make([]pack.State, count)}
		var toRead uint64
		for i := range count {
			o.states[i] = pack.State(rapid.IntRange(int(pack.Kept), int(pack.Written)).Draw(rt, "state"))
			switch o.states[i] {
			case pack.Zeroed:
				clear(piece(i))
			case pack.Thinned:
				clear(piece(i)[:len(piece(i))/2])
				if !parent.Piece(i).Zero() {
					toRead += uint64(len(piece(i)))
				}
			case pack.Written:
				fill(piece(i), rapid.IntRange(0, 5).Draw(rt, "new content"))
				toRead += uint64(len(piece(i)))
			}
		}
		m, did, err := pack.Changed(t.Context(), parent, o, codec, dir, nil)
		if err != nil {
			rt.Fatal(err)
		}
		if got := unpack(rt, t.Context(), m, dir, codec); !bytes.Equal(got, disk) {
			rt.Error("the version is not what the disk was")
		}
		if did.Read != toRead || uint64(o.read.Load()) != toRead {
			rt.Errorf("%d bytes were read and %d told, want %d", o.read.Load(), did.Read, toRead)
		}
	})
}

// fill makes a piece of one of a few contents; 0 is zeros.
func fill(piece []byte, kind int) {
	for i := range piece {
		piece[i] = byte(kind * (1 + i%7))
	}
}

// A patch costs what it changed, however large the disk is.
func TestChangedCostsWhatChanged(t *testing.T) {
	dir, codec := store(t)
	count := 20 << 30 / images.ChunkBytes
	parent, err := images.NewManifest(20<<30, make([]images.Digest, count))
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, images.ChunkBytes)
	copy(noise, "changed")
	o := &sparse{states: map[int][]byte{5: noise, 70_000: noise}}
	m, did, err := pack.Changed(t.Context(), parent, o, codec, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if did.Read != 2*images.ChunkBytes || did.Sent == 0 || m.Piece(5).Zero() || m.Piece(5).Digest != m.Piece(70_000).Digest || !m.Piece(6).Zero() {
		t.Errorf("did %+v", did)
	}
	same, did, err := pack.Changed(t.Context(), m, o, codec, dir, nil)
	if err != nil || same.Digest() != m.Digest() || did.Sent != 0 {
		t.Errorf("once more: %v, sent %d (%v)", same.Digest(), did.Sent, err)
	}
}

type sparse struct{ states map[int][]byte }

func (s *sparse) Piece(i int) pack.State {
	if s.states[i] != nil {
		return pack.Written
	}
	return pack.Kept
}

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	return copy(p, s.states[int(off/images.ChunkBytes)]), nil
}
