// Package identity is the client's half of a certificate: how a host or a person gets one for a join token, where it lies,
// how it is used in TLS, and how it is renewed.
//
// Here: the files of an identity, Enrol, Renew and the loop that renews in time, the client's tls.Config. Not here: who
// gives certificates out and to whom (api), the token's text (proto/jointoken), what is said over the connection.
// cmd/daybreak-agent and cmd/daybreak call it.
//
// What it asks of the server: a certificate with the DNS name ServerName and the extended key usage "server", presented
// together with the CA certificate that signed it, so that a newcomer can compare that one with its token's digest.
package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ServerName is in every daybreakd's certificate. Clients check it instead of the address they dialled, so that addresses
// may change without new certificates; the CA gives it to nobody else.
const ServerName = "daybreakd"

// Files in an identity's directory. Key and certificate share one file: a renewal replaces both or neither.
const (
	ownFile = "identity.pem"
	caFile  = "ca.pem"
	maxFile = 1 << 20
	maxCAs  = 16
)

// ErrExpired: the certificate is no longer good. Only a new join token helps.
var ErrExpired = errors.New("the certificate has expired")

// Identity is a certificate with its key and the CAs its owner trusts. It is safe for concurrent use.
type Identity struct {
	dir string

	mu   sync.RWMutex
	pair tls.Certificate
	leaf *x509.Certificate
	cas  []*x509.Certificate
}

// Load reads the identity in dir. The error wraps fs.ErrNotExist when nobody enrolled there.
func Load(dir string) (*Identity, error) {
	id := &Identity{dir: dir}
	if err := id.read(); err != nil {
		return nil, fmt.Errorf("load identity from %s: %w", dir, err)
	}
	return id, nil
}

func (id *Identity) read() error {
	own, err := readFile(filepath.Join(id.dir, ownFile))
	if err != nil {
		return err
	}
	cas, err := readFile(filepath.Join(id.dir, caFile))
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(own, own)
	if err != nil {
		return fmt.Errorf("read %s: %w", ownFile, err)
	}
	authorities, err := parseCAs(cas)
	if err != nil {
		return fmt.Errorf("read %s: %w", caFile, err)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	id.pair, id.leaf, id.cas = pair, pair.Leaf, authorities
	return nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

func parseCAs(text []byte) ([]*x509.Certificate, error) {
	var cas []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse CA certificate: %w", err)
		}
		cas = append(cas, ca)
	}
	if len(cas) == 0 || len(cas) > maxCAs {
		return nil, fmt.Errorf("it holds %d CA certificates, want 1 to %d", len(cas), maxCAs)
	}
	return cas, nil
}

// PEM returns the certificate, its key, and the trusted CAs as PEM text.
func (id *Identity) PEM() (certificate, key, cas []byte, err error) {
	id.mu.RLock()
	defer id.mu.RUnlock()
	der, err := x509.MarshalPKCS8PrivateKey(id.pair.PrivateKey)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encode key: %w", err)
	}
	for _, ca := range id.cas {
		cas = append(cas, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})...)
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.leaf.Raw})
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), cas, nil
}

// Name is whom the certificate is for: the host's or the person's name.
func (id *Identity) Name() string {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.leaf.Subject.CommonName
}

// Validity is from when until when the certificate is good.
func (id *Identity) Validity() (from, until time.Time) {
	id.mu.RLock()
	defer id.mu.RUnlock()
	return id.leaf.NotBefore, id.leaf.NotAfter
}

// RenewalDue is when two thirds of the certificate's life are over.
func (id *Identity) RenewalDue() time.Time {
	from, until := id.Validity()
	return from.Add(until.Sub(from) / 3 * 2)
}

// TLS configures a connection to any daybreakd. Handshakes present the newest certificate; the trusted CAs are those of
// now, so make one for each new connection.
func (id *Identity) TLS() *tls.Config {
	id.mu.RLock()
	defer id.mu.RUnlock()
	roots := x509.NewCertPool()
	for _, ca := range id.cas {
		roots.AddCert(ca)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: ServerName,
		RootCAs:    roots,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			id.mu.RLock()
			defer id.mu.RUnlock()
			pair := id.pair
			return &pair, nil
		},
	}
}

// store writes what a server gave out. The CAs come first: with new CAs and the old certificate a client still works.
func store(dir string, key *ecdsa.PrivateKey, certificate []byte, cas []*x509.Certificate) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make identity directory: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	var own, authorities bytes.Buffer
	for _, block := range []*pem.Block{{Type: "PRIVATE KEY", Bytes: keyDER}, {Type: "CERTIFICATE", Bytes: certificate}} {
		if err := pem.Encode(&own, block); err != nil {
			return fmt.Errorf("encode identity: %w", err)
		}
	}
	for _, ca := range cas {
		if err := pem.Encode(&authorities, &pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}); err != nil {
			return fmt.Errorf("encode CA: %w", err)
		}
	}
	if err := replaceFile(dir, caFile, authorities.Bytes()); err != nil {
		return err
	}
	return replaceFile(dir, ownFile, own.Bytes())
}

// replaceFile writes a file of mode 0600 that is there whole or not at all, also after a power loss.
func replaceFile(dir, name string, content []byte) (err error) {
	temp, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if _, err = temp.Write(content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err = temp.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err = temp.Close(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err = os.Rename(temp.Name(), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() { _ = folder.Close() }()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
