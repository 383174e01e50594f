package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
)

// ErrRequest: the certificate request cannot be granted as it is.
var ErrRequest = errors.New("bad certificate request")

const maxRequest = 8192

// requestKey takes the public key out of a PKCS #10 request, once the request proves to hold the private one.
func requestKey(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxRequest {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrRequest, maxRequest)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: not PKCS #10 in DER: %w", ErrRequest, err)
	}
	switch key := request.PublicKey.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, fmt.Errorf("%w: its key is on curve %s, want P-256", ErrRequest, key.Curve.Params().Name)
		}
	default:
		return nil, fmt.Errorf("%w: its key is %s, want ECDSA P-256 or Ed25519", ErrRequest, request.PublicKeyAlgorithm)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: its signature is wrong: %w", ErrRequest, err)
	}
	return request.PublicKey, nil
}
