package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/api/pki"
	"daybreak/images/sign"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/identity"
	"daybreak/proto/jointoken"
)

func (r *rig) token(request *v1.CreateTokenRequest) string {
	r.t.Helper()
	answer, err := v1.NewAdminServiceClient(r.as(v1.Role_ROLE_ADMIN)).CreateToken(r.t.Context(), request)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.GetToken()
}

// enrol asks for a certificate over a connection without one.
func (r *rig) enrol(token, name string) (*v1.EnrolResponse, error) {
	_, csr := newKey(r.t)
	return v1.NewEnrolServiceClient(r.dial(r.agents, r.trust())).Enrol(r.t.Context(), &v1.EnrolRequest{Token: token, Csr: csr, Name: name})
}

// TestEnrolWithTheRealClient: token, enrolment, renewal, and a call with what came of it.
func TestEnrolWithTheRealClient(t *testing.T) {
	r := newRig(t, withAll(t))
	text := r.token(&v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST, Subject: "kvm1"})
	token, err := jointoken.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	id, err := identity.Enrol(t.Context(), dir, r.agents, token, "kvm1")
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := sign.ReadPublishers(identity.PublishersFile(dir))
	if err != nil || len(pinned.Keys()) != 1 || !pinned.Keys()[0].Equal(r.key.Public()) {
		t.Errorf("pinned %v, %v", pinned, err)
	}
	conn := r.dial(r.agents, id.TLS())
	if err := id.Renew(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	_, err = v1.NewAgentServiceClient(r.dial(r.agents, id.TLS())).Report(t.Context(), &v1.ReportRequest{SessionId: "0123456789abcdef"})
	if err != nil {
		t.Error(err)
	}
	host, err := store.Get[*v1.Host](t.Context(), store.Open(r.backend, store.WriterAPI), "kvm1")
	if err != nil || host.GetSpec() == nil {
		t.Errorf("%v, %v", host, err)
	}
	log, err := os.ReadFile(filepath.Join(r.dir, "audit.log"))
	if err != nil || !bytes.Contains(log, []byte(`"who":"nobody"`)) {
		t.Errorf("the enrolment was not audited: %s, %v", log, err)
	}
	if bytes.Contains(log, []byte(token.Secret)) {
		t.Error("the secret is in the audit log")
	}
}

// TestEnrolPeople: the certificate has the token's role.
func TestEnrolPeople(t *testing.T) {
	r := newRig(t)
	for _, role := range []v1.Role{v1.Role_ROLE_ADMIN, v1.Role_ROLE_OPERATOR, v1.Role_ROLE_VIEWER} {
		answer, err := r.enrol(r.token(&v1.CreateTokenRequest{Role: role, Subject: "sato"}), "sato")
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(answer.GetCertificate())
		if err != nil {
			t.Fatal(err)
		}
		got, err := pki.IdentityOf(cert)
		if err != nil || got.Role != role || got.Name != "sato" || !got.Expires.Equal(answer.GetExpires().AsTime()) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	_, err := v1.NewAdminServiceClient(r.as(v1.Role_ROLE_ADMIN)).CreateToken(t.Context(), &v1.CreateTokenRequest{Role: v1.Role_ROLE_ADMIN})
	wantCode(t, err, codes.InvalidArgument, "subject")
}

// TestBadTokens: every token that is not a good one is refused, changes nothing, and leaves good ones good.
func TestBadTokens(t *testing.T) {
	r := newRig(t)
	used := r.token(&v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST, Subject: "kvm0"})
	if _, err := r.enrol(used, "kvm0"); err != nil {
		t.Fatal(err)
	}
	good := r.token(&v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST, Subject: "kvm1"})
	unbound := r.token(&v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST})
	parts := strings.Split(good, ".")
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	stranger, err := jointoken.New(bytes.NewReader(bytes.Repeat([]byte{7}, 64)), r.ca.CertDER())
	if err != nil {
		t.Fatal(err)
	}
	// Only what is asked with a good token is audited: nobody can fill the log from outside.
	admitted := map[string]bool{"host that exists": true, "no request": true}
	for _, row := range []struct {
		name, token, host string
		code              codes.Code
		words             string
	}{
		{"used", used, "kvm0", codes.Unauthenticated, "was used"},
		{"never made", stranger.String(), "kvm1", codes.Unauthenticated, "unknown"},
		{"of another host", good, "kvm2", codes.Unauthenticated, `for "kvm1", not for "kvm2"`},
		{"host that exists", unbound, "kvm0", codes.AlreadyExists, "daybreak token create --host kvm0"},
		{"empty", "", "kvm1", codes.InvalidArgument, "token"},
		{"cut off", good[:len(good)-1], "kvm1", codes.Unauthenticated, "cut off"},
		{"extra part", good + ".x", "kvm1", codes.Unauthenticated, "parts"},
		{"missing part", join(parts[:3]...), "kvm1", codes.Unauthenticated, "parts"},
		{"other version", join("dbk2", parts[1], parts[2], parts[3]), "kvm1", codes.Unauthenticated, "dbk1."},
		{"upper case", strings.ToUpper(good), "kvm1", codes.Unauthenticated, "dbk1."},
		{"other secret", join(parts[0], parts[1], parts[2], stranger.Secret), "kvm1", codes.Unauthenticated, "unknown"},
		{"long", strings.Repeat("x", 513), "kvm1", codes.InvalidArgument, "token"},
		{"nonsense name", good, "kvm1/../x", codes.InvalidArgument, "name"},
		{"no request", good, "kvm1", codes.InvalidArgument, "certificate request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, lines := r.everything(), len(r.audited())
			_, csr := newKey(t)
			if row.name == "no request" {
				csr = []byte("junk")
			}
			client := v1.NewEnrolServiceClient(r.dial(r.agents, r.trust()))
			_, err := client.Enrol(t.Context(), &v1.EnrolRequest{Token: row.token, Csr: csr, Name: row.host})
			wantCode(t, err, row.code, row.words)
			wantSame(t, r.everything(), before)
			want := 0
			if admitted[row.name] {
				want = 2
			}
			if got := len(r.audited()) - lines; got != want {
				t.Errorf("%d audit lines, want %d", got, want)
			}
		})
	}
	// White space that came along when it was copied is forgiven.
	if _, err := r.enrol(good+"\n", "kvm1"); err != nil {
		t.Errorf("the good token: %v", err)
	}
	if _, err := r.enrol(unbound, "kvm2"); err != nil {
		t.Errorf("the unbound token: %v", err)
	}
}

