// Package jointoken is the text form of a join token: what an administrator copies from "daybreak token create" to a new
// host or to a colleague's terminal.
//
//	dbk1.<SHA-256 of the CA certificate, hex>.<id>.<secret>
//
// The digest lets the newcomer recognise the cluster before it sends the secret; the id is the name of the JoinToken
// object; of the secret the server keeps a hash only.
//
// Here: making, reading, writing, and comparing that text. Not here: how long a token is good and for whom (api), what is
// traded for it (proto/identity). Everybody may call it.
package jointoken

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrMalformed: the text is not a join token.
var ErrMalformed = errors.New("not a join token")

const (
	version     = "dbk1"
	idBytes     = 10
	secretBytes = 32
)

var (
	letters   = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	idLen     = letters.EncodedLen(idBytes)
	secretLen = letters.EncodedLen(secretBytes)
)

// Token is a join token taken apart.
type Token struct {
	// CADigest is the SHA-256 of the CA certificate's DER form.
	CADigest [sha256.Size]byte
	// ID names the JoinToken object; it is no secret.
	ID string
	// Secret is what the server must never store, nor anybody log.
	Secret string
}

// New makes a token for the cluster whose CA certificate is caDER, taking id and secret from random.
func New(random io.Reader, caDER []byte) (Token, error) {
	var buf [idBytes + secretBytes]byte
	if _, err := io.ReadFull(random, buf[:]); err != nil {
		return Token{}, fmt.Errorf("make join token: %w", err)
	}
	return Token{
		CADigest: sha256.Sum256(caDER),
		ID:       letters.EncodeToString(buf[:idBytes]),
		Secret:   letters.EncodeToString(buf[idBytes:]),
	}, nil
}

// Parse reads a token's text. White space around it is forgiven, since tokens are copied by hand; nothing else is. The
// error never repeats the text.
func Parse(text string) (Token, error) {
	text = strings.TrimSpace(text)
	if len(text) > 512 {
		return Token{}, fmt.Errorf("%w: longer than 512 characters", ErrMalformed)
	}
	parts := strings.Split(text, ".")
	if len(parts) != 4 {
		return Token{}, fmt.Errorf("%w: it has %d parts between dots, want 4 (was it cut off when it was copied?)", ErrMalformed, len(parts))
	}
	if parts[0] != version {
		return Token{}, fmt.Errorf("%w: it does not begin with %q", ErrMalformed, version+".")
	}
	digest, err := hex.DecodeString(parts[1])
	if err != nil || len(digest) != sha256.Size || hex.EncodeToString(digest) != parts[1] {
		return Token{}, fmt.Errorf("%w: its second part is not %d lower-case hexadecimal digits", ErrMalformed, 2*sha256.Size)
	}
	if !canonical(parts[2], idLen) {
		return Token{}, fmt.Errorf("%w: its third part is not an id of %d characters", ErrMalformed, idLen)
	}
	if !canonical(parts[3], secretLen) {
		return Token{}, fmt.Errorf("%w: its last part is not a secret of %d characters (was it cut off when it was copied?)", ErrMalformed, secretLen)
	}
	return Token{CADigest: [sha256.Size]byte(digest), ID: parts[2], Secret: parts[3]}, nil
}

// canonical reports whether text is the one base32 text of its bytes.
func canonical(text string, length int) bool {
	if len(text) != length {
		return false
	}
	raw, err := letters.DecodeString(text)
	return err == nil && letters.EncodeToString(raw) == text
}

// String is the text to hand to the newcomer. It holds the secret.
func (t Token) String() string {
	return strings.Join([]string{version, hex.EncodeToString(t.CADigest[:]), t.ID, t.Secret}, ".")
}

// SecretHash is what the server stores in JoinToken.secret_hash. The secret has 256 random bits: a plain hash is enough.
func (t Token) SecretHash() []byte {
	sum := sha256.Sum256([]byte(t.Secret))
	return sum[:]
}

// Matches reports, in constant time, whether the secret is the one whose hash was stored.
func (t Token) Matches(secretHash []byte) bool {
	return subtle.ConstantTimeCompare(t.SecretHash(), secretHash) == 1
}
