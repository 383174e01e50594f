package fakehost

import "daybreak/hostagent"

// PowerLoss ends every VM at once and begins another boot. Disks that are not durable are gone.
func (h *Host) PowerLoss() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boots++
	h.domains = map[key]*domain{}
	for k, o := range h.overlays {
		if o.volatile {
			delete(h.overlays, k)
		}
	}
}

// Kill ends the QEMU of a life as a crash would; false when it does not run.
func (h *Host) Kill(life hostagent.Life) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, ok := h.domains[keyOf(life)]
	delete(h.domains, keyOf(life))
	return ok
}

// SetState makes a life's VM be in another state: paused, or gone and still listed.
func (h *Host) SetState(life hostagent.Life, state hostagent.DomainState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.domains[keyOf(life)]; ok {
		d.state = state
	}
}

// EmptyLists makes the next n lists of domains come back empty and without an error.
func (h *Host) EmptyLists(n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.empty = n
}

// SetFull fills the store or empties it again. A full one takes no new disk, and a guest that writes much stands still
// until there is room.
func (h *Host) SetFull(full bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.full = full
	for _, d := range h.domains {
		if !full && d.state == hostagent.DomainPausedIO {
			d.state = hostagent.DomainRunning
		}
	}
}

// SetDown takes the hypervisor's daemon away, or brings it back. VMs run on.
func (h *Host) SetDown(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

// SetHung makes the hypervisor's daemon stop answering, or go on. VMs run on.
func (h *Host) SetHung(hung bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hung = hung
}

// SetVolatile says whether a life's overlay is lost with the power, as one whose name was not synced.
func (h *Host) SetVolatile(life hostagent.Life, volatile bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o, ok := h.overlays[keyOf(life)]; ok {
		o.volatile = volatile
	}
}

// AddBase puts a verified base on the host, as if it had been fetched.
func (h *Host) AddBase(digest string, bytes uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bases[digest] = bytes
}
