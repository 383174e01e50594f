// Package build makes and checks image versions in VMs that are no desktops.
//
// Here: which calls are taken, the talk with the control plane, the steps of a patch and of a check, what is run in the
// guest (guest/), the relay of the screen, and that nothing of a build is left when it has ended, however it did. Not here:
// how a VM is started or its guest spoken to (hostagent/libvirt), the format of overlays (hostagent/disk), cutting a disk
// into chunks (images/pack), who wants a build and what becomes of it (orchestrator/build). cmd/daybreak-agent and tests
// call it; disk, libvirt and fakehost know its interfaces.
//
// All words of a guest are hostile: they are bounded, cleaned and shown, and decide about nothing but their own build.
//
// Windows guests are patched by the same steps with PowerShell; deploy/golden/windows.md is the recipe, sysprep's included: a
// script that the image brings is run last by the sealing.
package build

import (
	"context"
	"io"

	"daybreak/hostagent"
	"daybreak/images"
	"daybreak/images/pack"
	"daybreak/images/sign"
)

// Hypervisor starts and ends the VMs of builds, lives whose Build is set. hostagent/libvirt is the real one, fakehost the other;
// hosttest holds both to this contract. Every call but PowerOff ends by its own deadline at the latest.
type Hypervisor interface {
	// Builds lists the VMs of builds. An error means that nothing is known, never that there are none.
	Builds(ctx context.Context) ([]hostagent.Domain, error)
	// Start and Destroy are as in hostagent.Hypervisor.
	Start(ctx context.Context, m hostagent.Machine) error
	Destroy(ctx context.Context, life hostagent.Life) error
	// PowerOff asks the guest to power off and returns nil once it has done so itself. An error when it does not until ctx
	// ends, and when the VM ended in another way.
	PowerOff(ctx context.Context, life hostagent.Life) error
}

// System is what a guest says it is, cleaned of control characters.
type System struct {
	Windows  bool
	Name     string
	Hostname string
}

// Guest talks to the agent in a build's VM, which is hostile as in hostagent.Guest. hostagent/libvirt and fakehost
// implement it. Errors wrap hostagent.ErrGuest when the agent answered with a refusal.
type Guest interface {
	// Ping returns nil when the guest agent answered now.
	Ping(ctx context.Context, life hostagent.Life) error
	// System says what runs there.
	System(ctx context.Context, life hostagent.Life) (System, error)
	// Begin starts a program, without a shell.
	Begin(ctx context.Context, life hostagent.Life, argv []string) (pid int64, err error)
	// Ended says whether a program has ended, and with which status. It says so once.
	Ended(ctx context.Context, life hostagent.Life, pid int64) (status int, ended bool, err error)
	Files
}

// Files are those of a guest.
type Files interface {
	// Put writes a file anew from all that content gives. Its folder must be there.
	Put(ctx context.Context, life hostagent.Life, path string, content io.Reader) error
	// Get reads at most limit bytes from offset on; fewer, or none, at the end of the file.
	Get(ctx context.Context, life hostagent.Life, path string, offset int64, limit int) ([]byte, error)
}

// Disks makes the disks of builds. hostagent/disk is the real one, fakehost the other.
type Disks interface {
	// EnsureBase, CreateOverlay and TrashOverlay are as in hostagent.Disks, but that the overlay of a build is removed at
	// once, and no more is reserved for it than its disk can take.
	EnsureBase(ctx context.Context, digest string, from hostagent.Source, progress func(percent uint32)) error
	CreateOverlay(ctx context.Context, life hostagent.Life, digest string, reserve uint64) (base hostagent.Base, overlay string, err error)
	TrashOverlay(ctx context.Context, life hostagent.Life) error
	// BuildOverlays lists the lives of builds whose overlay lies in the store.
	BuildOverlays(ctx context.Context) ([]hostagent.Life, error)
	// Changes opens what the VM of a life, which must have ended, wrote over the base with that digest, and returns the base's
	// manifest with it. An overlay that does not look as QEMU makes it is refused.
	Changes(ctx context.Context, life hostagent.Life, digest string) (*images.Manifest, Changes, error)
}

// Changes is a disk as a VM left it.
type Changes interface {
	pack.Overlay
	io.Closer
}

// Config says what a host's builds may do.
type Config struct {
	// Max is how many builds may run at once. 0 means 1.
	Max int
	// Zones maps the zones whose network this host has to the bridge that it is on.
	Zones map[string]string
	// VNCDir is where the sockets of the screens are.
	VNCDir string
	// Emulate runs guests without KVM: tests only.
	Emulate bool
	// Publishers are those whose image versions may run here, as in hostagent.Config.
	Publishers *sign.Publishers
}
