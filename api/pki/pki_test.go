package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func newCA(t testing.TB) *CA {
	t.Helper()
	ca, err := NewCA(noon)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestOpenCA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	first, err := OpenCA(dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenCA(dir, noon.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if first.Digest() != again.Digest() {
		t.Error("the CA was made anew")
	}
	info, err := os.Stat(filepath.Join(dir, caKeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info.Mode(), err)
	}
	if _, err := OpenCA(dir, noon.AddDate(11, 0, 0)); err == nil || !strings.Contains(err.Error(), "ended") {
		t.Errorf("open a CA that has ended: %v", err)
	}
}

// TestStoreCASurvivesKill: whenever daybreakd dies while it stores its new CA, the next one opens, and from then on it is
// the same CA.
func TestStoreCASurvivesKill(t *testing.T) {
	ca := newCA(t)
	for done := range len(storeSteps("", ca)) + 1 {
		dir := t.TempDir()
		for _, step := range storeSteps(dir, ca)[:done] {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		first, err := OpenCA(dir, noon)
		if err != nil {
			t.Errorf("killed after %d steps: %v", done, err)
			continue
		}
		again, err := OpenCA(dir, noon)
		if err != nil || again.Digest() != first.Digest() {
			t.Errorf("killed after %d steps: opened again: %v", done, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 2 {
			t.Errorf("killed after %d steps: files %v are left", done, left)
		}
	}
}

// TestOpenCARefuses: whatever is wrong with the files, no new CA is made over them.
func TestOpenCARefuses(t *testing.T) {
	foreign := t.TempDir()
	if _, err := OpenCA(foreign, noon); err != nil {
		t.Fatal(err)
	}
	foreignKey, err := os.ReadFile(filepath.Join(foreign, caKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(dir string) error{
		"no key":         func(dir string) error { return os.Remove(filepath.Join(dir, caKeyFile)) },
		"no certificate": func(dir string) error { return os.Remove(filepath.Join(dir, caCertFile)) },
		"empty key":      func(dir string) error { return os.WriteFile(filepath.Join(dir, caKeyFile), nil, 0o600) },
		"foreign key":    func(dir string) error { return os.WriteFile(filepath.Join(dir, caKeyFile), foreignKey, 0o600) },
		"swapped": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, caCertFile), foreignKey, 0o600)
		},
	} {
		dir := t.TempDir()
		if _, err := OpenCA(dir, noon); err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, dir)
		if _, err := OpenCA(dir, noon); err == nil {
			t.Errorf("%s: opened", name)
		}
		if after := snapshot(t, dir); after != before {
			t.Errorf("%s: files changed", name)
		}
	}
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(entry.Name() + "\n" + string(text))
	}
	return all.String()
}

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "admin", OrganizationalUnit: []string{"admin"}}, DNSNames: []string{"daybreakd"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func p256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestIssueClient(t *testing.T) {
	ca := newCA(t)
	for _, row := range []struct {
		id   Identity
		life time.Duration
		uri  string
	}{
		{Identity{Name: "kvm1", Role: v1.Role_ROLE_HOST, HostUID: "a-uid"}, 30 * 24 * time.Hour, "spiffe://daybreak/host/kvm1"},
		{Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN}, 90 * 24 * time.Hour, "spiffe://daybreak/user/sato"},
		{Identity{Name: "ito", Role: v1.Role_ROLE_VIEWER}, 90 * 24 * time.Hour, "spiffe://daybreak/user/ito"},
	} {
		der, expires, err := ca.IssueClient(row.id, request(t, p256(t)), noon)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		row.id.Expires = noon.Add(row.life)
		got, err := IdentityOf(cert)
		if err != nil || got != row.id || !expires.Equal(row.id.Expires) {
			t.Errorf("identity %+v, %v, expires %v; want %+v", got, err, expires, row.id)
		}
		if len(cert.DNSNames) != 0 || cert.URIs[0].String() != row.uri || cert.IsCA {
			t.Errorf("certificate says more than it should: %v %v", cert.DNSNames, cert.URIs)
		}
		client := x509.VerifyOptions{Roots: ca.pool, CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := cert.Verify(client); err != nil {
			t.Error(err)
		}
		server := client
		server.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if _, err := cert.Verify(server); err == nil {
			t.Error("a client's certificate would do for a server")
		}
	}
}

func TestLifeEndsWithCA(t *testing.T) {
	ca := newCA(t)
	_, expires, err := ca.IssueClient(Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN}, request(t, p256(t)), ca.cert.NotAfter.Add(-time.Hour))
	if err != nil || !expires.Equal(ca.cert.NotAfter) {
		t.Errorf("expires %v, %v; the CA ends %v", expires, err, ca.cert.NotAfter)
	}
}

func TestIssueClientRefuses(t *testing.T) {
	ca := newCA(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, p256(t))
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for name, csr := range map[string][]byte{
		"rsa": request(t, rsaKey), "p384": request(t, p384), "empty": nil, "cut off": good[:len(good)-1],
		"wrong signature": forged, "more behind it": append(bytes.Clone(good), 0), "long": make([]byte, maxRequest+1),
	} {
		if _, _, err := ca.IssueClient(Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN}, csr, noon); !errors.Is(err, ErrRequest) {
			t.Errorf("%s: got %v, want ErrRequest", name, err)
		}
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ca.IssueClient(Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN}, request(t, edKey), noon); err != nil {
		t.Errorf("ed25519: %v", err)
	}
	for _, id := range []Identity{
		{Name: "", Role: v1.Role_ROLE_ADMIN}, {Name: "a/b", Role: v1.Role_ROLE_ADMIN}, {Name: "*", Role: v1.Role_ROLE_ADMIN},
		{Name: "a\x00b", Role: v1.Role_ROLE_ADMIN}, {Name: "аdmin", Role: v1.Role_ROLE_ADMIN}, {Name: "sato"},
		{Name: "kvm1", Role: v1.Role_ROLE_HOST}, {Name: "sato", Role: v1.Role_ROLE_VIEWER, HostUID: "x"},
	} {
		if _, _, err := ca.IssueClient(id, good, noon); !errors.Is(err, ErrIdentity) {
			t.Errorf("%+v: got %v, want ErrIdentity", id, err)
		}
	}
}

