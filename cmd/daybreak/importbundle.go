package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/cmd/daybreak/show"
	"daybreak/images"
	"daybreak/images/bundle"
	"daybreak/images/push"
	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) imageImportBundleCommand() *cobra.Command {
	var name, format string
	var publish bool
	c := &cobra.Command{
		Use: "import-bundle FILE", Short: "Take in a version of an image that another control plane exported",
		Long: `Import-bundle makes the version in a bundle a new version of the image of the same name, or of the one that --name says. The
bundle must be whole and signed by a publisher whom the control plane trusts: its own key, or one that was given to daybreakd with
--trust-publisher-key ('daybreak publisher key' prints it where the bundle comes from). A broken-off import goes on where it was
when it is started again. The version is signed anew, and a draft until it is published.`,
		Example: `  daybreak image import-bundle debian-7.bundle
  daybreak image import-bundle debian-7.bundle --name office --publish`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			file, err := openRegular(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			return a.withConn(func(conn *grpc.ClientConn) error {
				return a.importBundle(c.Context(), conn, file, name, publish, format)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "name of the image here (default: as in the bundle)")
	c.Flags().BoolVar(&publish, "publish", false, "publish the version, so that new desktops run it")
	formatFlag(c, &format, "", formatJSON)
	return c
}

// openRegular opens a file that is one: opening a pipe would wait for a writer.
func openRegular(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (a *app) importBundle(ctx context.Context, conn *grpc.ClientConn, file *os.File, name string, publish bool, format string) error {
	codec, err := images.NewCodec()
	if err != nil {
		return err
	}
	from, err := bundle.NewReader(file, codec)
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	origin := from.Header()
	// The control plane checks it in the end. To hear it before everything was sent is better.
	if err := checkOrigin(ctx, conn, origin); err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	header := &v1.VersionHeader{Image: name, Note: origin.GetNote(), OriginImage: origin.GetImage(), OriginSignatures: origin.GetSignatures()}
	if name == "" {
		header.Image = origin.GetImage()
	}
	if header.Parent, err = parentOf(ctx, conn, header.Image, origin.GetSince()); err != nil {
		return err
	}
	began, bar := time.Now(), newProgress(a.errs)
	defer bar.done()
	var last bundle.Progress
	made, err := push.Bundle(ctx, conn, from, header, func(p bundle.Progress) {
		last = p
		bar.show(fmt.Sprintf("%3d%%  %d of %d chunks read, %s sent", 100*p.Chunks/max(p.Total, 1), p.Chunks, p.Total, show.Bytes(p.Sent)))
	})
	if err != nil {
		return fmt.Errorf("%s: %w", file.Name(), err)
	}
	bar.done()
	return a.sayImported(ctx, conn, importing{header: header, publish: publish, format: format}, made, last.Sent, time.Since(began))
}

// checkOrigin says whether the control plane trusts one of those who signed a bundle.
func checkOrigin(ctx context.Context, conn *grpc.ClientConn, origin *v1.BundleHeader) error {
	info, err := v1.NewAdminServiceClient(conn).Info(ctx, &v1.InfoRequest{})
	if err != nil {
		return err
	}
	var keys []ed25519.PublicKey
	for _, key := range info.GetTrustedPublishers() {
		keys = append(keys, key)
	}
	trusted, err := sign.NewPublishers(keys...)
	if err != nil {
		return fmt.Errorf("read what the server trusts: %w", err)
	}
	if err := trusted.Check(origin.GetImage(), origin.GetDigest(), origin.GetSignatures()); err != nil {
		return fmt.Errorf("%w: if you trust that publisher, give its key ('daybreak publisher key' prints it there) to daybreakd with --trust-publisher-key", err)
	}
	return nil
}

// parentOf finds the version of an image that has the content since which a bundle was made; 0 when there is none.
func parentOf(ctx context.Context, conn *grpc.ClientConn, name, since string) (uint32, error) {
	if since == "" {
		return 0, nil
	}
	object, err := get(ctx, conn, v1.Kind_KIND_IMAGE, name)
	if status.Code(err) == codes.NotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	image, _ := object.(*v1.Image)
	for _, v := range image.GetStatus().GetVersions() {
		if v.GetDigest() == since {
			return v.GetNumber(), nil
		}
	}
	return 0, nil
}
