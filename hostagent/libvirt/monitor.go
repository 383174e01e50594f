package libvirt

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/digitalocean/go-qemu/qmp"
	lv "libvirt.org/go/libvirt"

	"daybreak/hostagent"
)

// monitor is go-qemu's way to a QEMU's monitor, through libvirt's connection: libvirt owns the monitor's socket, which
// takes one client. It marks the domain as tainted, so it is only for what libvirt has no call for.
//
// go-qemu's own monitor for sockets is not used: it hands out memory that the next event overwrites.
type monitor struct {
	h    *Host
	life hostagent.Life
	// dropped counts events that nobody took in time.
	dropped atomic.Uint64
}

var _ qmp.Monitor = (*monitor)(nil)

// eventBuffer is how many events wait for a reader; a guest can cause many.
const eventBuffer = 64

// Connect does nothing: libvirt is connected.
func (m *monitor) Connect() error { return nil }

// Disconnect does nothing.
func (m *monitor) Disconnect() error { return nil }

// Run runs one command and returns QEMU's answer. It ends by the deadline of a word with a guest: QEMU may hang.
func (m *monitor) Run(command []byte) ([]byte, error) {
	answer := make(chan string, 1)
	what := "ask QEMU of " + m.life.Desktop
	err := m.h.guests.do(context.Background(), m.h.cfg.GuestTimeout, "monitor "+m.life.UID, what, func(c *lv.Connect) error {
		d, err := find(c, m.life)
		if err != nil {
			return err
		}
		defer free(d)
		text, err := d.QemuMonitorCommand(string(command), lv.DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		answer <- text
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []byte(<-answer), nil
}

// Events delivers the VM's events until ctx ends. What is not taken in time is dropped and counted.
func (m *monitor) Events(ctx context.Context) (<-chan qmp.Event, error) {
	events := make(chan qmp.Event, eventBuffer)
	id := make(chan int, 1)
	what := "listen to QEMU of " + m.life.Desktop
	err := m.h.lists.do(ctx, m.h.cfg.ListTimeout, "", what, func(c *lv.Connect) error {
		d, err := find(c, m.life)
		if err != nil {
			return err
		}
		defer free(d)
		// An empty name would be that of one event.
		n, err := c.DomainQemuMonitorEventRegister(d, ".*", func(_ *lv.Connect, _ *lv.Domain, e *lv.DomainQemuMonitorEvent) {
			m.deliver(events, e)
		}, lv.CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX)
		id <- n
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	// The registration ends with the connection at the latest. The channel is left open: an event may be on its way.
	context.AfterFunc(ctx, func() {
		_ = m.h.lists.do(context.Background(), m.h.cfg.ListTimeout, "", what, func(c *lv.Connect) error {
			return c.DomainQemuEventDeregister(<-id)
		})
	})
	return events, nil
}

func (m *monitor) deliver(events chan<- qmp.Event, e *lv.DomainQemuMonitorEvent) {
	event := qmp.Event{Event: e.Event}
	event.Timestamp.Seconds, event.Timestamp.Microseconds = e.Seconds, int64(e.Micros)
	if e.Details != "" && len(e.Details) <= maxAnswer {
		if err := json.Unmarshal([]byte(e.Details), &event.Data); err != nil {
			m.dropped.Add(1)
			return
		}
	}
	select {
	case events <- event:
	default:
		m.dropped.Add(1)
	}
}
