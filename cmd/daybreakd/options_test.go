package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"daybreak/cmd/settings"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// loadArgs reads options as a start with these arguments would.
func loadArgs(t *testing.T, args ...string) (options, error) {
	t.Helper()
	flags := pflag.NewFlagSet("daybreakd", pflag.ContinueOnError)
	addFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return load(flags)
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daybreakd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	got, err := loadArgs(t)
	if err != nil {
		t.Fatal(err)
	}
	want := options{
		DataDir: "/var/lib/daybreak", CADir: "/var/lib/daybreak/ca", ImageStore: "/var/lib/daybreak/images",
		Listen: []string{":7443"}, AgentListen: []string{":7444"}, Advertise: []string{}, AdminEndpoint: "127.0.0.1:7443",
		MetricsListen: "127.0.0.1:7445", EtcdEndpoints: []string{}, TrustKeys: []string{}, HostGrace: 40 * time.Second, Log: settings.Log{Format: "json", Level: "info"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// TestPrecedence: a flag wins over the environment, the environment over the file, the file over the default.
func TestPrecedence(t *testing.T) {
	path := configFile(t, "data-dir: /file\nlog-level: warn\nlisten:\n  - unix:///run/a.sock\n  - 0.0.0.0:7443\nhost-grace: 1m\nadvertise: [control.example, 192.0.2.1]\n")
	t.Setenv("DAYBREAKD_DATA_DIR", "/environment")
	t.Setenv("DAYBREAKD_AGENT_LISTEN", "192.0.2.1:1,192.0.2.1:2")
	got, err := loadArgs(t, "--config", path, "--log-level", "debug")
	if err != nil {
		t.Fatal(err)
	}
	want := options{
		DataDir: "/environment", CADir: "/environment/ca", ImageStore: "/environment/images",
		Listen: []string{"unix:///run/a.sock", "0.0.0.0:7443"}, AgentListen: []string{"192.0.2.1:1", "192.0.2.1:2"},
		Advertise: []string{"control.example", "192.0.2.1"}, AdminEndpoint: "unix:///run/a.sock", EtcdEndpoints: []string{}, TrustKeys: []string{},
		MetricsListen: "127.0.0.1:7445", HostGrace: time.Minute, Log: settings.Log{Format: "json", Level: "debug"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(options{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if address := got.endpoint("0.0.0.0:7443"); address != "control.example:7443" {
		t.Errorf("endpoint %s", address)
	}
}

func TestOptionsRefuse(t *testing.T) {
	for _, row := range []struct {
		name, file string
		args       []string
		want       string
	}{
		{"typo in the file", "data-dirr: /x\n", nil, "data-dirr"},
		{"wrong type", "listen: {a: b}\n", nil, "listen"},
		{"no YAML", "\t- :", nil, "read configuration"},
		{"anchors upon anchors", "a: &a [x, x]\nlisten: [*a]\n", nil, "a"},
		{"address without port", "", []string{"--listen", "10.0.0.1"}, "--listen"},
		{"relative socket", "", []string{"--listen", "unix://a.sock"}, "unix:///absolute/path"},
		{"socket for agents", "", []string{"--agent-listen", "unix:///a.sock"}, "--agent-listen"},
		{"port in a name", "", []string{"--advertise", "control:7443"}, "--advertise"},
		{"blank in a name", "", []string{"--advertise", "con trol"}, "--advertise"},
		{"level", "", []string{"--log-level", "loud"}, "--log-level"},
		{"format", "", []string{"--log-format", "xml"}, "--log-format"},
		{"grace", "", []string{"--host-grace", "1s"}, "--host-grace"},
		{"key without certificate", "", []string{"--etcd-endpoints", "https://a:1", "--etcd-key", "k"}, "--etcd-cert"},
		{"CA of no etcd", "", []string{"--etcd-ca", "c"}, "--etcd-endpoints"},
		{"bucket without credentials", "", []string{"--image-store", "s3://b"}, "--image-store-credentials"},
		{"endpoint of no bucket", "", []string{"--image-store-endpoint", "https://s3.example"}, "s3://bucket/prefix"},
		{"CA in the clear", "", []string{"--image-store", "s3://b", "--image-store-credentials", "c", "--image-store-endpoint", "http://s3.example", "--image-store-ca", "x"}, "--image-store-ca"},
		{"no data directory", "", []string{"--data-dir", ""}, "--data-dir"},
		{"no such file", "", []string{"--config", "/nonexistent/daybreakd.yaml"}, "/nonexistent/daybreakd.yaml"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.file != "" {
				row.args = append(row.args, "--config", configFile(t, row.file))
			}
			if _, err := loadArgs(t, row.args...); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want an error with %q", err, row.want)
			}
		})
	}
}

// TestPackagedConfiguration: the file that the package installs is understood.
func TestPackagedConfiguration(t *testing.T) {
	if _, err := loadArgs(t, "--config", "../../deploy/systemd/daybreakd.yaml"); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"--no-such-flag"}, {"argument"}, {"version", "argument"}, {"--log-level", "loud"}} {
		root := command()
		root.SetArgs(args)
		if err := root.Execute(); err == nil || exitStatus(err) != 2 {
			t.Errorf("%q: %v, exit status %d", args, err, exitStatus(err))
		}
	}
}
