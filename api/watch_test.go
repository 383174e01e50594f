package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// picture watches until the first picture is complete.
func (r *rig) picture(kinds ...v1.Kind) (seen map[string]store.Object, messages int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	stream, err := r.objects().Watch(ctx, &v1.WatchRequest{Kinds: kinds})
	if err != nil {
		r.t.Fatal(err)
	}
	seen = map[string]store.Object{}
	for first := true; ; first = false {
		message, err := stream.Recv()
		if err != nil {
			r.t.Fatal(err)
		}
		messages++
		if message.GetReset_() != first || proto.Size(message) > maxMessage {
			r.t.Errorf("message %d: reset %v, %d bytes", messages, message.GetReset_(), proto.Size(message))
		}
		for _, o := range message.GetChanged() {
			seen[unwrap(o).GetMeta().GetName()] = unwrap(o)
		}
		if message.GetSynced() {
			return seen, messages
		}
	}
}

func TestWatch(t *testing.T) {
	r := newRig(t)
	r.put(store.WriterAPI, zone("a"), zone("b"))
	stream, err := r.objects().Watch(t.Context(), &v1.WatchRequest{Kinds: []v1.Kind{v1.Kind_KIND_ZONE}})
	if err != nil {
		t.Fatal(err)
	}
	next := func() (reset, synced bool, what string) {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, o := range message.GetChanged() {
			words = append(words, "+"+unwrap(o).GetMeta().GetName())
		}
		for _, ref := range message.GetDeleted() {
			words = append(words, "-"+ref.GetName())
		}
		return message.GetReset_(), message.GetSynced(), strings.Join(words, " ")
	}
	if reset, synced, what := next(); !reset || !synced || what != "+a +b" {
		t.Errorf("first: %v %v %q", reset, synced, what)
	}
	r.put(store.WriterRollout, &v1.Image{Meta: &v1.Meta{Name: "not-watched"}})
	r.put(store.WriterAPI, zone("c"))
	if _, err := r.objects().Delete(t.Context(), &v1.DeleteRequest{Kind: v1.Kind_KIND_ZONE, Name: "a"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"+c", "-a"} {
		if reset, synced, what := next(); reset || synced || what != want {
			t.Errorf("then: %v %v %q, want %q", reset, synced, what, want)
		}
	}
}

func TestWatchEndsWithTheServer(t *testing.T) {
	closing := make(chan struct{})
	service := &objectService{store: store.Open(store.NewMemory(), store.WriterAPI), closing: closing}
	close(closing)
	err := service.Watch(&v1.WatchRequest{Kinds: store.Kinds()}, &fakeStream{ctx: t.Context(), send: func(*v1.WatchResponse) error { return nil }})
	wantCode(t, err, codes.Unavailable, "shutting down")
}

type fakeStream struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*v1.WatchResponse) error
}

func (s *fakeStream) Context() context.Context             { return s.ctx }
func (s *fakeStream) Send(message *v1.WatchResponse) error { return s.send(message) }

// TestSlowWatcher: whoever does not read is cut off, and does not hold up those who write.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		handle := store.Open(memory, store.WriterAPI)
		service := &objectService{store: handle, closing: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		stuck := &fakeStream{ctx: ctx, send: func(*v1.WatchResponse) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		ended := make(chan error, 1)
		go func() { ended <- service.Watch(&v1.WatchRequest{Kinds: store.Kinds()}, stuck) }()
		synctest.Wait()
		for i := range watchQueue + 2 {
			if _, err := handle.Commit(ctx, store.Create(zone(fmt.Sprintf("z-%d", i)))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		wantCode(t, <-ended, codes.ResourceExhausted, "too slowly")
		cancel() // as gRPC does when the handler has left
		synctest.Wait()
	})
}

func TestSendBatch(t *testing.T) {
	var sent []*v1.WatchResponse
	send := func(m *v1.WatchResponse) error {
		sent = append(sent, m)
		return nil
	}
	if err := sendBatch(store.Batch{Reset: true}, send); err != nil || len(sent) != 1 || !sent[0].GetReset_() || !sent[0].GetSynced() {
		t.Errorf("an empty store: %v, %v", sent, err)
	}
	broken := errors.New("gone")
	if err := sendBatch(store.Batch{Changed: []store.Object{zone("a")}}, func(*v1.WatchResponse) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
