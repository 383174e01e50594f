package placement

import (
	"slices"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// ledger is what each host has and has promised, desktops on their way and those of the plan at hand included.
type ledger struct {
	hosts []*host // sorted by name
}

// host is one host in the ledger.
type host struct {
	*room.Host
	shunned map[string]*spell // by attempt: the last choice for lives that try that, since lives fail to get ready there
}

// need is what one life asks of a host.
type need struct {
	room.Need
	attempt string // what the life tries, see store.Attempt; empty for a build
	cleanup bool   // only removes a data disk: needs nothing but its host
	named   bool   // a person named the host: that it is kept from desktops does not matter
}

// open makes the ledger of all hosts for desktops that wait for one.
func open(view *store.View, waiting ...*v1.Desktop) *ledger {
	l := &ledger{}
	for _, h := range room.Of(view) {
		l.hosts = append(l.hosts, &host{Host: h})
	}
	l.shun(view, waiting)
	return l
}

// choose returns the best host that passes every filter, or nil and the sentence that says why none does.
func (l *ledger) choose(n need) (*host, string) {
	refusals := make([]refusal, len(filters))
	var fitting []*host
	for _, h := range l.hosts {
		if !refused(h, n, refusals) {
			fitting = append(fitting, h)
		}
	}
	if len(fitting) == 0 {
		return nil, sentence(n, len(l.hosts), refusals)
	}
	best := slices.MaxFunc(fitting, func(a, b *host) int {
		switch x, y := score(a, n), score(b, n); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0 // MaxFunc keeps the first, and hosts are sorted by name
	})
	return best, ""
}
