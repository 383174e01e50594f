package etcdstore

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"golang.org/x/sys/unix"

	"daybreak/orchestrator/store"
)

const (
	// defaultQuota is how large etcd's database may become, bytes.
	defaultQuota = 2 << 30
	// compactAfter is how long history is kept for watches that lag.
	compactAfter = "1h"
	// defragFrom is how much a defragmentation at start must be worth, MiB.
	defragFrom = 64
	// readyWithin bounds the start; a log of two gigabytes is read in less.
	readyWithin = 2 * time.Minute
	// corruptCheckEvery is how often the whole database is hashed.
	corruptCheckEvery = 24 * time.Hour
)

// EmbedConfig says how etcd runs inside this process.
type EmbedConfig struct {
	// Dir holds the data; it is made if it is not there. One process at a time.
	Dir string
	// QuotaBytes bounds the database; 0 means 2 GiB. When it is reached, only reads and deletes are taken.
	QuotaBytes int64
	// Log gets etcd's own lines: its info as our debug.
	Log zerolog.Logger

	unsafeNoFsync bool // for this package's tests
}

// Server is an etcd of one member inside this process. It listens on nothing: no port, no socket.
type Server struct {
	// Client speaks to the server by function calls. It is closed by Run.
	Client *clientv3.Client

	etcd  *embed.Etcd
	lock  *os.File
	quota int64
	freed int64 // the revision at which free last did its work
	log   zerolog.Logger
}

// Embedded starts etcd and returns when it takes requests. The caller must call Run, which closes it. When it fails, or
// ctx ends first, nothing runs any more.
func Embedded(ctx context.Context, cfg EmbedConfig) (*Server, error) {
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	inner, err := embedConfig(cfg)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	etcd, err := embed.StartEtcd(inner)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start etcd in %s: %w", cfg.Dir, err), lock.Close())
	}
	s := &Server{etcd: etcd, lock: lock, quota: inner.QuotaBackendBytes, log: cfg.Log, Client: v3client.New(etcd.Server)}
	select {
	case <-etcd.Server.ReadyNotify():
		if err = s.endLeases(ctx); err == nil {
			return s, nil
		}
	case <-ctx.Done():
		err = ctx.Err()
	case <-etcd.Server.StopNotify():
		err = errors.New("it stopped")
	case <-time.After(readyWithin):
		err = fmt.Errorf("it is not ready after %v", readyWithin)
	}
	return nil, errors.Join(fmt.Errorf("start etcd in %s: %w", cfg.Dir, err), s.close())
}

// Run keeps the server until ctx ends, then closes it. It returns an error if the server stops by itself.
func (s *Server) Run(ctx context.Context) error {
	failed := s.keep(ctx)
	if err := s.close(); err != nil && ctx.Err() != nil {
		return fmt.Errorf("close etcd: %w", err)
	}
	return failed
}

// keep returns when the server is to be closed, and why.
func (s *Server) keep(ctx context.Context) error {
	tick := time.NewTicker(relieveEvery)
	defer tick.Stop()
	for {
		if err := s.relieve(ctx); err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Msg("etcd's database is full or cannot be looked at")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-s.etcd.Err():
			return fmt.Errorf("etcd failed: %w", err)
		case <-s.etcd.Server.StopNotify():
			return errors.New("etcd stopped by itself: its log lines say why")
		case <-tick.C:
		}
	}
}

// endLeases ends what the process before this one left: nobody else can hold a lease of this etcd. Without it a
// daybreakd that was killed would have to wait for its own old leadership to run out.
func (s *Server) endLeases(ctx context.Context) error {
	left, err := s.Client.Leases(ctx)
	if err != nil {
		return fmt.Errorf("find old leases: %w", err)
	}
	for _, lease := range left.Leases {
		if _, err := s.Client.Revoke(ctx, lease.ID); err != nil {
			return fmt.Errorf("end old lease: %w", err)
		}
	}
	return nil
}

func (s *Server) close() error {
	err := s.Client.Close()
	s.etcd.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // the in-process client's way of saying that it is closed
	}
	return errors.Join(err, s.lock.Close())
}

// lockDir makes the directory and takes it for this process. etcd would wait for another process in silence.
func lockDir(dir string) (*os.File, error) {
	if dir == "" {
		return nil, fmt.Errorf("start etcd: no data directory given: %w", store.ErrInvalid)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory %s: another process uses it: %w", dir, err), lock.Close())
	}
	return lock, nil
}

// embedConfig is etcd's configuration: one member, no listener at all, everything checked that it can check.
func embedConfig(cfg EmbedConfig) (*embed.Config, error) {
	c := embed.NewConfig()
	c.Name = "daybreakd"
	c.Dir = filepath.Join(cfg.Dir, "etcd")
	// A member must have an address even if nobody is ever to call it: port 0 can be neither dialled nor taken.
	nowhere := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.AdvertisePeerUrls, c.AdvertiseClientUrls = []url.URL{nowhere}, []url.URL{nowhere}
	c.ListenPeerUrls, c.ListenClientUrls = nil, nil
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.QuotaBackendBytes = cfg.QuotaBytes
	if c.QuotaBackendBytes == 0 {
		c.QuotaBackendBytes = defaultQuota
	}
	c.MaxTxnOps = 2 * store.MaxOps
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compactAfter
	c.BootstrapDefragThresholdMegabytes = defragFrom
	c.CorruptCheckTime = corruptCheckEvery
	c.UnsafeNoFsync = cfg.unsafeNoFsync
	c.EnableGRPCGateway = false
	c.AuthToken = "" // nobody logs in, since nobody can call
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(cfg.Log))
	gates, ok := c.ServerFeatureGate.(interface{ Set(string) error })
	if !ok {
		return nil, errors.New("configure etcd: its feature gates cannot be set")
	}
	if err := gates.Set("InitialCorruptCheck=true,CompactHashCheck=true"); err != nil {
		return nil, fmt.Errorf("configure etcd: %w", err)
	}
	return c, nil
}