// TestIdentityOfIsStrict: a certificate of our CA that says two things, or half of one, is refused.
func TestIdentityOfIsStrict(t *testing.T) {
	uri := func(text string) []*url.URL {
		parsed, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{parsed}
	}
	host, admin := pkix.Name{OrganizationalUnit: []string{"host"}, SerialNumber: "uid"}, pkix.Name{OrganizationalUnit: []string{"admin"}}
	for name, cert := range map[string]*x509.Certificate{
		"nothing":         {},
		"no role":         {URIs: uri("spiffe://daybreak/user/sato")},
		"two roles":       {URIs: uri("spiffe://daybreak/user/sato"), Subject: pkix.Name{OrganizationalUnit: []string{"viewer", "admin"}}},
		"unknown role":    {URIs: uri("spiffe://daybreak/user/sato"), Subject: pkix.Name{OrganizationalUnit: []string{"root"}}},
		"two URIs":        {URIs: append(uri("spiffe://daybreak/user/sato"), uri("spiffe://daybreak/user/ito")...), Subject: admin},
		"host as admin":   {URIs: uri("spiffe://daybreak/host/kvm1"), Subject: admin},
		"person as host":  {URIs: uri("spiffe://daybreak/user/sato"), Subject: host},
		"other domain":    {URIs: uri("spiffe://elsewhere/user/sato"), Subject: admin},
		"other scheme":    {URIs: uri("https://daybreak/user/sato"), Subject: admin},
		"path behind":     {URIs: uri("spiffe://daybreak/user/sato/x"), Subject: admin},
		"query":           {URIs: uri("spiffe://daybreak/user/sato?x=y"), Subject: admin},
		"port":            {URIs: uri("spiffe://daybreak:1/user/sato"), Subject: admin},
		"no name":         {URIs: uri("spiffe://daybreak/user/"), Subject: admin},
		"star":            {URIs: uri("spiffe://daybreak/host/*"), Subject: host},
		"host, no object": {URIs: uri("spiffe://daybreak/host/kvm1"), Subject: pkix.Name{OrganizationalUnit: []string{"host"}}},
	} {
		if id, err := IdentityOf(cert); !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: got %+v, %v", name, id, err)
		}
	}
}

func TestServerCertificateRenewsItself(t *testing.T) {
	ca := newCA(t)
	cert := &serverCert{ca: ca, names: []string{"daybreakd", "10.0.0.1", "control.example"}}
	first, err := cert.get(noon)
	if err != nil {
		t.Fatal(err)
	}
	if same, _ := cert.get(noon.Add(4 * 24 * time.Hour)); same != first {
		t.Error("renewed too early")
	}
	next, err := cert.get(noon.Add(5 * 24 * time.Hour))
	if err != nil || next == first {
		t.Errorf("not renewed: %v", err)
	}
	leaf, err := x509.ParseCertificate(next.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"daybreakd", "10.0.0.1", "control.example"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(next.Certificate[1], ca.CertDER()) {
		t.Error("the CA is not presented: newcomers could not check their token's digest")
	}
}

func FuzzRequestKey(f *testing.F) {
	f.Add(request(f, p256(f)))
	f.Add([]byte("0\x80"))
	f.Fuzz(func(t *testing.T, der []byte) {
		if key, err := requestKey(der); (key == nil) == (err == nil) {
			t.Errorf("key %v and error %v", key, err)
		}
	})
}
