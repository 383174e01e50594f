package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/cmd/daybreak/show"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) imageVersionsCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "versions NAME", Short: "List the versions of an image, newest first, and who uses them",
		Long: `Versions lists the versions of an image, newest first. NEW DATA is what a version added to the image store. POOLS run it,
move to it, or would go back to it; HOSTS have it lying ready. -o wide shows digests in full, names, and what came of checks.`,
		Example: "  daybreak image versions debian\n  daybreak image versions debian -o wide",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_IMAGE),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				o, err := get(c.Context(), conn, v1.Kind_KIND_IMAGE, args[0])
				if err != nil {
					return err
				}
				image, ok := o.(*v1.Image)
				if !ok {
					return errEmpty
				}
				usage, err := v1.NewImageServiceClient(conn).Usage(c.Context(), &v1.UsageRequest{Image: args[0]})
				if err != nil {
					return err
				}
				if format == formatJSON {
					return a.printVersions(image, usage)
				}
				return show.NewWriter(a.out).Table(show.Versions(image, usage, format == formatWide, time.Now()))
			})
		},
	}
	formatFlag(c, &format, formatTable, formatWide, formatJSON)
	return c
}

// printVersions prints the image's versions as they are stored, and beside them their usage.
func (a *app) printVersions(image *v1.Image, usage *v1.UsageResponse) error {
	joined := map[string]json.RawMessage{}
	for _, part := range []struct {
		message proto.Message
		rename  string
	}{{usage, "usage"}, {image.GetStatus(), ""}} {
		text, err := toJSON(part.message)
		if err != nil {
			return err
		}
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(text, &fields); err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		if part.rename != "" {
			fields = map[string]json.RawMessage{part.rename: fields["versions"]}
		}
		maps.Copy(joined, fields)
	}
	text, err := json.Marshal(joined)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err = fmt.Fprintln(a.out, indented.String())
	return err
}

func (a *app) imageDiffCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "diff NAME OLD NEW", Short: "Say what differs between two versions of an image",
		Long: `Diff says how much of the disk changed from one version to another, how much a host has to fetch that has the older one, and,
when both versions told their packages at their check, which packages changed.`,
		Example: "  daybreak image diff debian 3 4\n  daybreak image diff debian 3 4 -o json",
		Args:    exactly("NAME", "OLD", "NEW"), ValidArgsFunction: a.completeVersions,
		RunE: func(c *cobra.Command, args []string) error {
			request := &v1.DiffRequest{Image: args[0]}
			var err error
			if request.From, err = versionNumber(args[1]); err != nil {
				return err
			}
			if request.To, err = versionNumber(args[2]); err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				diff, err := v1.NewImageServiceClient(conn).Diff(c.Context(), request)
				if err != nil {
					return err
				}
				if format == formatJSON {
					return printJSON(a.out, diff)
				}
				fmt.Fprintf(a.out, "%s of the disk differ, in %d chunks; %s compressed are new in version %d\n",
					show.Bytes(diff.GetChangedBytes()), diff.GetChangedChunks(), show.Bytes(diff.GetNewBytes()), request.GetTo())
				switch {
				case !diff.GetPackagesKnown():
					fmt.Fprintf(a.out, "their packages are not compared: at least one of them was never checked, or its guest does not say; see 'daybreak image check %s VERSION'\n", args[0])
					return nil
				case len(diff.GetPackages()) == 0:
					fmt.Fprintln(a.out, "both have the same packages")
					return nil
				}
				return show.NewWriter(a.out).Table(show.Packages(diff))
			})
		},
	}
	formatFlag(c, &format, formatTable, formatJSON)
	return c
}

func (a *app) imageRetireCommand() *cobra.Command {
	return a.retireCommand(false, &cobra.Command{
		Use: "retire NAME VERSION", Short: "End the use of a version that nobody runs any more",
		Long: `Retire refuses while a pool runs the version, moves to it or would go back to it, and while a desktop runs it, and names them.
Retiring the current version makes the newest ready one that is older current again; without one the image has no current
version until one is published. A retired version cannot be published again. A week later its content is
removed from the image store, as far as no other version needs it.`,
		Example: "  daybreak image retire debian 3",
	})
}

func (a *app) imageWithdrawCommand() *cobra.Command {
	return a.retireCommand(true, &cobra.Command{
		Use: "withdraw NAME VERSION", Short: "Take back a version that was found bad",
		Long: `Withdraw asks nobody: desktops that run the version go on, and nothing is started with it any more. If it was the current version,
the newest ready one that is older becomes current again, and pools that follow the image move to it; without one the image
has no current version until one is published. It cannot be undone.`,
		Example: `  daybreak image withdraw debian 4 --reason "printing fails"`,
	})
}

// retireCommand makes a command of one of the two ways to end a version.
func (a *app) retireCommand(withdraw bool, c *cobra.Command) *cobra.Command {
	c.Args, c.ValidArgsFunction = exactly("NAME", "VERSION"), a.completeVersions
	var reason string
	c.Flags().StringVar(&reason, "reason", "", "why, for whoever reads it later")
	c.RunE = func(c *cobra.Command, args []string) error {
		number, err := versionNumber(args[1])
		if err != nil {
			return err
		}
		did := "retired"
		if withdraw {
			did = "withdrawn"
		}
		return a.withConn(func(conn *grpc.ClientConn) error {
			_, err := v1.NewImageServiceClient(conn).Retire(c.Context(), &v1.RetireRequest{Image: args[0], Version: number, Withdraw: withdraw, Reason: reason})
			return a.say(fmt.Sprintf("image/%s version %d is %s", args[0], number, did), err)
		})
	}
	return c
}

func (a *app) imageCollectCommand() *cobra.Command {
	var format string
	var grace time.Duration
	request := &v1.CollectGarbageRequest{}
	c := &cobra.Command{
		Use: "gc", Short: "Remove from the image store what nobody needs any more",
		Long: `The control plane does this by itself once a day. It keeps the content of every version that is ready or current, that a pool
runs, moves to or would go back to, that a desktop runs or that a host shall have. Drafts, retired and withdrawn versions go
when the grace has passed since they became so, and so does what is left of broken-off imports.`,
		Example: "  daybreak image gc --dry-run\n  daybreak image gc --grace 24h",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if grace < time.Hour {
				return wrongUsage("--grace %v: want at least 1h, since imports that go on need their time", grace)
			}
			request.Grace = durationpb.New(grace)
			return a.withConn(func(conn *grpc.ClientConn) error {
				did, err := v1.NewImageServiceClient(conn).CollectGarbage(c.Context(), request)
				if err != nil {
					return err
				}
				if format == formatJSON {
					return printJSON(a.out, did)
				}
				verb := "removed"
				if request.GetDryRun() {
					verb = "would be removed"
				}
				for _, version := range did.GetVersions() {
					fmt.Fprintf(a.out, "version %s: nobody needs it\n", version)
				}
				fmt.Fprintf(a.out, "%s in %d chunks %s, %s stay\n", show.Bytes(did.GetBytes()), did.GetChunks(), verb, show.Bytes(did.GetKeptBytes()))
				return nil
			})
		},
	}
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "only say what would be removed")
	lengthFlag(c.Flags(), &grace, "grace", 7*24*time.Hour, "keep what was written or given up later than so long ago")
	formatFlag(c, &format, "", formatJSON)
	return c
}
