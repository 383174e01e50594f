package libvirt

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"
	"time"

	"daybreak/hostagent"
)

func emulator(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("qemu-system-x86_64 is not installed")
	}
	return path
}

// The guest of the probe is a real one: under emulation, which works everywhere, it runs to its end.
func TestProbeGuestRuns(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := runGuest(ctx, emulator(t), "tcg", -1, -1); err != nil {
		t.Error(err)
	}
}

func TestProbeSaysWhyNot(t *testing.T) {
	err := ProbeKVM(t.Context(), "/nonexistent/qemu", -1, -1, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "no such file") || errors.Is(err, hostagent.ErrTimeout) {
		t.Errorf("ProbeKVM without QEMU: %v", err)
	}
	if err := runGuest(t.Context(), emulator(t), "no-such-accelerator", -1, -1); err == nil || !strings.Contains(err.Error(), "no-such-accelerator") {
		t.Errorf("an unknown accelerator: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := runGuest(ctx, emulator(t), "tcg", -1, -1); !errors.Is(err, hostagent.ErrTimeout) {
		t.Errorf("a guest that had no time: %v", err)
	}
}

// Whatever this machine has, the probe ends by its deadline and gives a reason for a no.
func TestProbeKVMEnds(t *testing.T) {
	begun := time.Now()
	err := ProbeKVM(t.Context(), emulator(t), -1, -1, 5*time.Second)
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("took %v", took)
	}
	t.Logf("KVM: %v", err)
}
