package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) imageSealCommand() *cobra.Command {
	return &cobra.Command{
		Use: "seal NAME", Short: "End the interactive part of a patch: seal the VM and make the version",
		Long: "Seal tells the interactive patch of the image that its administrator is done. The command that began the patch says how it goes on.",
		Args: exactly("NAME"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_IMAGE),
		Example: "  daybreak image seal debian",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				_, err := v1.NewImageServiceClient(conn).Seal(c.Context(), &v1.SealRequest{Image: args[0]})
				return a.say(fmt.Sprintf("image/%s is being sealed", args[0]), err)
			})
		},
	}
}

func (a *app) imageLogCommand() *cobra.Command {
	return &cobra.Command{
		Use: "log NAME VERSION", Short: "Show what the patch that made a version said",
		Long:    "Log prints the output that was kept of the patch, at most its last 256 KiB.",
		Example: "  daybreak image log debian 5",
		Args:    exactly("NAME", "VERSION"), ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			number, err := versionNumber(args[1])
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error { return a.imageLog(c.Context(), conn, args[0], number) })
		},
	}
}

func (a *app) imageLog(ctx context.Context, conn *grpc.ClientConn, name string, number uint32) error {
	o, err := get(ctx, conn, v1.Kind_KIND_IMAGE, name)
	if err != nil {
		return err
	}
	image, ok := o.(*v1.Image)
	if !ok {
		return errEmpty
	}
	version := store.Version(image, number)
	switch {
	case version == nil:
		return fmt.Errorf("image %s has no version %d: see 'daybreak image versions %s'", name, number, name)
	case version.GetLog() == "":
		return fmt.Errorf("version %d of image %s has no log: it was imported, or the script of its patch printed nothing", number, name)
	}
	text, err := readChunk(ctx, conn, version.GetLog())
	if err != nil {
		return err
	}
	out := a.out
	if isTerminal(out) {
		out = &plainWriter{out: out}
	}
	_, err = out.Write(text)
	return err
}

// readChunk reads one chunk out of the control plane's image store.
func readChunk(ctx context.Context, conn *grpc.ClientConn, digest string) ([]byte, error) {
	d, err := images.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := v1.NewImageServiceClient(conn).GetChunks(ctx, &v1.GetChunksRequest{Digests: d[:]})
	if err != nil {
		return nil, err
	}
	response, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, errEmpty
	}
	if err != nil {
		return nil, err
	}
	return codec.Open(nil, images.Chunk{Digest: d, Sealed: response.GetChunk().GetZstd()})
}
