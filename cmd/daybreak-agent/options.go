package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"daybreak/cmd/settings"
	"daybreak/hostagent"
)

// options are the flags of run.
type options struct {
	settings.Log    `mapstructure:",squash"`
	Server          []string      `mapstructure:"server"`
	Name            string        `mapstructure:"name"`
	Token           string        `mapstructure:"token"`
	TokenFile       string        `mapstructure:"token-file"`
	DataDir         string        `mapstructure:"data-dir"`
	Zone            []string      `mapstructure:"zone"`
	LibvirtURI      string        `mapstructure:"libvirt-uri"`
	AllowEmulation  bool          `mapstructure:"allow-emulation"`
	AllowRootQEMU   bool          `mapstructure:"allow-root-qemu"`
	AllowUnconfined bool          `mapstructure:"allow-unconfined"`
	MaxBoots        int           `mapstructure:"max-boots"`
	MaxBuilds       int           `mapstructure:"max-builds"`
	MetricsListen   string        `mapstructure:"metrics-listen"`
	PublisherKey    []string      `mapstructure:"publisher-key"`
	FetchBandwidth  string        `mapstructure:"fetch-bandwidth"`
	KeepImages      time.Duration `mapstructure:"keep-images"`
	PeerListen      string        `mapstructure:"peer-listen"`
	PeerAddress     string        `mapstructure:"peer-address"`
	PeerBandwidth   string        `mapstructure:"peer-bandwidth"`

	// zones maps the zones to their bridges; complete fills it.
	zones map[string]string
	// fetchBandwidth and peerBandwidth are bytes a second; complete fills them.
	fetchBandwidth, peerBandwidth int64
}

func addFlags(flags *pflag.FlagSet) {
	settings.AddFlags(flags)
	flags.StringSlice("server", nil, "control plane's address for agents, host:port; may be repeated")
	flags.String("name", "", "this host's name (default: the machine's)")
	flags.String("token", "", "join token for the first start; visible in the process list, so better --token-file")
	flags.String("token-file", "", "file with the join token for the first start")
	flags.String("data-dir", "/var/lib/daybreak-agent", "directory for identity, journal, bases, overlays and data disks")
	flags.StringSlice("zone", nil, "NAME=BRIDGE: a zone that this host serves and the bridge that is its network; may be repeated")
	flags.String("libvirt-uri", "qemu:///system", "libvirtd of this host")
	flags.Bool("allow-emulation", false, "run guests without KVM: slow, and QEMU promises no isolation then. Tests only")
	flags.Bool("allow-root-qemu", false, "accept a libvirtd that runs QEMU as root")
	flags.Bool("allow-unconfined", false, "accept a host on which neither AppArmor nor SELinux confines QEMU, or without its seccomp sandbox")
	flags.Int("max-boots", 0, "desktops that may boot at once (default: the number of CPUs, at least 2)")
	flags.StringSlice("publisher-key", nil, "file of the public key (PEM) of a publisher whose images may run here (daybreak publisher key prints it), in place of those pinned at enrolment; may be repeated")
	flags.Int("max-builds", 1, "image builds (patches and checks) that may run at once; 0 for a host that does none")
	flags.String("fetch-bandwidth", "", "bytes of images a second that come in at most, for example 20MiB (default: no limit)")
	flags.Duration("keep-images", hostagent.DefaultKeepImages, "how long an image stays on this host that nothing needs any more")
	flags.String("peer-listen", "", "address on which other hosts may fetch images from this one, host:port, by their certificates (default: none)")
	flags.String("peer-address", "", "what other hosts are told, host:port (default: --peer-listen)")
	flags.String("peer-bandwidth", "", "bytes of images a second that go out to other hosts at most (default: no limit)")
	flags.String("metrics-listen", "127.0.0.1:7446", "address of /metrics, /healthz and /readyz, in the clear; empty for none")
}

func load(flags *pflag.FlagSet) (options, error) {
	var o options
	if err := settings.Load(flags, "DAYBREAK_AGENT", &o); err != nil {
		return options{}, err
	}
	return o.complete()
}

var (
	label  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	bridge = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`) // an interface's name ends at 15 bytes
)

// complete fills in what follows from other options, and checks all.
func (o options) complete() (options, error) {
	if err := o.Check(); err != nil {
		return options{}, err
	}
	if err := o.completePeers(); err != nil {
		return options{}, err
	}
	if len(o.Server) == 0 {
		return options{}, errors.New("--server is needed: the control plane's address for agents, host:port")
	}
	for _, server := range o.Server {
		if _, _, err := net.SplitHostPort(server); err != nil {
			return options{}, fmt.Errorf("--server %q: want host:port: %w", server, err)
		}
	}
	if o.Name == "" {
		name, err := os.Hostname()
		if err != nil {
			return options{}, fmt.Errorf("find this host's name: %w", err)
		}
		o.Name, _, _ = strings.Cut(strings.ToLower(name), ".")
	}
	if !label.MatchString(o.Name) {
		return options{}, fmt.Errorf("--name %q: want a DNS label: lower-case letters, digits and hyphens", o.Name)
	}
	if !filepath.IsAbs(o.DataDir) {
		return options{}, fmt.Errorf("--data-dir %q: want an absolute path", o.DataDir)
	}
	if o.Token != "" && o.TokenFile != "" {
		return options{}, errors.New("--token and --token-file: give one of them")
	}
	if o.KeepImages < time.Hour {
		return options{}, fmt.Errorf("--keep-images %v: want at least 1h", o.KeepImages)
	}
	if o.MaxBoots < 0 || o.MaxBoots > 4096 {
		return options{}, fmt.Errorf("--max-boots %d: want 0 to 4096", o.MaxBoots)
	}
	if o.MaxBuilds < 0 || o.MaxBuilds > 64 {
		return options{}, fmt.Errorf("--max-builds %d: want 0 to 64", o.MaxBuilds)
	}
	o.zones = map[string]string{}
	for _, pair := range o.Zone {
		name, device, ok := strings.Cut(pair, "=")
		if !ok || !label.MatchString(name) || !bridge.MatchString(device) {
			return options{}, fmt.Errorf("--zone %q: want ZONE=BRIDGE, for example office=br-office", pair)
		}
		if _, twice := o.zones[name]; twice {
			return options{}, fmt.Errorf("--zone %q: zone %s is there twice", pair, name)
		}
		o.zones[name] = device
	}
	return o, nil
}

// token returns the join token's text, empty when there is none.
func (o options) token() (string, error) {
	if o.TokenFile == "" {
		return o.Token, nil
	}
	text, err := os.ReadFile(o.TokenFile)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // needed for the first start only, which says so
	}
	if err != nil {
		return "", fmt.Errorf("read --token-file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
