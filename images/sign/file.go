package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
	// maxKeyFile bounds a file of keys, maxKeys the keys in it.
	maxKeyFile = 64 << 10
	maxKeys    = 16
)

// MakeKey reads the private key in a file (PEM, PKCS #8), and makes it when there is none: durably, for its owner alone,
// and never over another. made says that it is new. Errors wrap ErrKey for a file that is there and no key.
func MakeKey(path string) (key *Key, made bool, err error) {
	key, err = ReadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if key, err = NewKey(); err != nil {
		return nil, false, err
	}
	switch err := writeKey(path, key); {
	case errors.Is(err, fs.ErrExist):
		// Somebody was quicker: theirs is the key.
		key, err = ReadKey(path)
		return key, false, err
	case err != nil:
		return nil, false, fmt.Errorf("make publisher key: %w", err)
	}
	return key, true, nil
}

// ReadKey reads the private key in a file (PEM, PKCS #8, ed25519). Errors wrap fs.ErrNotExist or ErrKey.
func ReadKey(path string) (*Key, error) {
	text, info, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read publisher key: %w", err)
	}
	if info.Mode().Perm()&0o027 != 0 {
		return nil, fmt.Errorf("read publisher key: %s has mode %04o, so that others can read or change it: chmod 600 it: %w", path, info.Mode().Perm(), ErrKey)
	}
	key, err := ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("read publisher key %s: %w", path, err)
	}
	return key, nil
}

// ParseKey reads a private key from PEM text. Errors wrap ErrKey.
func ParseKey(text []byte) (*Key, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != privateBlock {
		return nil, fmt.Errorf("it holds no PEM private key (PKCS #8): %w", ErrKey)
	}
	if extra, _ := pem.Decode(rest); extra != nil {
		return nil, fmt.Errorf("it holds more than one key: %w", ErrKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrKey)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok || len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("it is not an ed25519 key (openssl genpkey -algorithm ed25519 makes one): %w", ErrKey)
	}
	return &Key{private: private}, nil
}

// pem is the private key as text.
func (k *Key) pem() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encode publisher key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// ReadPublishers reads files of public keys (PEM, one or more in a file). Errors wrap fs.ErrNotExist or ErrKey.
func ReadPublishers(paths ...string) (*Publishers, error) {
	var keys []ed25519.PublicKey
	for _, path := range paths {
		text, _, err := readFile(path)
		if err != nil {
			return nil, fmt.Errorf("read publisher keys: %w", err)
		}
		found, err := ParsePublic(text)
		if err != nil {
			return nil, fmt.Errorf("read publisher keys %s: %w", path, err)
		}
		keys = append(keys, found...)
	}
	return NewPublishers(keys...)
}

// ParsePublic reads public keys from PEM text, one or more. Errors wrap ErrKey.
func ParsePublic(text []byte) ([]ed25519.PublicKey, error) {
	var keys []ed25519.PublicKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == privateBlock {
			return nil, fmt.Errorf("it holds a private key, want public ones (daybreak publisher key prints them): %w", ErrKey)
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil || block.Type != publicBlock {
			return nil, fmt.Errorf("it holds a %q that is no public key: %w", block.Type, ErrKey)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("it holds a public key that is not an ed25519 key: %w", ErrKey)
		}
		if err := checkPublic(key); err != nil {
			return nil, err
		}
		if keys = append(keys, key); len(keys) > maxKeys {
			return nil, fmt.Errorf("it holds more than %d keys: %w", maxKeys, ErrKey)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("it holds no PEM public key: %w", ErrKey)
	}
	return keys, nil
}

// PublicPEM is a public key as text.
func PublicPEM(key ed25519.PublicKey) ([]byte, error) {
	if err := checkPublic(key); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode publisher key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

func checkPublic(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || bytes.Equal(key, make([]byte, len(key))) {
		return fmt.Errorf("a public key of %d bytes, want %d that are not all zero: %w", len(key), ed25519.PublicKeySize, ErrKey)
	}
	return nil
}

func readFile(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s is not a regular file: %w", path, ErrKey)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(text) > maxKeyFile {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes: %w", path, maxKeyFile, ErrKey)
	}
	return text, info, nil
}

// writeKey writes a file that must not be there yet: all of it or nothing, on disk before it returns.
func writeKey(path string, key *Key) (err error) {
	text, err := key.pem()
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file.Name())) }()
	if _, err := file.Write(text); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	// link(2) does not replace, as rename(2) would.
	if err := os.Link(file.Name(), path); err != nil {
		return err
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
