// Package etcdstore keeps the store's contract on etcd, and knows everything about etcd that Daybreak needs: the server
// inside daybreakd, the connection to a cluster, leadership, the cluster's identity.
//
// Here: Backend, Embedded, Dial, Lead, ClusterID. Not here: what objects mean, who may write them. cmd/daybreakd makes
// what is here; everybody else sees a store.Backend.
package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// listPage is how many objects one request of a listing brings.
	listPage = 1000
	// answerWithin bounds one request, so that an etcd that hangs holds nobody up for ever.
	answerWithin = 15 * time.Second
)

// Backend is a store.Backend on etcd. Objects are the values of <prefix>/<kind>/<name>; an object's revision is its
// key's ModRevision. Register it with a prometheus.Registerer for its metrics.
type Backend struct {
	client  *clientv3.Client
	prefix  string // ends with a slash
	log     zerolog.Logger
	metrics *metrics
	within  time.Duration // answerWithin, but in tests

	// newest is the highest revision that this Backend told somebody of; watches see to it that they get there.
	newest atomic.Int64
}

// New returns a Backend that keeps its objects under a prefix, for example "/daybreak". The client stays the caller's.
func New(client *clientv3.Client, prefix string, log zerolog.Logger) *Backend {
	return &Backend{client: client, prefix: strings.TrimRight(prefix, "/") + "/", log: log, metrics: newMetrics(), within: answerWithin}
}

func (b *Backend) key(ref store.Ref) string {
	return b.prefix + store.KindName(ref.Kind) + "/" + ref.Name
}

// ref is the reverse of key. Keys that are no objects' (of a later version, or a leader's) give false.
func (b *Backend) ref(key []byte) (store.Ref, bool) {
	kindName, name, ok := strings.Cut(strings.TrimPrefix(string(key), b.prefix), "/")
	ref := store.Ref{Kind: store.KindByName(kindName), Name: name}
	return ref, ok && ref.Kind != v1.Kind_KIND_UNSPECIFIED
}

// told remembers a revision that a caller may wait for.
func (b *Backend) told(revision int64) int64 {
	for {
		newest := b.newest.Load()
		if revision <= newest || b.newest.CompareAndSwap(newest, revision) {
			return revision
		}
	}
}

// Get implements store.Backend.
func (b *Backend) Get(ctx context.Context, ref store.Ref) (store.Object, error) {
	objects, err := b.Fetch(ctx, []store.Ref{ref})
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", ref, err)
	}
	if objects[0] == nil {
		return nil, fmt.Errorf("get %s: %w", ref, store.ErrNotFound)
	}
	return objects[0], nil
}

// Fetch implements store.Backend.
func (b *Backend) Fetch(ctx context.Context, refs []store.Ref) ([]store.Object, error) {
	if len(refs) == 0 {
		return nil, nil
	}
	if len(refs) > store.MaxOps {
		return nil, fmt.Errorf("read %d objects at once, at most %d are allowed: %w", len(refs), store.MaxOps, store.ErrInvalid)
	}
	reads := make([]clientv3.Op, len(refs))
	for i, ref := range refs {
		reads[i] = clientv3.OpGet(b.key(ref))
	}
	asking, cancel := context.WithTimeout(ctx, b.within)
	defer cancel()
	answer, err := b.client.Txn(asking).Then(reads...).Commit()
	if err != nil {
		return nil, readError(ctx, "read objects", err)
	}
	objects := make([]store.Object, len(refs))
	for i, part := range answer.Responses {
		kvs := part.GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			continue
		}
		objects[i], err = store.Decode(refs[i], kvs[0].ModRevision, kvs[0].Value)
		if err != nil {
			b.metrics.broken.Inc()
			return nil, fmt.Errorf("key %s: %w", kvs[0].Key, err)
		}
	}
	return objects, nil
}

// List implements store.Backend. Values that are broken are left out, logged and counted.
func (b *Backend) List(ctx context.Context, kind v1.Kind) ([]store.Object, int64, error) {
	objects, revision, err := b.listAt(ctx, b.prefix+store.KindName(kind)+"/", 0)
	if errors.Is(err, rpctypes.ErrCompacted) { // so slow that the revision of the first page is gone: once more
		objects, revision, err = b.listAt(ctx, b.prefix+store.KindName(kind)+"/", 0)
	}
	if err != nil {
		return nil, 0, readError(ctx, "list "+store.KindName(kind), err)
	}
	return objects, b.told(revision), nil
}

