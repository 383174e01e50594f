package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
)

// hostRole is the organizational unit in the certificates of hosts.
const hostRole = "host"

// PeerServerTLS configures the port that a host opens for other hosts: it presents the host's own certificate, and takes
// only callers with one of role host by the same CAs. The newest certificate and CAs count at each handshake.
func (id *Identity) PeerServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The chain is checked in VerifyConnection, against the CAs of that moment.
		ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return id.own(), nil
		},
		VerifyConnection: func(state tls.ConnectionState) error { return id.checkPeer(state, "") },
	}
}

// PeerTLS configures a connection to another host's port. It holds only with that host's certificate.
func (id *Identity) PeerTLS(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Hosts' certificates are those of clients, and name no address: VerifyConnection checks the chain and the name.
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return id.own(), nil
		},
		VerifyConnection: func(state tls.ConnectionState) error { return id.checkPeer(state, host) },
	}
}

func (id *Identity) own() *tls.Certificate {
	id.mu.RLock()
	defer id.mu.RUnlock()
	pair := id.pair
	return &pair
}

// checkPeer takes the other end's certificate when one of our CAs gave it to a host; with a name, to that host.
func (id *Identity) checkPeer(state tls.ConnectionState, host string) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("check peer: it has no certificate")
	}
	leaf := state.PeerCertificates[0]
	id.mu.RLock()
	roots := x509.NewCertPool()
	for _, ca := range id.cas {
		roots.AddCert(ca)
	}
	id.mu.RUnlock()
	between := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		between.AddCert(cert)
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, err := leaf.Verify(options); err != nil {
		return fmt.Errorf("check peer: %w", err)
	}
	if !slices.Equal(leaf.Subject.OrganizationalUnit, []string{hostRole}) {
		return fmt.Errorf("check peer: the certificate of %.80q is none of a host", leaf.Subject.CommonName)
	}
	if host != "" && leaf.Subject.CommonName != host {
		return fmt.Errorf("check peer: the certificate is that of host %.80q, not of %s", leaf.Subject.CommonName, host)
	}
	return nil
}
