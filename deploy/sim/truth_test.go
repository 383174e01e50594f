package sim

import (
	"strings"
	"sync"
	"time"

	"daybreak/hostagent"
	v1 "daybreak/proto/daybreak/v1"
)

// truth is what really happened on the machines, seen from outside: which VMs came to be and why they went. It holds
// each act against the invariants when it is done, and all machines every minute.
type truth struct {
	sim *sim

	mu       sync.Mutex
	machines map[hostagent.Life]hostagent.Machine
	since    map[hostagent.Life]time.Time
	// watched are those of machines that are not known to have ended.
	watched map[hostagent.Life]bool
	// dead are the lives whose VM a fault ended, stops those that the product did.
	dead  map[hostagent.Life]bool
	stops map[hostagent.Life]bool
	// present is since when the user of a life is at their desktop, zero when they are not; nobody knows of lives that are not in it.
	present map[hostagent.Life]time.Time
	sleeps  int
}

func newTruth(s *sim) *truth {
	return &truth{
		sim: s, machines: map[hostagent.Life]hostagent.Machine{}, since: map[hostagent.Life]time.Time{}, watched: map[hostagent.Life]bool{},
		dead: map[hostagent.Life]bool{}, stops: map[hostagent.Life]bool{}, present: map[hostagent.Life]time.Time{},
	}
}

func keyOf(life hostagent.Life) lifeKey { return lifeKey{life.UID, life.Generation} }

// killed notes that a fault ended a VM.
func (t *truth) killed(life hostagent.Life) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead[life] = true
}

func runs(n *node, life hostagent.Life) bool {
	for _, other := range n.host.Running() {
		if other == life {
			return true
		}
	}
	return false
}

// started looks at a VM that an agent asked for, if it came to be.
func (t *truth) started(n *node, m hostagent.Machine) {
	if !runs(n, m.Life) {
		return
	}
	t.mu.Lock()
	_, known := t.machines[m.Life]
	t.machines[m.Life], t.watched[m.Life] = m, true
	again := known && (t.dead[m.Life] || t.stops[m.Life])
	if !known || again {
		t.since[m.Life] = time.Now()
		delete(t.dead, m.Life)
		delete(t.stops, m.Life)
	}
	t.mu.Unlock()
	// One that died before anybody saw it run may be tried again.
	if again && !n.forgot && t.sim.history.wasReady(keyOf(m.Life)) {
		t.sim.problem("3", "%s generation %d was READY, ended, and was started again on %s", m.Desktop, m.Generation, n.name)
	}
	for _, other := range t.sim.nodes {
		for _, life := range other.host.Running() {
			if life.UID == m.UID && (other != n || life != m.Life) {
				t.sim.problem("1", "%s runs as generation %d on %s and as %d on %s", m.Desktop, m.Generation, n.name, life.Generation, other.name)
			}
		}
	}
	pool := poolOf(m.Desktop)
	if zone := t.sim.zoneOf[pool]; m.Bridge != bridgeOf(zone) {
		t.sim.problem("8", "%s of zone %s has its NIC on %q", m.Desktop, zone, m.Bridge)
	}
	if digest := strings.TrimPrefix(m.Base.Raw, "/fake/bases/"); !t.sim.history.wasPublished(digest) {
		t.sim.problem("5", "%s runs %s, which was never published", m.Desktop, digest)
	}
}

func poolOf(desktop string) string { return desktop[:strings.LastIndexByte(desktop, '-')] }

func (h *history) wasPublished(digest string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.published[digest]
}

// stopped looks at an order to end a VM.
func (t *truth) stopped(n *node, life hostagent.Life, how string) {
	if user := t.sim.history.claimed(keyOf(life), life.Desktop); user != "" {
		t.sim.problem("4", "%s generation %d is %s on %s while %s works on it", life.Desktop, life.Generation, how, n.name, user)
	}
	idle := t.sim.history.endsIdle(keyOf(life), life.Desktop)
	t.mu.Lock()
	defer t.mu.Unlock()
	if idle && !t.stops[life] {
		t.spares(n, life, how)
	}
	t.stops[life] = true
}

