package push

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/bundle"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// askAtOnce is how many chunks are asked about in one call, askedBytes how much of them is sent in one.
	askAtOnce  = 8192
	sendAtOnce = 16 << 20
)

// ErrLeftOut: a bundle leaves out chunks that the control plane does not have.
var ErrLeftOut = errors.New("the control plane lacks what the bundle leaves out")

// Bundle sends what the control plane lacks of a bundle and makes it a version of the image that header names. Nothing but
// chunks that no version names is there before the whole bundle was read and found right. When the line breaks, calling it
// again with the file from its beginning goes on where it was. Errors wrap bundle.ErrInvalid or ErrLeftOut; those of the
// control plane come as gRPC statuses.
func Bundle(ctx context.Context, conn grpc.ClientConnInterface, from *bundle.Reader, header *v1.VersionHeader,
	progress func(bundle.Progress)) (*v1.CreateVersionResponse, error) {
	client := v1.NewImageServiceClient(conn)
	to := &sink{client: client}
	left, err := missing(ctx, to, from.LeftOut())
	if err != nil {
		return nil, err
	}
	if len(left) > 0 {
		return nil, fmt.Errorf("%d chunks are missing that version %.12s… has, since which the bundle was made: import that version first, or "+
			"make a whole bundle (without --since): %w", len(left), from.Header().GetSince(), ErrLeftOut)
	}
	wanted, err := missing(ctx, to, from.Digests())
	if err != nil {
		return nil, err
	}
	if err := sendBundle(ctx, to, from, wanted, progress); err != nil {
		return nil, err
	}
	return create(ctx, client, header, from.Manifest())
}

// missing returns those of the digests that the control plane lacks.
func missing(ctx context.Context, to *sink, digests []images.Digest) (map[images.Digest]bool, error) {
	lacking := map[images.Digest]bool{}
	for len(digests) > 0 {
		asked := digests[:min(len(digests), askAtOnce)]
		digests = digests[len(asked):]
		some, err := to.Missing(ctx, asked)
		if err != nil {
			return nil, fmt.Errorf("ask for missing chunks: %w", err)
		}
		for _, digest := range some {
			lacking[digest] = true
		}
	}
	return lacking, nil
}

// sendBundle reads the whole bundle, whatever of it is wanted: only its end says that it is whole.
func sendBundle(ctx context.Context, to *sink, from *bundle.Reader, wanted map[images.Digest]bool, progress func(bundle.Progress)) error {
	at := bundle.Progress{Total: len(from.Digests())}
	var group []images.Chunk
	size := 0
	for {
		chunk, err := from.Next()
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return err
		}
		if !last {
			at.Chunks++
			at.Bytes += uint64(len(chunk.Sealed))
		}
		if wanted[chunk.Digest] {
			group = append(group, chunk)
			size += len(chunk.Sealed)
			at.Sent += uint64(len(chunk.Sealed))
		}
		if size >= sendAtOnce || last && len(group) > 0 {
			if _, err := to.Put(ctx, group); err != nil {
				return fmt.Errorf("send chunks: %w", err)
			}
			group, size = nil, 0
		}
		if progress != nil {
			progress(at)
		}
		if last || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
