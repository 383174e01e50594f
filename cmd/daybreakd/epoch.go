package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"daybreak/orchestrator/store/etcdstore"
)

// epochCommand is the last step of a restore from a backup. Without it the hosts, which remember more than the backup
// does, would take old words for new ones.
func epochCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "raise-epoch [EPOCH]",
		Short: "After a restore from a backup: begin a new epoch",
		Long: `Raises the cluster's epoch by one, or to EPOCH where a host says that it has met a higher one. Run it once after the
store was restored from a backup, before daybreakd starts again: hosts then know that what they hear is newer than what
they remember. Restore etcd itself with revisions bumped (etcdutl snapshot restore --bump-revision 1000000000
--mark-compacted), so that no generation is given twice.`,
		Example: `  daybreakd raise-epoch --data-dir /var/lib/daybreak
  daybreakd raise-epoch 7 --config /etc/daybreak/daybreakd.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{errors.New("raise-epoch takes one epoch at most")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			options, err := load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			var to uint64
			if len(args) == 1 {
				if to, err = strconv.ParseUint(args[0], 10, 32); err != nil || to == 0 {
					return usageError{fmt.Errorf("epoch %q: want a number above 0", args[0])}
				}
			}
			cluster, err := raiseEpoch(cmd.Context(), options, to)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cluster %s is in epoch %d\n", cluster.ID, cluster.Epoch)
			return nil
		},
	}
	addFlags(command.Flags())
	return command
}

// raiseEpoch raises the epoch of the configured store: by one when to is 0.
func raiseEpoch(ctx context.Context, o options, to uint64) (raised etcdstore.Cluster, err error) {
	lock, err := lockDir(o.DataDir)
	if err != nil {
		return raised, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	err = withEtcd(ctx, o, o.Logger(), func(ctx context.Context, client *clientv3.Client) error {
		before, err := etcdstore.ClusterID(ctx, client, prefix)
		if err != nil {
			return err
		}
		switch {
		case to == 0:
			to = before.Epoch + 1
		case to <= before.Epoch:
			return fmt.Errorf("the cluster is in epoch %d already: an epoch only rises", before.Epoch)
		}
		raised, err = etcdstore.RaiseEpoch(ctx, client, prefix, to)
		return err
	})
	return raised, err
}
