package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"daybreak/api/audit"
	"daybreak/api/pki"
	v1 "daybreak/proto/daybreak/v1"
)

func newGate(t *testing.T) *gate {
	t.Helper()
	log, err := audit.Open(t.TempDir() + "/audit.log")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return &gate{log: zerolog.Nop(), rules: newRules(), limits: newThrottle(), metrics: metrics, audit: log}
}

// calledBy is the context of a call over a connection with a certificate.
func calledBy(t *testing.T, id pki.Identity) context.Context {
	t.Helper()
	ca, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(certify(t, ca, id, time.Now()).Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return peer.NewContext(t.Context(), &peer.Peer{
		Addr:     &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1},
		AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{cert}}}},
	})
}

// TestUnaryDeadline: a call whose caller set no deadline, or a distant one, is ended after 30 seconds, and says whether
// something may have been changed.
func TestUnaryDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		hang := func(ctx context.Context, _ any) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		for _, row := range []struct {
			method  string
			request any
			give    time.Duration
			want    time.Duration
			words   string
		}{
			{v1.ObjectService_Delete_FullMethodName, &v1.DeleteRequest{Kind: 1, Name: "a"}, 0, unaryTimeout, "may or may not have been applied"},
			{v1.ObjectService_Get_FullMethodName, &v1.GetRequest{Kind: 1, Name: "a"}, time.Hour, unaryTimeout, "deadline"},
			{v1.ObjectService_Get_FullMethodName, &v1.GetRequest{Kind: 1, Name: "a"}, time.Second, time.Second, "deadline"},
		} {
			ctx := calledBy(t, pki.Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN})
			if row.give > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, row.give)
				defer cancel()
			}
			began := time.Now()
			_, err := g.unary(ctx, row.request, &grpc.UnaryServerInfo{FullMethod: row.method}, hang)
			wantCode(t, err, codes.DeadlineExceeded, row.words)
			if took := time.Since(began); took != row.want {
				t.Errorf("%s took %v, want %v", row.method, took, row.want)
			}
		}
	})
}

type bareStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s bareStream) Context() context.Context { return s.ctx }

// TestStreamEndsWithItsCertificate: a watch that nobody interrupts is over when the certificate is.
func TestStreamEndsWithItsCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		ctx := calledBy(t, pki.Identity{Name: "ito", Role: v1.Role_ROLE_VIEWER})
		began := time.Now()
		watch := func(_ any, stream grpc.ServerStream) error {
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		info := &grpc.StreamServerInfo{FullMethod: v1.ObjectService_Watch_FullMethodName}
		err := g.stream(nil, bareStream{ctx: ctx}, info, watch)
		wantCode(t, err, codes.Unauthenticated, "certificate")
		if days := time.Since(began).Hours() / 24; days < 89.9 || days > 90 {
			t.Errorf("after %v days", days)
		}
		// And on the connection that is still open nothing more is served.
		time.Sleep(time.Second)
		err = g.stream(nil, bareStream{ctx: ctx}, info, watch)
		wantCode(t, err, codes.Unauthenticated, "ended on")
	})
}

func TestPanicIsAnAnswer(t *testing.T) {
	g := newGate(t)
	ctx := calledBy(t, pki.Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN})
	info := &grpc.UnaryServerInfo{FullMethod: v1.ObjectService_Get_FullMethodName}
	_, err := g.unary(ctx, &v1.GetRequest{Kind: 1, Name: "a"}, info, func(context.Context, any) (any, error) { panic("bug") })
	wantCode(t, err, codes.Internal, "bug")
	err = g.stream(nil, bareStream{ctx: ctx}, &grpc.StreamServerInfo{FullMethod: v1.ObjectService_Watch_FullMethodName},
		func(any, grpc.ServerStream) error { panic("bug") })
	wantCode(t, err, codes.Internal, "bug")
	if n := testutil.CollectAndCount(g.metrics.calls); n != 2 {
		t.Errorf("%d series of calls, want 2", n)
	}
}

// TestStop: an open watch does not hold up the end, and is told to come again.
func TestStop(t *testing.T) {
	r := newRig(t)
	stream, err := r.objects().Watch(t.Context(), &v1.WatchRequest{Kinds: []v1.Kind{v1.Kind_KIND_ZONE}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(began); took > drainTime/2 {
		t.Errorf("took %v", took)
	}
	_, err = stream.Recv()
	wantCode(t, err, codes.Unavailable, "shutting down")
}