// TestStrangersCannotFillLogs: whoever has no good token leaves few lines in the log, and is counted.
func TestStrangersCannotFillLogs(t *testing.T) {
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	r := newRig(t, func(c *Config) { c.Log, c.Registerer = zerolog.New(zerolog.SyncWriter(&log)), registry })
	client := v1.NewEnrolServiceClient(r.dial(r.agents, r.trust()))
	stranger, err := jointoken.New(bytes.NewReader(bytes.Repeat([]byte{7}, 64)), r.ca.CertDER())
	if err != nil {
		t.Fatal(err)
	}
	_, csr := newKey(t)
	const tries = 3 * strangersLogged
	for range tries {
		_, err := client.Enrol(t.Context(), &v1.EnrolRequest{Token: stranger.String(), Csr: csr, Name: "kvm1"})
		wantCode(t, err, codes.Unauthenticated, "unknown")
	}
	if err := r.stop(); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	// A minute may have ended meanwhile.
	if n := strings.Count(log.String(), "a stranger was refused"); n == 0 || n > 2*strangersLogged {
		t.Errorf("%d of %d refusals are in the log", n, tries)
	}
	if strings.Contains(log.String(), stranger.Secret) {
		t.Error("the secret is in the log")
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var counted float64
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "daybreak_api_calls_total" {
				counted += m.GetCounter().GetValue()
			}
		}
	}
	if counted != tries {
		t.Errorf("%v calls counted, want %d", counted, tries)
	}
}

// TestReEnrolment: a host that lost its key comes back under its name, as the same host.
func TestReEnrolment(t *testing.T) {
	r := newRig(t)
	uid := func() string {
		t.Helper()
		answer, err := r.enrol(r.token(&v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST, Subject: "kvm1"}), "kvm1")
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(answer.GetCertificate())
		if err != nil {
			t.Fatal(err)
		}
		id, err := pki.IdentityOf(cert)
		if err != nil {
			t.Fatal(err)
		}
		return id.HostUID
	}
	if first, second := uid(), uid(); first != second || first == "" {
		t.Errorf("uids %q and %q", first, second)
	}
}

// TestOneTokenManyNewcomers: of many who use one token at the same time exactly one gets in.
func TestOneTokenManyNewcomers(t *testing.T) {
	r := newRig(t)
	for range 5 {
		token := r.token(&v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST})
		results := make(chan error, 4)
		var ready sync.WaitGroup
		ready.Add(1)
		for _, name := range []string{"a", "b", "c", "d"} {
			go func() {
				ready.Wait()
				_, err := r.enrol(token, name+token[len(token)-8:])
				results <- err
			}()
		}
		ready.Done()
		won := 0
		for range 4 {
			if err := <-results; err == nil {
				won++
			} else if status.Code(err) != codes.Unauthenticated {
				t.Errorf("a loser got %v", err)
			}
		}
		if won != 1 {
			t.Errorf("%d got in with one token", won)
		}
	}
}

