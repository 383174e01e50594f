package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	lv "libvirt.org/go/libvirt"
	"libvirt.org/go/libvirtxml"

	"daybreak/hostagent"
)

// Posture is what the host can do, and how well its QEMU is locked in.
type Posture struct {
	LibvirtVersion string
	QEMUVersion    string
	// Emulator is the path of QEMU.
	Emulator string
	// UID and GID are those that QEMU runs as.
	UID, GID int
	// SecurityModels are libvirt's drivers that confine QEMU: "dac", and "apparmor" or "selinux" where there is one.
	SecurityModels []string
	// Unsandboxed: the command line that libvirt makes for QEMU lacks its seccomp sandbox.
	Unsandboxed bool
}

// Probe finds out what the host can do. It waits for libvirtd until ctx ends. A host whose QEMU runs as root is refused,
// unless the configuration allows it.
func (h *Host) Probe(ctx context.Context) (Posture, error) {
	var p Posture
	for {
		answer, err := h.askPosture(ctx)
		if err == nil {
			p = answer
			break
		}
		if !errors.Is(err, errNotConnected) {
			return Posture{}, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return Posture{}, fmt.Errorf("probe host: %w: %w", ctx.Err(), err)
		}
	}
	if p.UID == 0 && !h.cfg.AllowRootQEMU {
		return Posture{}, fmt.Errorf("probe host: libvirt runs QEMU as root, so a guest that breaks out of QEMU owns the host: "+
			"set user and group in /etc/libvirt/qemu.conf to an unprivileged one: %w", hostagent.ErrPermanent)
	}
	return p, nil
}

// askPosture asks libvirtd. Its first answer takes seconds, in which it probes QEMU.
func (h *Host) askPosture(ctx context.Context) (Posture, error) {
	answer := make(chan Posture, 1)
	err := h.lists.do(ctx, h.cfg.ChangeTimeout, "", "probe host", func(c *lv.Connect) error {
		text, err := c.GetCapabilities()
		if err != nil {
			return fmt.Errorf("probe host: %w", err)
		}
		p, err := parseCapabilities(text)
		if err != nil {
			return fmt.Errorf("probe host: %w", err)
		}
		library, err := c.GetLibVersion()
		if err != nil {
			return fmt.Errorf("probe host: %w", err)
		}
		qemu, err := c.GetVersion()
		if err != nil {
			return fmt.Errorf("probe host: %w", err)
		}
		// A libvirtd that cannot show its command line proves nothing.
		argv, err := c.DomainXMLToNative("qemu-argv", smallestDomain, 0)
		p.Unsandboxed = err == nil && !sandboxed(argv)
		p.LibvirtVersion, p.QEMUVersion = version(library), version(qemu)
		answer <- p
		return nil
	})
	if err != nil {
		return Posture{}, err
	}
	return <-answer, nil
}

// smallestDomain is one that any libvirtd makes a command line for; it is never started.
const smallestDomain = `<domain type="qemu"><name>daybreak-probe</name><memory>65536</memory><os><type arch="x86_64">hvm</type></os></domain>`

// sandboxed reports whether a command line turns QEMU's seccomp sandbox on.
func sandboxed(argv string) bool {
	words := strings.Fields(argv)
	for i, word := range words[:max(len(words)-1, 0)] {
		if word == "-sandbox" && (words[i+1] == "on" || strings.HasPrefix(words[i+1], "on,")) {
			return true
		}
	}
	return false
}

// version writes a version as people know it.
func version(n uint32) string {
	return fmt.Sprintf("%d.%d.%d", n/1_000_000, n/1000%1000, n%1000)
}

// parseCapabilities reads who QEMU runs as, what confines it, and where it is.
func parseCapabilities(text string) (Posture, error) {
	var caps libvirtxml.Caps
	if err := caps.Unmarshal(text); err != nil {
		return Posture{}, fmt.Errorf("read capabilities: %w", err)
	}
	p := Posture{UID: -1, GID: -1}
	for _, model := range caps.Host.SecModel {
		p.SecurityModels = append(p.SecurityModels, model.Name)
		for _, label := range model.Labels {
			uid, gid, ok := parseDACLabel(label.Value)
			if model.Name == "dac" && ok {
				p.UID, p.GID = uid, gid
			}
		}
	}
	for _, guest := range caps.Guests {
		if guest.OSType == "hvm" && guest.Arch.Name == "x86_64" {
			p.Emulator = guest.Arch.Emulator
		}
	}
	if p.UID < 0 {
		return Posture{}, fmt.Errorf("read capabilities: libvirtd does not say who QEMU runs as: is it the system daemon (qemu:///system)?: %w", hostagent.ErrPermanent)
	}
	if p.Emulator == "" {
		return Posture{}, fmt.Errorf("read capabilities: no QEMU for x86_64: install it (package qemu-system-x86): %w", hostagent.ErrPermanent)
	}
	return p, nil
}

// parseDACLabel reads "+64055:+107". A number that does not fit would become somebody else's in the kernel.
func parseDACLabel(label string) (uid, gid int, ok bool) {
	u, g, _ := strings.Cut(label, ":")
	user, userErr := strconv.ParseUint(strings.TrimPrefix(u, "+"), 10, 31)
	group, groupErr := strconv.ParseUint(strings.TrimPrefix(g, "+"), 10, 31)
	return int(user), int(group), userErr == nil && groupErr == nil
}
