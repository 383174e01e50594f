package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	v1 "daybreak/proto/daybreak/v1"
)

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
		Short:             "Say why a pool, a desktop or a host is as it is",
		Example:           "  daybreak explain sales-3    why is it not ready, why is it there\n  daybreak explain sales",
		Args:              exactly("NAME"),
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL, v1.Kind_KIND_DESKTOP, v1.Kind_KIND_HOST),
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
					are := "are"
					if answer.GetDesktops() == 1 {
						are = "is"
					}
					text := fmt.Sprintf("host/%s %s; %s %s on it", args[0], said, several(int(answer.GetDesktops()), "desktop"), are)
					if staying := answer.GetStaying(); len(staying) > 0 {
						text += ", of which these do not leave by themselves:"
						for _, line := range staying {
							text += "\n  " + show.Clean(line)
						}
					}
					return a.say(text, err)
				})
			},
		}
	}
	return group("host", "Keep desktops away from a host, or let them come again",
		drain("drain", "Let no new desktops come to a host; those that are there stay", "takes no new desktops", true),
		drain("undrain", "Let desktops come to a host again", "takes desktops again", false),
	)
}
