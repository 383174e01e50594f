package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/cmd/daybreak/objectfile"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) deleteCommand() *cobra.Command {
	var files []string
	var data string
	var hostOff bool
	c := &cobra.Command{
		Use:   "delete KIND NAME | delete -f FILE…",
		Short: "Ask for objects to go",
		Long: `Delete returns at once; what takes time, like stopping a pool's desktops, is done by the control plane.

Desktops with data disks go only with --data: 'keep' leaves the disks on their hosts, 'delete' puts them into the hosts'
trash, from where they vanish after its retention.`,
		Example: `  daybreak delete pool sales
  daybreak delete pool sales --data keep
  daybreak delete -f pool.yaml
  daybreak delete host kvm3 --host-is-off    its machine is off, seen with your own eyes: its desktops start elsewhere`,
		Args:              atMost(2),
		ValidArgsFunction: a.completeRef,
		RunE: func(c *cobra.Command, args []string) error {
			disposal, ok := map[string]v1.DataDisposal{
				"": 0, "keep": v1.DataDisposal_DATA_DISPOSAL_KEEP, "delete": v1.DataDisposal_DATA_DISPOSAL_DELETE,
			}[data]
			if !ok {
				return wrongUsage("--data wants keep or delete, found %q", data)
			}
			if len(files) > 0 {
				if len(args) > 0 || hostOff {
					return wrongUsage("-f cannot be combined with KIND NAME or --host-is-off")
				}
				return a.deleteFiles(c.Context(), files, disposal)
			}
			if len(args) == 0 {
				return wrongUsage("want KIND NAME or -f FILE")
			}
			kind, name, err := parseRef(args)
			if err != nil {
				return err
			}
			if name == "" {
				return wrongUsage("want the NAME of the %s to delete", word(kind))
			}
			return a.withConn(func(conn *grpc.ClientConn) error {
				said, err := deleteOne(c.Context(), conn, &v1.DeleteRequest{Kind: kind, Name: name, Data: disposal, AttestHostOff: hostOff})
				return a.say(said, err)
			})
		},
	}
	fileFlag(c, &files)
	c.Flags().StringVar(&data, "data", "", "what happens to data disks: keep or delete")
	c.Flags().BoolVar(&hostOff, "host-is-off", false, "attest that the machine of a host that is DOWN is off")
	_ = c.RegisterFlagCompletionFunc("data", cobra.FixedCompletions([]string{"keep", "delete"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// deleteFiles deletes what files hold, in the order that is the reverse of apply's.
func (a *app) deleteFiles(ctx context.Context, files []string, disposal v1.DataDisposal) error {
	documents, err := a.read(files)
	if err != nil {
		return err
	}
	slices.Reverse(documents)
	return a.withConn(func(conn *grpc.ClientConn) error {
		return a.forEach(documents, func(d *objectfile.Document) (string, error) {
			request := &v1.DeleteRequest{Kind: d.Kind(), Name: d.Object.GetMeta().GetName()}
			if d.Kind() == v1.Kind_KIND_POOL || d.Kind() == v1.Kind_KIND_DESKTOP {
				request.Data = disposal
			}
			return deleteOne(ctx, conn, request)
		})
	})
}

func deleteOne(ctx context.Context, conn grpc.ClientConnInterface, request *v1.DeleteRequest) (string, error) {
	response, err := v1.NewObjectServiceClient(conn).Delete(ctx, request)
	if err != nil {
		return "", err
	}
	name := word(request.GetKind()) + "/" + request.GetName()
	if response.GetGone() {
		return name + " deleted", nil
	}
	return name + " is going; 'daybreak get " + name + "' shows how far it is", nil
}
