package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// picture is what a watch has told so far.
type picture struct {
	objects map[store.Ref]store.Object
	// coming gathers the objects of a picture that the server is sending anew.
	coming map[store.Ref]store.Object
}

// change is what one message changed.
type change struct {
	changed []store.Object
	deleted []store.Object
}

// take works a message in. ready is false while a picture is incomplete.
func (p *picture) take(message *v1.WatchResponse) (c change, ready bool, err error) {
	if message.GetReset_() {
		p.coming = map[store.Ref]store.Object{}
	}
	for _, envelope := range message.GetChanged() {
		o, err := unwrap(envelope)
		if err != nil {
			return c, false, err
		}
		if p.coming != nil {
			p.coming[store.RefOf(o)] = o
			continue
		}
		p.objects[store.RefOf(o)] = o
		c.changed = append(c.changed, o)
	}
	for _, gone := range message.GetDeleted() {
		ref := store.Ref{Kind: gone.GetKind(), Name: gone.GetName()}
		if o, known := p.objects[ref]; known && p.coming == nil {
			c.deleted = append(c.deleted, o)
			delete(p.objects, ref)
		}
	}
	if p.coming == nil {
		return c, true, nil
	}
	if !message.GetSynced() {
		return c, false, nil
	}
	return p.replace(), true, nil
}

// replace makes the new picture the present one and says what differs.
func (p *picture) replace() (c change) {
	for ref, o := range p.coming {
		if had, known := p.objects[ref]; !known || had.GetMeta().GetRevision() != o.GetMeta().GetRevision() {
			c.changed = append(c.changed, o)
		}
	}
	for ref, o := range p.objects {
		if _, still := p.coming[ref]; !still {
			c.deleted = append(c.deleted, o)
		}
	}
	p.objects, p.coming = p.coming, nil
	byName := func(x, y store.Object) int {
		return strings.Compare(x.GetMeta().GetName(), y.GetMeta().GetName())
	}
	slices.SortFunc(c.changed, byName)
	slices.SortFunc(c.deleted, byName)
	return c
}

// all returns the objects of T's kind, sorted by name.
func all[T store.Object](p *picture) []T {
	var list []T
	for _, o := range p.objects {
		if typed, ok := o.(T); ok {
			list = append(list, typed)
		}
	}
	slices.SortFunc(list, func(x, y T) int { return strings.Compare(x.GetMeta().GetName(), y.GetMeta().GetName()) })
	return list
}

// errStop ends a follow without an error.
var errStop = errors.New("enough seen")

// follow watches the kinds and calls handle with the whole picture first and then after every change, until handle
// returns errStop or another error, or ctx ends. It watches anew when the line breaks, and handle does not see that.
func (a *app) follow(ctx context.Context, conn *grpc.ClientConn, kinds []v1.Kind, handle func(p *picture, c change) error) error {
	p := &picture{objects: map[store.Ref]store.Object{}}
	wait, synced := time.Second/2, false
	for {
		err := watchOnce(ctx, conn, kinds, func(message *v1.WatchResponse) error {
			c, ready, err := p.take(message)
			if err != nil || !ready {
				return err
			}
			synced, wait = true, time.Second/2
			return handle(p, c)
		})
		if err == errStop {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Before anything was seen an error is more likely to be the caller's than the line's.
		if code := status.Code(err); !synced || code != codes.Unavailable && code != codes.ResourceExhausted {
			return err
		}
		fmt.Fprintf(a.errs, "the line to the control plane broke (%s); trying again\n", lines(status.Convert(err).Message()))
		p.coming = nil
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(wait*2, 10*time.Second)
	}
}

func watchOnce(ctx context.Context, conn *grpc.ClientConn, kinds []v1.Kind, handle func(*v1.WatchResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := v1.NewObjectServiceClient(conn).Watch(ctx, &v1.WatchRequest{Kinds: kinds})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := handle(message); err != nil {
			return err
		}
	}
}
