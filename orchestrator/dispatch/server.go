// Package dispatch is the control plane's end of the agents' sessions: it tells every host what it shall run, and writes
// down what the hosts say is.
//
// Here: sessions, assignments, reports, who is heard and who is not, questions to hosts. Not here: what a desktop should
// be (pool), where it runs (placement), what images are made of: GetManifest and GetChunks are api's, from the image
// store. It writes Desktop.status and Host.status and nothing else. orchestrator runs it while it leads; api registers its
// methods on the agents' listener and asks it for screenshots; orchestrator/build has hosts called to builds.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Config says how patient dispatch is. The zero value works.
type Config struct {
	// Epoch of the cluster; a restore from backup raises it. An agent that met a higher one is refused.
	Epoch uint64
	// Grace is how long a host may be silent before it is DOWN. 0 means 40 s.
	Grace time.Duration
	// Period between the reports of one host. 0 means 5 s; stretched when there are many hosts.
	Period time.Duration
	// MaxSessions bounds the sessions that are open at once. 0 means 4096.
	MaxSessions int
	// Leader names the daybreakd that leads, for refusals; nil or "" when it is not known.
	Leader func() string
}

func (c Config) withDefaults() Config {
	if c.Grace == 0 {
		c.Grace = 40 * time.Second
	}
	if c.Period == 0 {
		c.Period = 5 * time.Second
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = 4096
	}
	if c.Leader == nil {
		c.Leader = func() string { return "" }
	}
	return c
}

func (c Config) validate() error {
	if c.Period < 0 || c.Grace < 2*c.Period || c.MaxSessions < 0 {
		return fmt.Errorf("check dispatch config: grace %v must be at least two periods of %v", c.Grace, c.Period)
	}
	return nil
}

// Identify says which host makes a call, from its client certificate.
type Identify func(ctx context.Context) (host string, err error)

// Server has the methods Watch, Report and Answer of v1.AgentServiceServer. They are refused with UNAVAILABLE unless Run
// runs.
type Server struct {
	cfg      Config
	identify Identify
	log      zerolog.Logger
	metrics  *metrics

	mu   sync.Mutex
	term *term // nil when not leading
}

// NewServer makes a server that does not lead yet.
func NewServer(cfg Config, identify Identify, log zerolog.Logger, reg prometheus.Registerer) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, identify: identify, log: log.With().Str("loop", "dispatch").Logger(), metrics: newMetrics(reg)}, nil
}

// Begin notes, before anything is decided in a term, that its leader has heard no host yet: what they did since the last one heard them
// is not known. Run comes after it, with the same store and mirror.
func (s *Server) Begin(ctx context.Context, st *store.Store, mirror *store.Mirror) error {
	t := newTerm(s.cfg, s.log, s.metrics, st, mirror, time.Now())
	all := newBatch()
	for _, host := range store.All[*v1.Host](mirror.View()) {
		all.hosts[host.GetMeta().GetName()] = struct{}{}
	}
	revision, _, err := t.commit(ctx, all)
	if err == nil {
		_, err = mirror.Wait(ctx, revision)
	}
	if err != nil {
		return fmt.Errorf("note that no host was heard yet: %w", err)
	}
	return nil
}

// Run serves agents for as long as this daybreakd leads, until ctx ends or the store refuses the leader. st is guarded by
// leadership and opened for WriterDispatch; mirror runs beside it and knows hosts and desktops at least.
func (s *Server) Run(ctx context.Context, st *store.Store, mirror *store.Mirror) error {
	// What the mirror knew may be older than what the last leader wrote: begin at the newest.
	_, revision, err := st.List(ctx, v1.Kind_KIND_HOST)
	if err != nil {
		return fmt.Errorf("begin dispatch: %w", err)
	}
	if _, err := mirror.Wait(ctx, revision); err != nil {
		return fmt.Errorf("begin dispatch: %w", err)
	}
	t := newTerm(s.cfg, s.log, s.metrics, st, mirror, time.Now())
	if err := s.lead(t); err != nil {
		return err
	}
	defer s.resign(t)
	cancel := mirror.Subscribe(t.changed)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return t.write(ctx) })
	group.Go(func() error { return t.listen(ctx) })
	return group.Wait()
}

// Frozen says that so many hosts are silent that the fault is probably on this side: nobody should do anything now that
// cannot be undone. Also true when this daybreakd does not lead, since it hears nobody then.
func (s *Server) Frozen() bool {
	t := s.leading()
	if t == nil {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.frozen
}

func (s *Server) lead(t *term) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.term != nil {
		return errors.New("begin dispatch: it runs already")
	}
	s.term = t
	return nil
}

// resign ends every session, so that agents look for the new leader.
func (s *Server) resign(t *term) {
	s.mu.Lock()
	s.term = nil
	s.mu.Unlock()
	t.close(s.notLeading())
}

func (s *Server) leading() *term {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term
}

func (s *Server) notLeading() error {
	leader := s.cfg.Leader()
	if leader == "" {
		leader = "not known now"
	}
	return status.Errorf(codes.Unavailable, "not the leader (leader: %s)", leader)
}

// caller finds who calls and the term that serves it.
func (s *Server) caller(ctx context.Context) (string, *term, error) {
	host, err := s.identify(ctx)
	if err != nil {
		return "", nil, status.Errorf(codes.Unauthenticated, "identify host: %v", err)
	}
	t := s.leading()
	if t == nil {
		return "", nil, s.notLeading()
	}
	return host, t, nil
}
