package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/calendar"
	v1 "daybreak/proto/daybreak/v1"
)

// Widths of a screen: what is taken where nobody looks, and what a chart is at most.
const (
	usualWidth = 100
	mostWidth  = 160
)

func (a *app) planCommand() *cobra.Command {
	var date, format string
	c := &cobra.Command{
		Use: "plan POOL", Short: "Show which desktops start when, whether all will be ready in time, and how it was",
		Long: `Plan shows how a pool is warmed up on a date: whether all that should run will be ready by their deadlines and, if not, how many are short
and why; which host starts how many when; and ready desktops over time. Of a date that is over, or on which starts have
come, it shows what became of the plan, and which desktops were late.

Plans for today and tomorrow are those that hosts follow. For dates further ahead it is tried out what would be planned by
what is known now. Dates and times are those of the pool's calendar.`,
		Example: `  daybreak plan counter                     the next date on which something starts
  daybreak plan counter --date tomorrow
  daybreak plan counter --date 2026-11-29   an election Sunday
  daybreak plan counter --date yesterday    planned beside actual, and why some were late
  daybreak plan counter -o json             every start, and the curve`,
		Args: exactly("POOL"), ValidArgsFunction: a.completeNames(v1.Kind_KIND_POOL),
		RunE: func(c *cobra.Command, args []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error { return a.plan(c.Context(), conn, args[0], date, format) })
		},
	}
	c.Flags().StringVar(&date, "date", "", "date, or today, tomorrow, yesterday (default the next one on which something starts)")
	_ = c.RegisterFlagCompletionFunc("date", cobra.FixedCompletions([]string{"today", "tomorrow", "yesterday"}, cobra.ShellCompDirectiveNoFileComp))
	formatFlag(c, &format, formatTable, formatJSON)
	return c
}

func (a *app) plan(ctx context.Context, conn *grpc.ClientConn, pool, day, format string) error {
	date, err := planDate(ctx, conn, pool, day, time.Now())
	if err != nil {
		return err
	}
	answer, err := v1.NewPlanServiceClient(conn).Plan(ctx, &v1.PlanRequest{Pool: pool, Date: date})
	if err != nil {
		return err
	}
	if format == formatJSON {
		return printJSON(a.out, answer)
	}
	now := time.Now()
	missed, more := []show.Missed(nil), 0
	if !answer.GetDryRun() {
		missed, more = show.MissedOf(answer, now)
	}
	for i := range missed {
		if missed[i].Unheard {
			continue
		}
		if missed[i].Why, err = keptBy(ctx, conn, answer.GetPlan(), missed[i]); err != nil {
			return err
		}
	}
	return show.Plan(a.out, answer, missed, more, a.width(), now)
}

// day is a date, or one that a word names by today's.
type day struct {
	date  calendar.Date // unless it is so many days after today
	ahead *int
}

// parseDay reads the day that a flag says; nil when it says none.
func parseDay(flag, text string) (*day, error) {
	if text == "" {
		return nil, nil
	}
	if ahead, ok := map[string]int{"yesterday": -1, "today": 0, "tomorrow": 1}[text]; ok {
		return &day{ahead: &ahead}, nil
	}
	date, err := calendar.ParseDate(text)
	if err != nil {
		return nil, wrongUsage("%s: %v, or say today, tomorrow, yesterday", flag, err)
	}
	return &day{date: date}, nil
}

func (d day) on(today calendar.Date) calendar.Date {
	if d.ahead != nil {
		return today.Add(*d.ahead)
	}
	return d.date
}

// planDate is the date that a word stands for, by the pool's calendar.
func planDate(ctx context.Context, conn grpc.ClientConnInterface, pool, text string, now time.Time) (string, error) {
	wanted, err := parseDay("--date", text)
	if err != nil || wanted == nil {
		return "", err
	}
	if wanted.ahead == nil {
		return text, nil
	}
	found, err := getPool(ctx, conn, pool)
	if err != nil {
		return "", err
	}
	zone := time.UTC
	if name := found.GetSpec().GetCalendar(); name != "" {
		_, resolved, err := fetchCalendar(ctx, conn, name)
		if err != nil {
			return "", err
		}
		zone = resolved.Zone()
	}
	return wanted.on(calendar.DateOf(now.In(zone))).String(), nil
}

// keptBy says what kept a desktop from being ready in time: what happened to it, or how long it took.
func keptBy(ctx context.Context, conn *grpc.ClientConn, plan *v1.Plan, m show.Missed) (string, error) {
	start, ready := m.Start.GetStartAt().AsTime(), m.Start.GetReady()
	until := m.Start.GetDeadline().AsTime().Add(time.Hour)
	if ready != nil {
		until = ready.AsTime()
	}
	found, err := list(ctx, conn, &v1.ListRequest{Kind: v1.Kind_KIND_EVENT, About: m.Desktop})
	if err != nil {
		return "", err
	}
	why := ""
	for _, o := range found {
		event, ok := o.(*v1.Event)
		if at := event.GetAt().AsTime(); ok && event.GetSubject() == m.Desktop && event.GetWarning() && !at.Before(start.Add(-time.Hour)) && !at.After(until) {
			why = event.GetMessage()
		}
	}
	host := plan.GetHosts()[min(int(m.Start.GetHost()), max(0, len(plan.GetHosts())-1)):]
	switch {
	case why != "":
		return why, nil
	case ready != nil && len(host) > 0:
		return fmt.Sprintf("ready %s after its start; 99 of 100 were taken to need %s at most", show.Span(ready.AsTime().Sub(start).Truncate(time.Second)),
			show.Span(host[0].GetQuantile().AsDuration())), nil
	}
	o, err := get(ctx, conn, v1.Kind_KIND_DESKTOP, m.Desktop)
	now := time.Now()
	if zone, err := time.LoadLocation(plan.GetTimeZone()); err == nil {
		now = now.In(zone)
	}
	if desktop, ok := o.(*v1.Desktop); ok && err == nil && show.Reason(desktop, now) != "" {
		return "now: " + show.Reason(desktop, now), nil
	}
	return "nothing is recorded; see 'daybreak describe desktop " + m.Desktop + "'", nil
}

// width is how many columns there are to write in.
func (a *app) width() int {
	if file, ok := a.out.(*os.File); ok {
		if columns, _, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 {
			return min(columns, mostWidth)
		}
	}
	return usualWidth
}
