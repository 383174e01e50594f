// Package fakehost is a KVM host in memory: VMs that boot by the clock, a guest agent, disks, instruments, and switches
// for everything that can go wrong on a real one.
//
// Here: one Host that implements hostagent's Hypervisor, Guest, Disks and Meter, and what builds need, as hosttest demands, and a tally of what
// was done to it. Not here: anything a real host would need. Tests and the simulator call it, no command does. It keeps
// time with package time only, so that it runs in a testing/synctest bubble.
package fakehost

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// Op names a call that can be made to fail.
type Op string

// The calls.
const (
	OpDomains       Op = "domains"
	OpStart         Op = "start"
	OpShutdown      Op = "shutdown"
	OpDestroy       Op = "destroy"
	OpPing          Op = "ping"
	OpExec          Op = "exec"
	OpDescribe      Op = "describe"
	OpScreenshot    Op = "screenshot"
	OpEnsureBase    Op = "ensure-base"
	OpCreateOverlay Op = "create-overlay"
	OpCreateData    Op = "create-data"
	OpTrashOverlay  Op = "trash-overlay"
	OpTrashData     Op = "trash-data"
	OpTrashBases    Op = "trash-bases"
	OpScrub         Op = "scrub"
	OpList          Op = "list" // of bases, overlays, data disks, space
	OpBuilds        Op = "builds"
	OpBegin         Op = "begin"
	OpEnded         Op = "ended"
	OpPut           Op = "put"
	OpGet           Op = "get"
	OpChanges       Op = "changes"
	OpSuspend       Op = "suspend"
	OpRestore       Op = "restore"
	OpWake          Op = "wake"
	OpSetClock      Op = "set-clock"
	OpSession       Op = "session"
	OpReadBytes     Op = "read-bytes"
	OpKeepMemory    Op = "keep-memory"
	OpMemory        Op = "memory"
	OpDropMemory    Op = "drop-memory"
)

// Fault is what goes wrong with one call. The zero value is nothing.
type Fault struct {
	// Refuse is returned without anything being done.
	Refuse error
	// Lie is returned although what was asked for is done.
	Lie error
	// Hang keeps the caller until its context or the call's deadline ends; with Done set, what was asked for is done.
	Hang bool
	Done bool
	// Delay passes before the call does anything.
	Delay time.Duration
}

// Boot is how a VM comes up.
type Boot struct {
	// After is the time from the start until the guest agent answers. Never, if Hangs.
	After time.Duration
	Hangs bool
	// Probe is what the readiness probe exits with and prints.
	Probe  int
	Output string
	// Lacks are programs that the guest does not have.
	Lacks []string
}

// Config says what host it is. The zero value is a host of 4 CPUs and 16 GiB whose guests boot in 5 seconds.
type Config struct {
	Hardware   hostagent.Hardware
	StoreBytes uint64
	// Deadline of every call that may hang. 0 means 10 s.
	Deadline time.Duration
	// PowerOff is how long a guest takes to power off when asked. 0 means 3 s.
	PowerOff time.Duration
	// Fetch is how long a base takes after its chunks came.
	Fetch time.Duration
	// Boot says how a life comes up; nil means in 5 s.
	Boot func(hostagent.Life) Boot
	// Fault says what goes wrong with a call; nil means nothing. Life is zero where a call is about none.
	Fault func(Op, hostagent.Life) Fault
	// Program is what Begin runs; nil means that it does nothing but exit as the readiness probe does.
	Program func(*Program)
	// System is what guests say they are, but for their host name.
	System build.System
	// KeepContent keeps the content of bases, so that it can be given to other hosts.
	KeepContent bool
	// Pressure is the host's pressure by CPU, memory and I/O, percent; nil means that the kernel does not say.
	Pressure func() (cpu, memory, io float64)
	// Trash is how long what was moved there is kept. 0 means a week.
	Trash time.Duration
}

// Host is a host in memory. Safe for concurrent use.
type Host struct {
	cfg Config

	mu      sync.Mutex
	boots   int
	domains map[key]*domain
	bases   map[string]uint64
	// manifests are those of bases that were fetched.
	manifests map[string]*images.Manifest
	// cares are about bases.
	cares map[string]*care
	// content is that of bases, sealed, where it is kept.
	content  map[images.Digest][]byte
	overlays map[key]*overlay
	data     map[string]*dataDisk
	trash    []trashed
	// saves are files of memory, by path; uses is what guests say of their use.
	saves map[string]*saved
	uses  map[hostagent.Life]use
	empty int
	full  bool
	// down: the hypervisor's daemon is not there. hung: it is there and does not answer.
	down, hung bool
	tally      Tally
}

