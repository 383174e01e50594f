package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/hostagent"
	"daybreak/images"
)

const (
	// sweepEvery is how often what a build could not take away is tried again.
	sweepEvery = time.Minute
	sweepRetry = 2 * time.Second
	// clearTimeout is how long a build that ended tries to take its VM and its disks away before it leaves them to the sweep.
	clearTimeout = time.Minute
)

// Builder does the builds of one host. It implements hostagent.Builder.
type Builder struct {
	cfg        Config
	hypervisor Hypervisor
	guest      Guest
	disks      Disks
	codec      *images.Codec
	log        zerolog.Logger
	calls      chan hostagent.BuildCall

	mu sync.Mutex
	// ready: what an earlier process left is gone, and Run does what is accepted. Guarded by mu.
	ready bool
	// running holds the memory of each build, MiB, by its id. Guarded by mu.
	running map[string]uint64
	// lives are those of builds that run. Guarded by mu.
	lives map[hostagent.Life]bool
}

var _ hostagent.Builder = (*Builder)(nil)

// New makes a Builder of the parts of a host.
func New(cfg Config, hypervisor Hypervisor, guest Guest, disks Disks, log zerolog.Logger) (*Builder, error) {
	if cfg.Max == 0 {
		cfg.Max = 1
	}
	if cfg.Max < 0 || cfg.Max > 64 {
		return nil, fmt.Errorf("configure builds: %d at once, want 1 to 64", cfg.Max)
	}
	codec, err := images.NewCodec()
	if err != nil {
		return nil, fmt.Errorf("configure builds: %w", err)
	}
	return &Builder{
		cfg: cfg, hypervisor: hypervisor, guest: guest, disks: disks, codec: codec, log: log,
		calls: make(chan hostagent.BuildCall, cfg.Max), running: map[string]uint64{}, lives: map[hostagent.Life]bool{},
	}, nil
}

// Accept implements hostagent.Builder.
func (b *Builder) Accept(call hostagent.BuildCall) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.ready:
		return errors.New("this host has not yet taken away what its last run left of builds")
	case len(b.running) >= b.cfg.Max:
		return fmt.Errorf("this host does %d builds already, and may do %d at once", len(b.running), b.cfg.Max)
	}
	if _, twice := b.running[call.ID]; twice {
		return errors.New("this host does that build already")
	}
	b.running[call.ID] = uint64(call.MemoryMiB)
	b.calls <- call // there is a place for each of running
	return nil
}

// MemoryMiB implements hostagent.Builder.
func (b *Builder) MemoryMiB() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum uint64
	for _, memory := range b.running {
		sum += memory
	}
	return sum
}

// Run implements hostagent.Builder.
func (b *Builder) Run(ctx context.Context) error {
	for b.sweep(ctx) != nil {
		if !pause(ctx, sweepRetry) {
			return ctx.Err()
		}
	}
	b.setReady(true)
	defer b.setReady(false)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		for pause(ctx, sweepEvery) {
			if err := b.sweep(ctx); err != nil && ctx.Err() == nil {
				b.log.Warn().Err(err).Msg("what builds left cannot be taken away; it will be tried again")
			}
		}
		return ctx.Err()
	})
	for {
		select {
		case <-ctx.Done():
			return group.Wait()
		case call := <-b.calls:
			group.Go(func() error {
				defer b.done(call.ID)
				b.do(ctx, call)
				return nil
			})
		}
	}
}

func (b *Builder) setReady(ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = ready
}

func (b *Builder) done(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.running, id)
}

// claim makes a life one of a build that runs; the sweep leaves it alone until let.
func (b *Builder) claim(life hostagent.Life) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lives[life] = true
}

func (b *Builder) let(life hostagent.Life) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.lives, life)
}

func (b *Builder) claimed(life hostagent.Life) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lives[life]
}

// sweep takes away all VMs and overlays of builds that do not run.
func (b *Builder) sweep(ctx context.Context) error {
	vms, err := b.hypervisor.Builds(ctx)
	if err != nil {
		return fmt.Errorf("take away what builds left: %w", err)
	}
	overlays, err := b.disks.BuildOverlays(ctx)
	if err != nil {
		return fmt.Errorf("take away what builds left: %w", err)
	}
	left := map[hostagent.Life]bool{}
	for _, life := range overlays {
		left[life] = true
	}
	for _, vm := range vms {
		left[vm.Life] = true
	}
	var failed error
	for life := range left {
		if b.claimed(life) {
			continue
		}
		if err := b.remove(ctx, life); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		b.log.Info().Str("image", life.Desktop).Str("build", life.UID).Msg("took away what a build had left")
	}
	return failed
}

// remove ends the VM of a life and removes its overlay.
func (b *Builder) remove(ctx context.Context, life hostagent.Life) error {
	if err := b.hypervisor.Destroy(ctx, life); err != nil && !errors.Is(err, hostagent.ErrNotFound) {
		return fmt.Errorf("take away build: %w", err)
	}
	if err := b.disks.TrashOverlay(ctx, life); err != nil {
		return fmt.Errorf("take away build: %w", err)
	}
	if err := os.Remove(b.screen(life)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take away build: %w", err)
	}
	return nil
}

// screen is where the socket of a VM's screen is. A QEMU that was killed leaves it behind.
func (b *Builder) screen(life hostagent.Life) string {
	return filepath.Join(b.cfg.VNCDir, life.UID+".vnc")
}

// clear is remove, tried until it succeeds or the sweep has to go on with it.
func (b *Builder) clear(ctx context.Context, life hostagent.Life) {
	defer b.let(life)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearTimeout)
	defer cancel()
	for {
		err := b.remove(ctx, life)
		if err == nil {
			return
		}
		if !pause(ctx, time.Second) {
			b.log.Error().Err(err).Str("build", life.UID).Msg("VM and disk of a build are still there; it will be tried again")
			return
		}
	}
}

// pause waits; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
