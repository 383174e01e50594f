package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/images"
	"daybreak/images/convert"
	"daybreak/images/inspect"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) imageInspectCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "inspect FILE", Short: "Say what a disk file is, and whether it would be taken",
		Long: `Inspect reads the headers and tables of a file, and runs nothing. Exit status: 0 it would be taken, 1 it would be refused;
then it says why, each reason with a code that does not change.`,
		Example: "  daybreak image inspect golden.qcow2\n  daybreak image inspect golden.vmdk -o json",
		Args:    exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			file, report, err := openDisk(args[0])
			if err != nil {
				return err
			}
			defer file.Close()
			return a.sayDisk(file.Name(), report, format)
		},
	}
	formatFlag(c, &format, "", formatJSON)
	return c
}

// openDisk opens and inspects a file. Not a device, and not a pipe, on which opening would wait for a writer.
func openDisk(path string) (*os.File, inspect.Report, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, inspect.Report{}, err
	}
	report, err := inspectFile(file)
	if err != nil {
		_ = file.Close()
		return nil, report, err
	}
	return file, report, nil
}

func inspectFile(file *os.File) (inspect.Report, error) {
	info, err := file.Stat()
	if err != nil {
		return inspect.Report{}, err
	}
	if !info.Mode().IsRegular() {
		return inspect.Report{}, fmt.Errorf("%s is not a regular file: copy the disk into a file first", file.Name())
	}
	report, err := inspect.Inspect(file, info.Size())
	if err != nil {
		return report, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	return report, nil
}

// sayDisk prints what a file is, and returns an error if it would be refused.
func (a *app) sayDisk(name string, report inspect.Report, format string) error {
	if format == formatJSON {
		text, err := json.Marshal(struct {
			File  string `json:"file"`
			Taken bool   `json:"taken"`
			inspect.Report
		}{name, report.Taken(), report})
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		if err := printIndented(a.out, text); err != nil {
			return err
		}
	}
	var refused []error
	for _, p := range report.Problems {
		refused = append(refused, fmt.Errorf("%s: %s (%s)", name, p.Text, p.Code))
	}
	if len(refused) > 0 || format == formatJSON {
		return errors.Join(refused...)
	}
	what := string(report.Format)
	if report.Variant != "" {
		what += " (" + report.Variant + ")"
	}
	fmt.Fprintf(a.out, "%s would be taken: %s, a disk of %s with at most %s of data\n",
		show.Clean(name), what, show.Bytes(report.VirtualSize), show.Bytes(report.DataBytes))
	return nil
}

// convertDisk makes a raw disk of the file, after it has made sure that the control plane would take it.
func (a *app) convertDisk(ctx context.Context, conn *grpc.ClientConn, file *os.File, wanted importing) (*os.File, error) {
	// Any chunk will do: the answer is that this person may import.
	ask := images.Sum(nil)
	if _, err := v1.NewImageServiceClient(conn).MissingChunks(ctx, &v1.MissingChunksRequest{Digests: ask[:]}); err != nil {
		return nil, err
	}
	bar := newProgress(a.errs)
	defer bar.done()
	config := wanted.convert
	config.Progress = func(percent float64) { bar.show(fmt.Sprintf("%3.0f%%  converted", percent)) }
	config.Warn = func(text string) { fmt.Fprintln(a.errs, "warning: "+text) }
	return convert.ToRaw(ctx, file, config)
}
