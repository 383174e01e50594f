package pack

import (
	"context"
	"fmt"
	"io"

	"daybreak/images"
)

// State is what an overlay holds of a piece of its disk.
type State int

// States of a piece.
const (
	// Kept: nothing; it is as the parent has it.
	Kept State = iota
	// Zeroed: it reads as zeros, all of it.
	Zeroed
	// Thinned: parts of it read as zeros, the rest is as the parent has it.
	Thinned
	// Written: some of it was written.
	Written
)

// Overlay is a disk that began as a version's content and knows what was written since. It is read by several goroutines
// at once.
type Overlay interface {
	// ReadAt reads the disk as its guest saw it.
	io.ReaderAt
	// Piece says what the overlay holds of the i-th piece.
	Piece(i int) State
}

// Changed packs a disk that began as the version parent: it reads and hashes only pieces that the overlay holds something
// of, sends the sink those that it lacks, and takes all others from the parent. What it costs is in proportion to the change.
func Changed(ctx context.Context, parent *images.Manifest, disk Overlay, codec *images.Codec, sink Sink, progress func(Progress)) (*images.Manifest, Progress, error) {
	p := &packer{
		disk: disk, size: parent.Size(), codec: codec, sink: sink,
		digests: make([]images.Digest, parent.Len()), only: make([]bool, parent.Len()), progress: progress,
	}
	for piece := range parent.Pieces() {
		i := piece.Index
		p.digests[i] = piece.Digest
		switch state := disk.Piece(i); {
		case state == Zeroed:
			p.digests[i] = images.Digest{}
		case state == Written, state == Thinned && !piece.Zero():
			p.only[i] = true
			p.at.Size += uint64(piece.Length)
		}
	}
	if err := p.run(ctx, p.walkTouched); err != nil {
		return nil, p.at, fmt.Errorf("pack what changed: %w", err)
	}
	manifest, err := images.NewManifest(p.size, p.digests)
	return manifest, p.at, err
}

// walkTouched cuts the disk into spans that hold at most groupChunks pieces to be read.
func (p *packer) walkTouched(ctx context.Context, spans chan<- span) error {
	for next := 0; next < len(p.only); {
		s := span{next, min(next+groupChunks, len(p.only))}
		next = s.to
		if !p.anyTouched(s) {
			continue
		}
		select {
		case spans <- s:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (p *packer) anyTouched(s span) bool {
	for _, touched := range p.only[s.from:s.to] {
		if touched {
			return true
		}
	}
	return false
}
