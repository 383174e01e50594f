package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"daybreak/cmd/settings"
)

// options are the flags. A zero path means: below the data directory.
type options struct {
	settings.Log          `mapstructure:",squash"`
	DataDir               string        `mapstructure:"data-dir"`
	CADir                 string        `mapstructure:"ca-dir"`
	ImageStore            string        `mapstructure:"image-store"`
	ImageStoreEndpoint    string        `mapstructure:"image-store-endpoint"`
	ImageStoreRegion      string        `mapstructure:"image-store-region"`
	ImageStoreCredentials string        `mapstructure:"image-store-credentials"`
	ImageStoreCA          string        `mapstructure:"image-store-ca"`
	ImageBandwidth        string        `mapstructure:"image-bandwidth"`
	PublisherKey          string        `mapstructure:"publisher-key"`
	TrustKeys             []string      `mapstructure:"trust-publisher-key"`
	Listen                []string      `mapstructure:"listen"`
	AgentListen           []string      `mapstructure:"agent-listen"`
	Advertise             []string      `mapstructure:"advertise"`
	AdminEndpoint         string        `mapstructure:"admin-endpoint"`
	MetricsListen         string        `mapstructure:"metrics-listen"`
	EtcdEndpoints         []string      `mapstructure:"etcd-endpoints"`
	EtcdCA                string        `mapstructure:"etcd-ca"`
	EtcdCert              string        `mapstructure:"etcd-cert"`
	EtcdKey               string        `mapstructure:"etcd-key"`
	HostGrace             time.Duration `mapstructure:"host-grace"`

	// imageBandwidth is bytes a second; complete fills it.
	imageBandwidth int64
}

func addFlags(flags *pflag.FlagSet) {
	settings.AddFlags(flags)
	flags.String("data-dir", "/var/lib/daybreak", "directory for the store, the audit log and admin.yaml; for this daybreakd alone")
	flags.String("ca-dir", "", "directory of the certificate authority (default: ca in the data directory). Several daybreakd of one cluster need the same CA: copy the first one's directory")
	flags.String("image-store", "", "directory of the image store, or a bucket, s3://bucket/prefix (default: images in the data directory). Several daybreakd of one cluster need the same one")
	flags.String("image-store-endpoint", "", "URL of the bucket's server, https://host:port (default: Amazon S3)")
	flags.String("image-store-region", "", "region of the bucket (default: us-east-1, which also suits servers without regions)")
	flags.String("image-store-credentials", "", "file with the bucket's aws_access_key_id and aws_secret_access_key below [default]; not readable by everybody")
	flags.String("image-bandwidth", "", "bytes of images a second that go out to hosts and people in all, for example 20MiB (default: no limit)")
	flags.String("image-store-ca", "", "file of the CA certificates that sign the bucket's server (default: those of the system)")
	flags.String("publisher-key", "", "file of the ed25519 private key (PEM, PKCS #8) that signs image versions (default: publisher.key beside the certificate authority, made at the first start). Several daybreakd of one cluster need the same key")
	flags.StringSlice("trust-publisher-key", nil, "file of the public key (PEM) of another control plane whose bundles of image versions may be imported; may be repeated")
	flags.StringSlice("listen", []string{":7443"}, "address for people: host:port or unix:///path; may be repeated")
	flags.StringSlice("agent-listen", []string{":7444"}, "address for agents: host:port; may be repeated")
	flags.StringSlice("advertise", nil, "DNS name or IP address by which others reach this daybreakd, for its certificate; may be repeated. The first one is told to those who ask for the leader")
	flags.String("admin-endpoint", "", "address that admin.yaml names (default: the first --listen)")
	flags.String("metrics-listen", "127.0.0.1:7445", "address of /metrics, /healthz and /readyz, in the clear; empty for none")
	flags.StringSlice("etcd-endpoints", nil, "etcd cluster to use, URLs (default: an etcd of its own in the data directory)")
	flags.String("etcd-ca", "", "file of the CA certificates that sign etcd's (default: those of the system)")
	flags.String("etcd-cert", "", "file of the certificate to show to etcd")
	flags.String("etcd-key", "", "file of that certificate's key")
	flags.Duration("host-grace", 40*time.Second, "silence after which a host counts as DOWN")
}

