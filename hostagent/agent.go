package hostagent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

// Platform is what the host's virtualisation was found to be.
type Platform struct {
	// KVM: a vCPU really ran under it.
	KVM bool
	// Emulate runs guests without KVM: tests only.
	Emulate        bool
	LibvirtVersion string
	QEMUVersion    string
	// SecurityModels are the drivers that confine QEMU.
	SecurityModels []string
	// Faults are why no new desktops should come here, for people; those that are here are looked after.
	Faults []string
}

// Config says how an agent is to run.
type Config struct {
	// Version of the agent, for people.
	Version string
	// Servers are the control plane's addresses for agents, host:port; any of them will do.
	Servers []string
	// Dial makes a connection to one of them, as this host.
	Dial func(server string) (*grpc.ClientConn, error)
	// Zones maps the zones whose network this host has to the bridge that it is on.
	Zones map[string]string
	// VNCDir is where the sockets of the screens are.
	VNCDir string
	// MaxBoots is how many VMs may boot at once. 0 means as many as there are CPUs, at least 2.
	MaxBoots int
	Platform Platform
	// Publishers are those whose image versions may run here. Nil checks nothing, for tests and simulations only; without keys
	// nothing new is run.
	Publishers *sign.Publishers
	// Builder does builds. Nil: this host does none.
	Builder Builder
	// KeepImages is how long a base stays that nothing needs any more. 0 means DefaultKeepImages.
	KeepImages time.Duration
	// FetchBandwidth is how many bytes of images a second come in at most. 0: no limit.
	FetchBandwidth int64
	// Peers says how images travel between hosts.
	Peers Peers
	// Rand gives numbers from 0 up to 1. Nil means the usual source.
	Rand func() float64
	// Hints delivers a value when something may have happened to a VM: a reason to look, never a fact. Nil gives none.
	Hints <-chan struct{}
	// Ready is called once, when the host's VMs were adopted or a session began.
	Ready      func()
	Registerer prometheus.Registerer
	Log        zerolog.Logger
}

func (c Config) validate() error {
	switch {
	case len(c.Servers) == 0:
		return errors.New("no server's address was given")
	case c.Dial == nil || c.Registerer == nil:
		return errors.New("Dial and Registerer are needed")
	case len(c.Zones) > 64:
		return fmt.Errorf("%d zones, at most 64", len(c.Zones))
	case c.MaxBoots < 0 || c.MaxBoots > 4096:
		return fmt.Errorf("%d boots at once, want 0 to 4096", c.MaxBoots)
	}
	return nil
}

// Agent is one host's agent.
type Agent struct {
	cfg        Config
	log        zerolog.Logger
	hypervisor Hypervisor
	guest      Guest
	disks      Disks
	meter      Meter
	hardware   Hardware
	bootID     string

	metrics   *metrics
	book      *book
	view      *view
	inventory *inventory
	governor  *governor
	// savers limits how many VMs are suspended at once.
	savers   *governor
	fetcher  *fetcher
	source   *remoteSource
	observer *observer
	// births gets a token when a worker was made that does not run yet.
	births chan struct{}
	ready  sync.Once

	mu      sync.Mutex
	workers map[string]*worker
	newborn []*worker
	// standstill is why nothing is done; empty when all is well.
	standstill string
	refused    map[string]bool
	adopted    bool
	inSession  bool
}

