package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"daybreak/api/pki"
	"daybreak/cmd/clientconfig"
	v1 "daybreak/proto/daybreak/v1"
)

// start runs a control plane until stop is called, and returns a connection of its administrator's.
func start(t *testing.T, dir string, args ...string) (conn *grpc.ClientConn, stop func()) {
	t.Helper()
	socket := filepath.Join(dir, "s")
	o, err := loadArgs(t, append([]string{
		"--data-dir", filepath.Join(dir, "data"), "--listen", "unix://" + socket, "--agent-listen", "127.0.0.1:0",
		"--metrics-listen", "", "--log-level", "error",
	}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		result <- run(ctx, o, func() error {
			close(ready)
			return nil
		})
	}()
	select {
	case <-ready:
	case err := <-result:
		cancel()
		t.Fatalf("ended: %v", err)
	}
	config, err := clientconfig.Load(filepath.Join(dir, "data", adminFile))
	if err != nil {
		t.Fatal(err)
	}
	entry, err := config.Pick("")
	if err != nil {
		t.Fatal(err)
	}
	if conn, err = entry.Dial(); err != nil {
		t.Fatal(err)
	}
	return conn, func() {
		t.Helper()
		_ = conn.Close()
		cancel()
		if err := <-result; err != nil {
			t.Errorf("ended: %v", err)
		}
	}
}

// TestControlPlane: first start, a change, a second daybreakd that is refused, an orderly end, and all is there again.
func TestControlPlane(t *testing.T) {
	dir := t.TempDir()
	metrics := freePort(t)
	conn, stop := start(t, dir, "--metrics-listen", metrics)
	zone := &v1.Object{Kind: &v1.Object_Zone{Zone: &v1.Zone{Meta: &v1.Meta{Name: "lgwan"}}}}
	if _, err := v1.NewObjectServiceClient(conn).Apply(t.Context(), &v1.ApplyRequest{Object: zone}); err != nil {
		t.Fatal(err)
	}
	before, err := v1.NewAdminServiceClient(conn).Info(t.Context(), &v1.InfoRequest{})
	if err != nil || before.GetCaller() != "admin" || before.GetRole() != v1.Role_ROLE_ADMIN || before.GetClusterEpoch() != 1 {
		t.Errorf("%v, %v", before, err)
	}
	for path, want := range map[string]string{"/metrics": "daybreak_api_calls_total", "/healthz": "ok", "/readyz": "ok"} {
		if got := fetch(t, "http://"+metrics+path); !strings.Contains(got, want) {
			t.Errorf("%s: %.200q, want %q", path, got, want)
		}
	}
	o, err := loadArgs(t, "--data-dir", filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), o, func() error { return nil }); err == nil || !strings.Contains(err.Error(), "another daybreakd uses it") {
		t.Errorf("a second daybreakd: %v", err)
	}
	stop()

	admin, err := os.ReadFile(filepath.Join(dir, "data", adminFile))
	if err != nil {
		t.Fatal(err)
	}
	conn, stop = start(t, dir)
	defer stop()
	got, err := v1.NewObjectServiceClient(conn).Get(t.Context(), &v1.GetRequest{Kind: v1.Kind_KIND_ZONE, Name: "lgwan"})
	if err != nil || got.GetObject().GetZone().GetMeta().GetUid() == "" {
		t.Errorf("after a restart: %v, %v", got, err)
	}
	after, err := v1.NewAdminServiceClient(conn).Info(t.Context(), &v1.InfoRequest{})
	if err != nil || after.GetClusterId() != before.GetClusterId() {
		t.Errorf("another cluster: %v, %v", after, err)
	}
	again, err := os.ReadFile(filepath.Join(dir, "data", adminFile))
	if err != nil || string(again) != string(admin) {
		t.Errorf("admin.yaml was written again without a need: %v", err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKeepAdmin(t *testing.T) {
	dir := t.TempDir()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ca, err := pki.NewCA(now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.NewCA(now)
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	var last clientconfig.Context
	for _, step := range []struct {
		name   string
		ca     *pki.CA
		server string
		at     time.Time
		issues bool
	}{
		{"first start", ca, "a:1", now, true},
		{"next day", ca, "a:1", now.Add(day), false},
		{"moved", ca, "a:2", now.Add(day), false},
		{"much later", ca, "a:2", now.Add(59 * day), false},
		{"a third left", ca, "a:2", now.Add(61 * day), true},
		{"other CA", other, "a:2", now.Add(61 * day), true},
		{"long after its end", other, "a:2", now.Add(400 * day), true},
	} {
		if err := keepAdmin(step.ca, dir, step.server, step.at); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		config, err := clientconfig.Load(filepath.Join(dir, adminFile))
		if err != nil {
			t.Fatal(err)
		}
		got, err := config.Pick("")
		if err != nil {
			t.Fatal(err)
		}
		if issued := got.Cert != last.Cert; issued != step.issues || got.Server != step.server || got.CA != string(step.ca.CertPEM()) {
			t.Errorf("%s: issued %v, server %s", step.name, issued, got.Server)
		}
		if _, err := got.TLS(); err != nil {
			t.Error(err)
		}
		last = got
	}
	if err := os.WriteFile(filepath.Join(dir, adminFile), []byte("contexts: 7"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keepAdmin(ca, dir, "a:1", now); !errors.Is(err, errForeignAdmin) {
		t.Errorf("a file that is not understood: %v", err)
	}
}

func TestListenRefusesALiveSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := listenAll([]string{"unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenAll([]string{"127.0.0.1:0", "unix://" + path}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a live socket was taken: %v", err)
	}
	// What a killed process leaves behind is taken over.
	first[0].(*net.UnixListener).SetUnlinkOnClose(false)
	closeAll(first)
	again, err := listenAll([]string{"unix://" + path})
	if err != nil {
		t.Fatal(err)
	}
	closeAll(again)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenAll([]string{"unix://" + path}); err == nil {
		t.Error("a file was taken for a socket")
	}
}
