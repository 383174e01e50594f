package api

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"daybreak/api/pki"
)

// caller is who calls, by the certificate of the connection.
type caller struct {
	pki.Identity
	// certified is false for a connection without a client certificate.
	certified bool
	// address is where the connection comes from.
	address string
}

func (c caller) String() string {
	if !c.certified {
		return "nobody"
	}
	return c.Identity.String()
}

type callerKey struct{}

func withCaller(ctx context.Context, c caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// callerOf returns who made the call; the interceptors put it there.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// HostOf returns the name of the host whose agent made the call.
func HostOf(ctx context.Context) (string, error) {
	c := callerOf(ctx)
	if !c.certified || !c.IsHost() {
		return "", fmt.Errorf("%s is no host", c)
	}
	return c.Name, nil
}

// identify reads the caller from the connection. TLS has verified the certificate's chain; here it is checked that the
// certificate has not ended since, and that it says for whom it speaks.
func identify(ctx context.Context, now time.Time) (caller, error) {
	found, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, status.Error(codes.Unauthenticated, "the connection has no peer")
	}
	who := caller{address: found.Addr.String()}
	if found.Addr.Network() == "unix" {
		who.address = "unix" // a client's end of a socket has no name
	}
	cert := leaf(found.AuthInfo)
	if cert == nil {
		return who, nil
	}
	identity, err := pki.IdentityOf(cert)
	if err != nil {
		return who, status.Error(codes.Unauthenticated, err.Error())
	}
	if now.After(identity.Expires) {
		return who, status.Errorf(codes.Unauthenticated, "the certificate of %s ended on %s: enrol again with a new token",
			identity, identity.Expires.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	who.Identity, who.certified = identity, true
	return who, nil
}

func leaf(auth credentials.AuthInfo) *x509.Certificate {
	info, ok := auth.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}
