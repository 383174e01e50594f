package hostagent_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// plane is a control plane in memory: it hands out what a test assigned, and remembers what was reported.
type plane struct {
	v1.UnimplementedAgentServiceServer
	network  *bufconn.Listener
	manifest *images.Manifest
	chunks   map[images.Digest][]byte

	mu       sync.Mutex
	epoch    uint64
	sequence uint64
	assigned map[string]*v1.Assignment // by name, or name@generation for an old life
	wanted   *v1.WantedImages
	session  *planeSession
	hellos   []*v1.WatchAssignmentsRequest
	statuses map[planeKey]*v1.IncarnationReport
	last     *v1.ReportRequest
	answers  []*v1.AnswerRequest
	// regressions are states that went backward, in reports.
	regressions []string
	// mangle changes a message on its way out.
	mangle func(*v1.Assignments)
	// refuse ends every Watch and Report.
	refuse error
	// peers are what FindPeers answers.
	peers []*v1.Peer
	// spoil changes chunks on their way out.
	spoil func([]byte) []byte
}

type planeKey struct {
	uid        string
	generation int64
}

type planeSession struct {
	id  string
	out chan *v1.Assignments
	end chan error
}

func newPlane() (*plane, error) {
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	p := &plane{
		network: bufconn.Listen(1 << 20), assigned: map[string]*v1.Assignment{}, statuses: map[planeKey]*v1.IncarnationReport{},
		epoch: 1, chunks: map[images.Digest][]byte{},
	}
	var digests []images.Digest
	for i := range 3 {
		plain := bytes.Repeat([]byte{byte(i + 1)}, images.ChunkBytes)
		digest := images.Sum(plain)
		p.chunks[digest] = codec.Seal(plain)
		digests = append(digests, digest)
	}
	p.manifest, err = images.NewManifest(3*images.ChunkBytes, digests)
	return p, err
}

// serve answers until ctx ends.
func (p *plane) serve(ctx context.Context) error {
	server := grpc.NewServer()
	v1.RegisterAgentServiceServer(server, p)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(p.network)
}

func (p *plane) dial(string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.network.DialContext(ctx) }))
}

func (p *plane) Watch(hello *v1.WatchAssignmentsRequest, stream grpc.ServerStreamingServer[v1.Assignments]) error {
	p.mu.Lock()
	if p.refuse != nil {
		defer p.mu.Unlock()
		return p.refuse
	}
	s := &planeSession{id: hello.GetSessionId(), out: make(chan *v1.Assignments, 1024), end: make(chan error, 1)}
	p.hellos = append(p.hellos, proto.CloneOf(hello))
	p.session = s
	p.send(&v1.Assignments{Complete: true, Set: p.all(), WantedImages: p.wanted})
	p.mu.Unlock()
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case err := <-s.end:
			return err
		case message := <-s.out:
			if err := stream.Send(message); err != nil {
				return err
			}
		}
	}
}

func (p *plane) all() []*v1.Assignment {
	var all []*v1.Assignment
	for _, assignment := range p.assigned {
		all = append(all, proto.CloneOf(assignment))
	}
	return all
}

// send numbers a message and puts it on the session's way; the caller holds mu.
func (p *plane) send(message *v1.Assignments) {
	if p.session == nil {
		return
	}
	message.ClusterEpoch = p.epoch
	message.AppliesTo = p.sequence
	p.sequence++
	message.ResultsIn = p.sequence
	if p.mangle != nil {
		p.mangle(message)
	}
	p.session.out <- proto.CloneOf(message)
}

// assign gives the host an assignment, now and in every complete set.
func (p *plane) assign(assignments ...*v1.Assignment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, assignment := range assignments {
		p.assigned[assignment.GetDesktop()] = assignment
	}
	p.send(&v1.Assignments{Set: assignments})
}

// drop says that a desktop is not the host's concern any more.
func (p *plane) drop(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.assigned, name)
	p.send(&v1.Assignments{Drop: []string{name}})
}

