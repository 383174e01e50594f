package build

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/sign"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const gib = 1 << 30

// house is a control plane of which only the relay is there, between two real gRPC connections in memory, with an image
// "office" of one published version and hosts kvm1, which has that, and kvm2, which has not.
type house struct {
	t       *testing.T
	ctx     context.Context
	backend *store.Memory
	mirror  *store.Mirror
	objects *store.Store
	chunks  *chunkstore.Dir
	codec   *images.Codec
	intake  *catalog.Intake
	relay   *Relay
	closing chan struct{}
	admin   v1.ImageServiceClient
	agents  v1.AgentServiceClient
	group   *errgroup.Group

	mu sync.Mutex
	// script is what an agent does that is called to a build; nil: nobody answers.
	script func(a *agent)
	// refuse says why a host does not come; nil: it comes.
	refuse func(host string) error
	called []string
}

// people and machines are the two services, of which the relay has a method each.
type people struct {
	v1.UnimplementedImageServiceServer
	h *house
}

func (p people) Build(stream People) error { return p.h.relay.Build("taro", stream) }

type machines struct {
	v1.UnimplementedAgentServiceServer
	h *house
}

func (m machines) Build(stream Agent) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	return m.h.relay.Serve(strings.Join(md.Get("test-host"), ""), stream)
}

// inHouse runs a story in virtual time, beside others: they wait for the disk most of the time.
func inHouse(t *testing.T, story func(h *house)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := &house{t: t, ctx: ctx, backend: store.NewMemory(), closing: make(chan struct{})}
		h.furnish()
		h.group, ctx = errgroup.WithContext(ctx)
		h.group.Go(func() error { return h.mirror.Run(ctx) })
		admin, leave := h.connect(func(s *grpc.Server) { v1.RegisterImageServiceServer(s, people{h: h}) })
		agents, part := h.connect(func(s *grpc.Server) { v1.RegisterAgentServiceServer(s, machines{h: h}) })
		h.admin, h.agents = v1.NewImageServiceClient(admin), v1.NewAgentServiceClient(agents)
		defer func() {
			cancel()
			leave()
			part()
			if err := h.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			h.relay.mu.Lock()
			defer h.relay.mu.Unlock()
			if len(h.relay.jobs)+len(h.relay.legs) > 0 {
				t.Errorf("%d builds and %d legs are left", len(h.relay.jobs), len(h.relay.legs))
			}
		}()
		synctest.Wait()
		story(h)
		synctest.Wait()
	})
}

// furnish makes the stores and the relay.
func (h *house) furnish() {
	var err error
	if h.codec, err = images.NewCodec(); err != nil {
		h.t.Fatal(err)
	}
	if h.chunks, err = chunkstore.OpenDir(h.t.TempDir(), h.codec); err != nil {
		h.t.Fatal(err)
	}
	h.mirror = store.NewMirror(h.backend)
	h.objects = store.Open(h.backend, store.WriterRollout)
	key, err := sign.NewKey()
	if err != nil {
		h.t.Fatal(err)
	}
	if h.intake, err = catalog.NewIntake(h.objects, h.chunks, key, nil); err != nil {
		h.t.Fatal(err)
	}
	h.relay = NewRelay(Deps{
		Call: h, Intake: h.intake, Chunks: h.chunks, Codec: h.codec, Objects: h.objects, Mirror: h.mirror,
		Closing: h.closing, Log: zerolog.New(zerolog.NewTestWriter(h.t)),
	})
	h.relay.maxOutput = 4 << 20 // virtual hours do not make bytes cheaper
	first := h.disk("aaaa")
	h.version(first)
	if _, err := h.intake.Publish(h.ctx, time.Now(), "office", 1); err != nil {
		h.t.Fatal(err)
	}
	for _, o := range []store.Object{
		&v1.Zone{Meta: &v1.Meta{Name: "lgwan"}}, newHost("kvm1", first.Digest().String()), newHost("kvm2"),
	} {
		if _, err := h.backend.Commit(h.ctx, store.Guard{}, []store.Op{store.Create(o)}); err != nil {
			h.t.Fatal(err)
		}
	}
}

