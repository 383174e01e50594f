package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) rolloutCommand() *cobra.Command {
	return group("rollout", "Watch and steer the move of pools between versions",
		a.rolloutStatusCommand(), a.rolloutStartCommand(), a.rolloutPauseCommand(), a.rolloutResumeCommand(), a.rolloutCancelCommand())
}

func (a *app) rolloutStatusCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "status POOL", Short: "Show the newest rollout of a pool: waves, counts, failures, and when it will be done",
		Example: `  daybreak rollout status sales
  daybreak rollout status sales -o json
  daybreak get rollouts                 those of all pools, older ones too`,
		Args: exactly("POOL"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				newest, err := newestRollout(c.Context(), conn, args[0])
				if err != nil {
					return err
				}
				if format == formatJSON {
					return printJSON(a.out, newest)
				}
				return a.describeRollout(c.Context(), conn, newest)
			})
		},
	}
	formatFlag(c, &format, formatTable, formatJSON)
	return c
}

// newestRollout finds the rollout of a pool that began last.
func newestRollout(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error) {
	if _, err := get(ctx, conn, v1.Kind_KIND_POOL, pool); err != nil {
		return nil, err
	}
	found, err := list(ctx, conn, &v1.ListRequest{Kind: v1.Kind_KIND_ROLLOUT, About: pool})
	if err != nil {
		return nil, err
	}
	var newest *v1.Rollout
	for _, o := range found {
		if r, ok := o.(*v1.Rollout); ok && (newest == nil || rollout.Ordinal(r) > rollout.Ordinal(newest)) {
			newest = r
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("pool %s has had no rollout: one begins when a version of its image is published, or when its spec names another one", pool)
	}
	return newest, nil
}

// describeRollout prints a rollout with its pool's waves and with the events of it.
func (a *app) describeRollout(ctx context.Context, conn *grpc.ClientConn, r *v1.Rollout) error {
	name := r.GetSpec().GetPool()
	var pool *v1.Pool
	if o, err := get(ctx, conn, v1.Kind_KIND_POOL, name); err == nil {
		pool, _ = o.(*v1.Pool)
	}
	found, err := list(ctx, conn, &v1.ListRequest{
		Kind: v1.Kind_KIND_EVENT, About: name, Labels: map[string]string{rollout.LabelRollout: r.GetMeta().GetName()},
	})
	if err != nil {
		return err
	}
	var events []*v1.Event
	for _, o := range found {
		if event, ok := o.(*v1.Event); ok {
			events = append(events, event)
		}
	}
	return show.Rollout(a.out, r, pool, events, time.Now().In(zoneOf(ctx, conn, name)))
}

// steer makes a command that asks something of a pool's rollout.
func (a *app) steer(c *cobra.Command, did string, ask func(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error)) *cobra.Command {
	var format string
	c.Args, c.ValidArgsFunction = exactly("POOL"), a.completeNames(v1.Kind_KIND_POOL)
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.withConn(func(conn *grpc.ClientConn) error {
			r, err := ask(c.Context(), conn, args[0])
			if err != nil {
				return err
			}
			if format == formatJSON {
				return printJSON(a.out, r)
			}
			return a.say(rollout.Title(r)+" "+did, nil)
		})
	}
	formatFlag(c, &format, "", formatJSON)
	return c
}

func (a *app) rolloutStartCommand() *cobra.Command {
	return a.steer(&cobra.Command{
		Use: "start POOL", Short: "Try a version again that was rolled back",
		Long: `Rollouts begin by themselves when a version is published, or when a pool's spec names another one. What was rolled back is
left alone until somebody asks for it: this does.`,
		Example: "  daybreak rollout start sales",
	}, "begins; follow it with 'daybreak rollout status'", func(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error) {
		answer, err := v1.NewRolloutServiceClient(conn).Start(ctx, &v1.StartRolloutRequest{Pool: pool})
		return answer.GetRollout(), err
	})
}

func (a *app) rolloutPauseCommand() *cobra.Command {
	return a.steer(&cobra.Command{
		Use: "pause POOL", Short: "Take no more desktops out of service for a rollout",
		Long: "Pause leaves every desktop as it is. Desktops that are made anew for other reasons go on getting the version of their wave. " +
			"When another version is published, the rollout that takes this one's place is not paused.",
		Example: "  daybreak rollout pause sales",
	}, "is paused; let it go on with 'daybreak rollout resume'", func(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error) {
		answer, err := v1.NewRolloutServiceClient(conn).Pause(ctx, &v1.PauseRolloutRequest{Pool: pool})
		return answer.GetRollout(), err
	})
}

func (a *app) rolloutResumeCommand() *cobra.Command {
	return a.steer(&cobra.Command{
		Use: "resume POOL", Short: "Let a paused or halted rollout go on",
		Long:    "Resume accepts the failures so far: a halted rollout tries its wave again, and halts when more fail than the pool's policy allows.",
		Example: "  daybreak rollout resume sales",
	}, "goes on", func(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error) {
		answer, err := v1.NewRolloutServiceClient(conn).Resume(ctx, &v1.ResumeRolloutRequest{Pool: pool})
		return answer.GetRollout(), err
	})
}

func (a *app) rolloutCancelCommand() *cobra.Command {
	return a.steer(&cobra.Command{
		Use: "cancel POOL", Short: "Take a rollout back that is not done",
		Long:    "Cancel is 'daybreak image rollback' for a rollout that has not ended yet. Desktops that have moved go back at once.",
		Example: "  daybreak rollout cancel sales",
	}, "takes it back", func(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error) {
		newest, err := newestRollout(ctx, conn, pool)
		if err != nil {
			return nil, err
		}
		if newest.GetStatus().GetEnded() != nil && newest.GetSpec().GetRollback() {
			return nil, fmt.Errorf("%s has ended, and no rollout goes on; see 'daybreak rollout status %s'", rollout.Title(newest), pool)
		}
		if newest.GetStatus().GetEnded() != nil {
			return nil, fmt.Errorf("%s has ended; take it back with 'daybreak image rollback %s'", rollout.Title(newest), pool)
		}
		answer, err := v1.NewRolloutServiceClient(conn).RollBack(ctx, &v1.RollBackRequest{Pool: pool, Reason: "cancelled"})
		return answer.GetRollout(), err
	})
}

func (a *app) imageRollbackCommand() *cobra.Command {
	var reason string
	c := a.steer(&cobra.Command{
		Use: "rollback POOL", Short: "Take a pool back to the version before",
		Long: `Rollback takes the newest rollout of a pool back, whether it runs, is halted or is done. The version before is still on the
hosts, so that it begins at once, without waves and without waiting for the pool's window; its limits hold. The version that
is given up is not rolled out to the pool again before somebody asks for it ('daybreak rollout start') or another is wanted.`,
		Example: `  daybreak image rollback sales
  daybreak image rollback sales --reason "the printer driver is gone"`,
	}, "begins; follow it with 'daybreak rollout status'", func(ctx context.Context, conn *grpc.ClientConn, pool string) (*v1.Rollout, error) {
		answer, err := v1.NewRolloutServiceClient(conn).RollBack(ctx, &v1.RollBackRequest{Pool: pool, Reason: strings.TrimSpace(reason)})
		return answer.GetRollout(), err
	})
	c.Flags().StringVar(&reason, "reason", "", "why, for those who read it tomorrow")
	return c
}
