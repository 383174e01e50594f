package dispatch

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// bareTerm is a server that leads, called without gRPC, for host h1.
type bareTerm struct {
	house
	cancel   context.CancelFunc
	session  string
	sequence uint64
}

// ownStream is the server's end of a Watch whose messages nobody reads.
type ownStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s ownStream) Context() context.Context   { return s.ctx }
func (s ownStream) Send(*v1.Assignments) error { return nil }

func newBareTerm(t *testing.T, trouble func() error) *bareTerm {
	ctx, cancel := context.WithCancel(metadata.NewIncomingContext(t.Context(), metadata.Pairs("test-host", "h1")))
	b := &bareTerm{house: house{t: t, ctx: ctx, backend: store.NewMemory()}, cancel: cancel, session: uuid.NewString()}
	backend := failing{b.backend, trouble}
	b.mirror = store.NewMirror(backend, v1.Kind_KIND_HOST, v1.Kind_KIND_DESKTOP)
	server, err := NewServer(Config{}, identify, zerolog.Nop(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b.server = server
	b.group = &errgroup.Group{}
	b.group.Go(func() error { return b.mirror.Run(ctx) })
	b.group.Go(func() error { return server.Run(ctx, store.Open(backend, store.WriterDispatch), b.mirror) })
	put(&b.house, newHost("h1"))
	synctest.Wait()
	return b
}

func (b *bareTerm) end() {
	b.cancel()
	_ = b.group.Wait() // it ends because it was cancelled, or because the test made the store refuse it
}

// hello opens the session and makes its first report.
func (b *bareTerm) hello() {
	b.t.Helper()
	b.group.Go(func() error { return b.server.Watch(hello(b.session), ownStream{ctx: b.ctx}) })
	synctest.Wait()
	b.sequence++
	if _, err := b.server.Report(b.ctx, &v1.ReportRequest{SessionId: b.session, Sequence: b.sequence, Full: true}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bareTerm) say(words ...*v1.IncarnationReport) error {
	b.sequence++
	_, err := b.server.Report(b.ctx, &v1.ReportRequest{SessionId: b.session, Sequence: b.sequence, Desktops: words})
	return err
}