// trashed looks at an order to throw an overlay away.
func (t *truth) trashed(n *node, life hostagent.Life) {
	if user := t.sim.history.claimed(keyOf(life), life.Desktop); user != "" {
		t.sim.problem("4", "the disk of %s generation %d is thrown away on %s while %s holds it", life.Desktop, life.Generation, n.name, user)
	}
	if runs(n, life) {
		t.sim.problem("4", "the disk of %s generation %d is thrown away on %s while its VM runs", life.Desktop, life.Generation, n.name)
	}
}

// dataTrashed looks at an order to throw a data disk away: nobody ever asks for that here.
func (t *truth) dataTrashed(n *node, uid string) {
	t.sim.problem("4", "the data disk of desktop %s is thrown away on %s, and nobody asked for it", uid, n.name)
}

// look holds all machines against the invariants at one instant.
func (t *truth) look() {
	where := map[string]string{}
	running := map[hostagent.Life]bool{}
	for _, n := range t.sim.nodes {
		memory, booting := uint32(0), 0
		for _, life := range n.host.Running() {
			running[life] = true
			if other, ok := where[life.UID]; ok {
				t.sim.problem("1", "%s runs on %s and on %s", life.Desktop, other, n.name)
			}
			where[life.UID] = n.name
			t.mu.Lock()
			memory += t.machines[life].MemoryMiB
			if t.boots(n, life) {
				booting++
			}
			t.mu.Unlock()
		}
		if memory > hostMemory {
			t.sim.problem("6", "VMs on %s have %d MiB together, the host has %d", n.name, memory, hostMemory)
		}
		if booting > maxBoots {
			t.sim.problem("6", "%d VMs boot at once on %s, %d may", booting, n.name, maxBoots)
		}
		for _, wrong := range n.host.Wrongs() {
			t.sim.problem("1", "%s: %s", n.name, wrong)
		}
	}
	t.lookAtVanished(running)
	t.lookAtPromises()
}

// boots says whether a VM still boots: it was not told to stop and its time to get ready is not over. The caller holds mu.
func (t *truth) boots(n *node, life hostagent.Life) bool {
	return !t.stops[life] && time.Since(t.since[life]) < bootDeadline && !n.answers(life, t.since[life])
}

// lookAtVanished: a VM that came to be runs until it is told to stop, or a fault ends it.
func (t *truth) lookAtVanished(running map[hostagent.Life]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for life := range t.watched {
		if running[life] {
			continue
		}
		if !t.dead[life] && !t.stops[life] {
			t.sim.problem("10", "the VM of %s generation %d is gone and nobody ended it", life.Desktop, life.Generation)
			t.dead[life] = true
		}
		delete(t.watched, life)
	}
}

// lookAtPromises adds up what the store promises of each host.
func (t *truth) lookAtPromises() {
	h := t.sim.history
	h.mu.Lock()
	defer h.mu.Unlock()
	memory, vcpus := map[string]uint32{}, map[string]uint32{}
	for _, d := range h.desktops {
		in := d.GetIncarnation()
		ended := d.GetStatus().GetGeneration() == in.GetGeneration() && d.GetStatus().GetState() == v1.DesktopState_DESKTOP_STATE_DELETED
		// It takes nothing until it is told to start, nothing when it was told never to, and nothing while it sleeps and may.
		cold := in.GetDesired() == v1.DesiredState_DESIRED_STATE_PREPARED || in.GetStartAt().AsTime().Year() == 9999 ||
			in.GetDesired() == v1.DesiredState_DESIRED_STATE_SUSPENDED && d.GetStatus().GetState() == v1.DesktopState_DESKTOP_STATE_SUSPENDED
		if in.GetHost() != "" && h.hosts[in.GetHost()] != nil && !ended && !cold {
			memory[in.GetHost()] += in.GetShape().GetMemoryMib()
			vcpus[in.GetHost()] += in.GetShape().GetVcpus()
		}
	}
	for host, promised := range memory {
		if promised > hostMemory-hostMemory/16 {
			t.sim.problem("6", "%d MiB are promised on %s, %d can be", promised, host, hostMemory-hostMemory/16)
		}
		if vcpus[host] > uint32(4*t.sim.cpus) {
			t.sim.problem("6", "%d vCPUs are promised on %s, %d can be", vcpus[host], host, 4*t.sim.cpus)
		}
	}
}
