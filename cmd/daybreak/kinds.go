package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"daybreak/cmd/daybreak/show"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// spelling is how a kind may be written on the command line.
type spelling struct {
	kind   v1.Kind
	plural string
	others []string
}

func spellings() []spelling {
	return []spelling{
		{v1.Kind_KIND_ZONE, "zones", []string{"zone", "z"}},
		{v1.Kind_KIND_HOST, "hosts", []string{"host", "h"}},
		{v1.Kind_KIND_IMAGE, "images", []string{"image", "img", "i"}},
		{v1.Kind_KIND_POOL, "pools", []string{"pool", "p"}},
		{v1.Kind_KIND_DESKTOP, "desktops", []string{"desktop", "dt", "d"}},
		{v1.Kind_KIND_CALENDAR, "calendars", []string{"calendar", "cal"}},
		{v1.Kind_KIND_ROLLOUT, "rollouts", []string{"rollout", "ro"}},
		{v1.Kind_KIND_CLAIM, "claims", []string{"claim", "cl"}},
		{v1.Kind_KIND_EVENT, "events", []string{"event", "ev"}},
		{v1.Kind_KIND_JOIN_TOKEN, "tokens", []string{"token", "join_token", "join_tokens"}},
		{v1.Kind_KIND_PLAN, "plans", []string{"plan"}},
		{v1.Kind_KIND_HISTORY, "histories", []string{"history"}},
	}
}

func plurals() []string {
	var names []string
	for _, s := range spellings() {
		names = append(names, s.plural)
	}
	return names
}

// parseKind reads a kind as people write it.
func parseKind(text string) (v1.Kind, error) {
	lower := strings.ToLower(text)
	for _, s := range spellings() {
		if lower == s.plural || slices.Contains(s.others, lower) {
			return s.kind, nil
		}
	}
	return 0, wrongUsage("%q is no kind of object; want one of %s", text, strings.Join(plurals(), ", "))
}

// parseRef reads "KIND", "KIND NAME" or "KIND/NAME"; name is empty for the first.
func parseRef(args []string) (v1.Kind, string, error) {
	if len(args) == 1 {
		if kind, name, both := strings.Cut(args[0], "/"); both {
			args = []string{kind, name}
		}
	}
	kind, err := parseKind(args[0])
	if err != nil || len(args) == 1 {
		return kind, "", err
	}
	if args[1] == "" {
		return kind, "", wrongUsage("the name is empty")
	}
	return kind, args[1], nil
}

// word is a kind as messages have it: "pool", "token".
func word(kind v1.Kind) string {
	if kind == v1.Kind_KIND_JOIN_TOKEN {
		return "token"
	}
	return store.KindName(kind)
}

// wrap puts an object into its envelope; the envelope's field numbers are the kinds'.
func wrap(o store.Object) *v1.Object {
	envelope := &v1.Object{}
	m := envelope.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByNumber(protoreflect.FieldNumber(store.KindOf(o))), protoreflect.ValueOfMessage(o.ProtoReflect()))
	return envelope
}

// errEmpty: the server sent an envelope of a kind that this program does not know.
var errEmpty = errors.New("the server sent an object of a kind that this program does not know: it is older than the server")

func unwrap(envelope *v1.Object) (store.Object, error) {
	m := envelope.ProtoReflect()
	field := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if field == nil {
		return nil, errEmpty
	}
	o, ok := m.Get(field).Message().Interface().(store.Object)
	if !ok {
		return nil, errEmpty
	}
	return o, nil
}

// get fetches one object.
func get(ctx context.Context, conn grpc.ClientConnInterface, kind v1.Kind, name string) (store.Object, error) {
	response, err := v1.NewObjectServiceClient(conn).Get(ctx, &v1.GetRequest{Kind: kind, Name: name})
	if err != nil {
		return nil, err
	}
	return unwrap(response.GetObject())
}

// list fetches all pages of what request asks for.
func list(ctx context.Context, conn grpc.ClientConnInterface, request *v1.ListRequest) ([]store.Object, error) {
	var all []store.Object
	for {
		page, err := v1.NewObjectServiceClient(conn).List(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, envelope := range page.GetObjects() {
			o, err := unwrap(envelope)
			if err != nil {
				return nil, err
			}
			all = append(all, o)
		}
		if page.GetNextPageToken() == "" {
			return all, nil
		}
		request.PageToken = page.GetNextPageToken()
	}
}

// completionTimeout bounds what a press of the tab key costs.
const completionTimeout = 2 * time.Second

// completion is a cobra completion function.
type completion = func(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective)

// completeRef offers kinds, then names of that kind.
func (a *app) completeRef(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return plurals(), cobra.ShellCompDirectiveNoFileComp
	case 1:
		if kind, err := parseKind(args[0]); err == nil {
			return a.names(c.Context(), kind), cobra.ShellCompDirectiveNoFileComp
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeNames offers the names of a kind for the first argument.
func (a *app) completeNames(kinds ...v1.Kind) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []string
		for _, kind := range kinds {
			names = append(names, a.names(c.Context(), kind)...)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeVersions offers the names of images for the first argument, and for the others the image's versions, newest first.
func (a *app) completeVersions(c *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return a.completeNames(v1.Kind_KIND_IMAGE)(c, args, toComplete)
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionTimeout)
	defer cancel()
	var numbers []string
	_ = a.withConn(func(conn *grpc.ClientConn) error {
		o, err := get(ctx, conn, v1.Kind_KIND_IMAGE, args[0])
		image, _ := o.(*v1.Image)
		for _, v := range slices.Backward(image.GetStatus().GetVersions()) {
			numbers = append(numbers, strings.TrimRight(fmt.Sprintf("%d\t%s", v.GetNumber(), show.Clean(v.GetNote())), "\t"))
		}
		return err
	})
	return numbers, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
}

// completeFlag offers the names of a kind for a flag.
func (a *app) completeFlag(c *cobra.Command, flag string, kind v1.Kind) {
	_ = c.RegisterFlagCompletionFunc(flag, func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.names(c.Context(), kind), cobra.ShellCompDirectiveNoFileComp
	})
}

// names asks the server, briefly: who presses the tab key does not wait long.
func (a *app) names(ctx context.Context, kind v1.Kind) []string {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	var names []string
	_ = a.withConn(func(conn *grpc.ClientConn) error {
		objects, err := list(ctx, conn, &v1.ListRequest{Kind: kind})
		for _, o := range objects {
			names = append(names, o.GetMeta().GetName())
		}
		return err
	})
	return names
}