// listAt returns all objects under a prefix of keys as they were at a revision; 0 means now.
func (b *Backend) listAt(ctx context.Context, prefix string, revision int64) ([]store.Object, int64, error) {
	var objects []store.Object
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		asking, cancel := context.WithTimeout(ctx, b.within)
		answer, err := b.client.Get(asking, from, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(listPage))
		cancel()
		if err != nil {
			return nil, 0, err
		}
		if revision == 0 {
			revision = answer.Header.Revision
		}
		for _, kv := range answer.Kvs {
			if o := b.decode(kv); o != nil {
				objects = append(objects, o)
			}
		}
		if !answer.More {
			return objects, revision, nil
		}
		from = string(answer.Kvs[len(answer.Kvs)-1].Key) + "\x00"
	}
}

// decode returns the object of a key, nil if the key is no object's or its value is broken: one bad value must not hide
// all the others.
func (b *Backend) decode(kv *mvccpb.KeyValue) store.Object {
	ref, ok := b.ref(kv.Key)
	if !ok {
		return nil
	}
	o, err := store.Decode(ref, kv.ModRevision, kv.Value)
	if err != nil {
		b.metrics.broken.Inc()
		b.log.Error().Err(err).Bytes("key", kv.Key).Msg("stored value is broken; it is passed over")
		return nil
	}
	return o
}

// Commit implements store.Backend.
func (b *Backend) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	began := time.Now()
	revision, err := b.commit(ctx, guard, ops)
	b.metrics.commit(time.Since(began), err)
	return revision, err
}

func (b *Backend) commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("commit: %w", err) // nothing was sent: the outcome is known
	}
	if guard != (store.Guard{}) && (guard.Key == "" || guard.Revision <= 0) {
		return 0, fmt.Errorf("commit as leader %q: %w", guard.Key, store.ErrNotLeader)
	}
	ready, err := store.Prepare(ops, time.Now())
	if err != nil {
		return 0, err
	}
	txn, err := b.transaction(guard, ready)
	if err != nil {
		return 0, err
	}
	asking, cancel := context.WithTimeout(ctx, b.within)
	defer cancel()
	answer, err := b.client.Txn(asking).If(txn.compares...).Then(txn.writes...).Else(txn.reads...).Commit()
	if err != nil {
		return 0, commitError(err)
	}
	if !answer.Succeeded {
		return 0, blame(guard, ready, answer)
	}
	return b.told(answer.Header.Revision), nil
}

// transaction is what one Commit says to etcd. reads are made when a compare fails: one for each op and then one for the
// guard, to learn which it was.
type transaction struct {
	compares      []clientv3.Cmp
	writes, reads []clientv3.Op
}

func (b *Backend) transaction(guard store.Guard, ops []store.Op) (transaction, error) {
	var txn transaction
	for _, op := range ops {
		key := b.key(op.Ref)
		switch op.Verb {
		case store.VerbCreate, store.VerbUpdate:
			value, err := store.Encode(op.Object)
			if err != nil {
				return transaction{}, &store.OpError{Op: op, Err: err}
			}
			txn.writes = append(txn.writes, clientv3.OpPut(key, string(value)))
		case store.VerbDelete:
			txn.writes = append(txn.writes, clientv3.OpDelete(key))
		case store.VerbCheck:
		}
		txn.compares = append(txn.compares, clientv3.Compare(clientv3.ModRevision(key), "=", expected(op)))
		txn.reads = append(txn.reads, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	if guard != (store.Guard{}) {
		txn.compares = append(txn.compares, clientv3.Compare(clientv3.CreateRevision(guard.Key), "=", guard.Revision))
		txn.reads = append(txn.reads, clientv3.OpGet(guard.Key, clientv3.WithKeysOnly()))
	}
	return txn, nil
}

// expected returns the ModRevision that an op's key must have; 0 is that of a key that is not there.
func expected(op store.Op) int64 {
	if op.Verb == store.VerbCreate {
		return 0
	}
	return op.Revision
}

// blame finds out from the reads of a refused transaction what it was refused for.
func blame(guard store.Guard, ops []store.Op, answer *clientv3.TxnResponse) error {
	if guard != (store.Guard{}) {
		kvs := answer.Responses[len(ops)].GetResponseRange().GetKvs()
		if len(kvs) == 0 || kvs[0].CreateRevision != guard.Revision {
			return fmt.Errorf("commit as leader %s: %w", guard.Key, store.ErrNotLeader)
		}
	}
	var failed []error
	for i, op := range ops {
		have := int64(0)
		if kvs := answer.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
			have = kvs[0].ModRevision
		}
		if have == expected(op) {
			continue
		}
		err := store.ErrConflict
		if op.Verb == store.VerbCreate {
			err = store.ErrExists
		}
		failed = append(failed, &store.OpError{Op: op, Err: err})
	}
	return errors.Join(failed...)
}
