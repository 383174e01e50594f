package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"daybreak/api/pki"
	"daybreak/hostagent"
	"daybreak/hostagent/disk"
	"daybreak/hostagent/fakehost"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/identity"
)

// Host is an agent with a store of its own and a made-up hypervisor.
type Host struct {
	// Line is its connection to the others.
	Line *Line
	// Fetched gets the time when a base was there, or why it is not.
	Fetched chan Fetch

	name    string
	disks   *disk.Store
	journal *hostagent.Journal
	stop    context.CancelFunc
	group   *errgroup.Group
}

// Fetch is the end of one fetch.
type Fetch struct {
	Digest string
	At     time.Time
	Err    error
}

// told passes on when fetches end.
type told struct {
	hostagent.Disks
	fetched chan Fetch
}

func (d told) EnsureBase(ctx context.Context, digest string, from hostagent.Source, progress func(uint32)) error {
	err := d.Disks.EnsureBase(ctx, digest, from, progress)
	if ctx.Err() == nil {
		d.fetched <- Fetch{Digest: digest, At: time.Now(), Err: err}
	}
	return err
}

// AddHost starts an agent on the store in dir, which is made when it is not there. With peers it gives chunks out to others.
func (p *Plane) AddHost(ctx context.Context, name, dir string, line *Line, peers bool) (*Host, error) {
	id, err := p.identity(ctx, name, filepath.Join(dir, "tls"))
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	h := &Host{Line: line, Fetched: make(chan Fetch, 64), name: name}
	if h.disks, err = disk.Open(disk.Config{Root: filepath.Join(dir, "store"), UID: os.Getuid(), GID: os.Getgid()}, p.log); err != nil {
		return nil, err
	}
	if h.journal, err = hostagent.OpenJournal(filepath.Join(dir, "journal.db"), hostagent.JournalOptions{NoSync: true}); err != nil {
		return nil, errors.Join(err, h.disks.Close())
	}
	dial := func(address string, creds credentials.TransportCredentials) (*grpc.ClientConn, error) {
		options := append(hostagent.DialOptions(), grpc.WithTransportCredentials(creds), grpc.WithContextDialer(line.dial))
		return grpc.NewClient("passthrough:"+address, options...)
	}
	cfg := hostagent.Config{
		Version: "bench", Servers: []string{p.agents.Addr().String()}, Zones: map[string]string{"bench": "br-bench"}, VNCDir: dir,
		Dial: func(server string) (*grpc.ClientConn, error) { return dial(server, credentials.NewTLS(id.TLS())) },
		Peers: hostagent.Peers{Host: name, Dial: func(host, address string) (*grpc.ClientConn, error) {
			return dial(address, credentials.NewTLS(id.PeerTLS(host)))
		}},
		Registerer: prometheus.NewRegistry(), Log: p.log.With().Str("host", name).Logger(),
	}
	if peers {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		cfg.Peers.Listener, cfg.Peers.Address = line.listener(listener), listener.Addr().String()
		cfg.Peers.Credentials = credentials.NewTLS(id.PeerServerTLS())
	}
	fake := fakehost.New(fakehost.Config{})
	agent, err := hostagent.New(cfg, h.journal, fake, fake, told{h.disks, h.Fetched}, fake)
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	h.stop, h.group = stop, &errgroup.Group{}
	h.group.Go(func() error { return agent.Run(running) })
	return h, nil
}

// Close ends the agent as an orderly stop does.
func (h *Host) Close() error {
	h.stop()
	err := h.group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, h.journal.Close(), h.disks.Close())
}

// Await waits until a version lies on the host.
func (h *Host) Await(ctx context.Context, digest string) (time.Time, error) {
	for {
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s: %w", h.name, ctx.Err())
		case fetch := <-h.Fetched:
			if fetch.Digest == digest {
				return fetch.At, fetch.Err
			}
		}
	}
}

// Up waits until the control plane knows all hosts as they are.
func (p *Plane) Up(ctx context.Context, hosts []*Host) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, h := range hosts {
		for {
			host, ok := store.Lookup[*v1.Host](p.mirror.View(), h.name)
			if ok && host.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not come up: %s: %w", h.name, host.GetStatus().GetMessage(), ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

// identity makes a Host object and its certificate.
func (p *Plane) identity(ctx context.Context, name, dir string) (*identity.Identity, error) {
	handle := store.Open(p.backend, store.WriterAPI)
	if _, err := handle.Commit(ctx, store.Create(&v1.Host{Meta: &v1.Meta{Name: name}})); err != nil {
		return nil, err
	}
	host, err := store.Get[*v1.Host](ctx, handle, name)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	der, _, err := p.ca.IssueClient(pki.Identity{Name: name, Role: v1.Role_ROLE_HOST, HostUID: host.GetMeta().GetUid()}, csr, time.Now())
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	own := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	err = errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "identity.pem"), own, 0o600),
		os.WriteFile(filepath.Join(dir, "ca.pem"), p.ca.CertPEM(), 0o600))
	if err != nil {
		return nil, err
	}
	return identity.Load(dir)
}

// Quiet is a log that tells of errors only.
func Quiet() zerolog.Logger { return zerolog.New(os.Stderr).Level(zerolog.ErrorLevel) }