func load(flags *pflag.FlagSet) (options, error) {
	var o options
	if err := settings.Load(flags, "DAYBREAKD", &o); err != nil {
		return options{}, err
	}
	return o.complete()
}

// complete fills in what follows from other options, and checks all.
func (o options) complete() (options, error) {
	if o.DataDir == "" {
		return options{}, errors.New("--data-dir is needed")
	}
	if o.CADir == "" {
		o.CADir = filepath.Join(o.DataDir, "ca")
	}
	if o.ImageStore == "" {
		o.ImageStore = filepath.Join(o.DataDir, "images")
	}
	if err := o.checkImageStore(); err != nil {
		return options{}, err
	}
	var err error
	if o.imageBandwidth, err = settings.ParseBandwidth(o.ImageBandwidth); err != nil {
		return options{}, fmt.Errorf("--image-bandwidth %w", err)
	}
	if len(o.Listen) == 0 || len(o.AgentListen) == 0 {
		return options{}, errors.New("--listen and --agent-listen need an address each")
	}
	for _, address := range o.Listen {
		if err := checkAddress(address, true); err != nil {
			return options{}, fmt.Errorf("--listen %q: %w", address, err)
		}
	}
	for _, address := range o.AgentListen {
		if err := checkAddress(address, false); err != nil {
			return options{}, fmt.Errorf("--agent-listen %q: %w", address, err)
		}
	}
	for _, name := range o.Advertise {
		if !validName(name) {
			return options{}, fmt.Errorf("--advertise %q: want a DNS name or an IP address, without a port", name)
		}
	}
	if o.AdminEndpoint == "" {
		o.AdminEndpoint = o.endpoint(o.Listen[0])
	} else if err := checkAddress(o.AdminEndpoint, true); err != nil {
		return options{}, fmt.Errorf("--admin-endpoint %q: %w", o.AdminEndpoint, err)
	}
	if (o.EtcdCert == "") != (o.EtcdKey == "") {
		return options{}, errors.New("--etcd-cert and --etcd-key go together")
	}
	if len(o.EtcdEndpoints) == 0 && (o.EtcdCA != "" || o.EtcdCert != "") {
		return options{}, errors.New("--etcd-ca, --etcd-cert and --etcd-key are for --etcd-endpoints")
	}
	if o.HostGrace < 10*time.Second || o.HostGrace > time.Hour {
		return options{}, fmt.Errorf("--host-grace %v: want 10s to 1h", o.HostGrace)
	}
	if err := o.Check(); err != nil {
		return options{}, err
	}
	return o, nil
}

const unixScheme = "unix://"

func checkAddress(address string, unixToo bool) error {
	if path, isUnix := strings.CutPrefix(address, unixScheme); isUnix && unixToo {
		if !filepath.IsAbs(path) {
			return errors.New("want unix:///absolute/path")
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return err
	}
	return nil
}

// validName accepts what a certificate may hold for a host.
func validName(name string) bool {
	if net.ParseIP(name) != nil {
		return true
	}
	if name == "" || len(name) > 253 {
		return false
	}
	for _, label := range strings.Split(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(strings.ToLower(label), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// endpoint is the address by which others reach a listener: where it listens on all addresses, the first advertised name.
func (o options) endpoint(address string) string {
	host, port, err := net.SplitHostPort(address)
	if strings.HasPrefix(address, unixScheme) || err != nil {
		return address
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		return address
	}
	if len(o.Advertise) > 0 {
		return net.JoinHostPort(o.Advertise[0], port)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// names are what the certificate holds for, beside the name that Daybreak's own clients check.
func (o options) names() []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, o.Advertise...)
	for _, address := range append(append([]string{}, o.Listen...), o.AgentListen...) {
		if host, _, err := net.SplitHostPort(address); err == nil && validName(host) {
			names = append(names, host)
		}
	}
	if name, err := os.Hostname(); err == nil && validName(name) {
		names = append(names, name)
	}
	return names
}
