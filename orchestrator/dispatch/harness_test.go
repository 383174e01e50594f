package dispatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	placed    = v1.DesktopState_DESKTOP_STATE_PLACED
	preparing = v1.DesktopState_DESKTOP_STATE_PREPARING
	starting  = v1.DesktopState_DESKTOP_STATE_STARTING
	ready     = v1.DesktopState_DESKTOP_STATE_READY
	suspended = v1.DesktopState_DESKTOP_STATE_SUSPENDED
	stopping  = v1.DesktopState_DESKTOP_STATE_STOPPING
	deleted   = v1.DesktopState_DESKTOP_STATE_DELETED
	failed    = v1.DesktopState_DESKTOP_STATE_FAILED
	lost      = v1.DesktopState_DESKTOP_STATE_LOST
)

// house is a control plane of which only dispatch is there, over real gRPC in memory.
type house struct {
	t       *testing.T
	ctx     context.Context
	backend *store.Memory
	mirror  *store.Mirror
	server  *Server
	client  v1.AgentServiceClient
	group   *errgroup.Group
	retire  context.CancelFunc
}

// grpcServer gives dispatch.Server the methods of images, which nobody calls here.
type grpcServer struct {
	v1.UnimplementedAgentServiceServer
	*Server
}

func (g grpcServer) Watch(r *v1.WatchAssignmentsRequest, s v1.AgentService_WatchServer) error {
	return g.Server.Watch(r, s)
}

func (g grpcServer) Report(ctx context.Context, r *v1.ReportRequest) (*v1.ReportResponse, error) {
	return g.Server.Report(ctx, r)
}

func (g grpcServer) Answer(ctx context.Context, r *v1.AnswerRequest) (*v1.AnswerResponse, error) {
	return g.Server.Answer(ctx, r)
}

func identify(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if hosts := md.Get("test-host"); len(hosts) == 1 {
		return hosts[0], nil
	}
	return "", errors.New("no certificate")
}

