package api

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// watchQueue is how many batches a watcher may lag behind before its stream ends.
const watchQueue = 1024

var (
	errSlowWatcher = status.Error(codes.ResourceExhausted, "the watcher reads too slowly and lost its place: watch again")
	errClosing     = status.Error(codes.Unavailable, "this daybreakd is shutting down: watch again")
)

// Watch sends the picture of now and then every change.
func (s *objectService) Watch(request *v1.WatchRequest, stream grpc.ServerStreamingServer[v1.WatchResponse]) error {
	group, ctx := errgroup.WithContext(stream.Context())
	queue := make(chan store.Batch, watchQueue)
	group.Go(func() error {
		err := s.store.Watch(ctx, request.GetKinds(), func(batch store.Batch) error {
			select {
			case queue <- batch:
				return nil
			default:
				return errSlowWatcher
			}
		})
		if err == nil {
			err = ctx.Err()
		}
		return err
	})
	group.Go(func() error {
		for {
			select {
			case batch := <-queue:
				if err := sendBatch(batch, stream.Send); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	group.Go(func() error {
		select {
		case <-s.closing:
			return errClosing
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return waitOrLeave(ctx, group)
}

// waitOrLeave waits for the group. It does not wait for a Send that hangs on a peer that does not read: when the watch
// is over the handler leaves, gRPC ends the stream, and that ends the Send.
func waitOrLeave(ctx context.Context, group *errgroup.Group) error {
	<-ctx.Done()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return group.Wait()
}

// sendBatch cuts a batch into messages that every client accepts.
func sendBatch(batch store.Batch, send func(*v1.WatchResponse) error) error {
	if !batch.Reset && len(batch.Changed)+len(batch.Deleted) == 0 {
		return nil
	}
	message, size := &v1.WatchResponse{Reset_: batch.Reset}, 0
	for _, o := range batch.Changed {
		wrapped := wrap(o)
		if grown := size + proto.Size(wrapped); grown > answerBytes && size > 0 {
			if err := send(message); err != nil {
				return err
			}
			message, size = &v1.WatchResponse{}, 0
		}
		message.Changed = append(message.Changed, wrapped)
		size += proto.Size(wrapped)
	}
	for _, ref := range batch.Deleted {
		message.Deleted = append(message.Deleted, &v1.DeletedObject{Kind: ref.Kind, Name: ref.Name})
	}
	message.Synced = batch.Reset
	return send(message)
}
