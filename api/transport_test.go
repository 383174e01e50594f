package api

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"daybreak/api/pki"
	v1 "daybreak/proto/daybreak/v1"
)

func (r *rig) dialPeopleAsHost(name, uid string) *grpc.ClientConn {
	r.t.Helper()
	config := r.trust()
	config.Certificates = []tls.Certificate{certify(r.t, r.ca, pki.Identity{Name: name, Role: v1.Role_ROLE_HOST, HostUID: uid}, time.Now())}
	return r.dial(r.people, config)
}

// TestWhoGetsIn tries every kind of stranger on both listeners.
func TestWhoGetsIn(t *testing.T) {
	r := newRig(t)
	admin := pki.Identity{Name: "sato", Role: v1.Role_ROLE_ADMIN}
	foreign, err := pki.NewCA(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	with := func(certificates ...tls.Certificate) *tls.Config {
		config := r.trust()
		config.Certificates = certificates
		return config
	}
	old := with(certify(t, r.ca, admin, time.Now()))
	old.MaxVersion = tls.VersionTLS12
	// A certificate that pretends to be of our CA and is signed by another's key.
	pretender := with()
	stolen := certify(t, foreign, admin, time.Now())
	pretender.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stolen, nil }
	for _, row := range []struct {
		name   string
		config *tls.Config
		code   codes.Code
		words  string
	}{
		{"good", with(certify(t, r.ca, admin, time.Now())), codes.OK, ""},
		{"no certificate", with(), codes.Unauthenticated, "no client certificate"},
		{"of another CA", pretender, codes.Unavailable, ""},
		{"expired", with(certify(t, r.ca, admin, time.Now().AddDate(0, 0, -91))), codes.Unavailable, ""},
		{"not yet good", with(certify(t, r.ca, admin, time.Now().Add(time.Hour))), codes.Unavailable, ""},
		{"TLS 1.2", old, codes.Unavailable, ""},
	} {
		for _, address := range []string{r.people, r.agents} {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := healthv1.NewHealthClient(r.dial(address, row.config)).Check(ctx, &healthv1.HealthCheckRequest{})
			cancel()
			if status.Code(err) != row.code || !strings.Contains(status.Convert(err).Message(), row.words) {
				t.Errorf("%s: got %v, want %v with %q", row.name, err, row.code, row.words)
			}
		}
	}
}

func TestPlaintextIsRefused(t *testing.T) {
	r := newRig(t)
	conn, err := grpc.NewClient(r.people, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	wantCode(t, err, codes.Unavailable)
	raw, err := net.Dial("tcp", r.people)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := raw.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 64)
	n, _ := raw.Read(answer)
	if strings.Contains(string(answer[:n]), "HTTP") {
		t.Errorf("answered in the clear: %q", answer[:n])
	}
}

func TestSizes(t *testing.T) {
	r := newRig(t)
	client := r.objects()
	huge := zone("lgwan")
	huge.Spec.Description = strings.Repeat("x", 10<<20)
	_, err := client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(huge)})
	wantCode(t, err, codes.ResourceExhausted)
	huge.Spec.Description = strings.Repeat("x", 3<<20)
	_, err = client.Apply(t.Context(), &v1.ApplyRequest{Object: wrap(huge)})
	wantCode(t, err, codes.InvalidArgument, "spec.description")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", 1<<20))
	if _, err := client.List(ctx, &v1.ListRequest{Kind: v1.Kind_KIND_ZONE}); err == nil {
		t.Error("1 MiB of metadata was taken")
	}
	// And the server still serves.
	if _, err := r.objects().List(t.Context(), &v1.ListRequest{Kind: v1.Kind_KIND_ZONE}); err != nil {
		t.Error(err)
	}
}

// TestRemovedHost: a certificate ends with its Host object, and does not come back with another of the same name.
func TestRemovedHost(t *testing.T) {
	r := newRig(t)
	host := &v1.Host{Meta: &v1.Meta{Name: "kvm1", Uid: "11111111-1111-4111-8111-111111111111"}, Spec: &v1.HostSpec{}}
	check := func() error {
		_, err := v1.NewEnrolServiceClient(r.asHost("kvm1", host.Meta.Uid)).Renew(t.Context(), &v1.RenewRequest{Csr: []byte{1}})
		return err
	}
	wantCode(t, check(), codes.Unauthenticated, "host kvm1 was removed")
	r.put("api", host)
	wantCode(t, check(), codes.InvalidArgument, "bad certificate request")
	if _, err := r.objects().Delete(t.Context(), &v1.DeleteRequest{Kind: v1.Kind_KIND_HOST, Name: "kvm1"}); err != nil {
		t.Fatal(err)
	}
	r.caughtUp()
	wantCode(t, check(), codes.Unauthenticated, "host kvm1 was removed")
	r.put("api", &v1.Host{Meta: &v1.Meta{Name: "kvm1"}, Spec: &v1.HostSpec{}})
	wantCode(t, check(), codes.Unauthenticated, "host kvm1 was removed")
}

func TestThrottle(t *testing.T) {
	limits := newThrottle()
	one, other := caller{certified: true}, caller{certified: true}
	one.Name, other.Name = "one", "other"
	refused := false
	for range 2 * callsAtOnce {
		refused = refused || !limits.allow(one)
	}
	if !refused || !limits.allow(other) || !limits.allow(caller{}) {
		t.Errorf("one is refused: %v; the others must not be", refused)
	}
}
