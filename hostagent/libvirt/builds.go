package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
	"daybreak/hostagent/build"
)

// A build's guest works hard while it is asked, and nobody's morning hangs on it: it is given more time than a desktop's.
const (
	buildAgentSeconds = 30
	buildTimeout      = (buildAgentSeconds + 15) * time.Second
	// endTimeout is how long the word of how a VM ended may come after the VM is gone.
	endTimeout = 10 * time.Second
	endEvery   = 250 * time.Millisecond
)

var (
	_ build.Hypervisor = (*Host)(nil)
	_ build.Guest      = (*Host)(nil)
)

// Builds lists the VMs of builds: those whose metadata says so.
func (h *Host) Builds(ctx context.Context) ([]hostagent.Domain, error) {
	return h.list(ctx, true)
}

// PowerOff asks a build's guest to power off, by its agent and by the power button, and returns nil once it has done so
// itself. When QEMU ended in another way, or nobody knows how, that is an error: the disk may not be what the guest meant.
func (h *Host) PowerOff(ctx context.Context, life hostagent.Life) error {
	vm, err := h.findBuild(ctx, life)
	if err != nil {
		return fmt.Errorf("power off VM of %s: %w", life.Desktop, err)
	}
	// A guest that is on its way has no ear for a second word.
	if err := h.Shutdown(ctx, life); err != nil && !errors.Is(err, hostagent.ErrNotFound) && !errors.Is(err, hostagent.ErrTimeout) {
		return err
	}
	for {
		_, err := h.findBuild(ctx, life)
		if errors.Is(err, hostagent.ErrNotFound) {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("power off VM of %s: the guest does not power off: %w", life.Desktop, ctx.Err())
		case <-time.After(endEvery):
		}
	}
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err := h.ends.await(ctx, vm.VMUUID); err != nil {
		return fmt.Errorf("power off VM of %s: %w", life.Desktop, err)
	}
	return nil
}

func (h *Host) findBuild(ctx context.Context, life hostagent.Life) (hostagent.Domain, error) {
	all, err := h.Builds(ctx)
	if err != nil {
		return hostagent.Domain{}, err
	}
	for _, d := range all {
		if d.Life == life && d.State != hostagent.DomainGone {
			return d, nil
		}
	}
	return hostagent.Domain{}, fmt.Errorf("VM of the build of %s: %w", life.Desktop, hostagent.ErrNotFound)
}

// ends remembers how the VMs of builds ended, which libvirt tells but once, in an event.
type ends struct {
	mu sync.Mutex
	// byUUID holds the VMs that were started. Guarded by mu.
	byUUID map[string]*end
}

type end struct {
	begun time.Time
	// poweredOff: the guest's own doing. Guarded by the ends' mu.
	poweredOff bool
	stopped    chan struct{} // closed when QEMU has ended
	closed     bool
}

// maxEnds bounds the memory of VMs that nobody asked about any more; there are a few at a time.
const maxEnds = 64

func newEnds() *ends {
	return &ends{byUUID: map[string]*end{}}
}

// expect makes room for how a VM ends. One that is expected already stays.
func (e *ends) expect(uuid string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byUUID[uuid] != nil {
		return
	}
	if len(e.byUUID) >= maxEnds {
		oldest := ""
		for id, have := range e.byUUID {
			if oldest == "" || have.begun.Before(e.byUUID[oldest].begun) {
				oldest = id
			}
		}
		delete(e.byUUID, oldest)
	}
	e.byUUID[uuid] = &end{begun: time.Now(), stopped: make(chan struct{})}
}

// hear takes in what libvirt says of any VM.
func (e *ends) hear(d *lv.Domain, event *lv.DomainEventLifecycle) {
	if d == nil || event == nil {
		return
	}
	uuid, err := d.GetUUIDString() // a word of the client library, no call
	if err != nil {
		return
	}
	e.note(uuid, event.Event, event.Detail)
}

func (e *ends) note(uuid string, event lv.DomainEventType, detail int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	vm := e.byUUID[uuid]
	if vm == nil {
		return
	}
	switch event {
	case lv.DOMAIN_EVENT_SHUTDOWN:
		vm.poweredOff = lv.DomainEventShutdownDetailType(detail) != lv.DOMAIN_EVENT_SHUTDOWN_HOST
	case lv.DOMAIN_EVENT_STOPPED:
		vm.poweredOff = vm.poweredOff && lv.DomainEventStoppedDetailType(detail) == lv.DOMAIN_EVENT_STOPPED_SHUTDOWN
		if !vm.closed {
			vm.closed = true
			close(vm.stopped)
		}
	}
}

// await returns nil when a VM that is gone had powered itself off, and forgets it.
func (e *ends) await(ctx context.Context, uuid string) error {
	e.mu.Lock()
	vm := e.byUUID[uuid]
	e.mu.Unlock()
	if vm == nil {
		return errors.New("nobody knows how the VM ended")
	}
	select {
	case <-vm.stopped:
	case <-ctx.Done():
		return errors.New("nobody knows how the VM ended: libvirt did not say")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byUUID, uuid)
	if !vm.poweredOff {
		return errors.New("the VM ended, and not because its guest had powered off")
	}
	return nil
}