func newHost(name string, held ...string) *v1.Host {
	return &v1.Host{Meta: &v1.Meta{Name: name}, Status: &v1.HostStatus{
		Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"}, Images: held,
		Capacity: &v1.HostCapacity{Cpus: 4, MemoryMib: 16384, StoreBytes: 100 * gib, MaxBoots: 4, Kvm: true},
		Usage:    &v1.HostUsage{StoreAvailableBytes: 90 * gib},
	}}
}

// connect serves some services and returns a connection to them.
func (h *house) connect(register func(*grpc.Server)) (*grpc.ClientConn, func()) {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	register(server)
	h.group.Go(func() error { return server.Serve(listener) })
	conn, err := grpc.NewClient("passthrough:///house", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		h.t.Fatal(err)
	}
	return conn, func() {
		if err := conn.Close(); err != nil {
			h.t.Error(err)
		}
		server.Stop()
	}
}

// disk puts the chunks of a disk into the store whose i-th chunk is filled with the i-th byte.
func (h *house) disk(fill string) *images.Manifest {
	h.t.Helper()
	for _, b := range []byte(fill) {
		plain := bytes.Repeat([]byte{b}, images.ChunkBytes)
		if _, err := h.chunks.Put(h.ctx, []images.Chunk{{Digest: images.Sum(plain), Sealed: h.codec.Seal(plain)}}); err != nil {
			h.t.Fatal(err)
		}
	}
	return manifestOf(h.t, fill)
}

// manifestOf is the manifest of such a disk, whether or not the store has its chunks.
func manifestOf(t *testing.T, fill string) *images.Manifest {
	t.Helper()
	var list []images.Digest
	for _, b := range []byte(fill) {
		list = append(list, images.Sum(bytes.Repeat([]byte{b}, images.ChunkBytes)))
	}
	m, err := images.NewManifest(uint64(len(fill))*images.ChunkBytes, list)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (h *house) version(m *images.Manifest) *v1.ImageVersion {
	h.t.Helper()
	v, _, err := h.intake.CreateVersion(h.ctx, time.Now(), catalog.Draft{Image: "office", Manifest: m.Encoded()})
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// CallBuild implements Caller: the agents of this house come when they are called.
func (h *house) CallBuild(_ context.Context, host, id string, _ *v1.BuildAsk) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.called = append(h.called, host)
	if h.refuse != nil {
		if err := h.refuse(host); err != nil {
			return err
		}
	}
	if script := h.script; script != nil {
		h.group.Go(func() error {
			a := h.agent(host, id)
			defer a.end()
			if a.assignment = a.hear().GetAssignment(); a.assignment != nil {
				script(a)
			}
			return nil
		})
	}
	return nil
}

// agent is one agent's end of a build.
type agent struct {
	h          *house
	id         string
	stream     v1.AgentService_BuildClient
	end        context.CancelFunc
	assignment *v1.BuildAssignment
	err        error // what ended the stream
}

func (h *house) agent(host, id string) *agent {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(h.ctx, "test-host", host))
	stream, err := h.agents.Build(ctx)
	if err != nil {
		h.t.Error(err)
	}
	a := &agent{h: h, id: id, stream: stream, end: cancel}
	a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Id{Id: id}})
	return a
}

func (a *agent) say(update *v1.BuildUpdate) bool { return a.stream.Send(update) == nil }

// hear returns the next task, nil when the stream has ended.
func (a *agent) hear() *v1.BuildTask {
	task, err := a.stream.Recv()
	if err != nil {
		a.err = err
	}
	return task
}

func (a *agent) check() bool {
	return a.assignment.GetOrder().GetKind() == v1.BuildKind_BUILD_KIND_CHECK
}

