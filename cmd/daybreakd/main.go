// Command daybreakd is the control plane: it keeps the store, serves people and agents, and, when it leads, decides what
// every host runs.
//
// Here: flags, the configuration file and the environment; the wiring of the rooms; the first administrator's
// configuration; the order of start and end. Not here: logic.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // a machine without zone files knows the zones too

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
)

// version is set by the linker in releases.
var version = ""

func main() {
	if err := command().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "daybreakd:", err)
		os.Exit(exitStatus(err))
	}
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// exitStatus: 1 failed, 2 wrong usage.
func exitStatus(err error) int {
	if errors.As(err, &usageError{}) {
		return 2
	}
	return 1
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "daybreakd",
		Short: "The control plane of Daybreak",
		Long: `daybreakd is the control plane of Daybreak: it keeps what is wanted, tells the agents on the KVM hosts what to run, and
serves the CLI. Every flag can also stand in the file that --config names (flag names are its keys) or in the environment
(DAYBREAKD_DATA_DIR for --data-dir). A flag wins over the environment, the environment over the file.`,
		Args:          noArguments,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			return run(ctx, options, tellSystemd)
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetContext(context.Background())
	addFlags(root.Flags())
	root.AddCommand(epochCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArguments,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), versionText()) },
	})
	return root
}

// tellSystemd says that daybreakd serves, if it was systemd that started it.
func tellSystemd() error {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no argument, got %q", cmd.CommandPath(), args[0])}
	}
	return nil
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