type key struct {
	uid        string
	generation int64
	build      bool
}

func keyOf(life hostagent.Life) key {
	return key{uid: life.UID, generation: life.Generation, build: life.Build}
}

type domain struct {
	machine hostagent.Machine
	state   hostagent.DomainState
	ready   time.Time
	boot    Boot
	// files of the guest, by path, and the programs that were begun, by process id less 1.
	files    map[string][]byte
	programs []*Program
	// poweredOff: the guest's own doing.
	poweredOff bool
	// behind is by how much the guest's clock is.
	behind time.Duration
}

type overlay struct {
	life     hostagent.Life
	digest   string
	reserve  uint64
	volatile bool
	// written are the pieces of the disk that the guest wrote.
	written map[int][]byte
	// runs is how often a guest was let run on it.
	runs int
}

type dataDisk struct {
	desktop string
	bytes   uint64
}

type trashed struct {
	what string
	at   time.Time
}

// Tally is what was done to a host since it was made. Starts counts VMs that really came to be, by life.
type Tally struct {
	Starts   map[hostagent.Life]int
	Destroys map[hostagent.Life]int
	Trashed  map[hostagent.Life]int
	// Suspends and Wakes are those that came to be; Asked is how often a guest was asked who uses it.
	Suspends, Wakes, Asked map[hostagent.Life]int
	Fetches                int
	// Shown are the programs that were run to show a text in a guest, with their arguments.
	Shown map[hostagent.Life][]string
	// Clashes are starts that were refused because another life of the desktop ran.
	Clashes []string
	// Wrongs are acts that break an invariant, whatever asked for them; a host that has any has failed its test.
	Wrongs []string
}

var (
	_ hostagent.Hypervisor = (*Host)(nil)
	_ hostagent.Guest      = (*Host)(nil)
	_ hostagent.Disks      = (*Host)(nil)
	_ hostagent.Meter      = (*Host)(nil)
	_ build.Hypervisor     = (*Host)(nil)
	_ build.Guest          = (*Host)(nil)
	_ build.Disks          = (*Host)(nil)
)

// New makes a host.
func New(cfg Config) *Host {
	if cfg.Hardware == (hostagent.Hardware{}) {
		cfg.Hardware = hostagent.Hardware{CPUs: 4, MemoryMiB: 16 << 10}
	}
	if cfg.StoreBytes == 0 {
		cfg.StoreBytes = 1 << 40
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = 10 * time.Second
	}
	if cfg.PowerOff == 0 {
		cfg.PowerOff = 3 * time.Second
	}
	if cfg.Boot == nil {
		cfg.Boot = func(hostagent.Life) Boot { return Boot{After: 5 * time.Second} }
	}
	if cfg.Fault == nil {
		cfg.Fault = func(Op, hostagent.Life) Fault { return Fault{} }
	}
	if cfg.Trash == 0 {
		cfg.Trash = 7 * 24 * time.Hour
	}
	return &Host{
		cfg: cfg, domains: map[key]*domain{}, bases: map[string]uint64{}, manifests: map[string]*images.Manifest{}, content: map[images.Digest][]byte{}, cares: map[string]*care{},
		overlays: map[key]*overlay{}, data: map[string]*dataDisk{}, saves: map[string]*saved{}, uses: map[hostagent.Life]use{},
		tally: Tally{Starts: map[hostagent.Life]int{}, Destroys: map[hostagent.Life]int{}, Trashed: map[hostagent.Life]int{},
			Suspends: map[hostagent.Life]int{}, Wakes: map[hostagent.Life]int{}, Asked: map[hostagent.Life]int{},
			Shown: map[hostagent.Life][]string{}},
	}
}

// errDown: nobody listens where the hypervisor's daemon should.
var errDown = errors.New("no connection to the hypervisor")

