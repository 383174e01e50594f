package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/jointoken"
)

// enrolTimeout bounds one attempt to enrol or renew.
const enrolTimeout = 30 * time.Second

// ErrWrongCluster: the server is not the one that the token was made for. The secret was not sent.
var ErrWrongCluster = errors.New("the server does not belong to the cluster that the token is for")

// Ensure loads the identity in dir, or, when there is none or it has expired, trades the token's text for one at the first
// of the servers (host:port) that answers.
func Ensure(ctx context.Context, now time.Time, dir string, servers []string, tokenText, name string) (*Identity, error) {
	id, err := Load(dir)
	switch {
	case err == nil && id.Name() != name:
		return nil, fmt.Errorf("use identity in %s: it is for %q, not for %q: give the old name, or move the directory away and enrol anew", dir, id.Name(), name)
	case err == nil:
		if _, until := id.Validity(); now.Before(until) {
			return id, nil
		}
		err = ErrExpired
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if tokenText == "" {
		return nil, fmt.Errorf("use identity in %s: %w: give a join token (daybreak token create)", dir, err)
	}
	token, err := jointoken.Parse(tokenText)
	if err != nil {
		return nil, err
	}
	var failures error
	for _, server := range servers {
		id, err := Enrol(ctx, dir, server, token, name)
		if err == nil {
			return id, nil
		}
		failures = errors.Join(failures, err)
		if status.Code(err) == codes.Unauthenticated || ctx.Err() != nil {
			break
		}
	}
	if failures == nil {
		return nil, errors.New("enrol: no server's address was given")
	}
	return nil, failures
}

// Enrol makes a key, trades the token for a certificate at server (host:port), and stores both in dir. The server must
// show the CA of the token's digest before it is told the secret; if it cannot, the error wraps ErrWrongCluster.
func Enrol(ctx context.Context, dir, server string, token jointoken.Token, name string) (*Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(credentials.NewTLS(pinned(token.CADigest))))
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w", server, err)
	}
	defer func() { _ = conn.Close() }()
	key, csr, err := newRequest(name)
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w", server, err)
	}
	answer, err := v1.NewEnrolServiceClient(conn).Enrol(ctx, &v1.EnrolRequest{Token: token.String(), Csr: csr, Name: name})
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w", server, err)
	}
	if err = pin(dir, answer.GetPublishers()); err == nil {
		err = accept(dir, key, name, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("enrol at %s: %w (the token is used up: make a new one)", server, err)
	}
	return Load(dir)
}

// Renew trades the certificate for a newer one with a new key, over a connection made with TLS. Handshakes from now on
// present the new one.
func (id *Identity) Renew(ctx context.Context, conn grpc.ClientConnInterface) error {
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	name := id.Name()
	key, csr, err := newRequest(name)
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	answer, err := v1.NewEnrolServiceClient(conn).Renew(ctx, &v1.RenewRequest{Csr: csr})
	if err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	if err := accept(id.dir, key, name, answer); err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	if err := id.read(); err != nil {
		return fmt.Errorf("renew certificate: %w", err)
	}
	return nil
}

func newRequest(name string) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}

// accept checks that the answer is a certificate for our key and name by one of the CAs it brings, and stores it.
func accept(dir string, key *ecdsa.PrivateKey, name string, answer *v1.EnrolResponse) error {
	leaf, err := x509.ParseCertificate(answer.GetCertificate())
	if err != nil {
		return fmt.Errorf("read the server's answer: certificate: %w", err)
	}
	if leaf.Subject.CommonName != name {
		return fmt.Errorf("read the server's answer: the certificate is for %q, not for %q", leaf.Subject.CommonName, name)
	}
	if public, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return errors.New("read the server's answer: the certificate is for another key")
	}
	if n := len(answer.GetCa()); n == 0 || n > maxCAs {
		return fmt.Errorf("read the server's answer: it brings %d CA certificates, want 1 to %d", n, maxCAs)
	}
	roots := x509.NewCertPool()
	var cas []*x509.Certificate
	for _, der := range answer.GetCa() {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("read the server's answer: CA certificate: %w", err)
		}
		roots.AddCert(ca)
		cas = append(cas, ca)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fmt.Errorf("read the server's answer: %w (is this machine's clock right?)", err)
	}
	return store(dir, key, answer.GetCertificate(), cas)
}

// pinned trusts exactly the CA with that digest, which the server must present.
func pinned(digest [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		// There are no roots yet to verify against: VerifyConnection does it, against the pinned one.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return checkPinned(state.PeerCertificates, digest)
		},
	}
}

func checkPinned(chain []*x509.Certificate, digest [sha256.Size]byte) error {
	var root *x509.Certificate
	intermediates := x509.NewCertPool()
	for i, certificate := range chain {
		switch {
		case sha256.Sum256(certificate.Raw) == digest:
			root = certificate
		case i > 0:
			intermediates.AddCert(certificate)
		}
	}
	if len(chain) == 0 || root == nil || !root.IsCA {
		return fmt.Errorf("%w: it does not show the CA that the token names", ErrWrongCluster)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, DNSName: ServerName}); err != nil {
		return fmt.Errorf("%w: %w (is this machine's clock right?)", ErrWrongCluster, err)
	}
	return nil
}
