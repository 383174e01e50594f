package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"sync"
	"time"

	"daybreak/proto/identity"
)

const serverLife = 7 * 24 * time.Hour

// serverCert is a server certificate that is made anew, in memory, when a third of its life is left.
type serverCert struct {
	ca    *CA
	names []string

	mu      sync.Mutex
	current *tls.Certificate
	renew   time.Time
}

// ServerTLS makes the settings of a listener whose certificate holds for the names (DNS names and IP addresses), and for
// the name by which Daybreak's own clients know every daybreakd: TLS 1.3 only, client certificates of this CA. A client without one is let through the handshake, since enrolment needs that;
// api refuses it everywhere else. The chain sent includes the CA itself, which newcomers compare with their token.
func (ca *CA) ServerTLS(names []string) (*tls.Config, error) {
	cert := &serverCert{ca: ca, names: append([]string{identity.ServerName}, names...)}
	if _, err := cert.get(time.Now()); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  ca.pool,
		NextProtos: []string{"h2"},
		// A resumed session would not check the client's certificate afresh.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cert.get(time.Now())
		},
	}, nil
}

func (s *serverCert) get(now time.Time) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && now.Before(s.renew) {
		return s.current, nil
	}
	cert, err := s.ca.issueServer(s.names, now)
	if err != nil {
		return nil, err
	}
	s.current, s.renew = cert, now.Add(serverLife*2/3)
	return cert, nil
}

func (ca *CA) issueServer(names []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make server key: %w", err)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "daybreakd"},
		NotBefore:   now.Add(-skew),
		NotAfter:    now.Add(serverLife),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := ca.sign(template, key.Public())
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.cert.Raw}, PrivateKey: key}, nil
}
