// Package api is the counter: the gRPC services for people and for agents.
//
// Here: the listeners' limits, who calls and what they may (caller.go, authz.go), what every call passes (intercept.go),
// the audit trail, the mapping of errors, and the services, which are thin: they check, and ask the orchestrator or
// write what is api's to write. Not here: decisions, configuration, certificates' insides (api/pki). cmd/daybreakd runs
// it; tests of cmd/daybreak run it in their own process.
package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	"daybreak/api/audit"
	"daybreak/api/pki"
	"daybreak/images/chunkstore"
	"daybreak/images/sign"
	"daybreak/orchestrator/build"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/wire"
)

// drainTime is how long calls that run may take to end at shutdown.
const drainTime = 5 * time.Second

// Config is what a Server is made of. Everything that has no "may be nil" is needed.
type Config struct {
	Log        zerolog.Logger
	Registerer prometheus.Registerer
	// Backend holds the objects; the server opens a handle of its own on it.
	Backend store.Backend
	// Mirror follows Backend; whoever makes the server runs it.
	Mirror *store.Mirror
	CA     *pki.CA
	// Names (DNS names and IP addresses) that the server's certificate holds for.
	Names   []string
	Audit   *audit.Log
	Cluster Cluster
	// Chunks is the image store. May be nil: no images are taken in then.
	Chunks chunkstore.Store
	// Publisher signs what is taken in; needed with Chunks.
	Publisher *sign.Key
	// Trusted are the publishers, beside Publisher, whose bundles are taken in. May be nil: none.
	Trusted *sign.Publishers
	// ImageBandwidth is how many bytes a second of images go out in all. 0 means no limit.
	ImageBandwidth int64
	// Claims may be nil: nothing can be claimed then.
	Claims Claimer
	// Sessions and Explain may be nil, both: there are no agents and no questions about desktops then. Sessions need Chunks.
	Sessions Sessions
	Explain  Explainer
}

// Server serves people and agents, on listeners of their own.
type Server struct {
	log     zerolog.Logger
	tls     *tls.Config
	people  *grpc.Server
	agents  *grpc.Server
	mirror  *store.Mirror
	health  *health.Server
	closing chan struct{}
}

// NewServer makes a server that does not listen yet.
func NewServer(config Config) (*Server, error) {
	if config.Sessions != nil && (config.Explain == nil || config.Chunks == nil) {
		return nil, errors.New("make server: sessions without Explain or Chunks")
	}
	if config.Chunks != nil && config.Publisher == nil {
		return nil, errors.New("make server: Chunks without Publisher")
	}
	tlsConfig, err := config.CA.ServerTLS(config.Names)
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	metrics, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	handle := store.Open(config.Backend, store.WriterAPI)
	gate := &gate{
		log: config.Log, strangers: config.Log.Sample(&zerolog.BurstSampler{Burst: strangersLogged, Period: time.Minute}),
		rules: newRules(), limits: newThrottle(), metrics: metrics, audit: config.Audit,
		hosts: hostDirectory{store: handle, mirror: config.Mirror},
	}
	options := append(serverLimits(), wire.ServerOption(), grpc.Creds(credentials.NewTLS(tlsConfig)), grpc.UnaryInterceptor(gate.unary), grpc.StreamInterceptor(gate.stream))
	s := &Server{
		log: config.Log, tls: tlsConfig, mirror: config.Mirror, health: health.NewServer(), closing: make(chan struct{}),
		people: grpc.NewServer(options...), agents: grpc.NewServer(options...),
	}
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_NOT_SERVING) // Run says when
	goods, err := newContent(config.Chunks, config.ImageBandwidth)
	if err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	if err := s.register(config, handle, goods); err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	return s, nil
}

func (s *Server) register(config Config, handle *store.Store, goods *content) error {
	enrol := &enrolService{store: handle, ca: config.CA}
	admin := &adminService{store: handle, ca: config.CA, cluster: config.Cluster}
	if config.Publisher != nil {
		admin.publisher = config.Publisher.Public()
		enrol.publishers = [][]byte{admin.publisher}
	}
	for _, server := range []*grpc.Server{s.people, s.agents} {
		v1.RegisterEnrolServiceServer(server, enrol)
		healthv1.RegisterHealthServer(server, s.health)
	}
	v1.RegisterObjectServiceServer(s.people, &objectService{store: handle, closing: s.closing})
	v1.RegisterAdminServiceServer(s.people, admin)
	v1.RegisterPlanServiceServer(s.people, &planService{mirror: config.Mirror})
	v1.RegisterRolloutServiceServer(s.people, &rolloutService{
		steward: rollout.NewSteward(store.Open(config.Backend, store.WriterRollout), handle),
	})
	var builds *build.Relay
	if config.Chunks != nil {
		objects := store.Open(config.Backend, store.WriterRollout)
		intake, err := catalog.NewIntake(objects, config.Chunks, config.Publisher, config.Trusted)
		if err != nil {
			return err
		}
		if builds, err = s.newRelay(config, intake, objects); err != nil {
			return err
		}
		versions, err := newVersions(config, intake, objects)
		if err != nil {
			return err
		}
		service := newImageService(config.Chunks, versions, builds, config.Cluster)
		service.content, admin.trusted = goods, intake.Trusted()
		v1.RegisterImageServiceServer(s.people, service)
	}
	if config.Claims != nil {
		v1.RegisterClaimServiceServer(s.people, &claimService{claims: config.Claims, closing: s.closing})
	}
	if config.Sessions != nil {
		v1.RegisterDesktopServiceServer(s.people, &desktopService{explain: config.Explain, sessions: config.Sessions, cluster: config.Cluster})
		v1.RegisterAgentServiceServer(s.agents, &agentService{Sessions: config.Sessions, content: goods, builds: builds, mirror: config.Mirror})
	}
	reflection.Register(s.people)
	return nil
}

// Run serves until ctx ends or a listener fails, then lets running calls end, for five seconds at most. It closes the
// listeners. It says that it is healthy from when the mirror has synced until it is told to end.
func (s *Server) Run(ctx context.Context, people, agents []net.Listener) error {
	group, groupCtx := errgroup.WithContext(ctx)
	serve := func(server *grpc.Server, listeners []net.Listener) {
		for _, listener := range listeners {
			bounded := netutil.LimitListener(listener, maxConnections)
			group.Go(func() error {
				if err := server.Serve(bounded); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
					return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
				}
				return nil
			})
		}
	}
	serve(s.people, people)
	serve(s.agents, agents)
	group.Go(func() error {
		if _, err := s.mirror.Wait(groupCtx, 0); err == nil {
			s.health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING)
		}
		return nil
	})
	group.Go(func() error {
		<-groupCtx.Done()
		s.stop()
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// stop says goodbye on all connections, waits for calls that run, and cuts off what does not end.
func (s *Server) stop() {
	s.health.Shutdown()
	close(s.closing)
	cut := time.AfterFunc(drainTime, func() {
		s.log.Warn().Dur("after", drainTime).Msg("calls still run: cutting them off")
		s.people.Stop()
		s.agents.Stop()
	})
	defer cut.Stop()
	s.people.GracefulStop()
	s.agents.GracefulStop()
}