// hypervisor is call on what the hypervisor's daemon does.
func (h *Host) hypervisor(ctx context.Context, op Op, life hostagent.Life, do func() error) error {
	h.mu.Lock()
	down, hung := h.down, h.hung
	h.mu.Unlock()
	if down {
		return fmt.Errorf("%s: %w", op, errDown)
	}
	if hung {
		if err := h.pause(ctx, h.cfg.Deadline); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", op, hostagent.ErrTimeout)
	}
	return h.call(ctx, op, life, do)
}

// call runs do under the lock, unless a fault says otherwise.
func (h *Host) call(ctx context.Context, op Op, life hostagent.Life, do func() error) error {
	fault := h.cfg.Fault(op, life)
	if fault.Delay > 0 {
		if err := h.pause(ctx, fault.Delay); err != nil {
			return err
		}
	}
	if fault.Refuse != nil {
		return fmt.Errorf("%s: %w", op, fault.Refuse)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var err error
	if !fault.Hang || fault.Done {
		h.mu.Lock()
		err = do()
		h.mu.Unlock()
	}
	if fault.Hang {
		if err := h.pause(ctx, h.cfg.Deadline); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", op, hostagent.ErrTimeout)
	}
	if fault.Lie != nil {
		return fmt.Errorf("%s: %w", op, fault.Lie)
	}
	return err
}

// pause waits, but not beyond the call's deadline nor its context.
func (h *Host) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(d, h.cfg.Deadline))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	if d > h.cfg.Deadline {
		return hostagent.ErrTimeout
	}
	return nil
}

// Hardware implements hostagent.Meter.
func (h *Host) Hardware() (hostagent.Hardware, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hardware := h.cfg.Hardware
	hardware.BootID = fmt.Sprintf("%s-boot-%d", hardware.BootID, h.boots)
	return hardware, nil
}

// Load implements hostagent.Meter: memory less what VMs were given whose guests are up, since a guest takes it bit by bit.
func (h *Host) Load() (hostagent.Load, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	used := uint64(0)
	for _, d := range h.domains {
		if !d.boot.Hangs && !time.Now().Before(d.ready) {
			used += uint64(d.machine.MemoryMiB)
		}
	}
	load := hostagent.Load{MemoryAvailableMiB: h.cfg.Hardware.MemoryMiB - min(used, h.cfg.Hardware.MemoryMiB)}
	if h.cfg.Pressure != nil {
		load.PSIKnown = true
		load.PSICPU, load.PSIMemory, load.PSIIO = h.cfg.Pressure()
	}
	return load, nil
}

// Running lists the lives whose VM runs now.
func (h *Host) Running() []hostagent.Life {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lives []hostagent.Life
	for _, d := range h.domains {
		if d.state != hostagent.DomainGone {
			lives = append(lives, d.machine.Life)
		}
	}
	return lives
}

// Booting counts the VMs whose guest does not answer yet.
func (h *Host) Booting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, d := range h.domains {
		if d.boot.Hangs || time.Now().Before(d.ready) {
			n++
		}
	}
	return n
}

// Tally returns a copy of what was done so far.
func (h *Host) Tally() Tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Tally{
		Starts: maps.Clone(h.tally.Starts), Destroys: maps.Clone(h.tally.Destroys), Trashed: maps.Clone(h.tally.Trashed),
		Suspends: maps.Clone(h.tally.Suspends), Wakes: maps.Clone(h.tally.Wakes), Asked: maps.Clone(h.tally.Asked),
		Fetches: h.tally.Fetches, Clashes: append([]string(nil), h.tally.Clashes...), Wrongs: append([]string(nil), h.tally.Wrongs...),
		Shown: maps.Clone(h.tally.Shown),
	}
}

// Wrongs are those of the Tally, without counting the rest.
func (h *Host) Wrongs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.tally.Wrongs...)
}

func (h *Host) wrong(format string, args ...any) {
	h.tally.Wrongs = append(h.tally.Wrongs, fmt.Sprintf(format, args...))
}

// ImageVersion is what every guest here says of its image.
const ImageVersion = "fake"

// guestReport is what every guest here says of itself.
func guestReport(d *domain) *v1.GuestReport {
	return &v1.GuestReport{
		ImageVersion: ImageVersion, BootNonce: fmt.Sprintf("%d", d.ready.UnixNano()), Hostname: d.machine.Desktop,
		Addresses: []string{"192.0.2.1"}, AgentVersion: "1.0",
	}
}
