package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"daybreak/images/sign"
)

// TestPublishers: the key is made once, beside the certificate authority; one that is named must be there.
func TestPublishers(t *testing.T) {
	o := options{CADir: filepath.Join(t.TempDir(), "ca")}
	first, trusted, err := publishers(o, zerolog.Nop())
	if err != nil || len(trusted.Keys()) != 0 {
		t.Fatal(trusted, err)
	}
	path := filepath.Join(o.CADir, "publisher.key")
	again, _, err := publishers(o, zerolog.Nop())
	if err != nil || !bytes.Equal(first.Public(), again.Public()) {
		t.Errorf("another key: %v", err)
	}
	named, _, err := publishers(options{PublisherKey: path}, zerolog.Nop())
	if err != nil || !bytes.Equal(first.Public(), named.Public()) {
		t.Errorf("named: %v", err)
	}
	absent := filepath.Join(t.TempDir(), "absent.key")
	if _, _, err := publishers(options{PublisherKey: absent}, zerolog.Nop()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named key that is not there: %v", err)
	}
	if _, err := os.Stat(absent); err == nil {
		t.Error("a named key was made")
	}
	public, err := sign.PublicPEM(first.Public())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "other.pem")
	if err := os.WriteFile(file, public, 0o644); err != nil {
		t.Fatal(err)
	}
	o.TrustKeys = []string{file}
	if _, trusted, err := publishers(o, zerolog.Nop()); err != nil || len(trusted.Keys()) != 1 {
		t.Errorf("trusted %v, %v", trusted, err)
	}
	o.TrustKeys = []string{path}
	if _, _, err := publishers(o, zerolog.Nop()); !errors.Is(err, sign.ErrKey) {
		t.Errorf("a private key as one to trust: %v", err)
	}
}
