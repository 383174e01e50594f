package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

const (
	// mostExtra is how many passing wishes a schedule holds.
	mostExtra = 32
	// longestWarm is how long --for may be: what lasts longer is the schedule's to say.
	longestWarm = 14 * 24 * time.Hour
)

func (a *app) warmCommand() *cobra.Command {
	var length time.Duration
	var until, note string
	var clear bool
	c := &cobra.Command{
		Use: "warm POOL COUNT | warm POOL --clear", Short: "Have so many desktops of a pool run for a while, whatever its schedule says",
		Long: `Warm adds a passing wish to the pool's schedule: from now on until it ends at least COUNT desktops run, those that users hold among
them. Where the schedule asks for more, it holds. Times of day are those of the pool's calendar. 'daybreak get pool POOL -o yaml' shows the
wishes that a pool has, under spec.schedule.extra. They last when a file whose schedule names no extra is applied; one that names
some replaces them. --clear takes all of them back.`,
		Example: `  daybreak warm counter 30 --for 2h
  daybreak warm counter 30 --until 21:00 --note "public hearing"
  daybreak warm counter 5 --until "2026-11-29 20:00"
  daybreak warm counter --clear`,
		Args: func(c *cobra.Command, args []string) error {
			if clear {
				return exactly("POOL")(c, args)
			}
			return exactly("POOL", "COUNT")(c, args)
		},
		ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			if clear {
				if length != 0 || until != "" || note != "" {
					return wrongUsage("--clear takes all wishes back: it goes with none of --for, --until and --note")
				}
				return a.withConn(func(conn *grpc.ClientConn) error { return a.clearWishes(c.Context(), conn, args[0]) })
			}
			wish := &v1.ExtraTarget{Note: strings.TrimSpace(note)}
			n, err := strconv.ParseUint(args[1], 10, 32)
			if err != nil || n == 0 {
				return wrongUsage("COUNT is a number of desktops, at least 1; found %q", args[1])
			}
			wish.Target = uint32(n)
			if (length == 0) == (until == "") {
				return wrongUsage("say for how long: either --for or --until")
			}
			if length > longestWarm {
				return wrongUsage("--for %s is too long: at most 14 days; what lasts longer belongs into the pool's spec.schedule", rules.Duration(length))
			}
			return a.withConn(func(conn *grpc.ClientConn) error { return a.warm(c.Context(), conn, args[0], wish, length, until) })
		},
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) && strings.Trim(unknown.GetSpecifiedShortnames(), "0123456789") == "" && unknown.GetSpecifiedShortnames() != "" {
			return wrongUsage("COUNT is a number of desktops, at least 1; found \"-%s\"", unknown.GetSpecifiedShortnames())
		}
		return wrongUsage("%v", err)
	})
	lengthFlag(c.Flags(), &length, "for", 0, "how long, such as 90m, at most 14d")
	c.Flags().StringVar(&until, "until", "", `the end: "21:00" (when it is that next), "2026-11-29 20:00" or RFC 3339`)
	c.Flags().BoolVar(&clear, "clear", false, "take all passing wishes back")
	c.Flags().StringVar(&note, "note", "", "why, for those who read the schedule")
	return c
}

func (a *app) warm(ctx context.Context, conn *grpc.ClientConn, name string, wish *v1.ExtraTarget, length time.Duration, until string) error {
	pool, err := getPool(ctx, conn, name)
	if err != nil {
		return err
	}
	schedule := pool.GetSpec().GetSchedule()
	if schedule == nil {
		return fmt.Errorf("pool %s has no schedule: all its %s run always, so that there is nothing to warm. "+
			"A schedule is set in spec.schedule; see 'daybreak apply'", name, several(int(pool.GetSpec().GetDesktops()), "desktop"))
	}
	_, resolved, err := fetchCalendar(ctx, conn, pool.GetSpec().GetCalendar())
	if err != nil {
		return err
	}
	now := time.Now().In(resolved.Zone())
	end := now.Add(length).Truncate(time.Second)
	if until != "" {
		if end, err = parseEnd(until, now); err != nil {
			return err
		}
	}
	if !end.After(now) {
		return wrongUsage("--until %s is over: it is %s now", until, show.Time(now))
	}
	wish.From, wish.Until = timestamppb.New(now.Truncate(time.Second)), timestamppb.New(end)
	schedule.Extra = append(slices.DeleteFunc(schedule.Extra, func(e *v1.ExtraTarget) bool { return !e.GetUntil().AsTime().After(now) }), wish)
	if len(schedule.Extra) > mostExtra {
		return fmt.Errorf("pool %s has %d passing wishes already, and holds no more: take one away from spec.schedule.extra first, or all with 'daybreak warm %s --clear'", name, mostExtra, name)
	}
	// The pool carries its revision: what somebody else wrote in between is not written over.
	if _, err := v1.NewObjectServiceClient(conn).Apply(ctx, &v1.ApplyRequest{Object: wrap(pool)}); err != nil {
		field := fmt.Sprintf("spec.schedule.extra[%d].", len(schedule.Extra)-1)
		return inFlags(err, map[string]string{field + "target": "COUNT", field + "note": "--note", field + "until": "--until"})
	}
	_, err = fmt.Fprintf(a.out, "pool/%s: at least %s until %s\n", show.Clean(name), desktopsRun(wish.GetTarget()), show.Time(end))
	return err
}

// getPool fetches a pool.
func getPool(ctx context.Context, conn grpc.ClientConnInterface, name string) (*v1.Pool, error) {
	o, err := get(ctx, conn, v1.Kind_KIND_POOL, name)
	if err != nil {
		return nil, err
	}
	pool, ok := o.(*v1.Pool)
	if !ok {
		return nil, errEmpty
	}
	return pool, nil
}

// clearWishes takes the pool's wishes back, each by ending it where it begins: an empty list would leave them all.
func (a *app) clearWishes(ctx context.Context, conn *grpc.ClientConn, name string) error {
	pool, err := getPool(ctx, conn, name)
	if err != nil {
		return err
	}
	wishes := pool.GetSpec().GetSchedule().GetExtra()
	for _, wish := range wishes {
		wish.Until = wish.GetFrom()
	}
	if len(wishes) > 0 {
		if _, err := v1.NewObjectServiceClient(conn).Apply(ctx, &v1.ApplyRequest{Object: wrap(pool)}); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(a.out, "pool/%s: %s taken back\n", show.Clean(name), wishesWord(len(wishes)))
	return err
}

func wishesWord(n int) string {
	if n == 1 {
		return "1 wish"
	}
	return fmt.Sprintf("%d wishes", n)
}

// parseEnd reads the end of a wish. A time of day is the next one; clocks are those of now's zone.
func parseEnd(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.In(now.Location()), nil
	}
	if at, err := time.ParseInLocation("2006-01-02 15:04", text, now.Location()); err == nil {
		return at, nil
	}
	clock, err := time.Parse("15:04", text)
	if err != nil {
		return time.Time{}, wrongUsage("--until: %q is no time; write it as 21:00, \"2026-11-29 20:00\" or in RFC 3339", text)
	}
	for ahead := range 3 {
		date := calendar.DateOf(now).Add(ahead)
		if at := time.Date(date.Year, date.Month, date.Day, clock.Hour(), clock.Minute(), 0, 0, now.Location()); at.After(now) {
			return at, nil
		}
	}
	return time.Time{}, wrongUsage("--until: %q does not come within two days", text)
}

func desktopsRun(n uint32) string {
	if n == 1 {
		return "1 desktop runs"
	}
	return fmt.Sprintf("%d desktops run", n)
}
