package libvirt

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"daybreak/hostagent"
)

// Whatever goes into XML, a path or a name is checked here once more, however often it was before.

var (
	desktopName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	// The kernel's names of interfaces have at most 15 bytes.
	bridgeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$`)
	// The second digit is even: the address of one station, not of a group.
	macAddress = regexp.MustCompile(`^[0-9a-f][02468ace](:[0-9a-f]{2}){5}$`)
)

const (
	maxVCPUs     = 512
	minMemoryMiB = 16
	maxMemoryMiB = 16 << 20
	maxPath      = 1023
	// What fits into the address of a UNIX socket.
	maxSocketPath = 107
)

func checkUUID(what, id string) error {
	if parsed, err := uuid.Parse(id); err != nil || parsed.String() != id {
		return fmt.Errorf("%s %.80q is not a UUID in lower case: %w", what, id, hostagent.ErrPermanent)
	}
	return nil
}

func checkLife(life hostagent.Life) error {
	if !desktopName.MatchString(life.Desktop) {
		return fmt.Errorf("desktop's name %.80q is not a DNS label: %w", life.Desktop, hostagent.ErrPermanent)
	}
	if life.Generation <= 0 {
		return fmt.Errorf("generation %d is not above 0: %w", life.Generation, hostagent.ErrPermanent)
	}
	return checkUUID("desktop's uid", life.UID)
}

// checkPath takes absolute, clean paths of printable characters. A comma would be a separator to QEMU.
func checkPath(what, path string, longest int) error {
	ok := filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/" && len(path) <= longest && utf8.ValidString(path) &&
		!strings.ContainsFunc(path, func(r rune) bool { return r == ',' || r == unicode.ReplacementChar || !unicode.IsPrint(r) })
	if !ok {
		return fmt.Errorf("path of the %s, %.120q, is not an absolute path of at most %d printable characters without comma: %w",
			what, path, longest, hostagent.ErrPermanent)
	}
	return nil
}

// checkMachine checks all that a domain's XML is made of.
func (cfg Config) checkMachine(m hostagent.Machine) error {
	refuse := func(ok bool, format string, args ...any) error {
		if ok {
			return nil
		}
		return fmt.Errorf(format+": %w", append(args, hostagent.ErrPermanent)...)
	}
	err := errors.Join(
		checkLife(m.Life),
		checkUUID("VM's UUID", m.VMUUID),
		refuse(macAddress.MatchString(m.MAC), "MAC address %.80q is not that of one station, in lower case", m.MAC),
		refuse(m.Bridge == "" || bridgeName.MatchString(m.Bridge), "bridge %.80q is not the name of an interface", m.Bridge),
		refuse(m.VCPUs >= 1 && m.VCPUs <= maxVCPUs, "%d vCPUs are not 1 to %d", m.VCPUs, maxVCPUs),
		refuse(m.MemoryMiB >= minMemoryMiB && m.MemoryMiB <= maxMemoryMiB, "%d MiB of memory are not %d to %d", m.MemoryMiB, minMemoryMiB, maxMemoryMiB),
		refuse(!m.Emulate || cfg.AllowEmulation, "emulated guests are not isolated from the host and are not allowed here"),
		checkPath("VNC socket", m.VNC, maxSocketPath),
		refuse(m.Target == "" && m.TargetBase == (hostagent.Base{}) || m.Build && m.Data == "" && m.Target != "" && m.TargetBase.Raw != "",
			"a disk to work on is for builds, with its base and without a data disk"),
	)
	disks := map[string]string{"base": m.Base.Raw, "overlay": m.Overlay}
	if m.Base.Layer != "" {
		disks["layer"] = m.Base.Layer
	}
	if m.Data != "" {
		disks["data disk"] = m.Data
	}
	if m.Target != "" {
		disks["target"] = m.Target
	}
	seen := map[string]bool{}
	stored := func(what, path string) error {
		return errors.Join(checkPath(what, path, maxPath),
			refuse(strings.HasPrefix(path, strings.TrimSuffix(cfg.Store, "/")+"/"), "path of the %s, %.120q, is not in the store %s", what, path, cfg.Store))
	}
	for what, path := range disks {
		err = errors.Join(err, stored(what, path), refuse(!seen[path], "%.120q is given for two disks", path))
		seen[path] = true
	}
	if m.Target != "" { // which may be on the base that the appliance is on
		err = errors.Join(err, stored("target's base", m.TargetBase.Raw))
		if m.TargetBase.Layer != "" {
			err = errors.Join(err, stored("target's layer", m.TargetBase.Layer))
		}
	}
	return err
}
