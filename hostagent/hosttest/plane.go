package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"daybreak/hostagent"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

var _ hostagent.Source = (*Plane)(nil)

// Plane is the control plane's end of builds, in memory: it hands out one assignment, keeps what it is told and sent, and
// gives out versions, those that were built among them.
type Plane struct {
	v1.UnimplementedAgentServiceServer
	network net.Listener
	connect func(ctx context.Context) (net.Conn, error)
	// Task is what Build hands out to who names ID; nil means that nobody wants the build any more.
	ID   string
	Task *v1.BuildAssignment
	// Then are the messages after it; Say, if not nil, is called with each update and may answer.
	Then []*v1.BuildTask
	Say  func(update *v1.BuildUpdate, answer func(*v1.BuildTask)) error

	mu        sync.Mutex
	chunks    map[images.Digest][]byte // guarded by mu
	manifests map[string][]byte        // guarded by mu
	told      Told                     // guarded by mu
}

// Told is what a build told.
type Told struct {
	Output   string
	Screen   []byte
	Progress []string
	// Manifest is the version that was built; nil when there is none, or it is no manifest.
	Manifest *images.Manifest
	Outcome  *v1.BuildOutcome
	// Put counts the chunks that were sent.
	Put int

	manifest []byte
}

// NewPlane makes a plane that has some versions. It listens in memory, which works in a bubble of virtual time.
func NewPlane(versions ...*Image) *Plane {
	network := bufconn.Listen(1 << 20)
	return newPlane(network, network.DialContext, versions)
}

// NewPlaneAt makes a plane that other processes reach at a UNIX socket.
func NewPlaneAt(socket string, versions ...*Image) (*Plane, error) {
	network, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	return newPlane(network, func(ctx context.Context) (net.Conn, error) { return dialUNIX(ctx, socket) }, versions), nil
}

func dialUNIX(ctx context.Context, socket string) (net.Conn, error) {
	var dialer net.Dialer
	return dialer.DialContext(ctx, "unix", socket)
}

// DialPlaneAt connects to a NewPlaneAt.
func DialPlaneAt(socket string) (*grpc.ClientConn, error) {
	return dialPlane(func(ctx context.Context) (net.Conn, error) { return dialUNIX(ctx, socket) })
}

func newPlane(network net.Listener, connect func(context.Context) (net.Conn, error), versions []*Image) *Plane {
	p := &Plane{network: network, connect: connect, chunks: map[images.Digest][]byte{}, manifests: map[string][]byte{}}
	for _, version := range versions {
		maps.Copy(p.chunks, version.sealed)
		p.manifests[version.digest] = version.manifest
	}
	return p
}

// Serve answers until ctx ends.
func (p *Plane) Serve(ctx context.Context) error {
	server := grpc.NewServer()
	v1.RegisterAgentServiceServer(server, p)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(p.network)
}

// Dial connects to the plane.
func (p *Plane) Dial() (*grpc.ClientConn, error) { return dialPlane(p.connect) }

func dialPlane(connect func(context.Context) (net.Conn, error)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return connect(ctx) }))
}

// Told returns what was told since the last call.
func (p *Plane) Told() Told {
	p.mu.Lock()
	defer p.mu.Unlock()
	told := p.told
	if manifest, err := images.Parse(told.manifest); err == nil {
		told.Manifest = manifest
	}
	p.told = Told{}
	return told
}

// Ended says whether an outcome was told.
func (p *Plane) Ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told.Outcome != nil
}

// Manifest implements hostagent.Source.
func (p *Plane) Manifest(_ context.Context, digest string) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.manifests[digest] == nil {
		return nil, fmt.Errorf("no version %s here", digest)
	}
	return p.manifests[digest], nil
}

// Chunks implements hostagent.Source.
func (p *Plane) Chunks(_ context.Context, wants []hostagent.Want, sink func(images.Chunk) error) error {
	for _, want := range wants {
		p.mu.Lock()
		sealed := p.chunks[want.Digest]
		p.mu.Unlock()
		if sealed == nil {
			return fmt.Errorf("no chunk %s here", want.Digest)
		}
		if err := sink(images.Chunk{Digest: want.Digest, Sealed: sealed}); err != nil {
			return err
		}
	}
	return nil
}

// Build implements the service.
func (p *Plane) Build(stream grpc.BidiStreamingServer[v1.BuildUpdate, v1.BuildTask]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetId() != p.ID || p.Task == nil {
		return status.Error(codes.NotFound, "nobody wants it")
	}
	var sending sync.Mutex
	answer := func(task *v1.BuildTask) {
		sending.Lock()
		defer sending.Unlock()
		_ = stream.Send(task)
	}
	answer(&v1.BuildTask{Say: &v1.BuildTask_Assignment{Assignment: p.Task}})
	go func() {
		for _, task := range p.Then {
			answer(task)
		}
	}()
	for {
		update, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.take(update)
		if p.Say != nil {
			if err := p.Say(update, answer); err != nil {
				return err
			}
		}
	}
}

func (p *Plane) take(update *v1.BuildUpdate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch say := update.GetSay().(type) {
	case *v1.BuildUpdate_Output:
		p.told.Output += string(say.Output)
	case *v1.BuildUpdate_Screen:
		p.told.Screen = append(p.told.Screen, say.Screen...)
	case *v1.BuildUpdate_Manifest:
		p.told.manifest = append(p.told.manifest, say.Manifest...)
		p.manifests[images.Sum(p.told.manifest).String()] = p.told.manifest
	case *v1.BuildUpdate_Progress:
		p.told.Progress = append(p.told.Progress, say.Progress.GetText())
	case *v1.BuildUpdate_Outcome:
		p.told.Outcome = proto.CloneOf(say.Outcome)
	}
}

// MissingChunks implements the service.
func (p *Plane) MissingChunks(_ context.Context, request *v1.MissingChunksRequest) (*v1.MissingChunksResponse, error) {
	digests, err := images.SplitDigests(request.GetDigests())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing []images.Digest
	for _, digest := range digests {
		if p.chunks[digest] == nil {
			missing = append(missing, digest)
		}
	}
	return &v1.MissingChunksResponse{Digests: images.JoinDigests(missing)}, nil
}

// PutChunks implements the service.
func (p *Plane) PutChunks(stream grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse]) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&v1.PutChunksResponse{})
		}
		if err != nil {
			return err
		}
		p.mu.Lock()
		for _, chunk := range request.GetChunks() {
			p.chunks[images.Digest(chunk.GetDigest())] = chunk.GetZstd()
			p.told.Put++
		}
		p.mu.Unlock()
	}
}
