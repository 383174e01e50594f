package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"daybreak/proto/identity"
)

// authority is a CA of a test.
type authority struct {
	key *ecdsa.PrivateKey
	ca  *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{key, certify(t, root, root, &key.PublicKey, key)}
}

// identity gives out a certificate of a role.
func (a authority) identity(t *testing.T, name, role string, edit func(*x509.Certificate)) *identity.Identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{role}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if edit != nil {
		edit(template)
	}
	leaf := certify(t, template, a.ca, &key.PublicKey, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	own := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})...)
	for file, text := range map[string][]byte{"identity.pem": own, "ca.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.ca.Raw})} {
		if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// handshake lets two ends talk and returns what each says.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	talk := func(conn net.Conn, err error, secure func(net.Conn, *tls.Config) *tls.Conn, config *tls.Config) error {
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		end := secure(conn, config)
		if _, err := end.Write([]byte("x")); err != nil {
			return err
		}
		_, err = end.Read(make([]byte, 1))
		return err
	}
	done := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		done <- talk(conn, err, tls.Server, server)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	clientErr = talk(conn, err, tls.Client, client)
	return <-done, clientErr
}

func TestPeers(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	host := ours.identity(t, "kvm1", "host", nil)
	for name, c := range map[string]struct {
		client *identity.Identity
		to     string
		wrong  string
	}{
		"another host":             {ours.identity(t, "kvm2", "host", nil), "kvm1", ""},
		"a host that wants kvm9":   {ours.identity(t, "kvm2", "host", nil), "kvm9", "not of kvm9"},
		"a person":                 {ours.identity(t, "kvm2", "admin", nil), "kvm1", "none of a host"},
		"a host of another CA":     {theirs.identity(t, "kvm2", "host", nil), "kvm1", "unknown authority"},
		"a host whose time is up":  {ours.identity(t, "kvm2", "host", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), "kvm1", "expired"},
		"a server, not a client":   {ours.identity(t, "kvm2", "host", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "kvm1", "incompatible key usage"},
		"a host with another role": {ours.identity(t, "kvm2", "host", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"host", "admin"} }), "kvm1", "none of a host"},
	} {
		t.Run(name, func(t *testing.T) {
			serverErr, clientErr := handshake(t, host.PeerServerTLS(), c.client.PeerTLS(c.to))
			text := ""
			for _, err := range []error{serverErr, clientErr} {
				if err != nil {
					text += err.Error()
				}
			}
			if c.wrong == "" && text != "" || !strings.Contains(text, c.wrong) {
				t.Errorf("%q, want %q", text, c.wrong)
			}
		})
	}
	// Who has no certificate is not let in; and a person's does not make a server.
	if serverErr, _ := handshake(t, host.PeerServerTLS(), &tls.Config{InsecureSkipVerify: true}); serverErr == nil {
		t.Error("a caller without a certificate was let in")
	}
	person := ours.identity(t, "kvm1", "admin", nil)
	if _, clientErr := handshake(t, person.PeerServerTLS(), host.PeerTLS("kvm1")); clientErr == nil {
		t.Error("a person's certificate was taken for a host's")
	}
}
