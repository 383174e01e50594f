package identity_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/identity"
	"daybreak/proto/jointoken"
)

// cluster is a CA and a server that gives out certificates of a chosen lifetime.
type cluster struct {
	v1.UnimplementedEnrolServiceServer
	t        *testing.T
	key      *ecdsa.PrivateKey
	ca       *x509.Certificate
	addr     string
	lifetime time.Duration

	mu      sync.Mutex
	token   string
	heard   []string // tokens and names that reached the server
	renewed chan string
	tamper  func(*x509.Certificate)
	// publishers are what every answer names.
	publishers [][]byte
}

func certify(t *testing.T, template, parent *x509.Certificate, public any, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func newCluster(t *testing.T, serverName string) *cluster {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	c := &cluster{t: t, key: key, lifetime: time.Hour, renewed: make(chan string, 8)}
	c.ca = certify(t, root, root, &key.PublicKey, key)
	c.serve(serverName)
	return c
}

func (c *cluster) serve(serverName string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	leaf := certify(c.t, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{serverName}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, c.ca, &key.PublicKey, c.key)
	clients := x509.NewCertPool()
	clients.AddCert(c.ca)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, c.ca.Raw}, PrivateKey: key}},
	})))
	v1.RegisterEnrolServiceServer(server, c)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	c.addr = listener.Addr().String()
	var group errgroup.Group
	group.Go(func() error { return server.Serve(listener) })
	c.t.Cleanup(func() {
		server.Stop()
		_ = group.Wait()
	})
}

func (c *cluster) issue(csrDER []byte, name string) (*v1.EnrolResponse, error) {
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(c.lifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if c.tamper != nil {
		c.tamper(template)
	}
	leaf := certify(c.t, template, c.ca, csr.PublicKey, c.key)
	return &v1.EnrolResponse{Certificate: leaf.Raw, Ca: [][]byte{c.ca.Raw}, Publishers: c.publishers}, nil
}

func (c *cluster) Enrol(_ context.Context, req *v1.EnrolRequest) (*v1.EnrolResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, req.GetToken())
	if req.GetToken() != c.token {
		return nil, status.Error(codes.Unauthenticated, "no such token")
	}
	c.token = ""
	return c.issue(req.GetCsr(), req.GetName())
}

func (c *cluster) Renew(ctx context.Context, req *v1.RenewRequest) (*v1.EnrolResponse, error) {
	caller, _ := peer.FromContext(ctx)
	info, _ := caller.AuthInfo.(credentials.TLSInfo)
	if len(info.State.PeerCertificates) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	answer, err := c.issue(req.GetCsr(), info.State.PeerCertificates[0].Subject.CommonName)
	c.renewed <- info.State.PeerCertificates[0].SerialNumber.String()
	return answer, err
}

func (c *cluster) newToken() string {
	token, err := jointoken.New(rand.Reader, c.ca.Raw)
	if err != nil {
		c.t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = token.String()
	return c.token
}

func TestEnrolThenLoad(t *testing.T) {
	c := newCluster(t, identity.ServerName)
	dir := filepath.Join(t.TempDir(), "tls")
	text := c.newToken()
	id, err := identity.Ensure(t.Context(), time.Now(), dir, []string{"127.0.0.1:1", c.addr}, text, "host-a")
	if err != nil {
		t.Fatal(err)
	}
	if id.Name() != "host-a" {
		t.Errorf("enrolled as %q", id.Name())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", entry.Name(), info.Mode(), err)
		}
	}
	// The second start needs neither token nor server.
	again, err := identity.Ensure(t.Context(), time.Now(), dir, nil, "", "host-a")
	if err != nil || again.Name() != "host-a" {
		t.Fatalf("load again: %v", err)
	}
	if _, err := identity.Ensure(t.Context(), time.Now(), dir, nil, "", "host-b"); err == nil {
		t.Error("an identity was used under another name")
	}
	if _, err := identity.Enrol(t.Context(), t.TempDir(), c.addr, mustParse(t, text), "host-a"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a used token gave %v", err)
	}
}

