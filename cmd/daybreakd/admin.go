package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"daybreak/api/pki"
	"daybreak/cmd/clientconfig"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	adminFile    = "admin.yaml"
	adminName    = "admin"
	adminContext = "default"
)

// errForeignAdmin: there is an admin.yaml, and it is not as daybreakd writes it.
var errForeignAdmin = errors.New("not daybreakd's own " + adminFile)

// keepAdmin sees to it that admin.yaml lets the administrator of this machine in: it writes the file when there is none,
// when its certificate is of another CA or has less than a third of its life left, and when the server moved.
func keepAdmin(ca *pki.CA, dataDir, server string, now time.Time) error {
	path := filepath.Join(dataDir, adminFile)
	config, err := clientconfig.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		config, err = &clientconfig.Config{}, nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errForeignAdmin, err)
	}
	entry, err := config.Pick(adminContext)
	if err == nil && entry.Server == server && entry.CA == string(ca.CertPEM()) && lasts(entry.Cert, now) {
		return nil
	}
	if err != nil || entry.CA != string(ca.CertPEM()) || !lasts(entry.Cert, now) {
		if entry, err = issueAdmin(ca, now); err != nil {
			return fmt.Errorf("keep %s: %w", adminFile, err)
		}
	}
	entry.Server = server
	config.Set(entry)
	return config.Save(path)
}

// lasts says whether a certificate has more than a third of its life left.
func lasts(certPEM string, now time.Time) bool {
	block, _ := pem.Decode([]byte(certPEM))
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return false
	}
	return cert.NotAfter.Sub(now) > cert.NotAfter.Sub(cert.NotBefore)/3
}

func issueAdmin(ca *pki.CA, now time.Time) (clientconfig.Context, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return clientconfig.Context{}, fmt.Errorf("make key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return clientconfig.Context{}, fmt.Errorf("make certificate request: %w", err)
	}
	certDER, _, err := ca.IssueClient(pki.Identity{Name: adminName, Role: v1.Role_ROLE_ADMIN}, csr, now)
	if err != nil {
		return clientconfig.Context{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return clientconfig.Context{}, fmt.Errorf("encode key: %w", err)
	}
	return clientconfig.Context{
		Name: adminContext, CA: string(ca.CertPEM()),
		Cert: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certDER})),
		Key:  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
	}, nil
}
