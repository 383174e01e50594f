package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

func (a *app) waitCommand() *cobra.Command {
	var what string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "wait pool NAME --for ready",
		Short: "Wait until all desktops of a pool are ready",
		Long: `Wait returns when every seat of the pool has a desktop whose guest answered its readiness probe. It shows how far
that is. When the time is over it says what is missing and why, and ends with status 1.`,
		Example: `  daybreak wait pool sales --for ready --timeout 10m`,
		Args:    exactly("pool", "NAME"),
		ValidArgsFunction: func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				return []string{"pool"}, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return a.names(c.Context(), v1.Kind_KIND_POOL), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, args []string) error {
			if kind, err := parseKind(args[0]); err != nil || kind != v1.Kind_KIND_POOL {
				return wrongUsage("only a pool can be waited for, not %q", args[0])
			}
			if what != "ready" {
				return wrongUsage("--for wants ready, found %q", what)
			}
			return a.withConn(func(conn *grpc.ClientConn) error { return a.waitReady(c.Context(), conn, args[1], timeout) })
		},
	}
	c.Flags().StringVar(&what, "for", "ready", "what to wait for: ready")
	lengthFlag(c.Flags(), &timeout, "timeout", 10*time.Minute, "how long to wait at most")
	_ = c.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"ready"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) waitReady(ctx context.Context, conn *grpc.ClientConn, name string, timeout time.Duration) error {
	began := time.Now()
	// Not a deadline, which would go to the server with the call, and whose end would look like the server's.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer time.AfterFunc(timeout, func() { cancel(errTimeout) }).Stop()
	progress := newProgress(a.errs)
	defer progress.done()
	last := readiness{}
	kinds := []v1.Kind{v1.Kind_KIND_POOL, v1.Kind_KIND_DESKTOP}
	err := a.follow(ctx, conn, kinds, func(p *picture, _ change) error {
		var err error
		if last, err = readinessOf(p, name); err != nil {
			return err
		}
		progress.show(last.line())
		if last.ready >= last.seats {
			return errStop
		}
		return nil
	})
	switch {
	case err == nil:
		progress.done()
		fmt.Fprintf(a.out, "pool/%s is ready: %d of %d desktops, after %s\n", name, last.ready, last.seats, show.Span(time.Since(began).Truncate(time.Second)))
		return nil
	case errors.Is(context.Cause(ctx), errTimeout):
		return fmt.Errorf("pool %q is not ready after %s: %s%s", name, rules.Duration(timeout), last.line(), last.missing())
	}
	return err
}

var errTimeout = errors.New("the time is over")

// readiness is how far a pool is.
type readiness struct {
	seats, ready int
	// late are the desktops that are not ready.
	late []*v1.Desktop
	// message is the pool's own word.
	message string
}

func readinessOf(p *picture, name string) (readiness, error) {
	r := readiness{}
	var found *v1.Pool
	for _, pool := range all[*v1.Pool](p) {
		if pool.GetMeta().GetName() == name {
			found = pool
		}
	}
	if found == nil {
		return r, fmt.Errorf("there is no pool %q (any more)", name)
	}
	if found.GetMeta().GetDeletion() != nil {
		return r, fmt.Errorf("pool %q is being deleted", name)
	}
	r.seats, r.message = int(found.GetSpec().GetDesktops()), found.GetStatus().GetMessage()
	for _, d := range all[*v1.Desktop](p) {
		switch {
		case d.GetSpec().GetPool() != name:
		case store.State(d) == v1.DesktopState_DESKTOP_STATE_READY:
			r.ready++
		default:
			r.late = append(r.late, d)
		}
	}
	return r, nil
}

// line is the progress in one line: "4 of 6 ready; 1 starting, 1 preparing (45%)".
func (r readiness) line() string {
	text := fmt.Sprintf("%d of %d ready", r.ready, r.seats)
	counts := map[v1.DesktopState]int{}
	percent := uint32(0)
	for _, d := range r.late {
		counts[store.State(d)]++
		if store.State(d) == v1.DesktopState_DESKTOP_STATE_PREPARING {
			percent = max(percent, d.GetStatus().GetProgressPercent())
		}
	}
	var parts []string
	for state := range v1.DesktopState(len(v1.DesktopState_name)) {
		if counts[state] == 0 {
			continue
		}
		part := fmt.Sprintf("%d %s", counts[state], strings.ToLower(strings.TrimPrefix(state.String(), "DESKTOP_STATE_")))
		if state == v1.DesktopState_DESKTOP_STATE_PREPARING && percent > 0 {
			part += fmt.Sprintf(" (%d%%)", percent)
		}
		parts = append(parts, part)
	}
	if len(parts) > 0 {
		text += "; " + strings.Join(parts, ", ")
	}
	return text
}

// missing names the first desktops that are not ready, and why, a line each.
func (r readiness) missing() string {
	const most = 5
	text := ""
	if r.message != "" {
		text += "\n  " + r.message
	}
	for i, d := range r.late {
		if i == most {
			text += fmt.Sprintf("\n  … and %d more", len(r.late)-most)
			break
		}
		why := show.Reason(d, time.Now())
		if why == "" {
			why = "no reason is known; try 'daybreak describe desktop " + d.GetMeta().GetName() + "'"
		}
		text += fmt.Sprintf("\n  %s: %s", d.GetMeta().GetName(), why)
	}
	return text
}
