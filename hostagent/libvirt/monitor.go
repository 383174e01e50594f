package libvirt

import (
	"context"
	"fmt"

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
}

var _ qmp.Monitor = (*monitor)(nil)

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

// connected is a monitor on a connection that the caller has to itself.
type connected struct {
	monitor
	d *lv.Domain
}

// Run runs one command and returns QEMU's answer.
func (m *connected) Run(command []byte) ([]byte, error) {
	text, err := m.d.QemuMonitorCommand(string(command), lv.DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT)
	return []byte(text), err
}

// Events is not there: libvirt itself tells what happens to VMs, and Host.Hints passes that on.
func (m *monitor) Events(context.Context) (<-chan qmp.Event, error) {
	return nil, fmt.Errorf("listen to QEMU of %s: use the hints of its host: %w", m.life.Desktop, qmp.ErrEventsNotSupported)
}
