// Command daybreak-agent is the hands of one KVM host: it keeps what the control plane wants of the host, and goes on
// without the control plane.
//
// Here: flags, the configuration file and the environment; the wiring of the host's parts; the probe. Not here: logic.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
	_ "time/tzdata" // a machine without zone files knows the zones too

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"daybreak/hostagent/libvirt"
)

// version is set by the linker in releases.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "daybreak-agent:", err)
		if errors.As(err, &usageError{}) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// usageError is a mistake in how the program was called: exit status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "daybreak-agent",
		Short: "The host agent of Daybreak",
		Long: `daybreak-agent runs on a KVM host and does there what the control plane decides. It dials out and opens no port but,
on loopback, the one for metrics. When it ends, the desktops go on.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(runCommand(), probeCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), versionText()) },
	})
	return root
}

func runCommand() *cobra.Command {
	run := &cobra.Command{
		Use: "run", Short: "Run this host", Args: cobra.NoArgs,
		Long: `Runs this host until SIGTERM. The first start needs a join token (daybreak token create --host NAME); after that the host has
a certificate and renews it by itself. Every flag can also stand in the file that --config names (flag names are its keys)
or in the environment (DAYBREAK_AGENT_DATA_DIR for --data-dir).`,
		Example: `  daybreak-agent run --server cp.example.jp:7444 --token-file /etc/daybreak/token --zone office=br-office
  daybreak-agent run --config /etc/daybreak/daybreak-agent.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			options, err := load(cmd.Flags())
			if err != nil {
				return usageError{err}
			}
			return runAgent(cmd.Context(), options)
		},
	}
	addFlags(run.Flags())
	return run
}

// findings is what probe prints.
type findings struct {
	KVM            bool     `json:"kvm"`
	Reason         string   `json:"reason,omitempty"`
	QEMU           string   `json:"qemu,omitempty"`
	Libvirt        string   `json:"libvirt,omitempty"`
	Emulator       string   `json:"emulator"`
	SecurityModels []string `json:"security_models,omitempty"`
}

func probeCommand() *cobra.Command {
	var uri, emulator string
	probe := &cobra.Command{
		Use: "probe", Short: "Say what this machine can do", Args: cobra.NoArgs,
		Long: `Starts a tiny guest under KVM and says, as JSON, whether it really ran; that /dev/kvm opens proves nothing. With
--libvirt-uri it also asks libvirtd for versions and what confines QEMU.`,
		Example: `  daybreak-agent probe
  daybreak-agent probe --libvirt-uri qemu:///system`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			found, err := probeMachine(ctx, uri, emulator)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(found)
		},
	}
	probe.Flags().StringVar(&uri, "libvirt-uri", "", "ask this libvirtd too")
	probe.Flags().StringVar(&emulator, "emulator", "/usr/bin/qemu-system-x86_64", "QEMU to try when no libvirtd is asked")
	return probe
}

func probeMachine(ctx context.Context, uri, emulator string) (findings, error) {
	if uri == "" {
		kvm := libvirt.ProbeKVM(ctx, emulator, os.Getuid(), os.Getgid(), kvmDeadline)
		return findings{KVM: kvm == nil, Reason: reason(kvm), Emulator: emulator}, nil
	}
	host, err := libvirt.Open(libvirt.Config{URI: uri, Store: "/", AllowRootQEMU: true}, zerolog.Nop())
	if err != nil {
		return findings{}, err
	}
	var posture libvirt.Posture
	err = during(ctx, host.Run, func(ctx context.Context) error {
		posture, err = host.Probe(ctx)
		return err
	})
	if err != nil {
		return findings{}, err
	}
	kvm := libvirt.ProbeKVM(ctx, posture.Emulator, posture.UID, posture.GID, kvmDeadline)
	return findings{
		KVM: kvm == nil, Reason: reason(kvm), QEMU: posture.QEMUVersion, Libvirt: posture.LibvirtVersion,
		Emulator: posture.Emulator, SecurityModels: posture.SecurityModels,
	}, nil
}

func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
