package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"daybreak/api/audit"
	"daybreak/api/pki"
	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// rig is a server on loopback with real TLS, and all that it stands on.
type rig struct {
	t       *testing.T
	ca      *pki.CA
	backend *store.Memory
	mirror  *store.Mirror
	server  *Server
	key     *sign.Key
	dir     string
	people  string
	agents  string
	// stop ends the server and returns what Run returned.
	stop func() error
}

// newRig starts a server; edit may change its configuration first.
func newRig(t *testing.T, edit ...func(*Config)) *rig {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ca: ca, backend: store.NewMemory(), dir: t.TempDir()}
	r.mirror = store.NewMirror(r.backend)
	log, err := audit.Open(filepath.Join(r.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	if r.key, err = sign.NewKey(); err != nil {
		t.Fatal(err)
	}
	config := Config{
		Publisher: r.key,
		Log:       zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel), Registerer: prometheus.NewRegistry(),
		Backend: r.backend, Mirror: r.mirror, CA: ca, Audit: log,
		Cluster: Cluster{Version: "test", ID: "cluster", Epoch: 1},
	}
	for _, change := range edit {
		change(&config)
	}
	if r.server, err = NewServer(config); err != nil {
		t.Fatal(err)
	}
	people, agents := listen(t), listen(t)
	r.people, r.agents = people.Addr().String(), agents.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	mirrored, served := make(chan error, 1), make(chan error, 1)
	go func() { mirrored <- r.mirror.Run(ctx) }()
	go func() { served <- r.server.Run(ctx, []net.Listener{people}, []net.Listener{agents}) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		<-mirrored
		return <-served
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// newKey makes a key and a certificate request for it.
func newKey(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// certify gives an identity a certificate of a CA, as of a time.
func certify(t testing.TB, ca *pki.CA, id pki.Identity, now time.Time) tls.Certificate {
	t.Helper()
	key, csr := newKey(t)
	der, _, err := ca.IssueClient(id, csr, now)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// trust is a client's TLS configuration without a certificate.
func (r *rig) trust() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.ca.CertPEM())
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "daybreakd"}
}

func (r *rig) dial(address string, config *tls.Config) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// as connects to the people's listener as a person with a role.
func (r *rig) as(role v1.Role) *grpc.ClientConn {
	r.t.Helper()
	config := r.trust()
	config.Certificates = []tls.Certificate{certify(r.t, r.ca, pki.Identity{Name: "someone", Role: role}, time.Now())}
	return r.dial(r.people, config)
}

// asHost connects to the agents' listener as a host.
func (r *rig) asHost(name, uid string) *grpc.ClientConn {
	r.t.Helper()
	config := r.trust()
	config.Certificates = []tls.Certificate{certify(r.t, r.ca, pki.Identity{Name: name, Role: v1.Role_ROLE_HOST, HostUID: uid}, time.Now())}
	return r.dial(r.agents, config)
}

func (r *rig) objects() v1.ObjectServiceClient {
	return v1.NewObjectServiceClient(r.as(v1.Role_ROLE_ADMIN))
}

// put stores objects as their writer would.
func (r *rig) put(writer store.Writer, objects ...store.Object) {
	r.t.Helper()
	for _, o := range objects {
		if _, err := store.Open(r.backend, writer).Commit(r.t.Context(), store.Create(o)); err != nil {
			r.t.Fatal(err)
		}
	}
}

// edit changes a stored object as its writer would.
func edit[T store.Object](r *rig, writer store.Writer, name string, change func(T)) {
	r.t.Helper()
	_, err := store.Modify(r.t.Context(), store.Open(r.backend, writer), name, func(o T) error {
		change(o)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// caughtUp waits until the mirror knows what the store knows.
func (r *rig) caughtUp() {
	r.t.Helper()
	_, revision, err := r.backend.List(r.t.Context(), v1.Kind_KIND_ZONE)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.mirror.Wait(r.t.Context(), revision); err != nil {
		r.t.Fatal(err)
	}
}

// wantCode checks the code of an error, and that its text has the words.
func wantCode(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %v", err, code)
	}
	for _, word := range words {
		if !strings.Contains(status.Convert(err).Message(), word) {
			t.Errorf("message %q lacks %q", status.Convert(err).Message(), word)
		}
	}
}

func wantSame(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