// New makes an agent on a journal and the parts of a host. A damaged journal is logged and reported, and makes an agent
// that looks and touches nothing.
func New(cfg Config, journal *Journal, hypervisor Hypervisor, guest Guest, disks Disks, meter Meter) (*Agent, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configure agent: %w", err)
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	hardware, err := meter.Hardware()
	if err != nil {
		return nil, fmt.Errorf("configure agent: %w", err)
	}
	if cfg.KeepImages == 0 {
		cfg.KeepImages = DefaultKeepImages
	}
	if cfg.MaxBoots == 0 {
		cfg.MaxBoots = max(2, hardware.CPUs)
	}
	a := &Agent{
		cfg: cfg, log: cfg.Log, hypervisor: hypervisor, guest: guest, disks: disks, meter: meter, hardware: hardware,
		bootID: hardware.BootID, view: newView(), inventory: &inventory{}, governor: newGovernor(cfg.MaxBoots, hardware.CPUs), savers: newGovernor(maxSaves, maxSaves),
		births: make(chan struct{}, 1), workers: map[string]*worker{}, refused: map[string]bool{},
	}
	a.observer = &observer{agent: a, wake: make(chan struct{}, 1)}
	a.book, err = openBook(journal, time.Now())
	switch {
	case errors.Is(err, ErrJournalDamaged):
		a.standstill = fmt.Sprintf("read-only: %v: move it away to begin anew", err)
		a.log.Error().Err(err).Msg("this host only looks: move the journal away to begin anew, with all that runs as orphans")
	case err != nil:
		return nil, fmt.Errorf("configure agent: %w", err)
	}
	for _, err := range a.book.unruly {
		a.log.Warn().Err(err).Msg("journal holds what another version's rules allowed")
	}
	a.governor.room = a.room
	a.metrics = newMetrics(cfg.Registerer, a)
	a.source = &remoteSource{fetched: a.metrics.fetched, fromPeers: a.metrics.fromPeers, bandwidth: newBandwidth(cfg.FetchBandwidth)}
	if cfg.Peers.Listener != nil {
		a.source.shelf = newShelf()
	}
	a.fetcher = newFetcher(disks, a.sourceOf, a.log, a.fetchNews)
	return a, nil
}

// Run runs the agent until ctx ends. It leaves every VM as it is.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	// The control plane is told how big the store is when a session begins.
	a.takeStock(ctx)
	group.Go(func() error { return a.sessions(ctx) })
	group.Go(func() error { return a.fetcher.run(ctx) })
	if a.cfg.Builder != nil {
		group.Go(func() error { return a.cfg.Builder.Run(ctx) })
	}
	if a.cfg.Peers.Listener != nil {
		group.Go(func() error { return a.servePeers(ctx) })
	}
	group.Go(func() error {
		if err := a.adoptAll(ctx); err != nil {
			return err
		}
		group.Go(func() error { return a.observer.run(ctx) })
		group.Go(func() error { return a.observer.hear(ctx, a.cfg.Hints) })
		group.Go(func() error { return a.heed(ctx) })
		group.Go(func() error { return a.sweep(ctx) })
		group.Go(func() error { return a.scrub(ctx) })
		return a.raiseWorkers(ctx, group)
	})
	return group.Wait()
}

// adoptAll takes in what is on the host before anything is done to it. Until the hypervisor and the store say what there
// is, nothing is known, and nothing is done.
func (a *Agent) adoptAll(ctx context.Context) error {
	for {
		a.takeStock(ctx)
		a.observer.look(ctx)
		overlays, err := a.disks.Overlays(ctx)
		fault, _ := a.view.trouble()
		if err == nil && fault == "" {
			a.adoptOverlays(overlays)
			break
		}
		if err != nil && ctx.Err() == nil {
			a.log.Error().Err(err).Msg("overlays not listed; it will be tried again")
		}
		if !sleepUntil(ctx, time.Now().Add(2*time.Second), nil) {
			return ctx.Err()
		}
	}
	a.mu.Lock()
	a.adopted = true
	a.mu.Unlock()
	lives := a.book.all()
	a.log.Info().Int("lives", len(lives)).Uint32("running", a.running(nil).vms).Msg("host's desktops adopted")
	a.book.signal()
	a.ready.Do(a.tellReady)
	for _, e := range lives {
		if e.status.GetState() == v1.DesktopState_DESKTOP_STATE_STARTING {
			a.governor.hold(keyOf(e.life), a.memoryMiB(e)) // before those that wait may ask
		}
	}
	for _, e := range lives {
		a.wake(e.life.UID)
	}
	return nil
}

// adoptOverlays takes in lives of which only the disk is there. Whether they were ever started nobody knows any more.
func (a *Agent) adoptOverlays(overlays []Life) {
	found, marks := map[Life]*v1.DesktopStatus{}, map[Life]startMark{}
	for _, life := range overlays {
		found[life] = &v1.DesktopStatus{
			Generation: life.Generation, State: v1.DesktopState_DESKTOP_STATE_FAILED,
			Message: "its disk was found on the host, without a record of it and without a VM",
		}
		marks[life] = startMark{phase: startIntended}
	}
	a.adopt(time.Now(), found, marks)
}

