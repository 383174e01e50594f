package hostagent

import (
	"sync"
	"time"
)

// view is what the hypervisor's lists say. A list is believed for what it shows; what it lacks is looked for by name
// when the next one lacks it too, and only then believed to be gone.
type view struct {
	mu sync.Mutex
	// begun numbers the lists by when they were asked for.
	begun uint64
	// last and before are the two newest lists that came.
	last, before listing
	// fault of the newest attempt, empty when it came; since says since when.
	fault string
	since time.Time
	// listeners are desktops whose worker waits for the next list.
	listeners map[string]bool
}

type listing struct {
	number  uint64
	domains map[lifeKey]Domain
}

func newView() *view { return &view{listeners: map[string]bool{}} }

// begin numbers a list that is being asked for.
func (v *view) begin() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.begun++
	return v.begun
}

// mark returns the number of the newest list begun: later ones have seen what was done before the call.
func (v *view) mark() uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.begun
}

// fail remembers that a list did not come.
func (v *view) fail(now time.Time, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fault == "" {
		v.since = now
	}
	v.fault = err.Error()
}

// take takes a list in. It returns the desktops for which something changed, or whose worker waited for it.
func (v *view) take(number uint64, domains []Domain) map[string]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = ""
	next := listing{number: number, domains: make(map[lifeKey]Domain, len(domains))}
	touched := v.listeners
	v.listeners = map[string]bool{}
	for _, domain := range domains {
		key := keyOf(domain.Life)
		next.domains[key] = domain
		if old, ok := v.last.domains[key]; !ok || old.State != domain.State {
			touched[key.uid] = true
		}
	}
	for key := range v.last.domains {
		if _, ok := next.domains[key]; !ok {
			touched[key.uid] = true
		}
	}
	v.before, v.last = v.last, next
	return touched
}

// look says whether a life's VM exists, by lists begun after the one with the given number.
func (v *view) look(key lifeKey, after uint64) (presence, DomainState) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.last.number == 0 || v.last.number <= after {
		return presenceUnknown, DomainUnknown
	}
	now, listed := v.last.domains[key]
	if listed && now.State != DomainGone {
		return presentNow, now.State
	}
	was, wasListed := v.before.domains[key]
	switch {
	case v.before.number == 0 || v.before.number <= after || wasListed && was.State != DomainGone:
		return presenceUnknown, DomainUnknown
	case listed && wasListed:
		return presenceAbsent, DomainGone // the lists do not lack it: they say, twice, that QEMU has ended
	}
	return presenceMissing, DomainUnknown
}

// listen lets take name the desktop next time.
func (v *view) listen(uid string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.listeners[uid] = true
}

// trouble says why the newest list did not come, and since when none came; empty when it did.
func (v *view) trouble() (string, time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fault, v.since
}

// memory is what the VMs of the newest list were given, MiB; 0 where that is not known.
func (v *view) memory() map[lifeKey]uint64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	given := map[lifeKey]uint64{}
	for key, domain := range v.last.domains {
		if domain.State != DomainGone {
			given[key] = domain.MemoryMiB
		}
	}
	return given
}
