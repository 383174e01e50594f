// Package pki is the cluster's own certificate authority: who a certificate speaks for, and how one is made and checked.
//
// Here: the CA and its files, server certificates that renew themselves, client certificates and the identity in them,
// the TLS settings of the listeners. Not here: who may have a certificate (api, by join tokens) and what an identity may
// do (api, authz.go). api and cmd/daybreakd call it.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	caLife = 10 * 365 * 24 * time.Hour
	// skew is how far a peer's clock may be behind ours and still take a new certificate.
	skew = 10 * time.Minute

	caCertFile = "ca.crt"
	caKeyFile  = "ca.key"
	// caNewKeyFile is the key's name until its certificate is there.
	caNewKeyFile = "ca.key.new"
)

// CA is the cluster's certificate authority. Several daybreakd of one cluster hold copies of the same one.
type CA struct {
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

// OpenCA loads the CA from dir, or makes one there when dir holds none. Half a CA, a foreign key or one that has ended is
// an error: a new one would lock out every agent.
func OpenCA(dir string, now time.Time) (*CA, error) {
	certPEM, certErr := os.ReadFile(filepath.Join(dir, caCertFile))
	keyPEM, keyErr := os.ReadFile(filepath.Join(dir, caKeyFile))
	if certErr == nil && errors.Is(keyErr, fs.ErrNotExist) {
		if made, err := finishCA(dir, certPEM); !errors.Is(err, fs.ErrNotExist) {
			keyPEM, keyErr = made, err
		}
	}
	switch {
	case errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist):
		return createCA(dir, now)
	case certErr != nil || keyErr != nil:
		return nil, fmt.Errorf("open CA: %w (a CA is two files, %s and %s: copy both from another daybreakd of the cluster)",
			errors.Join(certErr, keyErr), caCertFile, caKeyFile)
	}
	ca, err := parseCA(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("open CA in %s: %w", dir, err)
	}
	if now.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("open CA in %s: it ended on %s", dir, ca.cert.NotAfter.Format(time.DateOnly))
	}
	return ca, nil
}

// NewCA makes a CA that is stored nowhere.
func NewCA(now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Daybreak CA " + hex.EncodeToString(serial.Bytes()[:4])},
		NotBefore:             now.Add(-skew),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read CA certificate back: %w", err)
	}
	return assemble(cert, key), nil
}

func assemble(cert *x509.Certificate, key crypto.Signer) *CA {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &CA{cert: cert, key: key, pool: pool}
}

func createCA(dir string, now time.Time) (*CA, error) {
	ca, err := NewCA(now)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make CA directory: %w", err)
	}
	for _, step := range storeSteps(dir, ca) {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return ca, nil
}

// storeSteps store a new CA, so that whatever follows a crash between them ends with a whole CA: the key lies beside under
// another name until the certificate is there. Half a CA is never one that was cut off while it was made.
func storeSteps(dir string, ca *CA) []func() error {
	newKey := filepath.Join(dir, caNewKeyFile)
	return []func() error{
		func() error {
			keyDER, err := x509.MarshalPKCS8PrivateKey(ca.key)
			if err != nil {
				return fmt.Errorf("encode CA key: %w", err)
			}
			// One that is there belongs to a CA that never came to be.
			if err := os.Remove(newKey); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("store CA key: %w", err)
			}
			if err := writeNewFile(newKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
				return fmt.Errorf("store CA key: %w", err)
			}
			return nil
		},
		func() error {
			if err := writeNewFile(filepath.Join(dir, caCertFile), ca.CertPEM(), 0o644); err != nil {
				return fmt.Errorf("store CA certificate: %w", err)
			}
			return nil
		},
		func() error { return adoptKey(dir) },
	}
}

// adoptKey gives the key of a new CA its name.
func adoptKey(dir string) error {
	if err := os.Rename(filepath.Join(dir, caNewKeyFile), filepath.Join(dir, caKeyFile)); err != nil {
		return fmt.Errorf("store CA key: %w", err)
	}
	return syncDir(dir)
}

// finishCA does the last step of a creation that was cut off.
func finishCA(dir string, certPEM []byte) (keyPEM []byte, err error) {
	keyPEM, err = os.ReadFile(filepath.Join(dir, caNewKeyFile))
	if err != nil {
		return nil, err
	}
	if _, err := parseCA(certPEM, keyPEM); err != nil {
		return nil, fmt.Errorf("%s: %w", caNewKeyFile, err)
	}
	return keyPEM, adoptKey(dir)
}

func parseCA(certPEM, keyPEM []byte) (*CA, error) {
	certBlock, _ := pem.Decode(certPEM)
	if certBlock == nil || certBlock.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s holds no PEM certificate", caCertFile)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", caCertFile, err)
	}
	keyBlock, _ := pem.Decode(keyPEM)
	if keyBlock == nil || keyBlock.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%s holds no PEM private key (PKCS #8)", caKeyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", caKeyFile, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !cert.IsCA {
		return nil, errors.New("not an ECDSA certificate authority")
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s does not belong to %s", caKeyFile, caCertFile)
	}
	return assemble(cert, key), nil
}

// CertDER is the CA certificate. Its SHA-256 is the digest in join tokens.
func (ca *CA) CertDER() []byte { return bytes.Clone(ca.cert.Raw) }

// CertPEM is the CA certificate as PEM text.
func (ca *CA) CertPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Digest is the SHA-256 of the CA certificate, hex.
func (ca *CA) Digest() string {
	sum := sha256.Sum256(ca.cert.Raw)
	return hex.EncodeToString(sum[:])
}

// sign issues a certificate for a key, with a new serial number.
func (ca *CA) sign(template *x509.Certificate, key crypto.PublicKey) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}

func newSerial() (*big.Int, error) {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	raw[0] = raw[0]&0x7f | 0x40 // positive, and always 16 bytes
	return new(big.Int).SetBytes(raw), nil
}