// forget makes coming complete sets lack a desktop, without a word about it.
func (p *plane) forget(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.assigned, name)
}

// cut ends the session with an error.
func (p *plane) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != nil {
		p.session.end <- status.Error(codes.Unavailable, "cut by the test")
		p.session = nil
	}
}

// set changes the plane under its lock.
func (p *plane) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *plane) Report(_ context.Context, report *v1.ReportRequest) (*v1.ReportResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return nil, p.refuse
	}
	if p.session == nil || p.session.id != report.GetSessionId() {
		return nil, status.Error(codes.FailedPrecondition, "not the session of this host")
	}
	p.last = proto.CloneOf(report)
	if report.GetFull() {
		p.statuses = map[planeKey]*v1.IncarnationReport{}
	}
	for _, desktop := range report.GetDesktops() {
		key := planeKey{desktop.GetUid(), desktop.GetStatus().GetGeneration()}
		if old, ok := p.statuses[key]; ok && order(old) > order(desktop) {
			p.regressions = append(p.regressions, desktop.GetDesktop()+": "+old.GetStatus().GetState().String()+" → "+desktop.GetStatus().GetState().String())
		}
		p.statuses[key] = proto.CloneOf(desktop)
	}
	return &v1.ReportResponse{NextPeriod: durationpb.New(10 * time.Second)}, nil
}

func order(report *v1.IncarnationReport) int {
	switch state := report.GetStatus().GetState(); state {
	case v1.DesktopState_DESKTOP_STATE_FAILED:
		return 100
	case v1.DesktopState_DESKTOP_STATE_DELETED:
		return 101
	case v1.DesktopState_DESKTOP_STATE_SUSPENDED:
		return int(v1.DesktopState_DESKTOP_STATE_READY)
	default:
		return int(state)
	}
}

// status is the newest report of a life; nil when there is none.
func (p *plane) status(a *v1.Assignment) *v1.IncarnationReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	return proto.CloneOf(p.statuses[planeKey{a.GetUid(), a.GetIncarnation().GetGeneration()}])
}

// state is the reported state of a life.
func (p *plane) state(a *v1.Assignment) v1.DesktopState { return p.status(a).GetStatus().GetState() }

// greeted are the hellos so far.
func (p *plane) greeted() []*v1.WatchAssignmentsRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.hellos)
}

// answered are the answers so far.
func (p *plane) answered() []*v1.AnswerRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.answers)
}

// lastReport is the newest report.
func (p *plane) lastReport() *v1.ReportRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return proto.CloneOf(p.last)
}

func (p *plane) Answer(_ context.Context, answer *v1.AnswerRequest) (*v1.AnswerResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = append(p.answers, proto.CloneOf(answer))
	return &v1.AnswerResponse{}, nil
}

func (p *plane) FindPeers(context.Context, *v1.FindPeersRequest) (*v1.FindPeersResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &v1.FindPeersResponse{Peers: p.peers}, nil
}

func (p *plane) GetManifest(req *v1.GetManifestRequest, stream grpc.ServerStreamingServer[v1.GetManifestResponse]) error {
	if req.GetDigest() != p.manifest.Digest().String() {
		return status.Error(codes.NotFound, "no such version")
	}
	encoded := p.manifest.Encoded()
	for _, piece := range [][]byte{encoded[:10], encoded[10:]} {
		if err := stream.Send(&v1.GetManifestResponse{Piece: piece}); err != nil {
			return err
		}
	}
	return nil
}

func (p *plane) GetChunks(req *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	digests, err := images.SplitDigests(req.GetDigests())
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	p.mu.Lock()
	spoil := p.spoil
	p.mu.Unlock()
	for _, digest := range digests {
		sealed := p.chunks[digest]
		if spoil != nil {
			sealed = spoil(bytes.Clone(sealed))
		}
		if err := stream.Send(&v1.GetChunksResponse{Chunk: &v1.Chunk{Digest: digest[:], Zstd: sealed}}); err != nil {
			return err
		}
	}
	return nil
}
