package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// claimPace is how often a claim that found no ready desktop is tried again.
const claimPace = 2 * time.Second

// say prints what was done, unless it was not.
func (a *app) say(said string, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.out, said)
	return err
}

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "explain NAME",
		Short:             "Say why a desktop or a pool is as it is",
		Example:           "  daybreak explain sales-3    why is it not ready, why is it there\n  daybreak explain sales",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL, v1.Kind_KIND_DESKTOP),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewDesktopServiceClient(conn).Explain(c.Context(), &v1.ExplainRequest{Name: args[0]})
				if err != nil {
					return err
				}
				fmt.Fprintln(a.out, show.Clean(answer.GetSummary()))
				for _, detail := range answer.GetDetails() {
					fmt.Fprintln(a.out, "  - "+show.Clean(detail))
				}
				return nil
			})
		},
	}
}

func (a *app) claimCommand() *cobra.Command {
	var user, format string
	var noWait bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "claim POOL --user USER",
		Short: "Give a ready desktop of a pool to a user",
		Long: `Claim binds a ready desktop to the user; who holds one already gets the same again. When none is ready it waits for one
and shows how far the pool is.`,
		Example: `  daybreak claim sales --user hanako
  daybreak claim sales --user 花子 --no-wait -o json`,
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: who gets the desktop?")
			}
			if noWait {
				timeout = 0
			}
			request := &v1.ClaimRequest{Pool: args[0], User: user, RequestId: uuid.NewString()}
			return a.withConn(func(conn *grpc.ClientConn) error {
				desktop, err := a.claim(c.Context(), conn, request, timeout)
				if err != nil {
					return err
				}
				if format != "" {
					return a.printObjects(v1.Kind_KIND_DESKTOP, []store.Object{desktop}, format, true)
				}
				fmt.Fprintf(a.out, "%s is %s's now: %s on host %s\n", desktop.GetMeta().GetName(), show.Clean(user),
					stateName(store.State(desktop)), desktop.GetIncarnation().GetHost())
				return nil
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "who gets the desktop")
	c.Flags().BoolVar(&noWait, "no-wait", false, "fail at once when no desktop is ready")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for a ready desktop")
	formatFlag(c, &format, "", formatTable, formatWide, formatJSON, formatYAML)
	return c
}

// claim tries until a desktop is ready or the time is over. All tries have one request id: whatever the line does to the
// answers, they make one claim.
func (a *app) claim(ctx context.Context, conn *grpc.ClientConn, request *v1.ClaimRequest, timeout time.Duration) (*v1.Desktop, error) {
	progress := newProgress(a.errs)
	defer progress.done()
	for until := time.Now().Add(timeout); ; {
		answer, err := v1.NewClaimServiceClient(conn).Claim(ctx, request)
		if err == nil {
			return answer.GetDesktop(), nil
		}
		if status.Code(err) != codes.ResourceExhausted || time.Now().Add(claimPace).After(until) {
			return nil, err
		}
		progress.show("waiting: " + status.Convert(err).Message())
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(claimPace):
		}
	}
}

func stateName(state v1.DesktopState) string {
	if state == v1.DesktopState_DESKTOP_STATE_READY {
		return "ready"
	}
	return "not ready any more"
}

func (a *app) releaseCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:               "release POOL --user USER",
		Short:             "End a user's claim",
		Long:              "Release takes the desktop back. What the user wrote on it, except on a data disk, is gone before anybody else gets it.",
		Example:           "  daybreak release sales --user hanako",
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: whose claim ends?")
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewClaimServiceClient(conn).Release(c.Context(), &v1.ReleaseRequest{Pool: args[0], User: user})
				return a.say(fmt.Sprintf("%s released", answer.GetDesktop()), err)
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "whose claim ends")
	return c
}

func (a *app) deferCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use:   "defer POOL --user USER",
		Short: "Put off the restart that a user was told of",
		Long: `Defer puts off the restart for an update that was announced to a user, as often and by as much as the pool's policy
for desktops in use allows.`,
		Example:           "  daybreak defer sales --user hanako",
		Args:              exactly("POOL"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if user == "" {
				return wrongUsage("--user is needed: whose restart is put off?")
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewClaimServiceClient(conn).Defer(c.Context(), &v1.DeferRequest{Pool: args[0], User: user})
				if err != nil {
					return err
				}
				desktop, left := answer.GetDesktop(), "can be put off no more"
				switch n := answer.GetLeft(); {
				case n == 1:
					left = "can be put off once more"
				case n > 1:
					left = fmt.Sprintf("can be put off %d times more", n)
				}
				at := desktop.GetClaim().GetRestartAt().AsTime().Local().Format("2006-01-02 15:04 MST")
				return a.say(fmt.Sprintf("%s will be restarted at %s; that %s", desktop.GetMeta().GetName(), at, left), nil)
			})
		},
	}
	c.Flags().StringVar(&user, "user", "", "whose restart is put off")
	return c
}

func (a *app) screenshotCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:               "screenshot DESKTOP",
		Short:             "Save a picture of a desktop's screen",
		Example:           "  daybreak screenshot sales-3 -O sales-3.png\n  daybreak screenshot sales-3 -O - | display",
		Args:              exactly("DESKTOP"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_DESKTOP),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				answer, err := v1.NewDesktopServiceClient(conn).Screenshot(c.Context(), &v1.ScreenshotRequest{Desktop: args[0]})
				if err != nil {
					return err
				}
				if !bytes.HasPrefix(answer.GetPng(), []byte("\x89PNG\r\n\x1a\n")) {
					return fmt.Errorf("what came from the host of %s is no PNG picture", args[0])
				}
				return a.save(answer.GetPng(), file, args[0]+".png")
			})
		},
	}
	c.Flags().StringVarP(&file, "output-file", "O", "", "file to write, - for standard output (default DESKTOP.png)")
	_ = c.MarkFlagFilename("output-file", "png")
	return c
}

func (a *app) save(png []byte, file, usual string) error {
	switch file {
	case "-":
		_, err := a.out.Write(png)
		return err
	case "":
		file = usual
	}
	// A screen may show personal data.
	if err := os.WriteFile(file, png, 0o600); err != nil {
		return fmt.Errorf("save picture: %w", err)
	}
	fmt.Fprintf(a.out, "%s: %s\n", file, show.Bytes(uint64(len(png))))
	return nil
}

func (a *app) hostCommand() *cobra.Command {
	drain := func(use, short, said string, drain bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " NAME", Short: short, Example: "  daybreak host " + use + " kvm1",
			Args: exactly("NAME"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_HOST),
			RunE: func(c *cobra.Command, args []string) error {
				return a.withConn(func(conn *grpc.ClientConn) error {
					answer, err := v1.NewAdminServiceClient(conn).DrainHost(c.Context(), &v1.DrainHostRequest{Host: args[0], Drain: drain})
					return a.say(fmt.Sprintf("host/%s %s; %d desktops are on it", args[0], said, answer.GetDesktops()), err)
				})
			},
		}
	}
	return group("host", "Keep desktops away from a host, or let them come again",
		drain("drain", "Let no new desktops come to a host; those that are there stay", "takes no new desktops", true),
		drain("undrain", "Let desktops come to a host again", "takes desktops again", false),
	)
}
