package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"daybreak/cmd/observe"
	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/hostagent/disk"
	"daybreak/hostagent/libvirt"
	"daybreak/proto/identity"
)

// probeTimeout covers a libvirtd that starts at the same time and probes QEMU first.
const probeTimeout = 2 * time.Minute

// runAgent is the whole life of the agent. It returns nil when ctx ended; the desktops go on.
func runAgent(ctx context.Context, o options) error {
	log := o.Logger().With().Str("host", o.Name).Logger()
	if err := os.MkdirAll(o.DataDir, 0o711); err != nil { // QEMU's user must pass through to its disks
		return fmt.Errorf("make --data-dir: %w", err)
	}
	virt, err := libvirt.Open(libvirt.Config{
		URI: o.LibvirtURI, Store: storeDir(o), AllowEmulation: o.AllowEmulation, AllowRootQEMU: o.AllowRootQEMU,
	}, log)
	if err != nil {
		return err
	}
	return during(ctx, virt.Run, func(ctx context.Context) error {
		return work(ctx, o, virt, log)
	})
}

// work finds out what the host can do, gets it its identity, and serves.
func work(ctx context.Context, o options, virt *libvirt.Host, log zerolog.Logger) (err error) {
	journal, err := hostagent.OpenJournal(filepath.Join(o.DataDir, "journal.db"), hostagent.JournalOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	meter, err := hostagent.NewProcMeter("/proc")
	if err != nil {
		return err
	}
	hardware, err := meter.Hardware()
	if err != nil {
		return err
	}
	posture, platform, err := probe(ctx, o, virt, hardware.BootID, log)
	if err != nil {
		return err
	}
	if err := accept(platform, journal.Empty(), log); err != nil {
		return err
	}
	id, err := enrol(ctx, o)
	if err != nil {
		return err
	}
	return serve(ctx, o, virt, posture, platform, parts{journal, meter}, id, log)
}

// parts of the host that are open before it serves.
type parts struct {
	journal *hostagent.Journal
	meter   hostagent.Meter
}

// during runs work while background runs; the end of work ends both. Background outlives ctx until work has ended, which
// may have to take something away.
func during(ctx context.Context, background, work func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	behind, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group.Go(func() error { return quiet(background(behind)) })
	group.Go(func() error {
		defer cancel()
		return quiet(work(ctx))
	})
	return group.Wait()
}

// quiet: that the agent was told to end is no failure.
func quiet(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func storeDir(o options) string { return filepath.Join(o.DataDir, "store") }

// probe finds out what the host can do.
func probe(ctx context.Context, o options, virt *libvirt.Host, bootID string, log zerolog.Logger) (libvirt.Posture, hostagent.Platform, error) {
	libvirtCtx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	posture, err := virt.Probe(libvirtCtx)
	if err != nil {
		return posture, hostagent.Platform{}, err
	}
	kvm := knowKVM(ctx, o, bootID, log, func(ctx context.Context, deadline time.Duration) error {
		return libvirt.ProbeKVM(ctx, posture.Emulator, posture.UID, posture.GID, deadline)
	})
	if ctx.Err() != nil {
		return posture, hostagent.Platform{}, ctx.Err()
	}
	return posture, judge(o, posture, kvm), nil
}

// judge says what the platform is, and what is wrong with it.
func judge(o options, posture libvirt.Posture, kvm error) hostagent.Platform {
	platform := hostagent.Platform{
		KVM: kvm == nil, Emulate: kvm != nil && o.AllowEmulation, LibvirtVersion: posture.LibvirtVersion, QEMUVersion: posture.QEMUVersion,
		SecurityModels: posture.SecurityModels,
	}
	if !confined(posture.SecurityModels) && !o.AllowUnconfined {
		platform.Faults = append(platform.Faults, fmt.Sprintf("neither AppArmor nor SELinux confines QEMU on this host (libvirt has: %s), so a guest "+
			"that breaks out of QEMU reads what QEMU's user may: turn one on and set security_driver in /etc/libvirt/qemu.conf, or accept it "+
			"with --allow-unconfined", strings.Join(posture.SecurityModels, ", ")))
	}
	if kvm != nil && !o.AllowEmulation {
		platform.Faults = append(platform.Faults, fmt.Sprintf("this host cannot run guests under KVM: %v. Turn virtualisation on in its "+
			"firmware, load kvm_intel or kvm_amd, and let QEMU's user open /dev/kvm; --allow-emulation is for tests", kvm))
	}
	if posture.Unsandboxed && !o.AllowUnconfined {
		platform.Faults = append(platform.Faults, "libvirt starts QEMU without its seccomp sandbox: remove seccomp_sandbox = 0 from "+
			"/etc/libvirt/qemu.conf, or accept it with --allow-unconfined")
	}
	return platform
}

// accept refuses a host that cannot do the job and never did. One that has had desktops is looked after, whatever became of
// it: they may run.
func accept(platform hostagent.Platform, fresh bool, log zerolog.Logger) error {
	if len(platform.Faults) > 0 && fresh {
		return errors.New(strings.Join(platform.Faults, "; "))
	}
	for _, fault := range platform.Faults {
		log.Error().Str("fault", fault).Msg("this host is not fit for new desktops; those that are here are looked after")
	}
	if platform.Emulate {
		log.Warn().Msg("guests run emulated: for tests only")
	}
	return nil
}

func confined(models []string) bool {
	for _, model := range models {
		if model == "apparmor" || model == "selinux" {
			return true
		}
	}
	return false
}

// enrol loads the host's identity, or trades the token for one. Only that first time needs the control plane.
func enrol(ctx context.Context, o options) (*identity.Identity, error) {
	token, err := o.token()
	if err != nil {
		return nil, err
	}
	return identity.Ensure(ctx, time.Now(), identityDir(o), o.Server, token, o.Name)
}

func serve(ctx context.Context, o options, virt *libvirt.Host, posture libvirt.Posture, platform hostagent.Platform,
	host parts, id *identity.Identity, log zerolog.Logger) (err error) {
	trusted, err := publishers(o, log)
	if err != nil {
		return err
	}
	disks, err := disk.Open(disk.Config{Root: storeDir(o), UID: posture.UID, GID: posture.GID}, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disks.Close()) }()
	vnc, err := vncDir(posture)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	dial := func(server string) (*grpc.ClientConn, error) {
		return grpc.NewClient(server, append(hostagent.DialOptions(), grpc.WithTransportCredentials(credentials.NewTLS(id.TLS())))...)
	}
	builder, err := newBuilder(o, virt, disks, build.Config{VNCDir: vnc, Emulate: platform.Emulate, Publishers: trusted}, log)
	if err != nil {
		return err
	}
	others, err := peers(o, id)
	if err != nil {
		return err
	}
	agent, err := hostagent.New(hostagent.Config{
		Version: versionText(), Servers: o.Server, Dial: dial, Zones: o.zones, VNCDir: vnc, MaxBoots: o.MaxBoots,
		Platform: platform, Builder: builder, Publishers: trusted, KeepImages: o.KeepImages, FetchBandwidth: o.fetchBandwidth, Peers: others,
		Hints: virt.Hints(), Ready: func() { tellSystemd(log) }, Registerer: registry, Log: log,
	}, host.journal, virt, virt, disks, host.meter)
	if err != nil {
		return err
	}
	listener, err := listenMetrics(o)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return agent.Run(ctx) })
	renewer := identity.Renewer{Identity: id, Dial: func() (*grpc.ClientConn, error) { return dial(o.Server[rand.IntN(len(o.Server))]) }, Log: log}
	group.Go(func() error { return renewer.Run(ctx) })
	if listener != nil {
		group.Go(func() error { return observe.Run(ctx, listener, registry, agent.Unwell, agent.Unwell) })
	}
	return group.Wait()
}

