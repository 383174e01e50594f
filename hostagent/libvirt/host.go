package libvirt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

// Config says which libvirtd to use, and what it may be used for.
type Config struct {
	// URI of the system daemon; empty means qemu:///system.
	URI string
	// Store is the directory that the paths of disks must lie in.
	Store string
	// AllowEmulation permits guests without KVM, which QEMU's maintainers give no promise of isolation for: tests only.
	AllowEmulation bool
	// AllowRootQEMU permits a libvirtd that runs QEMU as root.
	AllowRootQEMU bool
	// Deadline of a call, by kind. 0 means 15 s for lists, 60 s for starts and stops, 12 s for a word with a guest. libvirtd
	// keeps lists waiting while it ends a QEMU that hangs, which takes it ten seconds.
	ListTimeout, ChangeTimeout, GuestTimeout time.Duration
	// SaveTimeout is how long the memory of a VM may take to its file or back. 0 means 10 min.
	SaveTimeout time.Duration
}

// Host is one libvirtd. It implements hostagent.Hypervisor and hostagent.Guest. Safe for concurrent use.
type Host struct {
	cfg   Config
	log   zerolog.Logger
	hints chan struct{}
	// Kinds of calls, so that guests that keep their agent waiting, or a QEMU that hangs, never keep the list of what runs
	// from us, nor rescues, which end such a QEMU; nor a build's guest, which may keep us waiting longer, a desktop's; nor
	// what moves a whole memory, what moves none.
	lists, changes, guests, rescues, builds, sleeps *line

	patience *patience
	ends     *ends
}

var (
	_ hostagent.Hypervisor = (*Host)(nil)
	_ hostagent.Guest      = (*Host)(nil)
)

// Open makes a Host. It does not connect yet: Run does. It fails when libvirt's client library is not installed.
func Open(cfg Config, log zerolog.Logger) (*Host, error) {
	if cfg.URI == "" {
		cfg.URI = "qemu:///system"
	}
	if !filepath.IsAbs(cfg.Store) || filepath.Clean(cfg.Store) != cfg.Store {
		return nil, fmt.Errorf("open libvirt: store %q must be an absolute, clean path", cfg.Store)
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&cfg.ListTimeout, 15 * time.Second}, {&cfg.ChangeTimeout, time.Minute}, {&cfg.GuestTimeout, 12 * time.Second}, {&cfg.SaveTimeout, 10 * time.Minute}} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	// Must come before the first connection, or its events are never delivered.
	if err := lv.EventRegisterDefaultImpl(); err != nil {
		return nil, fmt.Errorf("open libvirt: load the client library (package libvirt0): %w", err)
	}
	h := &Host{cfg: cfg, log: log.With().Str("libvirt", cfg.URI).Logger(), hints: make(chan struct{}, 1), patience: newPatience(), ends: newEnds()}
	h.lists, h.changes, h.guests = newLine("lists", 1), newLine("changes", 4), newLine("guests", 4)
	h.rescues, h.builds, h.sleeps = newLine("rescues", 1), newLine("builds", 2), newLine("sleeps", sleepPlaces)
	return h, nil
}

// Run keeps the connections up until ctx ends, delivers events, and lets guests go on whose disk has room again. Calls
// made while libvirtd is not there fail at once.
func (h *Host) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return runEvents(ctx) })
	for _, w := range slices.Concat(h.lists.wires, h.changes.wires, h.guests.wires, h.rescues.wires, h.builds.wires, h.sleeps.wires) {
		g.Go(func() error { return h.keepUp(ctx, w) })
	}
	g.Go(func() error { return h.mend(ctx) })
	return g.Wait()
}

// Hints delivers a value soon after something happened to some VM, or the connection came back: a reason to list again,
// never a fact. Hints that nobody took are merged into one.
func (h *Host) Hints() <-chan struct{} {
	return h.hints
}

func (h *Host) hint() {
	select {
	case h.hints <- struct{}{}:
	default:
	}
}

// runEvents turns libvirt's event loop, which all connections of the process share.
func runEvents(ctx context.Context) error {
	// The loop sleeps until something happens; the timer lets it see that ctx has ended.
	timer, err := lv.EventAddTimeout(500, func(int) {})
	if err != nil {
		return fmt.Errorf("run libvirt's events: %w", err)
	}
	defer lv.EventRemoveTimeout(timer) //nolint:errcheck // the process ends
	for ctx.Err() == nil {
		if err := lv.EventRunDefaultImpl(); err != nil {
			return fmt.Errorf("run libvirt's events: %w", err)
		}
	}
	return nil
}

// watch has libvirt tell us when something happens. Lists are the truth; events only say when to look.
func (h *Host) watch(c *lv.Connect) error {
	_, lifecycle := c.DomainEventLifecycleRegister(nil, func(_ *lv.Connect, d *lv.Domain, e *lv.DomainEventLifecycle) {
		h.ends.hear(d, e)
		h.hint()
	})
	_, agent := c.DomainEventAgentLifecycleRegister(nil, func(*lv.Connect, *lv.Domain, *lv.DomainEventAgentLifecycle) { h.hint() })
	_, ioError := c.DomainEventIOErrorReasonRegister(nil, func(*lv.Connect, *lv.Domain, *lv.DomainEventIOErrorReason) { h.hint() })
	if err := errors.Join(lifecycle, agent, ioError); err != nil {
		return fmt.Errorf("register for events: %w", err)
	}
	return nil
}
