package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// publishersFile holds the public keys, PEM, of the publishers that were pinned at enrolment.
const (
	publishersFile = "publishers.pem"
	maxPublishers  = 16
)

// PublishersFile is the file below dir that holds the keys of the publishers whose images the owner of the identity runs. It
// is not there when the control plane named none. Only enrolment writes it: what a control plane says later changes nothing.
func PublishersFile(dir string) string {
	return filepath.Join(dir, publishersFile)
}

// pin keeps publishers' keys, durably, before the certificate is stored and with it the enrolment is done. An identity that
// there was before, and that only has expired, keeps the keys it has.
func pin(dir string, keys [][]byte) error {
	if len(keys) > maxPublishers {
		return fmt.Errorf("read the server's answer: it brings the keys of %d publishers, at most %d", len(keys), maxPublishers)
	}
	var text bytes.Buffer
	for _, key := range keys {
		if len(key) != ed25519.PublicKeySize {
			return fmt.Errorf("read the server's answer: a publisher's key of %d bytes, want %d", len(key), ed25519.PublicKeySize)
		}
		der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(key))
		if err != nil {
			return fmt.Errorf("read the server's answer: publisher's key: %w", err)
		}
		if err := pem.Encode(&text, &pem.Block{Type: "PUBLIC KEY", Bytes: der}); err != nil {
			return fmt.Errorf("encode publisher's key: %w", err)
		}
	}
	enrolled, err := present(filepath.Join(dir, ownFile))
	if err != nil {
		return err
	}
	pinned, err := present(PublishersFile(dir))
	if err != nil || enrolled && pinned {
		return err
	}
	if len(keys) == 0 {
		// Those that an enrolment left that was cut off may be another control plane's.
		if err := os.Remove(PublishersFile(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget publishers: %w", err)
		}
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make identity directory: %w", err)
	}
	return replaceFile(dir, publishersFile, text.Bytes())
}

func present(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