// newBuilder returns nil when the host is to do no builds.
func newBuilder(o options, virt *libvirt.Host, disks *disk.Store, cfg build.Config, log zerolog.Logger) (hostagent.Builder, error) {
	if o.MaxBuilds == 0 {
		return nil, nil
	}
	cfg.Max, cfg.Zones = o.MaxBuilds, o.zones
	return build.New(cfg, virt, virt, disks, log)
}

// listenMetrics returns nil when nothing is to be shown.
func listenMetrics(o options) (net.Listener, error) {
	if o.MetricsListen == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", o.MetricsListen)
	if err != nil {
		return nil, fmt.Errorf("listen on --metrics-listen: %w", err)
	}
	return listener, nil
}

// vncDir makes the directory of the screens' sockets, for QEMU's user and nobody else.
func vncDir(posture libvirt.Posture) (string, error) {
	dir := "/run/daybreak-agent/vnc"
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("make directory of the screens: %w", err)
	}
	if err := os.Chown(dir, posture.UID, posture.GID); err != nil {
		return "", fmt.Errorf("give the directory of the screens to QEMU: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return "", fmt.Errorf("close the directory of the screens: %w", err)
	}
	return dir, nil
}

// tellSystemd says that the agent works, if it was systemd that started it.
func tellSystemd(log zerolog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Error().Err(err).Msg("systemd was not told that the agent is ready")
	}
}
