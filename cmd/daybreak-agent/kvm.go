package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"daybreak/hostagent"
)

const (
	// kvmDeadline is a hundred times what the probe's guest takes on an idle host.
	kvmDeadline = 5 * time.Second
	// kvmFile in the data directory holds the id of the kernel's boot in which a guest last ran on KVM.
	kvmFile = "kvm-proven"
)

// knowKVM says why guests cannot run on KVM; nil when they can. A probe that ran out of time proves nothing on a host that is
// busy: then what was proven in the same boot of the kernel holds, else it is tried again with more time. Where emulation will
// do there is no second try.
func knowKVM(ctx context.Context, o options, bootID string, log zerolog.Logger, probe func(context.Context, time.Duration) error) error {
	proof := filepath.Join(o.DataDir, kvmFile)
	deadline := kvmDeadline
	for try := 1; ; try++ {
		err := probe(ctx, deadline)
		if err == nil {
			if err := os.WriteFile(proof, []byte(bootID), 0o600); err != nil {
				log.Warn().Err(err).Msg("that KVM works is not remembered")
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, hostagent.ErrTimeout) {
			return err
		}
		if last, readErr := os.ReadFile(proof); readErr == nil && string(last) == bootID {
			return nil
		}
		if try == 3 || o.AllowEmulation {
			return err
		}
		deadline *= 3
	}
}
