package build_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// plane is the control plane's end of builds, in memory.
type plane struct {
	v1.UnimplementedAgentServiceServer
	network *bufconn.Listener
	// task is what Build hands out; nil means that nobody wants the build any more.
	task *v1.BuildAssignment
	// then are the messages after it; say, if not nil, is called with each update and may answer.
	then []*v1.BuildTask
	say  func(update *v1.BuildUpdate, answer func(*v1.BuildTask)) error

	mu       sync.Mutex
	chunks   map[images.Digest][]byte // guarded by mu
	output   []byte                   // guarded by mu
	manifest []byte                   // guarded by mu
	progress []string                 // guarded by mu
	outcome  *v1.BuildOutcome         // guarded by mu
	put      int                      // chunks; guarded by mu
}

func newPlane() *plane {
	return &plane{network: bufconn.Listen(1 << 20), chunks: map[images.Digest][]byte{}}
}

func (p *plane) serve(ctx context.Context) error {
	server := grpc.NewServer()
	v1.RegisterAgentServiceServer(server, p)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(p.network)
}

func (p *plane) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:plane", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.network.DialContext(ctx) }))
}

func (p *plane) Build(stream grpc.BidiStreamingServer[v1.BuildUpdate, v1.BuildTask]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetId() != "ask-1" || p.task == nil {
		return status.Error(codes.NotFound, "nobody wants it")
	}
	var sending sync.Mutex
	answer := func(task *v1.BuildTask) {
		sending.Lock()
		defer sending.Unlock()
		_ = stream.Send(task)
	}
	answer(&v1.BuildTask{Say: &v1.BuildTask_Assignment{Assignment: p.task}})
	go func() {
		for _, task := range p.then {
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
		if p.say != nil {
			if err := p.say(update, answer); err != nil {
				return err
			}
		}
	}
}

func (p *plane) take(update *v1.BuildUpdate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch say := update.GetSay().(type) {
	case *v1.BuildUpdate_Output:
		p.output = append(p.output, say.Output...)
	case *v1.BuildUpdate_Manifest:
		p.manifest = append(p.manifest, say.Manifest...)
	case *v1.BuildUpdate_Progress:
		p.progress = append(p.progress, say.Progress.GetText())
	case *v1.BuildUpdate_Outcome:
		p.outcome = proto.CloneOf(say.Outcome)
	}
}

func (p *plane) MissingChunks(_ context.Context, request *v1.MissingChunksRequest) (*v1.MissingChunksResponse, error) {
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

func (p *plane) PutChunks(stream grpc.ClientStreamingServer[v1.PutChunksRequest, v1.PutChunksResponse]) error {
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
			p.put++
		}
		p.mu.Unlock()
	}
}

// ended returns the outcome once there is one.
func (p *plane) ended() *v1.BuildOutcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outcome
}