// inHouse runs a story in virtual time.
func inHouse(t *testing.T, cfg Config, story func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := &house{t: t, ctx: ctx, backend: store.NewMemory()}
		h.mirror = store.NewMirror(h.backend, v1.Kind_KIND_HOST, v1.Kind_KIND_DESKTOP)
		server, err := NewServer(cfg, identify, zerolog.New(zerolog.NewTestWriter(t)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		h.server = server
		listener := bufconn.Listen(1 << 16)
		gs := grpc.NewServer()
		v1.RegisterAgentServiceServer(gs, grpcServer{Server: server})
		conn, err := grpc.NewClient("passthrough:///house", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		h.client = v1.NewAgentServiceClient(conn)
		h.group, ctx = errgroup.WithContext(ctx)
		h.group.Go(func() error { return gs.Serve(listener) })
		h.group.Go(func() error { return h.mirror.Run(ctx) })
		defer func() {
			h.retire()
			cancel()
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			gs.Stop()
			if err := h.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}()
		h.lead()
		synctest.Wait()
		story(h)
	})
}

// lead begins a term; retire ends it.
func (h *house) lead() {
	ctx, cancel := context.WithCancel(h.ctx)
	h.retire = cancel
	h.group.Go(func() error {
		err := h.server.Run(ctx, store.Open(h.backend, store.WriterDispatch), h.mirror)
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
}

// put writes an object past owners, as its owner would.
func put[T store.Object](h *house, o T) T {
	h.t.Helper()
	ref := store.RefOf(o)
	op := store.Create(o)
	if current, err := h.backend.Get(h.ctx, ref); err == nil {
		op = store.Op{Verb: store.VerbUpdate, Ref: ref, Revision: current.GetMeta().GetRevision(), Object: o}
		o.GetMeta().Uid = current.GetMeta().GetUid()
	}
	if _, err := h.backend.Commit(h.ctx, store.Guard{}, []store.Op{op}); err != nil {
		h.t.Fatal(err)
	}
	return get[T](h, ref.Name)
}

func get[T store.Object](h *house, name string) T {
	h.t.Helper()
	o, err := store.Get[T](h.ctx, store.Open(h.backend, store.WriterDispatch), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return o
}

func (h *house) remove(o store.Object) {
	h.t.Helper()
	if _, err := h.backend.Commit(h.ctx, store.Guard{}, []store.Op{store.Delete(o)}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) events() []string {
	h.t.Helper()
	events, _, err := store.List[*v1.Event](h.ctx, store.Open(h.backend, store.WriterDispatch))
	if err != nil {
		h.t.Fatal(err)
	}
	var reasons []string
	for _, e := range events {
		reasons = append(reasons, e.GetReason())
	}
	return reasons
}

func newHost(name string) *v1.Host { return &v1.Host{Meta: &v1.Meta{Name: name}} }

func newDesktop(name, host string, generation int64) *v1.Desktop {
	return &v1.Desktop{
		Meta: &v1.Meta{Name: name, Uid: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()},
		Spec: &v1.DesktopSpec{Pool: "sales", Zone: "lgwan", Mac: "52:54:00:00:00:01", VmUuid: "6b1e5f0e-8d5b-4b6e-9a53-0c7f6a3f1d11"},
		Incarnation: &v1.Incarnation{
			Generation: generation, Image: "debian", Version: 1, Digest: strings.Repeat("a", 64), Host: host,
			Desired: v1.DesiredState_DESIRED_STATE_READY, UsedBy: "hanako", Reason: "new",
		},
	}
}

// agent is a scripted agent: the test says each of its words.
type agent struct {
	h        *house
	host     string
	session  string
	ctx      context.Context
	hangUp   context.CancelFunc
	stream   v1.AgentService_WatchClient
	sequence uint64
}

func as(ctx context.Context, host string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "test-host", host)
}

func hello(session string) *v1.WatchAssignmentsRequest {
	return &v1.WatchAssignmentsRequest{
		SessionId: session, AgentVersion: "0.1", BootId: "boot-1", Zones: []string{"lgwan"},
		Capacity: &v1.HostCapacity{Cpus: 8, MemoryMib: 32768, MaxBoots: 4, StoreBytes: 1 << 40},
	}
}

// watch opens a session without waiting for anything.
func (h *house) watch(host string, say func(*v1.WatchAssignmentsRequest)) *agent {
	h.t.Helper()
	a := &agent{h: h, host: host, session: uuid.NewString()}
	a.ctx, a.hangUp = context.WithCancel(as(h.ctx, host))
	req := hello(a.session)
	if say != nil {
		say(req)
	}
	stream, err := h.client.Watch(a.ctx, req)
	if err != nil {
		h.t.Fatal(err)
	}
	a.stream = stream
	return a
}

// connect opens a session and makes its first, full report.
func (h *house) connect(host string, desktops ...*v1.IncarnationReport) (*agent, *v1.Assignments) {
	h.t.Helper()
	a := h.watch(host, nil)
	first := a.next()
	if err := a.report(true, desktops...); err != nil {
		h.t.Fatal(err)
	}
	return a, first
}

func (a *agent) next() *v1.Assignments {
	a.h.t.Helper()
	m, err := a.stream.Recv()
	if err != nil {
		a.h.t.Fatalf("%s: receive: %v", a.host, err)
	}
	return m
}

func (a *agent) report(full bool, desktops ...*v1.IncarnationReport) error {
	a.sequence++
	_, err := a.h.client.Report(a.ctx, &v1.ReportRequest{SessionId: a.session, Sequence: a.sequence, Full: full, Desktops: desktops,
		Usage: &v1.HostUsage{Running: uint32(len(desktops))}})
	return err
}

// beat reports every 5 s for a while.
func (a *agent) beat(d time.Duration) {
	a.h.t.Helper()
	for range d / (5 * time.Second) {
		time.Sleep(5 * time.Second)
		if err := a.report(false); err != nil {
			a.h.t.Fatalf("%s: report: %v", a.host, err)
		}
	}
}

func says(d *v1.Desktop, state v1.DesktopState) *v1.IncarnationReport {
	return &v1.IncarnationReport{Desktop: d.GetMeta().GetName(), Uid: d.GetMeta().GetUid(),
		Status: &v1.DesktopStatus{Generation: d.GetIncarnation().GetGeneration(), State: state}}
}

func orphan(d *v1.Desktop, generation int64, state v1.DesktopState) *v1.IncarnationReport {
	r := says(d, state)
	r.Status.Generation, r.Orphan = generation, true
	return r
}

// told lists a message's content as words.
func told(m *v1.Assignments) string {
	var words []string
	if m.GetComplete() {
		words = append(words, "complete")
	}
	for _, a := range m.GetSet() {
		words = append(words, fmt.Sprintf("set %s/%d %s", a.GetDesktop(), a.GetIncarnation().GetGeneration(),
			strings.TrimPrefix(a.GetIncarnation().GetDesired().String(), "DESIRED_STATE_")))
	}
	for _, name := range m.GetDrop() {
		words = append(words, "drop "+name)
	}
	if m.GetWantedImages() != nil {
		words = append(words, fmt.Sprintf("images %d", len(m.GetWantedImages().GetImages())))
	}
	for range m.GetAsks() {
		words = append(words, "ask")
	}
	return strings.Join(words, ", ")
}
