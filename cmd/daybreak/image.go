package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/images"
	"daybreak/images/convert"
	"daybreak/images/inspect"
	"daybreak/images/pack"
	"daybreak/images/push"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) imageCommand() *cobra.Command {
	return group("image", "Bring golden images in, patch them, publish versions and take them back",
		a.imageInspectCommand(), a.imageImportCommand(), a.imageVersionsCommand(), a.imagePublishCommand(), a.imageRollbackCommand(),
		a.imageDiffCommand(), a.imageRetireCommand(), a.imageWithdrawCommand(), a.imageCollectCommand(),
		a.imageExportCommand(), a.imageImportBundleCommand(),
		a.imagePatchCommand(), a.imageSealCommand(), a.imageCheckCommand(), a.imageLogCommand())
}

func (a *app) imageImportCommand() *cobra.Command {
	wanted := importing{header: &v1.VersionHeader{}}
	c := &cobra.Command{
		Use:   "import NAME FILE",
		Short: "Make a disk a new version of an image",
		Long: `Import takes raw, qcow2, VMDK (monolithicSparse, streamOptimized) and VHDX disks; 'daybreak image inspect' says whether it
takes a file. It cuts the disk into chunks and sends those that the control plane lacks. A broken-off import goes on where it
was when it is started again. The version is a draft until it is published.

What is not raw is converted on this machine first, with qemu-img, which runs without rights and without network. The raw disk
is sparse, lies in --tmp-dir, and is gone afterwards.`,
		Example: `  daybreak image import debian golden.raw --note "November patches"
  daybreak image import debian golden.qcow2 --publish`,
		Args: exactly("NAME", "FILE"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.names(c.Context(), v1.Kind_KIND_IMAGE), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error {
			wanted.header.Image = args[0]
			file, report, err := openDisk(args[1])
			if err != nil {
				return err
			}
			defer file.Close()
			if err := report.Err(); err != nil {
				return fmt.Errorf("%s: %w", file.Name(), err)
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				if report.Format == inspect.Raw {
					return a.importImage(c.Context(), conn, file, wanted)
				}
				raw, err := a.convertDisk(c.Context(), conn, file, wanted)
				if err != nil {
					return err
				}
				defer raw.Close()
				return a.importImage(c.Context(), conn, raw, wanted)
			})
		},
	}
	c.Flags().StringVar(&wanted.header.Note, "note", "", "what is new in this version")
	c.Flags().Uint32Var(&wanted.header.Parent, "parent", 0, "number of the version it was made from")
	c.Flags().BoolVar(&wanted.publish, "publish", false, "publish the version, so that new desktops run it")
	c.Flags().StringVar(&wanted.convert.Dir, "tmp-dir", "", "folder for the raw disk while another format is imported (default $TMPDIR, else /tmp)")
	c.Flags().StringVar(&wanted.convert.User, "convert-user", "", "user as whom root converts other formats (default nobody)")
	formatFlag(c, &wanted.format, "", formatJSON)
	return c
}

// importing is how an import is wanted.
type importing struct {
	header  *v1.VersionHeader
	convert convert.Config
	publish bool
	format  string
}

func (a *app) importImage(ctx context.Context, conn *grpc.ClientConn, file *os.File, wanted importing) error {
	header := wanted.header
	codec, err := images.NewCodec()
	if err != nil {
		return err
	}
	began, bar := time.Now(), newProgress(a.errs)
	defer bar.done()
	var last pack.Progress
	made, err := push.Disk(ctx, conn, codec, file, header, func(p pack.Progress) {
		last = p
		bar.show(fmt.Sprintf("%3d%%  %s of %s read, %s sent", 100*p.Scanned/p.Size, show.Bytes(p.Scanned), show.Bytes(p.Size), show.Bytes(p.Sent)))
	})
	if err != nil {
		return err
	}
	bar.done()
	return a.sayImported(ctx, conn, wanted, made, last.Sent, time.Since(began))
}

// sayImported publishes what was taken in, if that is wanted, and says what became of it.
func (a *app) sayImported(ctx context.Context, conn *grpc.ClientConn, wanted importing, made *v1.CreateVersionResponse, sent uint64, took time.Duration) error {
	header, v := wanted.header, made.GetVersion()
	if wanted.publish {
		published, err := v1.NewImageServiceClient(conn).Publish(ctx, &v1.PublishRequest{Image: header.GetImage(), Version: v.GetNumber()})
		if err != nil {
			return err
		}
		v = published.GetVersion()
	}
	if wanted.format == formatJSON {
		return printJSON(a.out, v)
	}
	did := fmt.Sprintf("is new: %s, %s sent, in %s", show.Bytes(v.GetSizeBytes()), show.Bytes(sent), show.Span(took.Truncate(time.Second)))
	if made.GetExisted() {
		did = "has this content already"
	}
	if wanted.publish {
		did += "; published"
	} else if v.GetState() == v1.VersionState_VERSION_STATE_DRAFT {
		did += fmt.Sprintf("; publish it with 'daybreak image publish %s %d'", header.GetImage(), v.GetNumber())
	}
	fmt.Fprintf(a.out, "image/%s version %d %s\n", header.GetImage(), v.GetNumber(), did)
	return nil
}

func (a *app) imagePublishCommand() *cobra.Command {
	return &cobra.Command{
		Use: "publish NAME VERSION", Short: "Make a version the image's current one, to which its pools move",
		Long: `Publish makes a draft ready and the image's current version: the pools that follow the image begin to move to it. Nothing boots
a draft before that but 'daybreak image check'. An older version that is ready becomes the current one again.`,
		Example: "  daybreak image publish debian 4",
		Args:    exactly("NAME", "VERSION"), ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			number, err := versionNumber(args[1])
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				_, err := v1.NewImageServiceClient(conn).Publish(c.Context(), &v1.PublishRequest{Image: args[0], Version: number})
				return a.say(fmt.Sprintf("image/%s version %d is published and current", args[0], number), err)
			})
		},
	}
}
