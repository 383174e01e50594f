//go:build e2e

package libvirt

import (
	"github.com/digitalocean/go-qemu/qmp"

	"daybreak/hostagent"
)

// Monitor returns a VM's monitor, for the tests on real VMs.
func (h *Host) Monitor(life hostagent.Life) qmp.Monitor {
	return &monitor{h: h, life: life}
}

// Config returns what the host was opened with.
func (h *Host) Config() Config { return h.cfg }
