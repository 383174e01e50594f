// Package hostagent is the hands: what one KVM host does on its own to bring the incarnations assigned to it to the state
// that is wanted of them.
//
// Here: the session with the control plane, a bounded worker per desktop that does one step at a time, the durable
// journal, the report of status and capacity, the limit on boots in flight. Not here: libvirt and QEMU (hostagent/libvirt),
// files of disks (hostagent/disk), decisions about what a host shall run (orchestrator). Only cmd/daybreak-agent, the
// simulator and tests call it.
package hostagent

import (
	"context"
	"errors"
	"time"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels of the host's parts. Errors that wrap none of them are transient: the step is tried again.
var (
	// ErrNotFound: no such domain, base or disk on this host.
	ErrNotFound = errors.New("not found on this host")
	// ErrNoSpace: the store cannot promise the space that was asked for. Nothing was made.
	ErrNoSpace = errors.New("not enough space in the host's store")
	// ErrCorrupt: content is not what its digest says. What was damaged is quarantined, not used.
	ErrCorrupt = errors.New("content does not match its digest")
	// ErrPermanent: trying again cannot help; the incarnation has failed.
	ErrPermanent = errors.New("cannot be done on this host")
	// ErrGuest: the guest's agent answered, and it was not what was asked for: it refused, or cannot do it.
	ErrGuest = errors.New("the guest's answer cannot be used")
	// ErrTimeout: a call did not come back in time. What it was to do may have happened.
	ErrTimeout = errors.New("no answer in time: outcome unknown")
)

// Life names one incarnation on this host.
type Life struct {
	// Desktop's name and uid, and the fencing token.
	Desktop    string
	UID        string
	Generation int64
	// Build: a VM that makes or checks an image version, and no desktop; Desktop is the image's name then. Hypervisor and
	// Disks list such lives apart.
	Build bool
}

// Base is the files that hold a version on this host, by their paths. Both are only read.
type Base struct {
	// Raw is all of the version's disk, or that of another version where there is a Layer.
	Raw string
	// Layer is a qcow2 image on Raw that holds what differs in this version; empty when Raw is all of it.
	Layer string
}

// Top is the file that an overlay stands on.
func (b Base) Top() string {
	if b.Layer != "" {
		return b.Layer
	}
	return b.Raw
}

// Machine is all that a VM is made of. Every field was checked before it comes here.
type Machine struct {
	Life
	// UUID and MAC as the guest sees them.
	VMUUID string
	MAC    string
	// Bridge of the zone that the one NIC is on; empty means no NIC.
	Bridge    string
	VCPUs     uint32
	MemoryMiB uint32
	// Base is what the overlay stands on. The others are paths on this host: the qcow2 overlay, and the data disk (raw) or empty.
	Base    Base
	Overlay string
	Data    string
	// Path of the overlay, and its base, that a build's appliance works on; the guest finds it by TargetSerial.
	Target     string
	TargetBase Base
	// Path of the VNC server's UNIX socket.
	VNC string
	// Emulate runs the guest without KVM: tests only.
	Emulate bool
}

// TargetSerial is the serial of the disk that a build's appliance works on.
const TargetSerial = "daybreak-target"

// DomainState is what the hypervisor says of a VM.
type DomainState int

// States of a domain. Unknown states are never a reason to act.
const (
	DomainUnknown DomainState = iota
	DomainRunning
	// DomainPausedIO: the guest stands still because its disk is full or failing.
	DomainPausedIO
	DomainPaused
	DomainShuttingDown
	// DomainGone: QEMU has ended, the domain is still listed.
	DomainGone
)

// Domain is a VM that the hypervisor lists and whose metadata says that it is ours.
type Domain struct {
	Life
	VMUUID string
	State  DomainState
	// MemoryMiB is what it was given; 0 when that is not known.
	MemoryMiB uint64
}

// Hypervisor starts and stops VMs. hostagent/libvirt is the real one, fakehost the other; hosttest holds both to this
// contract. Every call ends by its own deadline at the latest, with ErrTimeout.
type Hypervisor interface {
	// Domains lists our VMs. An error means that nothing is known, never that there are none.
	Domains(ctx context.Context) ([]Domain, error)
	// Start creates the VM as a transient domain and runs it. A VM of the same Life that runs already is success; one
	// of the same desktop and another generation, or of the same VM UUID, is an error that wraps ErrPermanent.
	Start(ctx context.Context, m Machine) error
	// Shutdown asks the guest to power off: guest agent, then ACPI. It returns at once.
	Shutdown(ctx context.Context, life Life) error
	// Destroy ends QEMU. ErrNotFound when no domain has this Life; another generation is never touched.
	Destroy(ctx context.Context, life Life) error
	// ReadBytes is what the guest has read from its disk since QEMU was started.
	ReadBytes(ctx context.Context, life Life) (uint64, error)
	Sleeper
}

// Sleeper puts VMs to sleep in files and wakes them; it is a part of every Hypervisor.
type Sleeper interface {
	// Suspend saves all of the VM's memory to a file and ends QEMU. A VM that is not there is success when the file holds
	// the whole memory of this Life already, which an earlier call wrote; else ErrNotFound.
	Suspend(ctx context.Context, life Life, file string) error
	// Restore makes the VM again, with its memory out of the file, and has it stand still: nothing in it runs and nothing is
	// written to its disks, so that it may be tried again. A VM of the same Life that is there with all its memory is
	// success. ErrPermanent when what was saved is not this Life's, is not whole, or does not fit this host any more.
	Restore(ctx context.Context, m Machine, file string) error
	// Wake lets a VM run that Restore made. One that runs already is success.
	Wake(ctx context.Context, life Life) error
}

// Guest talks to the agent inside a VM. The guest is hostile: answers are bounded, strictly parsed, and cleaned of
// control characters. hostagent/libvirt and fakehost implement it.
type Guest interface {
	// Ping returns nil when the guest agent answered now.
	Ping(ctx context.Context, life Life) error
	// Exec runs a program in the guest without a shell and returns its exit status and the first 4 KiB of its output.
	// ErrTimeout when it did not end before ctx did.
	Exec(ctx context.Context, life Life, argv []string) (status int, output string, err error)
	// Describe reads what the guest says of itself; missing parts are empty.
	Describe(ctx context.Context, life Life) (*v1.GuestReport, error)
	// Screenshot returns the screen as PNG, at most 3 MiB.
	Screenshot(ctx context.Context, life Life) ([]byte, error)
	Witness
}

// Witness says what a guest knows of the time and of its users; it is a part of every Guest.
type Witness interface {
	// SetClock sets the guest's clock: it stood still while the VM slept.
	SetClock(ctx context.Context, life Life, now time.Time) error
	// Session asks who uses the guest. What it does not say is not known; an error when it does not answer at all.
	Session(ctx context.Context, life Life) (Session, error)
}

// Session is what a guest says of its use.
type Session struct {
	// UsersKnown: the guest said how many sessions Users have.
	UsersKnown bool
	Users      uint32
	// InputKnown: the guest's helper said for how long nobody touched keyboard and pointer.
	InputKnown bool
	InputIdle  time.Duration
}

// Want is a chunk that is to be fetched.
type Want struct {
	Digest images.Digest
	// Base is a chunk that the host has and that is likely to differ little from it; zero when there is none.
	Base images.Digest
}

// Source gives the content of versions; the session's gRPC client is the real one. What it gives is checked by the taker.
type Source interface {
	// Manifest returns the encoded manifest with that digest (hex).
	Manifest(ctx context.Context, digest string) ([]byte, error)
	// Chunks fetches chunks and hands each to sink, in any order, from as many goroutines at once as it likes. A chunk that
	// comes with a Base is a delta to it, and that is the one that was offered. When sink says ErrCorrupt the chunk was not
	// taken, and may be handed to it again from elsewhere; any other error of sink ends the call.
	Chunks(ctx context.Context, wants []Want, sink func(images.Chunk) error) error
}

// Space is the store's room, bytes. Available is free space less what is promised to overlays and data disks that have
// not used it yet. ReadRate is how fast the store gave a base when one was last compared, bytes per second; 0 when none was.
type Space struct {
	Size      uint64
	Available uint64
	ReadRate  uint64
}

// Kept says what there is of a life's saved memory.
type Kept int

// Begun is what a KeepMemory left that did not come to its end.
const (
	KeptNone Kept = iota
	KeptBegun
	KeptWhole
)

// MemoryFiles keeps the memory of VMs that sleep; it is a part of every Disks. One file is for one waking.
type MemoryFiles interface {
	// KeepMemory has write put the memory of a life's VM, at most so many bytes, into the file it is told, and keeps it,
	// durably, when write succeeds. ErrNoSpace before write is called. ErrCorrupt, and nothing kept, when a disk of the life was written
	// to after its memory was. Memory that is kept already is success.
	KeepMemory(ctx context.Context, life Life, bytes uint64, write func(file string) error) error
	// Memory says what there is of a life's memory, and in which file.
	Memory(ctx context.Context, life Life) (file string, kept Kept, err error)
	// DropMemory removes what there is of a life's memory; when it returned nil that is durable. Absent is success.
	DropMemory(ctx context.Context, life Life) error
}

// Disks keeps bases, overlays and data disks in the host's store. hostagent/disk is the real one, fakehost the other.
// Nothing it does overwrites or unlinks what was published.
type Disks interface {
	// Bases lists the digests of the bases that lie verified on the host.
	Bases(ctx context.Context) ([]string, error)
	// EnsureBase fetches and verifies a base unless it is there. progress is called with 0 to 100. ErrCorrupt when
	// the source gave other content; ErrNoSpace before anything is fetched.
	EnsureBase(ctx context.Context, digest string, from Source, progress func(percent uint32)) error
	// Chunk returns the plain bytes of a chunk out of a verified base, or of one on its way; what it returns was checked.
	// ErrNotFound when the host does not have it now.
	Chunk(ctx context.Context, digest images.Digest) ([]byte, error)
	// TrashBases moves to the trash the bases that keep does not name and that nothing has used since a time: no overlay and
	// no other base stands on them, no VM has them open, none is being made. Those that are kept count as used now. It returns the digests
	// of those that went.
	TrashBases(ctx context.Context, keep map[string]bool, unusedSince time.Time) ([]string, error)
	// Scrub compares the base whose last comparison is the longest ago, if that was before a time, reading at most so many
	// bytes a second. It returns its digest, empty when none is due, and whether it was damaged: then it is set aside, as if
	// it were not there.
	Scrub(ctx context.Context, before time.Time, bytesPerSecond int64) (digest string, damaged bool, err error)
	// CreateOverlay makes the overlay of a Life on a base, promising reserve bytes to it, and returns what it stands on
	// now, and its path. One that is there already is left as it is.
	CreateOverlay(ctx context.Context, life Life, digest string, reserve uint64) (base Base, overlay string, err error)
	// CreateData makes the data disk of a desktop (by uid), or finds it, and returns its path. It never shrinks one.
	CreateData(ctx context.Context, desktop, uid string, size uint64) (path string, err error)
	// TrashOverlay and TrashData move a disk to the trash, from where retention removes it. Absent is success; one that a
	// running VM uses stays where it is, with an error.
	TrashOverlay(ctx context.Context, life Life) error
	TrashData(ctx context.Context, uid string) error
	// Overlays lists the lives whose overlay lies in the store.
	Overlays(ctx context.Context) ([]Life, error)
	// DataDisks lists the data disks by desktop.
	DataDisks(ctx context.Context) ([]*v1.KeptDisk, error)
	// Space says how much room there is.
	Space(ctx context.Context) (Space, error)
	MemoryFiles
	// Sweep removes what crashes left half made and what outlived the trash's retention.
	Sweep(ctx context.Context, now time.Time) error
}