// TestTokenExpires: good until its last second, not after it.
func TestTokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := pki.NewCA(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		handle := store.Open(store.NewMemory(), store.WriterAPI)
		admin := &adminService{store: handle, ca: ca}
		enrol := &enrolService{store: handle, ca: ca}
		_, csr := newKey(t)
		try := func(wait time.Duration) error {
			answer, err := admin.CreateToken(t.Context(), &v1.CreateTokenRequest{Role: v1.Role_ROLE_VIEWER, Subject: "ito", Ttl: durationpb.New(time.Minute)})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			_, err = enrol.Enrol(t.Context(), &v1.EnrolRequest{Token: answer.GetToken(), Csr: csr, Name: "ito"})
			return err
		}
		if err := try(time.Minute - time.Second); err != nil {
			t.Error(err)
		}
		wantCode(t, try(time.Minute), codes.Unauthenticated, "expired at")
		wantCode(t, try(time.Minute+time.Second), codes.Unauthenticated, "expired at")
		// The next token sweeps up those that nobody can use.
		if _, err := admin.CreateToken(t.Context(), &v1.CreateTokenRequest{Role: v1.Role_ROLE_VIEWER, Subject: "ito"}); err != nil {
			t.Fatal(err)
		}
		left, _, err := store.List[*v1.JoinToken](t.Context(), handle)
		if err != nil || len(left) != 1 {
			t.Errorf("%d tokens are left, %v", len(left), err)
		}
	})
}

func TestTokensAreBounded(t *testing.T) {
	r := newRig(t)
	admin := &adminService{store: store.Open(r.backend, store.WriterAPI), ca: r.ca}
	for range maxTokens {
		if _, err := admin.CreateToken(t.Context(), &v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := admin.CreateToken(t.Context(), &v1.CreateTokenRequest{Role: v1.Role_ROLE_HOST})
	wantCode(t, err, codes.ResourceExhausted, "1000 tokens")
}

func TestRenewKeepsNameAndRole(t *testing.T) {
	r := newRig(t)
	config := r.trust()
	config.Certificates = []tls.Certificate{certify(t, r.ca, pki.Identity{Name: "ito", Role: v1.Role_ROLE_OPERATOR}, time.Now())}
	_, csr := newKey(t)
	answer, err := v1.NewEnrolServiceClient(r.dial(r.people, config)).Renew(t.Context(), &v1.RenewRequest{Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(answer.GetCertificate())
	if err != nil {
		t.Fatal(err)
	}
	id, err := pki.IdentityOf(cert)
	if err != nil || id.Name != "ito" || id.Role != v1.Role_ROLE_OPERATOR {
		t.Errorf("%+v, %v", id, err)
	}
	_, err = v1.NewEnrolServiceClient(r.dial(r.people, r.trust())).Renew(t.Context(), &v1.RenewRequest{Csr: csr})
	wantCode(t, err, codes.Unauthenticated, "no client certificate")
}

func TestAdmin(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Cluster.Leader = func(context.Context) string { return "a:7443" } })
	r.town()
	admin := v1.NewAdminServiceClient(r.as(v1.Role_ROLE_ADMIN))
	for _, drain := range []bool{true, true, false} {
		answer, err := admin.DrainHost(t.Context(), &v1.DrainHostRequest{Host: "kvm1", Drain: drain})
		if err != nil || answer.GetDesktops() != 2 {
			t.Errorf("%v, %v", answer, err)
		}
		host, err := store.Get[*v1.Host](context.Background(), store.Open(r.backend, store.WriterAPI), "kvm1")
		if err != nil || host.GetSpec().GetUnschedulable() != drain {
			t.Errorf("%v, %v", host, err)
		}
	}
	_, err := admin.DrainHost(t.Context(), &v1.DrainHostRequest{Host: "none", Drain: true})
	wantCode(t, err, codes.NotFound, "host none")
	info, err := admin.Info(t.Context(), &v1.InfoRequest{})
	if err != nil || info.GetRevision() == 0 {
		t.Fatal(info, err)
	}
	info.Revision = 0
	wantSame(t, info, &v1.InfoResponse{Version: "test", ClusterId: "cluster", ClusterEpoch: 1, Leader: "a:7443", Caller: "someone", Role: v1.Role_ROLE_ADMIN, Publisher: r.key.Public()})
}
