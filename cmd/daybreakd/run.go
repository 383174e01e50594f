package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"daybreak/api"
	"daybreak/api/audit"
	"daybreak/api/pki"
	"daybreak/cmd/observe"
	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/etcdstore"
)

const (
	// prefix is where everything of Daybreak lies in etcd.
	prefix = "/daybreak"
	// leaderKey is where daybreakd stand for leadership.
	leaderKey = prefix + "/leader"
)

// run is the whole life of the control plane. It calls ready once it serves, and returns nil when ctx ended and everything
// closed in order.
func run(ctx context.Context, o options, ready func() error) (err error) {
	log := o.Logger()
	lock, err := lockDir(o.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	ca, err := pki.OpenCA(o.CADir, time.Now())
	if err != nil {
		return err
	}
	return withEtcd(ctx, o, log, func(ctx context.Context, client *clientv3.Client) error {
		house, err := build(ctx, o, log, ca, client)
		if err != nil {
			return err
		}
		return house.run(ctx, ready)
	})
}

// withEtcd runs work with a client of the configured etcd. An etcd of our own outlives work, which says its farewells to it.
func withEtcd(ctx context.Context, o options, log zerolog.Logger, work func(context.Context, *clientv3.Client) error) error {
	if len(o.EtcdEndpoints) > 0 {
		config, err := etcdTLS(o)
		if err != nil {
			return err
		}
		client, err := etcdstore.Dial(o.EtcdEndpoints, config)
		if err != nil {
			return err
		}
		return errors.Join(work(ctx, client), client.Close())
	}
	etcd, err := etcdstore.Embedded(ctx, etcdstore.EmbedConfig{Dir: o.DataDir, Log: log})
	if err != nil {
		return err
	}
	etcdCtx, stopEtcd := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEtcd()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := etcd.Run(etcdCtx); err != nil && !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		defer stopEtcd()
		return work(ctx, etcd.Client)
	})
	return group.Wait()
}

// etcdTLS reads the files for an etcd cluster; nil when none is named.
func etcdTLS(o options) (*tls.Config, error) {
	if o.EtcdCA == "" && o.EtcdCert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.EtcdCA != "" {
		text, err := os.ReadFile(o.EtcdCA)
		if err != nil {
			return nil, fmt.Errorf("read --etcd-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read --etcd-ca: %s holds no PEM certificate", o.EtcdCA)
		}
	}
	if o.EtcdCert != "" {
		pair, err := tls.LoadX509KeyPair(o.EtcdCert, o.EtcdKey)
		if err != nil {
			return nil, fmt.Errorf("read --etcd-cert and --etcd-key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// house is the control plane, wired and not yet running.
type house struct {
	options options
	log     zerolog.Logger
	metrics *prometheus.Registry
	client  *clientv3.Client
	mirror  *store.Mirror
	server  *api.Server
	brain   *brain

	people, agents []net.Listener
	observer       net.Listener // nil for none
}

func build(ctx context.Context, o options, log zerolog.Logger, ca *pki.CA, client *clientv3.Client) (*house, error) {
	cluster, err := etcdstore.ClusterID(ctx, client, prefix)
	if err != nil {
		return nil, err
	}
	log = log.With().Str("cluster", cluster.ID).Logger()
	h := &house{options: o, log: log, metrics: prometheus.NewRegistry(), client: client}
	backend := etcdstore.New(client, prefix, log)
	if err := h.metrics.Register(backend); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	h.mirror = store.NewMirror(backend)
	chunks, err := openImages(ctx, o, cluster.ID, log)
	if err != nil {
		return nil, err
	}
	trail, err := audit.Open(filepath.Join(o.DataDir, "audit.log"))
	if err != nil {
		return nil, err
	}
	if h.brain, err = newBrain(h, backend, chunks, cluster); err != nil {
		return nil, err
	}
	publisher, trusted, err := publishers(o, log)
	if err != nil {
		return nil, err
	}
	h.server, err = api.NewServer(api.Config{
		Log: log.With().Str("room", "api").Logger(), Registerer: h.metrics, Backend: backend, Mirror: h.mirror, CA: ca, Names: o.names(),
		Audit: trail, Chunks: chunks, ImageBandwidth: o.imageBandwidth, Publisher: publisher, Trusted: trusted, Claims: h.brain.claimer, Sessions: h.brain.dispatch, Explain: h.brain.explain,
		Cluster: api.Cluster{Version: versionText(), ID: cluster.ID, Epoch: cluster.Epoch, Leader: h.leader},
	})
	if err != nil {
		return nil, err
	}
	if err := h.listen(); err != nil {
		return nil, err
	}
	if err := keepAdmin(ca, o.DataDir, o.AdminEndpoint, time.Now()); errors.Is(err, errForeignAdmin) {
		// Somebody's own version of a file for people must not keep the control plane down.
		log.Warn().Err(err).Msg("admin.yaml is left as it is")
	} else if err != nil {
		return nil, err
	}
	return h, nil
}

func (h *house) listen() (err error) {
	if h.people, err = listenAll(h.options.Listen); err != nil {
		return err
	}
	if h.agents, err = listenAll(h.options.AgentListen); err != nil {
		closeAll(h.people)
		return err
	}
	if h.options.MetricsListen == "" {
		return nil
	}
	if h.observer, err = net.Listen("tcp", h.options.MetricsListen); err != nil {
		closeAll(append(h.people, h.agents...))
		return fmt.Errorf("listen on --metrics-listen: %w", err)
	}
	return nil
}

// run serves until ctx ends or something fails.
func (h *house) run(ctx context.Context, ready func() error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ended(h.mirror.Run(ctx)) })
	group.Go(func() error { return ended(h.server.Run(ctx, h.people, h.agents)) })
	group.Go(func() error {
		return ended(etcdstore.Lead(ctx, h.client, leaderKey, h.options.endpoint(h.options.Listen[0]), h.brain.lead))
	})
	if h.observer != nil {
		group.Go(func() error { return observe.Run(ctx, h.observer, h.gatherer(), observe.Well, h.unready) })
	}
	group.Go(func() error {
		if _, err := h.mirror.Wait(ctx, 0); err != nil {
			return ended(err)
		}
		h.log.Info().Strs("people", h.options.Listen).Strs("agents", h.options.AgentListen).Str("version", versionText()).Msg("serving")
		return ready()
	})
	group.Go(func() error {
		<-ctx.Done()
		h.log.Info().Msg("stopping")
		return nil
	})
	return group.Wait()
}

// unready says why the control plane cannot serve yet.
func (h *house) unready() string {
	if h.mirror.View().Revision == 0 {
		return "the store has not been read yet"
	}
	return ""
}

// gatherer joins our metrics with those that etcd and the Go runtime keep in the library's own registry.
func (h *house) gatherer() prometheus.Gatherer {
	return prometheus.Gatherers{h.metrics, prometheus.DefaultGatherer}
}

// ended drops the error that only says that the context has ended, which is how everything here is told to stop.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// leader is the address of the daybreakd that leads, "" when nobody does or it cannot be found out quickly.
func (h *house) leader(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	address, err := etcdstore.Leader(ctx, h.client, leaderKey)
	if err != nil {
		return ""
	}
	return address
}
