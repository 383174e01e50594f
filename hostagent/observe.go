package hostagent

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// Times between looks at the host: usually, when somebody waits for one, and between looks for overlays and leftovers.
const (
	lookPeriod  = 10 * time.Second
	hurryPeriod = time.Second
	sweepPeriod = time.Hour
)

// observer looks at the host again and again: VMs, bases, data disks, room, load.
type observer struct {
	agent *Agent
	wake  chan struct{}
}

// hurry asks for a list soon.
func (o *observer) hurry() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *observer) run(ctx context.Context) error {
	for {
		began, before := time.Now(), o.agent.running(nil)
		o.look(ctx)
		o.agent.takeStock(ctx)
		if o.agent.running(nil) != before {
			o.agent.book.signal() // no state tells of it: QEMU came or went
		}
		// What runs or was freed may have changed without a word of ours.
		o.agent.governor.nudge()
		// However many wait, lists are not asked for in a rush; each needs two, some time apart.
		if !sleepUntil(ctx, time.Now().Add(hurryPeriod), nil) {
			return ctx.Err()
		}
		if !sleepUntil(ctx, began.Add(lookPeriod), o.wake) {
			return ctx.Err()
		}
	}
}

// hear turns hints into a look.
func (o *observer) hear(ctx context.Context, hints <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-hints:
			o.hurry()
		}
	}
}

// look takes one list in and tells the workers whom it concerns.
func (o *observer) look(ctx context.Context) {
	a := o.agent
	number := a.view.begin()
	domains, err := a.hypervisor.Domains(ctx)
	now := time.Now()
	if err != nil {
		if was, _ := a.view.trouble(); was == "" && ctx.Err() == nil {
			a.log.Error().Err(err).Msg("hypervisor does not list its domains")
		}
		a.view.fail(now, err)
		return
	}
	touched := a.view.take(number, domains)
	found, marks := map[Life]*v1.DesktopStatus{}, map[Life]startMark{}
	for _, domain := range domains {
		found[domain.Life] = &v1.DesktopStatus{
			Generation: domain.Generation, State: v1.DesktopState_DESKTOP_STATE_STARTING, Message: "found running",
		}
		marks[domain.Life] = startMark{phase: startConfirmed, bootID: a.bootID}
	}
	a.adopt(now, found, marks)
	for uid := range touched {
		a.wake(uid)
	}
}

// adopt takes lives in that nobody told this agent of.
func (a *Agent) adopt(now time.Time, found map[Life]*v1.DesktopStatus, marks map[Life]startMark) {
	touched, err := a.book.adopt(now, found, marks)
	if err != nil {
		a.log.Error().Err(err).Msg("lives found on the host not kept; it will be tried again")
	}
	for uid := range touched {
		a.log.Warn().Str("uid", uid).Msg("found on the host without a record of it: an orphan")
		a.wake(uid)
	}
}

// inventory is what the host has beside VMs, as last seen.
type inventory struct {
	mu       sync.Mutex
	bases    []string
	data     []*v1.KeptDisk
	dataUIDs map[string]bool
	space    Space
	load     Load
	fault    string
}

func (i *inventory) hasData(uid string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.dataUIDs[uid]
}

// takeStock looks at the store and the load.
func (a *Agent) takeStock(ctx context.Context) {
	bases, err := a.disks.Bases(ctx)
	var data []*v1.KeptDisk
	if err == nil {
		data, err = a.disks.DataDisks(ctx)
	}
	var space Space
	if err == nil {
		space, err = a.disks.Space(ctx)
	}
	load, loadErr := a.meter.Load()
	if loadErr != nil {
		a.log.Warn().Err(loadErr).Msg("load of the host not read")
	}
	a.inventory.mu.Lock()
	defer a.inventory.mu.Unlock()
	a.inventory.load = load
	if err != nil {
		if a.inventory.fault == "" && ctx.Err() == nil {
			a.log.Error().Err(err).Msg("store cannot be read")
		}
		a.inventory.fault = err.Error()
		return
	}
	slices.Sort(bases)
	a.fetcher.found(bases)
	slices.SortFunc(data, func(a, b *v1.KeptDisk) int { return cmp.Compare(a.GetDesktopUid(), b.GetDesktopUid()) })
	if a.inventory.fault != "" || !slices.Equal(bases, a.inventory.bases) || !slices.EqualFunc(data, a.inventory.data, sameDisk) {
		a.book.signal()
	}
	a.inventory.bases, a.inventory.data, a.inventory.space, a.inventory.fault = bases, data, space, ""
	a.inventory.dataUIDs = map[string]bool{}
	for _, disk := range data {
		a.inventory.dataUIDs[disk.GetDesktopUid()] = true
	}
}

func sameDisk(a, b *v1.KeptDisk) bool { return a.GetDesktopUid() == b.GetDesktopUid() }

// sweep removes leftovers for as long as the agent runs.
func (a *Agent) sweep(ctx context.Context) error {
	for {
		if a.frozen() == "" {
			if err := a.disks.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
				a.log.Warn().Err(err).Msg("leftovers in the store not removed; it will be tried again")
			}
			if err := a.clearBases(ctx); err != nil && ctx.Err() == nil {
				a.log.Warn().Err(err).Msg("images that nothing needs not removed; it will be tried again")
			}
		}
		if !sleepUntil(ctx, time.Now().Add(sweepPeriod), nil) {
			return ctx.Err()
		}
	}
}
