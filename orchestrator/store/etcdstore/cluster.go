package etcdstore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"

	"daybreak/orchestrator/store"
)

// Cluster is which store this is.
type Cluster struct {
	// ID is a UUID given when the store was new.
	ID string
	// Epoch counts the lives of the store: 1, and one more each time it was restored from a backup.
	Epoch uint64
}

func clusterKeys(prefix string) (id, epoch string) {
	prefix = strings.TrimRight(prefix, "/")
	return prefix + "/cluster/id", prefix + "/cluster/epoch"
}

// ClusterID returns the identity of the store under a prefix, and gives it one if it is new. It fails when etcd does not
// answer within 15 seconds.
func ClusterID(ctx context.Context, client *clientv3.Client, prefix string) (Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	idKey, epochKey := clusterKeys(prefix)
	answer, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(idKey), "=", 0), clientv3.Compare(clientv3.CreateRevision(epochKey), "=", 0)).
		Then(clientv3.OpPut(idKey, uuid.NewString()), clientv3.OpPut(epochKey, "1"), clientv3.OpGet(idKey), clientv3.OpGet(epochKey)).
		Else(clientv3.OpGet(idKey), clientv3.OpGet(epochKey)).
		Commit()
	if err != nil {
		return Cluster{}, readError(ctx, "read identity of the store", err)
	}
	var values []string
	for _, part := range answer.Responses {
		for _, kv := range part.GetResponseRange().GetKvs() {
			values = append(values, string(kv.Value))
		}
	}
	if len(values) != 2 {
		return Cluster{}, fmt.Errorf("read identity of the store: one of %s and %s is missing: %w", idKey, epochKey, store.ErrBroken)
	}
	epoch, err := strconv.ParseUint(values[1], 10, 64)
	if err != nil || epoch == 0 || uuid.Validate(values[0]) != nil {
		return Cluster{}, fmt.Errorf("read identity of the store: id %q, epoch %q: %w", values[0], values[1], store.ErrBroken)
	}
	return Cluster{ID: values[0], Epoch: epoch}, nil
}

// RaiseEpoch makes a store's epoch at least as high as given and returns what it is then. It never lowers it.
func RaiseEpoch(ctx context.Context, client *clientv3.Client, prefix string, epoch uint64) (Cluster, error) {
	_, epochKey := clusterKeys(prefix)
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	for {
		have, err := ClusterID(ctx, client, prefix)
		if err != nil || have.Epoch >= epoch {
			return have, err
		}
		_, err = client.Txn(ctx).
			If(clientv3.Compare(clientv3.Value(epochKey), "=", strconv.FormatUint(have.Epoch, 10))).
			Then(clientv3.OpPut(epochKey, strconv.FormatUint(epoch, 10))).
			Commit()
		if err != nil {
			return Cluster{}, fmt.Errorf("raise epoch of the store: %w", err)
		}
	}
}