func (a *Agent) tellReady() {
	if a.cfg.Ready != nil {
		a.cfg.Ready()
	}
}

// raiseWorkers runs workers as they are made.
func (a *Agent) raiseWorkers(ctx context.Context, group *errgroup.Group) error {
	for {
		a.mu.Lock()
		newborn := a.newborn
		a.newborn = nil
		a.mu.Unlock()
		for _, w := range newborn {
			group.Go(func() error { return w.run(ctx) })
		}
		if !sleepUntil(ctx, time.Time{}, a.births) {
			return ctx.Err()
		}
	}
}

// wake makes the worker of a desktop look again, and makes one if there is none.
func (a *Agent) wake(uid string) { a.worker(uid).poke() }

// reassign is wake after an assignment changed.
func (a *Agent) reassign(uid string) { a.worker(uid).reassign() }

func (a *Agent) worker(uid string) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	w, ok := a.workers[uid]
	if !ok {
		w = &worker{agent: a, uid: uid, pokes: make(chan struct{}, 1), known: map[lifeKey]*progress{}}
		a.workers[uid] = w
		a.newborn = append(a.newborn, w)
		select {
		case a.births <- struct{}{}:
		default:
		}
	}
	return w
}

// retire ends a worker whose desktop has no lives here any more.
func (a *Agent) retire(w *worker) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.book.lives(w.uid)) > 0 {
		return false
	}
	delete(a.workers, w.uid)
	return true
}

// fetchNews wakes the desktops that wait for a base.
func (a *Agent) fetchNews(digest string) {
	for _, e := range a.book.all() {
		if e.assignment.GetIncarnation().GetDigest() == digest {
			a.wake(e.life.UID)
		}
	}
}

// frozen says why nothing is done; empty when all is well.
func (a *Agent) frozen() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.standstill
}

// freeze stops all acts until it is called with "".
func (a *Agent) freeze(reason string) {
	a.mu.Lock()
	changed := a.standstill != reason
	a.standstill = reason
	a.mu.Unlock()
	if !changed {
		return
	}
	a.book.signal()
	for _, e := range a.book.all() {
		a.wake(e.life.UID)
	}
}

// settleRefusals remembers which assignments were refused, until the desktop is named or dropped again; a complete set
// begins the list anew.
func (a *Agent) settleRefusals(o orders, names []string) {
	a.mu.Lock()
	if o.complete {
		a.refused = map[string]bool{}
	}
	for _, assignment := range o.set {
		delete(a.refused, cleanText(assignment.GetDesktop(), 63))
	}
	for _, name := range o.drop {
		delete(a.refused, cleanText(name, 63))
	}
	for _, name := range names {
		if len(a.refused) < 1000 {
			a.refused[cleanText(name, 63)] = true
		}
	}
	a.mu.Unlock()
	a.book.signal()
}

func (a *Agent) refusedNames() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var names []string
	for name := range a.refused {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (a *Agent) isAdopted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.adopted
}

func (a *Agent) setSession(up bool) {
	a.mu.Lock()
	a.inSession = up
	a.mu.Unlock()
	if up {
		a.ready.Do(a.tellReady)
	}
}

func (a *Agent) sessionUp() float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.inSession {
		return 1
	}
	return 0
}

func (a *Agent) capacity() *v1.HostCapacity {
	a.inventory.mu.Lock()
	defer a.inventory.mu.Unlock()
	var models []string
	for _, model := range a.cfg.Platform.SecurityModels[:min(len(a.cfg.Platform.SecurityModels), 8)] {
		models = append(models, cleanText(model, 64))
	}
	return &v1.HostCapacity{
		Cpus: uint32(a.hardware.CPUs), MemoryMib: a.hardware.MemoryMiB, StoreBytes: a.inventory.space.Size,
		MaxBoots: uint32(a.cfg.MaxBoots), Kvm: a.cfg.Platform.KVM, Emulation: a.cfg.Platform.Emulate,
		LibvirtVersion: cleanText(a.cfg.Platform.LibvirtVersion, 64), QemuVersion: cleanText(a.cfg.Platform.QEMUVersion, 64),
		SecurityModels: models, CpuModel: cleanText(a.hardware.CPUModel, 128),
	}
}
