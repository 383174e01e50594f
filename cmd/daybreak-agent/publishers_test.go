package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"daybreak/images/sign"
	"daybreak/proto/identity"
)

// TestPublishers: keys that are named take the place of those pinned; without any, nobody is trusted.
func TestPublishers(t *testing.T) {
	o := options{DataDir: t.TempDir()}
	trusted, err := publishers(o, zerolog.Nop())
	if err != nil || trusted == nil || len(trusted.Keys()) != 0 {
		t.Fatalf("nobody pinned: %v, %v", trusted, err)
	}
	write := func(path string) []byte {
		key, err := sign.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		text, err := sign.PublicPEM(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return key.Public()
	}
	if err := os.Mkdir(identityDir(o), 0o700); err != nil {
		t.Fatal(err)
	}
	pinned := write(identity.PublishersFile(identityDir(o)))
	if trusted, err = publishers(o, zerolog.Nop()); err != nil || len(trusted.Keys()) != 1 || string(trusted.Keys()[0]) != string(pinned) {
		t.Errorf("pinned: %v, %v", trusted, err)
	}
	o.PublisherKey = []string{filepath.Join(t.TempDir(), "named.pem")}
	if _, err := publishers(o, zerolog.Nop()); err == nil {
		t.Error("took a file that is not there")
	}
	named := write(o.PublisherKey[0])
	if trusted, err = publishers(o, zerolog.Nop()); err != nil || len(trusted.Keys()) != 1 || string(trusted.Keys()[0]) != string(named) {
		t.Errorf("named: %v, %v", trusted, err)
	}
	if err := os.WriteFile(identity.PublishersFile(identityDir(o)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o.PublisherKey = nil
	if _, err := publishers(o, zerolog.Nop()); err == nil {
		t.Error("took an empty file for one that is not there")
	}
}
