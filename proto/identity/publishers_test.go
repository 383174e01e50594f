package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"daybreak/proto/identity"
	"daybreak/proto/jointoken"
)

// pins reads what is pinned in dir.
func pins(t *testing.T, dir string) [][]byte {
	t.Helper()
	text, err := os.ReadFile(identity.PublishersFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var keys [][]byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key.(ed25519.PublicKey))
	}
	return keys
}

func wantPins(t *testing.T, dir string, want ...[]byte) {
	t.Helper()
	have := pins(t, dir)
	if len(have) != len(want) {
		t.Fatalf("%d keys are pinned, want %d", len(have), len(want))
	}
	for i := range want {
		if !bytes.Equal(have[i], want[i]) {
			t.Errorf("key %d is another one", i)
		}
	}
}

// TestPins: enrolment pins the publishers, and nothing that a control plane says later changes them: neither a renewal nor
// a second enrolment after the certificate expired.
func TestPins(t *testing.T) {
	c := newCluster(t, identity.ServerName)
	first, second, third := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{3}, 32)
	c.publishers = [][]byte{first, second}
	dir := t.TempDir()
	id, err := identity.Ensure(t.Context(), time.Now(), dir, []string{c.addr}, c.newToken(), "host-a")
	if err != nil {
		t.Fatal(err)
	}
	wantPins(t, dir, first, second)
	c.publishers = [][]byte{third}
	conn, err := grpc.NewClient(c.addr, grpc.WithTransportCredentials(credentials.NewTLS(id.TLS())))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := id.Renew(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	wantPins(t, dir, first, second)
	if _, err := identity.Ensure(t.Context(), time.Now().Add(2*time.Hour), dir, []string{c.addr}, c.newToken(), "host-a"); err != nil {
		t.Fatal(err)
	}
	wantPins(t, dir, first, second)
	// An admin of the host who takes the file away and enrols anew pins what is said then.
	if err := os.Remove(identity.PublishersFile(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.Ensure(t.Context(), time.Now().Add(2*time.Hour), dir, []string{c.addr}, c.newToken(), "host-a"); err != nil {
		t.Fatal(err)
	}
	wantPins(t, dir, third)
}

// TestPinsOfHalfAnEnrolment: keys that were pinned before an enrolment broke off are not trusted by the next one.
func TestPinsOfHalfAnEnrolment(t *testing.T) {
	c := newCluster(t, identity.ServerName)
	dir := t.TempDir()
	c.publishers = [][]byte{bytes.Repeat([]byte{1}, 32)}
	c.tamper = func(leaf *x509.Certificate) { leaf.Subject.CommonName = "host-z" }
	if _, err := identity.Enrol(t.Context(), dir, c.addr, parse(t, c.newToken()), "host-a"); err == nil {
		t.Fatal("took a certificate for another")
	}
	wantPins(t, dir, c.publishers...)
	c.tamper, c.publishers = nil, nil
	if _, err := identity.Enrol(t.Context(), dir, c.addr, parse(t, c.newToken()), "host-a"); err != nil {
		t.Fatal(err)
	}
	wantPins(t, dir)
}

// TestPinsRefused: an answer with keys that are none is no enrolment.
func TestPinsRefused(t *testing.T) {
	for name, keys := range map[string][][]byte{
		"short": {bytes.Repeat([]byte{1}, 31)}, "empty": {{}}, "too many": slices17(),
	} {
		c := newCluster(t, identity.ServerName)
		c.publishers = keys
		dir := t.TempDir()
		if _, err := identity.Enrol(t.Context(), dir, c.addr, parse(t, c.newToken()), "host-a"); err == nil {
			t.Errorf("%s: enrolled", name)
		}
		if _, err := identity.Load(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: half an enrolment: %v", name, err)
		}
	}
}

func slices17() [][]byte {
	var keys [][]byte
	for i := range 17 {
		keys = append(keys, bytes.Repeat([]byte{byte(i + 1)}, 32))
	}
	return keys
}

func parse(t *testing.T, text string) jointoken.Token {
	t.Helper()
	token, err := jointoken.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}
