package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"daybreak/hostagent"
	"daybreak/hostagent/libvirt"
)

func TestKnowKVM(t *testing.T) {
	slow, no := fmt.Errorf("probe kvm: %w", hostagent.ErrTimeout), errors.New("probe kvm: no such device")
	o := options{DataDir: t.TempDir()}
	for _, c := range []struct {
		name, boot string
		emulation  bool
		answers    []error
		want       error
	}{
		{"never in time, never proven", "boot-1", false, []error{slow, slow, slow}, slow},
		{"tests do not wait", "boot-1", true, []error{slow}, slow},
		{"a no is a no", "boot-1", false, []error{no}, no},
		{"in time at last", "boot-1", false, []error{slow, slow, nil}, nil},
		{"proven in this boot", "boot-1", false, []error{slow}, nil},
		{"a no after that is a no", "boot-1", false, []error{no}, no},
		{"proven in another boot", "boot-2", false, []error{slow, slow, slow}, slow},
		{"at once", "boot-2", false, []error{nil}, nil},
	} {
		tries, last := 0, time.Duration(0)
		o.AllowEmulation = c.emulation
		err := knowKVM(t.Context(), o, c.boot, zerolog.Nop(), func(_ context.Context, deadline time.Duration) error {
			if deadline <= last || tries == len(c.answers) {
				t.Fatalf("%s: try %d with %v after %v", c.name, tries+1, deadline, last)
			}
			tries, last = tries+1, deadline
			return c.answers[tries-1]
		})
		if !errors.Is(err, c.want) || tries != len(c.answers) {
			t.Errorf("%s: %v after %d tries, want %v after %d", c.name, err, tries, c.want, len(c.answers))
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := knowKVM(ctx, o, "boot-3", zerolog.Nop(), func(context.Context, time.Duration) error { return slow }); !errors.Is(err, context.Canceled) {
		t.Errorf("told to end: %v", err)
	}
}

// A host that never had desktops is refused when it cannot do the job; on any other they may run.
func TestOnlyAFreshHostIsRefused(t *testing.T) {
	no := errors.New("probe kvm: no such device")
	confinedHost := libvirt.Posture{SecurityModels: []string{"apparmor", "dac"}}
	platform := judge(options{}, confinedHost, no)
	if err := accept(platform, true, zerolog.Nop()); err == nil || !strings.Contains(err.Error(), "no such device") {
		t.Errorf("a fresh host: %v", err)
	}
	if err := accept(platform, false, zerolog.Nop()); err != nil || platform.KVM || platform.Emulate || len(platform.Faults) != 1 {
		t.Errorf("a host with desktops: %v, %+v", err, platform)
	}
	platform = judge(options{AllowEmulation: true}, confinedHost, no)
	if err := accept(platform, true, zerolog.Nop()); err != nil || platform.KVM || !platform.Emulate {
		t.Errorf("emulation allowed: %v, %+v", err, platform)
	}
	platform = judge(options{AllowEmulation: true}, confinedHost, nil)
	if err := accept(platform, true, zerolog.Nop()); err != nil || !platform.KVM || platform.Emulate {
		t.Errorf("with KVM: %v, %+v", err, platform)
	}
}

func TestOnlyAConfinedHostIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		models      []string
		unsandboxed bool
		allow, good bool
	}{
		"AppArmor": {[]string{"apparmor", "dac"}, false, false, true}, "SELinux": {[]string{"selinux", "dac"}, false, false, true},
		"neither": {[]string{"none", "dac"}, false, false, false}, "neither, and that is accepted": {[]string{"dac"}, true, true, true},
		"no sandbox": {[]string{"apparmor", "dac"}, true, false, false},
	} {
		platform := judge(options{AllowUnconfined: c.allow}, libvirt.Posture{SecurityModels: c.models, Unsandboxed: c.unsandboxed}, nil)
		if err := accept(platform, true, zerolog.Nop()); (err == nil) != c.good || err != nil && !strings.Contains(err.Error(), "--allow-unconfined") {
			t.Errorf("%s: %v", name, err)
		}
		if err := accept(platform, false, zerolog.Nop()); err != nil {
			t.Errorf("%s, with desktops: %v", name, err)
		}
	}
}