func mustParse(t *testing.T, text string) jointoken.Token {
	t.Helper()
	token, err := jointoken.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestSecretStaysHomeInFrontOfStrangers(t *testing.T) {
	ours, stranger := newCluster(t, identity.ServerName), newCluster(t, identity.ServerName)
	// The impostor has a certificate of the right CA, but a host's, not a server's.
	impostor := newCluster(t, "host-x")
	for name, test := range map[string]struct {
		server *cluster
		token  string
	}{"another CA": {stranger, ours.newToken()}, "another role": {impostor, impostor.newToken()}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			dir := t.TempDir()
			_, err := identity.Enrol(ctx, dir, test.server.addr, mustParse(t, test.token), "host-a")
			if err == nil || !strings.Contains(err.Error(), identity.ErrWrongCluster.Error()) {
				t.Fatalf("got %v, want one that says ErrWrongCluster", err)
			}
			if len(test.server.heard) != 0 {
				t.Error("the secret was sent to a stranger")
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Error("a refused enrolment left files behind")
			}
		})
	}
}

func TestAnswersThatAreNotOurs(t *testing.T) {
	for name, tamper := range map[string]func(*x509.Certificate){
		"another name":  func(c *x509.Certificate) { c.Subject.CommonName = "host-b" },
		"server usage":  func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"expired":       func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) },
		"not yet valid": func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, identity.ServerName)
			c.tamper = tamper
			dir := t.TempDir()
			if _, err := identity.Enrol(t.Context(), dir, c.addr, mustParse(t, c.newToken()), "host-a"); err == nil {
				t.Fatal("accepted")
			}
			if _, err := identity.Load(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("load after a refused answer: %v", err)
			}
		})
	}
}

func TestNoIdentityNoToken(t *testing.T) {
	_, err := identity.Ensure(t.Context(), time.Now(), t.TempDir(), []string{"127.0.0.1:1"}, "", "host-a")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "daybreak token create") {
		t.Errorf("got %v, want one that tells how to get a token", err)
	}
}

func TestExpiredNeedsANewToken(t *testing.T) {
	c := newCluster(t, identity.ServerName)
	dir := t.TempDir()
	if _, err := identity.Enrol(t.Context(), dir, c.addr, mustParse(t, c.newToken()), "host-a"); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(2 * time.Hour)
	if _, err := identity.Ensure(t.Context(), later, dir, []string{c.addr}, "", "host-a"); !errors.Is(err, identity.ErrExpired) {
		t.Errorf("got %v, want ErrExpired", err)
	}
	if _, err := identity.Ensure(t.Context(), later, dir, []string{c.addr}, c.newToken(), "host-a"); err != nil {
		t.Errorf("enrol anew: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	c := newCluster(t, identity.ServerName)
	dir := t.TempDir()
	if _, err := identity.Enrol(t.Context(), dir, c.addr, mustParse(t, c.newToken()), "host-a"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"identity.pem", "ca.pem"} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range [][]byte{nil, good[:len(good)/2], []byte("hello"), make([]byte, 2<<20)} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := identity.Load(dir); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s of %d bytes: %v", name, len(bad), err)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRenewerRenewsAndReloads(t *testing.T) {
	c := newCluster(t, identity.ServerName)
	c.lifetime = time.Minute // of 61: renewal is due
	dir := t.TempDir()
	id, err := identity.Enrol(t.Context(), dir, c.addr, mustParse(t, c.newToken()), "host-a")
	if err != nil {
		t.Fatal(err)
	}
	config := id.TLS()
	before, err := config.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	c.lifetime = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan string, 8)
	log := zerolog.New(zerolog.NewTestWriter(t)).Hook(zerolog.HookFunc(func(_ *zerolog.Event, _ zerolog.Level, text string) { done <- text }))
	var group errgroup.Group
	group.Go(func() error {
		return identity.Renewer{Identity: id, Log: log, Dial: func() (*grpc.ClientConn, error) {
			return grpc.NewClient(c.addr, grpc.WithTransportCredentials(credentials.NewTLS(id.TLS())))
		}}.Run(ctx)
	})
	serial := <-c.renewed
	if want := before.Leaf.SerialNumber.String(); serial != want {
		t.Errorf("renewed with certificate %s, want %s", serial, want)
	}
	if text := <-done; text != "certificate renewed" {
		t.Fatalf("the renewer says %q", text)
	}
	cancel()
	if err := group.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("renewer ended with %v", err)
	}
	after, err := config.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if after.Leaf.SerialNumber.Cmp(before.Leaf.SerialNumber) == 0 {
		t.Error("a configuration made before the renewal presents the old certificate")
	}
	loaded, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := loaded.RenewalDue(), id.RenewalDue(); !a.Equal(b) {
		t.Errorf("on disk is another certificate: due %v, want %v", a, b)
	}
}
