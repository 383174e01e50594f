package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator/store"
)

// term is one time that a candidate leads.
type term struct {
	address string
	guard   store.Guard
	ctx     context.Context
	end     chan<- error // ends the term with this
}

// stand has a candidate stand for election in a group and sends its terms.
func stand(ctx context.Context, group *errgroup.Group, client *clientv3.Client, election, address string, terms chan<- term) {
	group.Go(func() error {
		err := Lead(ctx, client, election, address, func(ctx context.Context, guard store.Guard) error {
			end := make(chan error, 1)
			terms <- term{address, guard, ctx, end}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case err := <-end:
				return err
			}
		})
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	})
}

func wantLeader(t *testing.T, client *clientv3.Client, election, want string) {
	t.Helper()
	address, err := Leader(t.Context(), client, election)
	if want == "" && errors.Is(err, store.ErrNotFound) {
		return
	}
	if err != nil || address != want {
		t.Errorf("leader is %q, %v, want %q", address, err, want)
	}
}

func TestLead(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	election := prefix + "/leader"
	b := New(client, prefix, zerolog.Nop())
	write := func(guard store.Guard, name string) error {
		_, err := b.Commit(t.Context(), guard, []store.Op{store.Create(newZone(name))})
		return err
	}
	wantLeader(t, client, election, "")
	var group errgroup.Group
	terms := make(chan term)
	leading, resign := context.WithCancel(t.Context())
	defer resign()
	stand(leading, &group, client, election, "10.0.0.1:8443", terms)
	first := <-terms
	wantLeader(t, client, election, "10.0.0.1:8443")
	if err := write(first.guard, "a"); err != nil {
		t.Errorf("write as leader: %v", err)
	}
	waiting, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	stand(waiting, &group, client, election, "10.0.0.2:8443", terms)
	for standing := int64(0); standing < 2; { // until the second stands, too
		answer, err := client.Get(t.Context(), election+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatal(err)
		}
		standing = answer.Count
	}
	wantLeader(t, client, election, "10.0.0.1:8443")

	began := time.Now()
	resign()
	second := <-terms
	if took := time.Since(began); took > leaseSeconds*time.Second/2 {
		t.Errorf("after a resignation the next led only after %v", took)
	}
	if second.address != "10.0.0.2:8443" || first.ctx.Err() == nil {
		t.Errorf("next leader is %s, the first one's context has %v", second.address, first.ctx.Err())
	}
	wantLeader(t, client, election, "10.0.0.2:8443")
	if err := write(first.guard, "b"); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("write as the former leader: %v", err)
	}
	if err := write(second.guard, "b"); err != nil {
		t.Errorf("write as the new leader: %v", err)
	}
	giveUp()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	wantLeader(t, client, election, "")
}

func TestLeadEnds(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	election := prefix + "/leader"
	var group errgroup.Group
	terms := make(chan term)
	stand(t.Context(), &group, client, election, "a", terms)
	one := <-terms
	one.end <- fmt.Errorf("commit: %w", store.ErrNotLeader)
	two := <-terms // it stands again
	if one.guard == two.guard || one.ctx.Err() == nil {
		t.Errorf("guards %v and %v, the first context has %v", one.guard, two.guard, one.ctx.Err())
	}
	failure := errors.New("disk is gone")
	two.end <- failure
	if err := group.Wait(); !errors.Is(err, failure) {
		t.Errorf("ended with %v", err)
	}
	wantLeader(t, client, election, "")

	var calm errgroup.Group
	stand(t.Context(), &calm, client, election, "a", terms)
	three := <-terms
	three.end <- nil
	if err := calm.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	wantLeader(t, client, election, "")
}

// TestLeadLosesLease takes the lease away: the leader must notice, stop, and stand again.
func TestLeadLosesLease(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	election := prefix + "/leader"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group errgroup.Group
	terms := make(chan term)
	stand(ctx, &group, client, election, "a", terms)
	one := <-terms
	key, err := client.Get(ctx, one.guard.Key)
	if err != nil || len(key.Kvs) != 1 {
		t.Fatalf("%v, %v", key, err)
	}
	if _, err := client.Revoke(ctx, clientv3.LeaseID(key.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
	two := <-terms
	if one.ctx.Err() == nil || one.guard == two.guard {
		t.Errorf("the first context has %v, guards %v and %v", one.ctx.Err(), one.guard, two.guard)
	}
	b := New(client, prefix, zerolog.Nop())
	if _, err := b.Commit(ctx, one.guard, []store.Op{store.Create(newZone("a"))}); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("write as the former leader: %v", err)
	}
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// TestLeadBeforeEtcd stands for election while there is no etcd yet.
func TestLeadBeforeEtcd(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	client, err := Dial([]string{"unix://" + dir + "/s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	tried, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := client.Grant(tried, leaseSeconds); err == nil {
		t.Fatal("there is an etcd")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group errgroup.Group
	terms := make(chan term)
	stand(ctx, &group, client, "/leader", "a", terms)
	_, stop := external(t, dir)
	defer stop()
	one := <-terms
	wantLeader(t, client, "/leader", "a")
	one.end <- nil
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestClusterID(t *testing.T) {
	t.Parallel()
	client, prefix := serve(t)
	ctx := t.Context()
	var group errgroup.Group
	found := make([]Cluster, 8)
	for i := range found {
		group.Go(func() (err error) {
			found[i], err = ClusterID(ctx, client, prefix)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, c := range found {
		if c != found[0] || len(c.ID) != 36 || c.Epoch != 1 {
			t.Errorf("identities %v and %v", c, found[0])
		}
	}
	if other, err := ClusterID(ctx, client, prefix+"/other"); err != nil || other.ID == found[0].ID {
		t.Errorf("another store is %v, %v", other, err)
	}
	for _, row := range []struct{ to, want uint64 }{{5, 5}, {3, 5}, {5, 5}, {6, 6}} {
		if c, err := RaiseEpoch(ctx, client, prefix+"/", row.to); err != nil || c.Epoch != row.want || c.ID != found[0].ID {
			t.Errorf("raised to %d: %v, %v", row.to, c, err)
		}
	}
	if _, err := client.Put(ctx, prefix+"/cluster/epoch", "many"); err != nil {
		t.Fatal(err)
	}
	if c, err := ClusterID(ctx, client, prefix); !errors.Is(err, store.ErrBroken) {
		t.Errorf("of a broken epoch: %v, %v", c, err)
	}
}