func (a *agent) progress(text string, waiting bool) bool {
	return a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Progress{Progress: &v1.BuildProgress{Text: text, Waiting: waiting}}})
}

func (a *agent) output(text string) bool {
	return a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Output{Output: []byte(text)}})
}

func (a *agent) sendManifest(m *images.Manifest) {
	for rest := m.Encoded(); len(rest) > 0; {
		n := min(len(rest), 100)
		a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Manifest{Manifest: rest[:n]}})
		rest = rest[n:]
	}
}

func (a *agent) done(outcome *v1.BuildOutcome) {
	a.say(&v1.BuildUpdate{Say: &v1.BuildUpdate_Outcome{Outcome: outcome}})
	a.hear()
}

// patches is an agent that makes a disk of the fill, and whose checks say what check returns.
func patches(fill string, check func() *v1.BuildOutcome) func(*agent) {
	return func(a *agent) {
		if a.check() {
			a.progress("booting", false)
			a.done(check())
			return
		}
		a.progress("running the script", false)
		a.output("installing\n")
		a.h.disk(fill)
		a.sendManifest(manifestOf(a.h.t, fill))
		a.done(&v1.BuildOutcome{SentBytes: 7, ReadBytes: 9, Packages: "bash 5.2\n"})
	}
}

func well() *v1.BuildOutcome {
	return &v1.BuildOutcome{Check: "office, in 12 s", Packages: "bash 5.2\nhello 2.10\n"}
}

// build is one admin's end of a build.
type build struct {
	stream v1.ImageService_BuildClient
	end    context.CancelFunc
}

func (h *house) build(order *v1.BuildOrder) *build {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.ctx)
	stream, err := h.admin.Build(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	b := &build{stream: stream, end: cancel}
	if order != nil {
		b.say(&v1.BuildRequest{Say: &v1.BuildRequest_Order{Order: order}})
	}
	return b
}

func (b *build) say(request *v1.BuildRequest) bool { return b.stream.Send(request) == nil }

// rest is what the admin heard until the end.
type rest struct {
	texts  []string
	output strings.Builder
	result *v1.BuildResult
	err    error
}

func (b *build) rest() *rest {
	defer b.end()
	r := &rest{}
	for {
		response, err := b.stream.Recv()
		if err != nil {
			r.err = err
			return r
		}
		if p := response.GetProgress(); p != nil {
			r.texts = append(r.texts, p.GetText())
		}
		r.output.Write(response.GetOutput())
		if response.GetResult() != nil {
			r.result = response.GetResult()
		}
	}
}

// patch is an order that needs nothing more.
func patch(edit ...func(*v1.BuildOrder)) *v1.BuildOrder {
	order := &v1.BuildOrder{Kind: v1.BuildKind_BUILD_KIND_PATCH, Image: "office", Script: []byte("apt-get install hello"), Note: "hello"}
	for _, e := range edit {
		e(order)
	}
	return order
}

// versions are the versions of the image: "1 READY", "2 DRAFT" …
func (h *house) versions() []string {
	h.t.Helper()
	image, err := store.Get[*v1.Image](h.t.Context(), h.objects, "office")
	if err != nil {
		h.t.Fatal(err)
	}
	var list []string
	for _, v := range image.GetStatus().GetVersions() {
		list = append(list, strings.TrimPrefix(v.GetState().String(), "VERSION_STATE_"))
	}
	return list
}

// reasons are those of the events about the image, but for the publication of the first version, sorted: in virtual time
// they may all have happened at once.
func (h *house) reasons() string {
	h.t.Helper()
	events, _, err := store.List[*v1.Event](h.t.Context(), h.objects)
	if err != nil {
		h.t.Fatal(err)
	}
	var list []string
	for _, e := range events {
		if e.GetReason() != catalog.ReasonPublished {
			list = append(list, e.GetReason())
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}
