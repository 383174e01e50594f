package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Explain says in a sentence why a desktop is on its host, or why it has none; "" when there is no such desktop.
func Explain(view *store.View, now time.Time, desktop string) string {
	d, ok := store.Lookup[*v1.Desktop](view, desktop)
	if !ok {
		return ""
	}
	if name := d.GetIncarnation().GetHost(); name != "" {
		return placed(view, now, d, name)
	}
	if !waits(d) {
		return "it has no host and wants none, since it is to be deleted"
	}
	n := needOf(view, d)
	chosen, why := open(view, d).choose(n)
	if chosen == nil {
		return why
	}
	next := fmt.Sprintf("it has no host yet; host %s fits and is next", chosen.Name())
	if shunned := chosen.shunned[n.attempt]; shunned != nil {
		next += ", though it " + shunned.text()
	}
	return next
}

// ExplainHost says in a sentence what a host has promised, and why it takes no desktops, or takes them last; "" when there is no such host.
func ExplainHost(view *store.View, now time.Time, name string) string {
	object, ok := store.Lookup[*v1.Host](view, name)
	if !ok {
		return ""
	}
	h := room.Account(view, object)
	how := "takes desktops"
	switch status, shunned := h.GetStatus(), recall(view, now).spells("")[name]; {
	case h.GetMeta().GetDeletion() != nil:
		how = "is being removed"
	case status.GetPhase() == v1.HostPhase_HOST_PHASE_DOWN:
		how = "is down: " + status.GetMessage()
	case status.GetPhase() == v1.HostPhase_HOST_PHASE_DEGRADED:
		how = "is degraded: " + status.GetMessage()
	case status.GetPhase() != v1.HostPhase_HOST_PHASE_UP:
		how = "has not been heard yet"
	case h.GetSpec().GetUnschedulable():
		how = "is drained"
	case h.Strangers:
		how = "takes no desktops, since it runs VMs that no desktop owns"
	case shunned != nil:
		how = shunned.text()
	}
	return fmt.Sprintf("host %s %s; it has promised %d of %d MiB memory, and %d of its lives are yet to get ready, at most %d at once", name, how,
		h.MemoryMiB-h.FreeMemoryMiB, h.MemoryMiB, h.Boots, h.MaxBoots)
}

// LastChoices says in a sentence each which of the hosts in a pool's zone are the last choice for its desktops, and why.
func LastChoices(view *store.View, now time.Time, pool *v1.Pool) (told []string) {
	r := recall(view, now)
	spells, known := r.spells(""), map[string]bool{}
	for _, d := range view.DesktopsOfPool(pool.GetMeta().GetName()) {
		if attempt := store.Attempt(d.GetIncarnation()); len(r.failures) > 0 && !known[attempt] {
			known[attempt] = true
			maps.Copy(spells, r.spells(attempt))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spells)) {
		if host, ok := store.Lookup[*v1.Host](view, name); ok && slices.Contains(host.GetStatus().GetZones(), pool.GetSpec().GetZone()) {
			told = append(told, "host "+name+" "+spells[name].text())
		}
	}
	return told
}

func placed(view *store.View, now time.Time, d *v1.Desktop, name string) string {
	object, ok := store.Lookup[*v1.Host](view, name)
	if !ok {
		return fmt.Sprintf("it was on host %s, which was removed", name)
	}
	if d.GetSpec().GetDataHost() == name {
		return fmt.Sprintf("it is on host %s because its data disk lies there", name)
	}
	h := room.Account(view, object)
	facts := []string{"has zone " + d.GetSpec().GetZone()}
	if !h.Zones[d.GetSpec().GetZone()] {
		facts[0] = "had zone " + d.GetSpec().GetZone() + " when it was chosen and has it no more"
	}
	if h.Images[d.GetIncarnation().GetDigest()] {
		facts = append(facts, "holds its image")
	}
	facts = append(facts,
		fmt.Sprintf("runs %d of the %d desktops of pool %s", h.OfPool[d.GetSpec().GetPool()],
			len(view.DesktopsOfPool(d.GetSpec().GetPool())), d.GetSpec().GetPool()),
		fmt.Sprintf("has promised %d of %d MiB memory", h.MemoryMiB-h.FreeMemoryMiB-h.BuildMiB, h.MemoryMiB))
	if h.BuildMiB > 0 {
		facts = append(facts, fmt.Sprintf("has builds that take %d MiB", h.BuildMiB))
	}
	if shunned := recall(view, now).spells(store.Attempt(d.GetIncarnation()))[name]; shunned != nil {
		facts = append(facts, shunned.text())
	}
	return fmt.Sprintf("it is on host %s, which %s", name, strings.Join(facts, ", "))
}
