package placement

import (
	"fmt"
	"strings"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Explain says in a sentence why a desktop is on its host, or why it has none; "" when there is no such desktop.
func Explain(view *store.View, desktop string) string {
	d, ok := store.Lookup[*v1.Desktop](view, desktop)
	if !ok {
		return ""
	}
	if name := d.GetIncarnation().GetHost(); name != "" {
		return placed(view, d, name)
	}
	if !waits(d) {
		return "it has no host and wants none, since it is to be deleted"
	}
	chosen, why := open(view, d).choose(needOf(view, d))
	if chosen == nil {
		return why
	}
	return fmt.Sprintf("it has no host yet; host %s fits and is next", chosen.Name())
}

func placed(view *store.View, d *v1.Desktop, name string) string {
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
	return fmt.Sprintf("it is on host %s, which %s", name, strings.Join(facts, ", "))
}
