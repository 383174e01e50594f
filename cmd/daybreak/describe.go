package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxEvents is how many events a description shows.
const maxEvents = 10

func (a *app) describeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "describe KIND NAME",
		Short: "Show all about one object, and what happened to it",
		Example: `  daybreak describe desktop sales-3    host, incarnation, when it reached which state, why it is not ready
  daybreak describe pool sales         and the desktops of it that are not ready
  daybreak describe host kvm1          and what runs there
  daybreak describe calendar office    its week, its next openings and holidays`,
		Args: func(_ *cobra.Command, args []string) error {
			if _, name, err := parseRef(append(args, "")[:max(1, len(args))]); len(args) == 0 || len(args) > 2 || err == nil && name == "" {
				return wrongUsage("want KIND NAME")
			}
			return nil
		},
		ValidArgsFunction: a.completeRef,
		RunE: func(c *cobra.Command, args []string) error {
			kind, name, err := parseRef(args)
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error { return a.describe(c.Context(), conn, kind, name) })
		},
	}
}

func (a *app) describe(ctx context.Context, conn *grpc.ClientConn, kind v1.Kind, name string) error {
	o, err := get(ctx, conn, kind, name)
	if kind == v1.Kind_KIND_PLAN && status.Code(err) == codes.NotFound {
		return fmt.Errorf("plan %q not found: plans are named POOL-DATE, such as counter-2026-11-24; see 'daybreak get plans', or 'daybreak plan POOL'", name)
	}
	if err != nil {
		return err
	}
	if r, ok := o.(*v1.Rollout); ok {
		return a.describeRollout(ctx, conn, r)
	}
	if p, ok := o.(*v1.Plan); ok {
		return a.plan(ctx, conn, p.GetPool(), p.GetDate(), formatTable)
	}
	events, err := eventsOf(ctx, conn, kind, name)
	if err != nil {
		return err
	}
	now := time.Now()
	switch o := o.(type) {
	case *v1.Desktop:
		return show.Desktop(a.out, o, events, now.In(zoneOf(ctx, conn, o.GetSpec().GetPool())))
	case *v1.Image:
		return show.Image(a.out, o, events, now)
	case *v1.Pool:
		desktops, err := desktopsWhere(ctx, conn, name, func(*v1.Desktop) bool { return true })
		if err != nil {
			return err
		}
		return show.Pool(a.out, o, desktops, events, now.In(zoneOf(ctx, conn, name)))
	case *v1.Host:
		desktops, err := desktopsWhere(ctx, conn, "", func(d *v1.Desktop) bool { return d.GetIncarnation().GetHost() == name })
		if err != nil {
			return err
		}
		return show.Host(a.out, o, desktops, events, now)
	case *v1.Calendar:
		lookup := lookupCalendar(ctx, conn)
		line, err := calendar.Line(o, lookup)
		if err != nil {
			return err
		}
		resolved, err := calendar.Resolve(o, lookup)
		if err != nil {
			return err
		}
		return show.Calendar(a.out, line, resolved, events, now)
	case *v1.History:
		return show.History(a.out, o, now.In(zoneOf(ctx, conn, name)))
	}
	if err := printYAML(a.out, o); err != nil || len(events) == 0 {
		return err
	}
	fmt.Fprintln(a.out, "\nEvents:")
	var objects []store.Object
	for _, e := range events {
		objects = append(objects, e)
	}
	return show.NewWriter(a.out).Table(show.Objects(v1.Kind_KIND_EVENT, objects, false, now))
}

// zoneOf is the zone in which a pool's times are told, as the control plane tells them: its calendar's, or that of its rollouts'
// window. This machine's where there is none, or where it cannot be read.
func zoneOf(ctx context.Context, conn grpc.ClientConnInterface, name string) *time.Location {
	pool, err := getPool(ctx, conn, name)
	if err != nil {
		return time.Local
	}
	followed, err := lookupCalendar(ctx, conn)(pool.GetSpec().GetCalendar())
	if err != nil {
		followed = nil
	}
	if followed == nil && pool.GetSpec().GetRollout().GetWindow().GetTimeZone() == "" {
		return time.Local
	}
	return calendar.ClockOf(pool, followed)
}

// eventsOf returns the last events about an object.
func eventsOf(ctx context.Context, conn *grpc.ClientConn, kind v1.Kind, name string) ([]*v1.Event, error) {
	found, err := list(ctx, conn, &v1.ListRequest{Kind: v1.Kind_KIND_EVENT, About: name})
	if err != nil {
		return nil, err
	}
	var events []*v1.Event
	for _, o := range found {
		if event, ok := o.(*v1.Event); ok && event.GetSubjectKind() == store.KindName(kind) {
			events = append(events, event)
		}
	}
	return events[max(0, len(events)-maxEvents):], nil
}

// desktopsWhere lists desktops of a pool ("" for all) that keep holds for.
func desktopsWhere(ctx context.Context, conn *grpc.ClientConn, pool string, keep func(*v1.Desktop) bool) ([]*v1.Desktop, error) {
	found, err := list(ctx, conn, &v1.ListRequest{Kind: v1.Kind_KIND_DESKTOP, About: pool})
	if err != nil {
		return nil, err
	}
	var desktops []*v1.Desktop
	for _, o := range found {
		if d, ok := o.(*v1.Desktop); ok && keep(d) {
			desktops = append(desktops, d)
		}
	}
	return desktops, nil
}
