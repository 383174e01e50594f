package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// relieveEvery is how often the embedded server looks whether its database is full.
	relieveEvery = time.Minute
	// relieveBelow is the share of the quota, percent, that live data may have for writes to be taken again.
	relieveBelow = 80
)

// relieve makes a full database take writes again. A database that has reached its quota takes none until its history
// is compacted, the file defragmented and the alarm disarmed; nobody from outside can do that here, since the server
// listens on nothing, and without it not even a leader can be elected. It does nothing while there is no alarm.
func (s *Server) relieve(ctx context.Context) error {
	alarms, err := s.Client.AlarmList(ctx)
	if err != nil {
		return fmt.Errorf("read alarms of etcd: %w", err)
	}
	for _, alarm := range alarms.Alarms {
		if alarm.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		if err := s.free(ctx); err != nil {
			return fmt.Errorf("free space in etcd: %w", err)
		}
		if _, err := s.Client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(alarm)); err != nil {
			return fmt.Errorf("disarm alarm of etcd: %w", err)
		}
		s.log.Warn().Msg("etcd's database was full and takes writes again")
	}
	return nil
}

// free drops all history and defragments. It fails when the database is not well below its quota then, and does not try
// again until something was deleted.
func (s *Server) free(ctx context.Context) error {
	status, err := s.Client.Status(ctx, "")
	if err != nil {
		return err
	}
	revision := status.Header.Revision
	if revision != s.freed {
		_, err = s.Client.Compact(ctx, revision, clientv3.WithCompactPhysical())
		if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
			return err
		}
		// Not by the client: its in-process Defragment panics in 3.7.3.
		if err := s.etcd.Server.Backend().Defrag(); err != nil {
			return err
		}
		s.freed = revision
	}
	if status, err = s.Client.Status(ctx, ""); err != nil {
		return err
	}
	if status.DbSize > s.quota/100*relieveBelow {
		return fmt.Errorf("%d MiB of the quota of %d MiB are live data: delete objects that nobody needs, or raise the quota",
			status.DbSize>>20, s.quota>>20)
	}
	return nil
}
