package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"daybreak/orchestrator/store"
)

const (
	// leaseSeconds is how long a leader that fell silent keeps others from leading.
	leaseSeconds = 10
	// resignWithin bounds the farewell of a leader whose context has ended.
	resignWithin = 3 * time.Second
	// standPause is how long Lead waits before it stands again after etcd failed it, and up to twice that.
	standPause = time.Second
)

// errStanding marks errors of etcd while no election was won.
type errStanding struct{ error }

func (e errStanding) Unwrap() error { return e.error }

// Lead takes part in the election at key, and calls lead each time it is won, with the guard for what the leader
// writes. The context that lead gets ends when the lease is lost; then, or when lead returns store.ErrNotLeader, Lead
// stands for election again; so it does while etcd cannot be reached. It returns when ctx ends, when lead returns anything
// else, or when etcd refuses. It resigns before it returns, so that the next leads at once. address is what Leader tells others. All keys below key are the
// election's: nothing else may be stored there.
//
// A lease is a hint: for a moment two may believe that they lead. Only the guard keeps the older one from writing.
func Lead(ctx context.Context, client *clientv3.Client, key, address string, lead func(ctx context.Context, guard store.Guard) error) error {
	for {
		again, err := leadOnce(ctx, client, key, address, lead)
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), withoutEnd(err))
		}
		if !again {
			return err
		}
		var failed errStanding
		if !errors.As(err, &failed) {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(standPause + rand.N(standPause)):
		}
	}
}

// withoutEnd drops an error that only says that a context ended.
func withoutEnd(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// leadOnce wins one election and leads until it is over. again says that it was lost or not won, rather than given up.
func leadOnce(ctx context.Context, client *clientv3.Client, key, address string, lead func(context.Context, store.Guard) error) (again bool, err error) {
	lease, err := client.Grant(ctx, leaseSeconds)
	if err != nil {
		return !hopeless(err), fmt.Errorf("get lease for leadership: %w", errStanding{err})
	}
	// The lease must outlive ctx: until lead has returned, nobody else may lead.
	held, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	session, err := concurrency.NewSession(client, concurrency.WithLease(lease.ID), concurrency.WithContext(held))
	if err != nil {
		return !hopeless(err), fmt.Errorf("keep lease for leadership: %w", errStanding{err})
	}
	defer func() {
		farewell, cancel := context.WithTimeout(held, resignWithin)
		defer cancel()
		session.Orphan()
		if _, revokeErr := client.Revoke(farewell, lease.ID); revokeErr != nil && err == nil && !again && ctx.Err() == nil {
			err = fmt.Errorf("resign leadership: %w", revokeErr)
		}
	}()
	election := concurrency.NewElection(session, key)
	leading, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(session.Ctx(), cancel)
	defer stop()
	if err := election.Campaign(leading, address); err != nil {
		return !hopeless(err), fmt.Errorf("stand for leadership: %w", errStanding{err})
	}
	err = lead(leading, store.Guard{Key: election.Key(), Revision: election.Rev()})
	lost := leading.Err() != nil && ctx.Err() == nil || errors.Is(err, store.ErrNotLeader)
	return lost, err
}

// Leader returns the address that the present leader gave; store.ErrNotFound if nobody leads.
func Leader(ctx context.Context, client *clientv3.Client, key string) (address string, err error) {
	answer, err := client.Get(ctx, key+"/", clientv3.WithFirstCreate()...)
	if err != nil {
		return "", readError(ctx, "find leader", err)
	}
	if len(answer.Kvs) == 0 {
		return "", fmt.Errorf("find leader: %w", store.ErrNotFound)
	}
	return string(answer.Kvs[0].Value), nil
}
