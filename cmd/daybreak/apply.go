package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/cmd/daybreak/objectfile"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// errSome: some objects could not be handled; which and why was printed.
var errSome = errors.New("not everything was done")

func (a *app) applyCommand() *cobra.Command {
	var files []string
	var dryRun bool
	c := &cobra.Command{
		Use:   "apply -f FILE…",
		Short: "Create objects, or change them to be as files say",
		Long: `Apply makes the objects in the files be as written there: new ones are created, those that are there are changed.

A file is YAML or JSON with one object a document; zones, calendars, images, hosts and pools can be applied, zones first,
in whatever order they stand. All files are read and checked before anything is sent.`,
		Example: `  daybreak apply -f pool.yaml
  daybreak apply -f zones.yaml -f pools/          a file and all .yaml, .yml and .json files of a directory
  daybreak get pool sales -o yaml | sed 's/desktops: 6/desktops: 8/' | daybreak apply -f -
  daybreak apply -f pool.yaml --dry-run           check everything, change nothing

  # pool.yaml
  kind: pool
  meta: {name: sales}
  spec: {image: debian, zone: internet, desktops: 6, shape: {vcpus: 2, memoryMib: 2048}}`,
		Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return wrongUsage("-f FILE is needed: what shall be applied?")
			}
			documents, err := a.read(files)
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				return a.forEach(documents, func(d *objectfile.Document) (string, error) {
					return applyOne(c.Context(), conn, d, dryRun)
				})
			})
		},
	}
	fileFlag(c, &files)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "let the control plane check everything and change nothing")
	return c
}

// forEach handles document after document and prints what came of each. It goes on after a refusal, since the others may
// well be right, and stops when the control plane cannot be reached.
func (a *app) forEach(documents []*objectfile.Document, do func(*objectfile.Document) (string, error)) error {
	failed := false
	for _, d := range documents {
		said, err := do(d)
		if code := status.Code(err); err != nil && (code == codes.Unavailable || code == codes.Unauthenticated || code == codes.Canceled) {
			return err
		}
		if err != nil {
			failed = true
			for line := range strings.Lines(refusal(d, err).Error()) {
				fmt.Fprintf(a.errs, "error: %s\n", strings.TrimSuffix(line, "\n"))
			}
			continue
		}
		fmt.Fprintln(a.out, said)
	}
	if failed {
		return errSome
	}
	return nil
}

func applyOne(ctx context.Context, conn grpc.ClientConnInterface, d *objectfile.Document, dryRun bool) (string, error) {
	response, err := v1.NewObjectServiceClient(conn).Apply(ctx, &v1.ApplyRequest{Object: wrap(d.Object), DryRun: dryRun})
	if err != nil {
		return "", err
	}
	name := word(d.Kind()) + "/" + d.Object.GetMeta().GetName()
	done := map[v1.Change]string{
		v1.Change_CHANGE_CREATED: "created", v1.Change_CHANGE_CONFIGURED: "changed", v1.Change_CHANGE_UNCHANGED: "unchanged",
	}[response.GetChange()]
	switch {
	case done == "":
		return "", fmt.Errorf("the server answers with a change that this program does not know (%v)", response.GetChange())
	case dryRun && response.GetChange() != v1.Change_CHANGE_UNCHANGED:
		return name + " would be " + done + " (dry run)", nil
	}
	return name + " " + done, nil
}

// refusal tells what the server said of an object with the place in the file it came from.
func refusal(d *objectfile.Document, err error) error {
	var mistakes objectfile.Mistakes
	for _, detail := range status.Convert(err).Details() {
		bad, ok := detail.(*errdetails.BadRequest)
		if !ok {
			continue
		}
		for _, v := range bad.GetFieldViolations() {
			mistakes = append(mistakes, objectfile.Mistake{Place: d.At(v.GetField()), Field: v.GetField(), Text: lines(v.GetDescription())})
		}
	}
	if len(mistakes) > 0 {
		return mistakes
	}
	said := sentence(err)
	// Some refusals name their field in words only: "spec.version: there is no version 7".
	field, _, _ := strings.Cut(said, ": ")
	return fmt.Errorf("%s: %s %q: %s", d.At(field), word(d.Kind()), store.RefOf(d.Object).Name, said)
}
