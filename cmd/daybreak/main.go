// Command daybreak is the command line of Daybreak, for administrators and scripts.
//
// Here: the commands, how they reach a control plane, what they print, and how errors become sentences. Not here: what
// the control plane does with a call; reading files of objects (objectfile), tables (show), the configuration's form
// (cmd/clientconfig).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	_ "time/tzdata" // a machine without zone files knows the zones too

	"github.com/spf13/cobra"
)

// What a process ends with.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit status.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: in, out: out, errs: errs}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	called, err := root.ExecuteContextC(ctx)
	switch wrong := (*usageError)(nil); {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong):
		fmt.Fprintf(errs, "error: %v\nSee '%s --help'.\n", err, called.CommandPath())
		return exitUsage
	case ctx.Err() != nil:
		fmt.Fprintln(errs, "error: interrupted")
		return exitFailed
	}
	for line := range strings.Lines(sentence(err)) {
		fmt.Fprintf(errs, "error: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitFailed
}

// usageError: the command line itself is wrong.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func wrongUsage(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "daybreak",
		Short: "Keep virtual desktops ready",
		Long: `Daybreak schedules linked-clone virtual desktops across KVM hosts.

The command reaches the control plane that the configuration's current context names; see 'daybreak login' and
'daybreak context'. Exit status: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  daybreak apply -f pool.yaml          make what the file says
  daybreak get desktops --pool sales   what there is
  daybreak describe desktop sales-3    all about one, and why it is not ready
  daybreak wait pool sales --for ready`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          none,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().StringVar(&a.configPath, "config", "", "file with the contexts (default $DAYBREAK_CONFIG, else ~/.config/daybreak/config.yaml)")
	root.PersistentFlags().StringVar(&a.contextName, "context", "", "context to use instead of the current one")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrongUsage("%v", err) })
	root.AddCommand(
		a.applyCommand(), a.getCommand(), a.describeCommand(), a.deleteCommand(), a.watchCommand(), a.waitCommand(), a.explainCommand(),
		a.claimCommand(), a.releaseCommand(), a.deferCommand(), a.keepCommand(), a.screenshotCommand(), a.imageCommand(), a.planCommand(), a.warmCommand(), a.rolloutCommand(), a.hostCommand(), a.calendarCommand(),
		a.tokenCommand(), a.publisherCommand(), a.loginCommand(), a.contextCommand(), a.versionCommand(),
	)
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		// cobra takes "completion foo" for a wish to see the help, with status 0.
		completion.Args, completion.RunE = none, func(c *cobra.Command, _ []string) error { return c.Help() }
	}
	return root
}

// none, exactly and atMost check the number of arguments.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 && c.HasSubCommands() {
		return wrongUsage("there is no command %q", c.CommandPath()+" "+args[0])
	}
	return atMost(0)(c, args)
}

func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return wrongUsage("want %s, got %s", strings.Join(names, " "), several(len(args), "argument"))
		}
		return nil
	}
}

func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return wrongUsage("%q is one argument too many", args[n])
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: none,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}

// version is what this program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, dirty := "", ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			revision = setting.Value[:min(len(setting.Value), 12)]
		case setting.Key == "vcs.modified" && setting.Value == "true":
			dirty = "+changes"
		}
	}
	if revision == "" {
		return info.Main.Version
	}
	return revision + dirty
}
