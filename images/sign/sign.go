// Package sign is a publisher's word that a content may be run under an image's name, and the keys that give and check it.
//
// Here: the statement that is signed, signing and checking, keys as files. Not here: which keys are trusted and where they
// come from (cmd reads them, proto/identity pins them at enrolment), what is done with a version that nobody signed
// (orchestrator/catalog, hostagent). Every room but proto may call it.
package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// MaxSignatures is how many signatures a version can carry, as in its proto.
const MaxSignatures = 4

// Sentinels.
var (
	// ErrUntrusted: no publisher whose key is trusted here signed this content under this image's name.
	ErrUntrusted = errors.New("not signed by a publisher who is trusted here")
	// ErrKey: a file or text that holds no key that can be used.
	ErrKey = errors.New("no usable publisher key")
	// ErrName: nothing can be signed under that name.
	ErrName = errors.New("not the name of an image")
)

// name is what an image can be called. Anything else could end the statement's line and begin another.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// statement is the text that is signed.
func statement(image, digest string) ([]byte, error) {
	if !name.MatchString(image) || len(image) > 63 {
		return nil, fmt.Errorf("%.80q: %w", image, ErrName)
	}
	if _, err := images.ParseDigest(digest); err != nil {
		return nil, err
	}
	return []byte("daybreak image version 1\n" + image + "\n" + digest), nil
}

// Key is a publisher's private key. Safe for concurrent use.
type Key struct {
	private ed25519.PrivateKey
}

// NewKey makes a key that lies in memory only.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make publisher key: %w", err)
	}
	return &Key{private: private}, nil
}

// Public is the key that others check with.
func (k *Key) Public() ed25519.PublicKey {
	return ed25519.PublicKey(bytes.Clone(k.private[ed25519.SeedSize:]))
}

// Sign says that the content with this manifest digest (hex) may be run under the image's name. Errors wrap ErrName or
// images.ErrInvalid.
func (k *Key) Sign(image, digest string) (*v1.Signature, error) {
	text, err := statement(image, digest)
	if err != nil {
		return nil, fmt.Errorf("sign version: %w", err)
	}
	return &v1.Signature{Key: k.Public(), Signature: ed25519.Sign(k.private, text)}, nil
}

// Publishers are the keys that somebody trusts. Nil checks nothing, for tests and simulations; one without keys trusts
// nobody. Immutable, safe for concurrent use.
type Publishers struct {
	keys []ed25519.PublicKey
}

// NewPublishers trusts exactly these keys. Errors wrap ErrKey.
func NewPublishers(keys ...ed25519.PublicKey) (*Publishers, error) {
	p := &Publishers{}
	for _, key := range keys {
		if err := checkPublic(key); err != nil {
			return nil, err
		}
		if !p.has(key) {
			p.keys = append(p.keys, bytes.Clone(key))
		}
	}
	return p, nil
}

// Keys are the keys that are trusted.
func (p *Publishers) Keys() []ed25519.PublicKey {
	if p == nil {
		return nil
	}
	return slices.Clone(p.keys)
}

func (p *Publishers) has(key []byte) bool {
	return slices.ContainsFunc(p.keys, func(known ed25519.PublicKey) bool { return bytes.Equal(known, key) })
}

// Check returns nil when one of the trusted publishers signed this content under this image's name. Other signatures
// beside that one do no harm. Errors wrap ErrUntrusted.
func (p *Publishers) Check(image, digest string, signatures []*v1.Signature) error {
	if p == nil || len(p.Valid(image, digest, signatures)) > 0 {
		return nil
	}
	if _, err := statement(image, digest); err != nil {
		return fmt.Errorf("%w: %w", ErrUntrusted, err)
	}
	return fmt.Errorf("image %s, content %.12s…: %s: %w", image, digest, p.reason(signatures), ErrUntrusted)
}

// Valid returns those of the signatures that hold and are of trusted publishers, each publisher's once. A nil p trusts
// nobody here.
func (p *Publishers) Valid(image, digest string, signatures []*v1.Signature) []*v1.Signature {
	text, err := statement(image, digest)
	if p == nil || err != nil {
		return nil
	}
	var valid []*v1.Signature
	for _, signature := range signatures[:min(len(signatures), MaxSignatures)] {
		again := slices.ContainsFunc(valid, func(v *v1.Signature) bool { return bytes.Equal(v.GetKey(), signature.GetKey()) })
		if !again && p.has(signature.GetKey()) && ed25519.Verify(signature.GetKey(), text, signature.GetSignature()) {
			valid = append(valid, signature)
		}
	}
	return valid
}

// reason says why none of the signatures is good enough.
func (p *Publishers) reason(signatures []*v1.Signature) string {
	if len(signatures) == 0 {
		return "nobody signed it"
	}
	var strangers []string
	for _, signature := range signatures[:min(len(signatures), MaxSignatures)] {
		if p.has(signature.GetKey()) {
			return "the signature of publisher " + Fingerprint(signature.GetKey()) + " is not for this content under this name"
		}
		strangers = append(strangers, Fingerprint(signature.GetKey()))
	}
	return "signed by publisher " + strings.Join(strangers, ", ") + " only"
}

// Fingerprint is a key's name for people: half of its SHA-256, 32 hex digits.
func Fingerprint(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}
