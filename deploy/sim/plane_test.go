package sim

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"

	"daybreak/images"
	"daybreak/orchestrator"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const hostHeader = "sim-host"

// plane is one run of a daybreakd: a mirror, the agents' listener, and the loops while it leads. Only the store outlives
// it. Its fields but up and those of leading never change.
type plane struct {
	sim  *sim
	name string

	up      bool // guarded by the simulation's mutex
	ctx     context.Context
	cancel  context.CancelFunc
	group   *errgroup.Group
	mirror  *store.Mirror
	brain   *orchestrator.Orchestrator
	server  *grpc.Server
	network *bufconn.Listener
	claimer *pool.Claimer

	depose context.CancelFunc // nil when it never led
	loops  *errgroup.Group
	ended  chan struct{} // closed when the loops have ended by themselves
}

// agentService is what api registers: sessions, and the goods.
type agentService struct {
	others
	*dispatch.Server
	*shelf
}

// others are the calls that no agent of the simulation makes.
type others struct {
	v1.UnimplementedAgentServiceServer
}

// shelf gives out images.
type shelf struct {
	mu        sync.Mutex
	manifests map[string]*images.Manifest
	chunks    map[images.Digest][]byte
}

func (s *shelf) put(manifest *images.Manifest, digest images.Digest, sealed []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifests[manifest.Digest().String()] = manifest
	s.chunks[digest] = sealed
}

func (s *shelf) chunk(digest images.Digest) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chunks[digest]
}

func (s *shelf) GetManifest(r *v1.GetManifestRequest, stream grpc.ServerStreamingServer[v1.GetManifestResponse]) error {
	s.mu.Lock()
	manifest, ok := s.manifests[r.GetDigest()]
	s.mu.Unlock()
	if !ok {
		return images.ErrNotFound
	}
	return stream.Send(&v1.GetManifestResponse{Piece: manifest.Encoded()})
}

func (s *shelf) GetChunks(r *v1.GetChunksRequest, stream grpc.ServerStreamingServer[v1.GetChunksResponse]) error {
	digests, err := images.SplitDigests(r.GetDigests())
	if err != nil {
		return err
	}
	for _, digest := range digests {
		if err := stream.Send(&v1.GetChunksResponse{Chunk: &v1.Chunk{Digest: digest[:], Zstd: s.chunk(digest)}}); err != nil {
			return err
		}
	}
	return nil
}

func identify(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if hosts := md.Get(hostHeader); len(hosts) == 1 {
		return hosts[0], nil
	}
	return "", errors.New("no certificate")
}

// startPlane is a daybreakd that comes up and does not lead yet.
func startPlane(s *sim, name string) *plane {
	p := &plane{sim: s, name: name, up: true}
	log := p.sim.log.With().Str("plane", p.name).Logger()
	registry := prometheus.NewRegistry()
	server, err := dispatch.NewServer(dispatch.Config{
		Epoch: 1, Leader: func() string { return "another" }, Period: s.reports.period, Grace: s.reports.grace,
	}, identify, log, registry)
	if err != nil {
		p.sim.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.sim.ctx)
	p.ctx, p.cancel = ctx, cancel
	p.group, ctx = errgroup.WithContext(ctx)
	p.mirror = store.NewMirror(p.sim.backend)
	p.brain = orchestrator.New(orchestrator.Deps{
		Backend: s.backend, Mirror: p.mirror, Dispatch: server, Entropy: rand.Reader, Log: log, Metrics: registry,
	})
	p.claimer = pool.NewClaimer(store.Open(p.sim.backend, store.WriterPool), p.mirror)
	p.network = bufconn.Listen(64 << 10)
	p.server = grpc.NewServer(
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}))
	v1.RegisterAgentServiceServer(p.server, agentService{Server: server, shelf: p.sim.shelf})
	network, grpcServer, mirror := p.network, p.server, p.mirror
	p.group.Go(func() error { return grpcServer.Serve(network) })
	p.group.Go(func() error { return mirror.Run(ctx) })
	return p
}

// crash ends everything that this daybreakd is.
func (p *plane) crash() {
	p.sim.mu.Lock()
	was := p.up
	p.up = false
	p.sim.mu.Unlock()
	if !was {
		return
	}
	p.cancel()
	p.server.Stop()
	_ = p.network.Close()
	p.resign()
	if err := p.group.Wait(); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, grpc.ErrServerStopped) {
		p.sim.problem("crash", "plane %s ended with %v", p.name, err)
	}
}

// lead begins the leader's loops under a guard.
func (p *plane) lead(guard store.Guard) {
	ctx, cancel := context.WithCancel(p.ctx)
	p.depose, p.ended, p.loops = cancel, make(chan struct{}), &errgroup.Group{}
	ended := p.ended
	p.loops.Go(func() error {
		defer close(ended)
		return p.brain.Lead(ctx, guard)
	})
}

// leading says whether the loops run.
func (p *plane) leading() bool {
	if !p.up || p.loops == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// resign ends the leader's loops, if they run, and waits for them.
func (p *plane) resign() {
	if p.loops == nil {
		return
	}
	p.depose()
	_ = p.loops.Wait() // ends as cancelled, or as no longer the leader: both are as they should be
	p.loops = nil
}
