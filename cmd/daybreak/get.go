package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// selection is what "get" and "watch" are asked for.
type selection struct {
	kind   v1.Kind
	name   string
	labels map[string]string
	// about: only desktops, claims and rollouts of this pool; only events about this object.
	about string
}

// selectFlags are the flags that narrow a selection.
type selectFlags struct {
	labels []string
	pool   string
}

func (f *selectFlags) add(a *app, c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.labels, "selector", "l", nil, "only objects with this label, KEY=VALUE; several by commas or repetition")
	c.Flags().StringVar(&f.pool, "pool", "", "only desktops, claims, rollouts and events of this pool, those about its desktops among them")
	a.completeFlag(c, "pool", v1.Kind_KIND_POOL)
}

func (f *selectFlags) selection(args []string) (selection, error) {
	kind, name, err := parseRef(args)
	if err != nil {
		return selection{}, err
	}
	s := selection{kind: kind, name: name, about: f.pool, labels: map[string]string{}}
	for _, given := range f.labels {
		for pair := range strings.SplitSeq(given, ",") {
			key, value, ok := strings.Cut(pair, "=")
			if !ok || key == "" {
				return s, wrongUsage("-l wants KEY=VALUE, found %q", pair)
			}
			s.labels[key] = value
		}
	}
	switch kind {
	case v1.Kind_KIND_DESKTOP, v1.Kind_KIND_CLAIM, v1.Kind_KIND_ROLLOUT, v1.Kind_KIND_EVENT:
	default:
		if s.about != "" {
			return s, wrongUsage("--pool is for desktops, claims, rollouts and events, not for a %s", word(kind))
		}
	}
	if name != "" && (s.about != "" || len(s.labels) > 0) {
		return s, wrongUsage("a NAME cannot be combined with --pool or -l")
	}
	return s, nil
}

func (a *app) getCommand() *cobra.Command {
	var flags selectFlags
	var format string
	var watch bool
	c := &cobra.Command{
		Use:   "get KIND [NAME]",
		Short: "List objects, or show one",
		Long:  "Get lists the objects of a kind, or shows the one of a name.\n\nKinds: " + strings.Join(plurals(), ", ") + ".",
		Example: `  daybreak get hosts
  daybreak get desktops --pool sales -o wide
  daybreak get pool sales -o yaml          what apply takes
  daybreak get pools -l floor=3 -o json    {"items": [ … ]}
  daybreak get events -w                   and what happens from now on`,
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
			return a.withConn(func(conn *grpc.ClientConn) error {
				if watch {
					return a.watch(c.Context(), conn, chosen, format)
				}
				objects, err := chosen.fetch(c.Context(), conn)
				if err != nil {
					return err
				}
				if chosen.kind == v1.Kind_KIND_CLAIM && (format == formatTable || format == formatWide) {
					return a.printClaims(c.Context(), conn, chosen, objects, format == formatWide)
				}
				return a.printObjects(chosen.kind, objects, format, chosen.name != "")
			})
		},
	}
	flags.add(a, c)
	formatFlag(c, &format, formatTable, formatWide, formatJSON, formatYAML)
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on and show every change")
	return c
}

// printClaims prints claims with the places of those that wait, for which all claims must be known.
func (a *app) printClaims(ctx context.Context, conn grpc.ClientConnInterface, chosen selection, objects []store.Object, wide bool) error {
	all := objects
	if chosen.name != "" || len(chosen.labels) > 0 {
		var err error
		if all, err = list(ctx, conn, &v1.ListRequest{Kind: v1.Kind_KIND_CLAIM, About: chosen.about}); err != nil {
			return err
		}
	}
	return show.NewWriter(a.out).Table(show.Claims(objects, all, wide, time.Now()))
}

// fetch asks for what was selected.
func (s selection) fetch(ctx context.Context, conn grpc.ClientConnInterface) ([]store.Object, error) {
	if s.name != "" {
		o, err := get(ctx, conn, s.kind, s.name)
		return []store.Object{o}, err
	}
	if s.kind != v1.Kind_KIND_EVENT || s.about == "" {
		return list(ctx, conn, &v1.ListRequest{Kind: s.kind, Labels: s.labels, About: s.about})
	}
	all, err := list(ctx, conn, &v1.ListRequest{Kind: s.kind, Labels: s.labels}) // also those about the pool's desktops
	return slices.DeleteFunc(all, func(o store.Object) bool { return !s.matches(o) }), err
}

// matches says whether an object is among the selected.
func (s selection) matches(o store.Object) bool {
	if s.name != "" && o.GetMeta().GetName() != s.name {
		return false
	}
	for key, want := range s.labels {
		if have, ok := o.GetMeta().GetLabels()[key]; !ok || have != want {
			return false
		}
	}
	if s.about == "" {
		return true
	}
	switch o := o.(type) {
	case *v1.Desktop:
		return o.GetSpec().GetPool() == s.about
	case *v1.Claim:
		return o.GetPool() == s.about
	case *v1.Rollout:
		return o.GetSpec().GetPool() == s.about
	case *v1.Event:
		return ofPool(o, s.about)
	}
	return false
}

// ofPool: the event is about the pool, or about one of its desktops or rollouts, which bear its name and a number.
func ofPool(e *v1.Event, pool string) bool {
	switch e.GetSubjectKind() {
	case "desktop", "rollout":
		number, named := strings.CutPrefix(e.GetSubject(), pool+"-")
		return named && number != "" && strings.Trim(number, "0123456789") == ""
	}
	return e.GetSubjectKind() == "pool" && e.GetSubject() == pool
}
