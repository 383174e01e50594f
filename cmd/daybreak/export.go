package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/images"
	"daybreak/images/bundle"
	"daybreak/images/push"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) imageExportCommand() *cobra.Command {
	var since uint32
	c := &cobra.Command{
		Use: "export NAME [VERSION] FILE", Short: "Write a version of an image, signed, to a file for another control plane",
		Long: `Export writes a bundle: one file with all that a version is made of and the signature of this control plane. Another control
plane that trusts this one takes it with 'daybreak image import-bundle'. Without VERSION it is the current one. With --since the
bundle holds only what that older version has not: good for a control plane that has the older one.`,
		Example: `  daybreak image export debian debian.bundle
  daybreak image export debian 7 --since 6 debian-7.bundle`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 && len(args) != 3 {
				return wrongUsage("want NAME [VERSION] FILE, got %s", several(len(args), "argument"))
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return a.names(c.Context(), v1.Kind_KIND_IMAGE), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(c *cobra.Command, args []string) error {
			number := uint64(0)
			if len(args) == 3 {
				var err error
				if number, err = strconv.ParseUint(args[1], 10, 32); err != nil || number == 0 {
					return wrongUsage("VERSION is a number from 1 on, found %q", args[1])
				}
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				return a.exportImage(c.Context(), conn, args[0], uint32(number), since, args[len(args)-1])
			})
		},
	}
	c.Flags().Uint32Var(&since, "since", 0, "number of a version that the other side has")
	return c
}

func (a *app) exportImage(ctx context.Context, conn *grpc.ClientConn, name string, number, since uint32, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already: name a new file: %w", path, errors.Join(err, fs.ErrExist))
	}
	object, err := get(ctx, conn, v1.Kind_KIND_IMAGE, name)
	if err != nil {
		return err
	}
	image, ok := object.(*v1.Image)
	if !ok {
		return errEmpty
	}
	version, err := exported(image, number)
	if err != nil {
		return err
	}
	manifest, err := push.Manifest(ctx, conn, version.GetDigest())
	if err != nil {
		return err
	}
	older, err := olderManifest(ctx, conn, image, since)
	if err != nil {
		return err
	}
	codec, err := images.NewCodec()
	if err != nil {
		return err
	}
	header := &v1.BundleHeader{
		Image: name, Number: version.GetNumber(), Digest: version.GetDigest(), SizeBytes: version.GetSizeBytes(), Note: version.GetNote(),
		Created: version.GetCreated(), By: version.GetBy(), Signatures: version.GetSignatures(),
	}
	began, bar := time.Now(), newProgress(a.errs)
	defer bar.done()
	var last bundle.Progress
	err = writeNew(path, func(file *bufio.Writer) error {
		return bundle.Write(ctx, file, codec, header, manifest, older, push.From(conn), func(p bundle.Progress) {
			last = p
			bar.show(fmt.Sprintf("%3d%%  %d of %d chunks, %s", 100*p.Chunks/max(p.Total, 1), p.Chunks, p.Total, show.Bytes(p.Bytes)))
		})
	})
	if err != nil {
		return err
	}
	bar.done()
	return a.say(fmt.Sprintf("%s holds image/%s version %d: %d chunks, %s, in %s", path, name, version.GetNumber(), last.Chunks,
		show.Bytes(last.Bytes), show.Span(time.Since(began).Truncate(time.Second))), nil)
}

// exported finds the version that is to go out: the current one for 0.
func exported(image *v1.Image, number uint32) (*v1.ImageVersion, error) {
	name := image.GetMeta().GetName()
	if number == 0 {
		number = image.GetStatus().GetCurrent()
	}
	if number == 0 {
		return nil, fmt.Errorf("nothing is published of image %s: name the version", name)
	}
	version := store.Version(image, number)
	switch {
	case version == nil:
		return nil, fmt.Errorf("image %s has no version %d; see 'daybreak image versions %s'", name, number, name)
	case version.GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN:
		return nil, fmt.Errorf("version %d of image %s was withdrawn: it was found bad, and is not given to others", number, name)
	case version.GetCollected():
		return nil, fmt.Errorf("the content of version %d of image %s is gone: it was given up and collected", number, name)
	case len(version.GetSignatures()) == 0:
		return nil, fmt.Errorf("nobody signed version %d of image %s: import the same disk again, and it is signed", number, name)
	}
	return version, nil
}

// olderManifest gets the manifest of the version that the other side has; nil when there is none.
func olderManifest(ctx context.Context, conn *grpc.ClientConn, image *v1.Image, since uint32) (*images.Manifest, error) {
	if since == 0 {
		return nil, nil
	}
	older := store.Version(image, since)
	if older == nil {
		return nil, fmt.Errorf("--since: image %s has no version %d", image.GetMeta().GetName(), since)
	}
	return push.Manifest(ctx, conn, older.GetDigest())
}

// writeNew writes a file that is there whole or not at all, under a name that is free.
func writeNew(path string, write func(*bufio.Writer) error) (err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	buffered := bufio.NewWriterSize(file, 1<<20)
	if err = write(buffered); err == nil {
		err = errors.Join(buffered.Flush(), file.Chmod(0o644), file.Sync())
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err = unix.Renameat2(unix.AT_FDCWD, file.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE); errors.Is(err, unix.EINVAL) {
		err = os.Rename(file.Name(), path) // a file system that does not know how; the name was free when we began
	}
	if err != nil {
		return fmt.Errorf("name the bundle %s: %w", path, err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil // it is there; only its name may not outlive a power loss
	}
	_ = folder.Sync()
	return folder.Close()
}
