package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) watchCommand() *cobra.Command {
	var flags selectFlags
	var format string
	c := &cobra.Command{
		Use:   "watch KIND [NAME]",
		Short: "Show objects and every change of them, until interrupted",
		Example: `  daybreak watch desktops --pool sales
  daybreak watch events
  daybreak watch pool sales -o json        one JSON object a line`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > 2 {
				return wrongUsage("want KIND [NAME]; kinds are %s", strings.Join(plurals(), ", "))
			}
			return nil
		},
		ValidArgsFunction: a.completeRef,
		RunE: func(c *cobra.Command, args []string) error {
			chosen, err := flags.selection(args)
			if err != nil {
				return err
			}
			return a.withConn(func(conn *grpc.ClientConn) error { return a.watch(c.Context(), conn, chosen, format) })
		},
	}
	flags.add(a, c)
	formatFlag(c, &format, formatTable, formatWide, formatJSON, formatYAML)
	return c
}

// watch prints what was selected and every change of it, until ctx ends.
func (a *app) watch(ctx context.Context, conn *grpc.ClientConn, chosen selection, format string) error {
	table, first := show.NewWriter(a.out), true
	err := a.follow(ctx, conn, []v1.Kind{chosen.kind}, func(_ *picture, c change) error {
		other := func(o store.Object) bool { return !chosen.matches(o) }
		c.changed, c.deleted = slices.DeleteFunc(c.changed, other), slices.DeleteFunc(c.deleted, other)
		defer func() { first = false }()
		switch format {
		case formatJSON:
			return a.printLines(c)
		case formatYAML:
			if !first && len(c.changed) > 0 {
				fmt.Fprintln(a.out, "---")
			}
			return printYAML(a.out, c.changed...)
		}
		rows := show.Objects(chosen.kind, c.changed, format == formatWide, time.Now())
		if !first {
			rows.Header = nil
		}
		for _, o := range c.deleted {
			rows.Rows = append(rows.Rows, []string{o.GetMeta().GetName(), "deleted"})
		}
		return table.Table(rows)
	})
	if ctx.Err() != nil {
		return nil // the user has seen enough
	}
	return err
}

// printLines prints one JSON object a line.
func (a *app) printLines(c change) error {
	for _, o := range c.changed {
		text, err := toJSON(o)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", text)
	}
	for _, o := range c.deleted {
		ref := store.RefOf(o)
		text, err := json.Marshal(map[string]any{"deleted": map[string]string{"kind": store.KindName(ref.Kind), "name": ref.Name}})
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s\n", text)
	}
	return nil
}
