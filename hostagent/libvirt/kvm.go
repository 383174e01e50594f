package libvirt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"daybreak/hostagent"
)

// Whether KVM works is found out by running a guest on it: there are machines where /dev/kvm opens, even makes a VM, and
// then never executes an instruction of it.
const (
	// The boot sector writes this to the debug exit's port, on which QEMU ends with twice that and one.
	debugExitPort  = 0xf4
	debugExitValue = 0x2a
	debugExitCode  = debugExitValue<<1 | 1
)

// bootSector is a disk of one sector whose only act is to end QEMU:
//
//	mov dx, 0xf4 ; mov al, 0x2a ; out dx, al ; again: hlt ; jmp again
func bootSector() []byte {
	sector := make([]byte, 512)
	copy(sector, []byte{0xba, debugExitPort, 0x00, 0xb0, debugExitValue, 0xee, 0xf4, 0xeb, 0xfd})
	sector[510], sector[511] = 0x55, 0xaa
	return sector
}

// ProbeKVM runs a guest of one sector on KVM, as the user that QEMU will run as (uid below 0: as this process). Nil means that
// it ran to its end. hostagent.ErrTimeout: it did not within the deadline, since KVM is no good here or the host is busy;
// any other error is a no. It needs no libvirtd.
func ProbeKVM(ctx context.Context, emulator string, uid, gid int, deadline time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return runGuest(ctx, emulator, "kvm", uid, gid)
}

// runGuest boots the sector under an accelerator and waits for its sign.
func runGuest(ctx context.Context, emulator, accel string, uid, gid int) error {
	dir, err := os.MkdirTemp("", "daybreak-probe-")
	if err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	defer os.RemoveAll(dir)
	disk := filepath.Join(dir, "sector.raw")
	if err := errors.Join(os.WriteFile(disk, bootSector(), 0o444), os.Chmod(disk, 0o444), os.Chmod(dir, 0o711)); err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, emulator, "-accel", accel, "-machine", "pc", "-cpu", "max", "-m", "16",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-device", fmt.Sprintf("isa-debug-exit,iobase=%#x,iosize=4", debugExitPort),
		"-drive", "if=floppy,format=raw,readonly=on,file="+strings.ReplaceAll(disk, ",", ",,"))
	cmd.Stderr = &said
	cmd.WaitDelay = time.Second
	if cmd.SysProcAttr, err = asUser(uid, gid); err != nil {
		return fmt.Errorf("probe %s: %w", accel, err)
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("probe %s: a guest was started and did not run an instruction in time; is this a nested VM without nested virtualisation?: %w", accel, hostagent.ErrTimeout)
	case ctx.Err() != nil:
		return fmt.Errorf("probe %s: %w", accel, ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == debugExitCode:
		return nil
	case err == nil:
		return fmt.Errorf("probe %s: the guest ended without its sign", accel)
	}
	return fmt.Errorf("probe %s: %w: %s", accel, err, word(said.String(), 300))
}

// asUser lets a child run as QEMU's user, with the groups that give it /dev/kvm.
func asUser(uid, gid int) (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid < 0 || os.Geteuid() != 0 || uid == 0 {
		return attr, nil
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return nil, fmt.Errorf("look up QEMU's user: %w", err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("look up groups of QEMU's user: %w", err)
	}
	for _, id := range ids {
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("look up groups of QEMU's user: %w", err)
		}
		attr.Credential.Groups = append(attr.Credential.Groups, uint32(n))
	}
	return attr, nil
}
