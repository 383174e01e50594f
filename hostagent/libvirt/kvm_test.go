package libvirt

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
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
	ok, reason := ProbeKVM(t.Context(), "/nonexistent/qemu", -1, -1)
	if ok || !strings.Contains(reason, "no such file") {
		t.Errorf("ProbeKVM without QEMU = %v, %q", ok, reason)
	}
	if err := runGuest(t.Context(), emulator(t), "no-such-accelerator", -1, -1); err == nil || !strings.Contains(err.Error(), "no-such-accelerator") {
		t.Errorf("an unknown accelerator: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := runGuest(ctx, emulator(t), "tcg", -1, -1); err == nil {
		t.Error("a guest that had no time counts as having run")
	}
}

// Whatever this machine has, the probe ends by its deadline and gives a reason for a no.
func TestProbeKVMEnds(t *testing.T) {
	begun := time.Now()
	ok, reason := ProbeKVM(t.Context(), emulator(t), -1, -1)
	if took := time.Since(begun); took > kvmDeadline+3*time.Second {
		t.Errorf("took %v", took)
	}
	if ok != (reason == "") {
		t.Errorf("ProbeKVM = %v, %q", ok, reason)
	}
	t.Logf("KVM %v: %s", ok, reason)
}
