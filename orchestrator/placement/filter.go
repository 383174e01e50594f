package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"daybreak/orchestrator/room"
	v1 "daybreak/proto/daybreak/v1"
)

// filter is one condition that a host must meet. The first that is not met ends the check, so that each host is counted
// once in the explanation: cheap and telling ones come first.
type filter struct {
	// meets tells whether the host will do.
	meets func(h *host, n need) bool
	// free is how much of what the filter is about the host has; nil when it is not about an amount.
	free func(h *host, n need) int64
	// explain says that so many hosts will not do; most is the largest amount that one of them has free.
	explain func(n need, hosts int, most int64) string
	// always: even a life that only removes a data disk needs it.
	always bool
}

// filters in the order in which they are tried.
var filters = []filter{
	{
		always: true,
		meets:  func(h *host, n need) bool { return n.DataHost == "" || h.Name() == n.DataHost },
		explain: func(n need, hosts int, _ int64) string {
			return has(hosts, "does not hold its data disk", "do not hold its data disk")
		},
	},
	{
		meets:   func(h *host, n need) bool { return n.named || !h.GetSpec().GetUnschedulable() },
		explain: func(_ need, hosts int, _ int64) string { return has(hosts, "is unschedulable", "are unschedulable") },
	},
	{
		always:  true,
		meets:   func(h *host, _ need) bool { return h.GetMeta().GetDeletion() == nil },
		explain: func(_ need, hosts int, _ int64) string { return has(hosts, "is being removed", "are being removed") },
	},
	{
		meets:   func(h *host, _ need) bool { return h.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_UP },
		explain: func(_ need, hosts int, _ int64) string { return has(hosts, "is not up", "are not up") },
	},
	{
		// What they take is not known, so nothing can be promised beside them.
		meets: func(h *host, _ need) bool { return !h.Strangers },
		explain: func(_ need, hosts int, _ int64) string {
			return has(hosts, "runs VMs that no desktop owns", "run VMs that no desktop owns")
		},
	},
	{
		meets: func(h *host, n need) bool { return n.Zone == "" || h.Zones[n.Zone] },
		explain: func(n need, hosts int, _ int64) string {
			return has(hosts, "has no zone "+n.Zone, "have no zone "+n.Zone)
		},
	},
	{
		meets: func(h *host, _ need) bool {
			return h.GetStatus().GetCapacity().GetKvm() || h.GetStatus().GetCapacity().GetEmulation()
		},
		explain: func(_ need, hosts int, _ int64) string {
			return has(hosts, "has no working KVM", "have no working KVM")
		},
	},
	{
		meets: func(h *host, n need) bool { return h.vcpusFor(n) >= int64(n.VCPUs) },
		free:  (*host).vcpusFor,
		explain: func(n need, hosts int, most int64) string {
			return lacks(hosts, "CPUs", fmt.Sprintf("needs %d vCPUs", n.VCPUs), most)
		},
	},
	{
		meets: func(h *host, n need) bool { return h.memoryFor(n) >= int64(n.MemoryMiB) },
		free:  (*host).memoryFor,
		explain: func(n need, hosts int, most int64) string {
			return lacks(hosts, "memory", fmt.Sprintf("needs %d MiB", n.MemoryMiB), most)
		},
	},
	{
		meets: func(h *host, n need) bool { return h.SaidMiB >= h.ToMake(n.Need) && h.ReservableMiB >= n.ToReserve() },
		free:  func(h *host, _ need) int64 { return min(h.SaidMiB, h.ReservableMiB) / 256 * 256 }, // coarse, so that the sentence stays the same for a while
		explain: func(n need, hosts int, most int64) string {
			needs := fmt.Sprintf("needs %d MiB", n.ToReserve())
			if n.BaseMiB > 0 {
				needs += fmt.Sprintf(" and %d for its image where that is not yet", n.BaseMiB)
			}
			return lacks(hosts, "store space", needs, most)
		},
	},
}

// vcpusFor and memoryFor are what the host has for a life: one that is cold is promised none, but it must be able to run.
func (h *host) vcpusFor(n need) int64 {
	if n.Phase == room.Runs {
		return h.FreeVCPUs
	}
	return h.VCPUs
}

func (h *host) memoryFor(n need) int64 {
	if n.Phase == room.Runs {
		return h.FreeMemoryMiB
	}
	return h.MemoryMiB
}

// refusal counts the hosts that failed one filter.
type refusal struct {
	hosts int
	most  int64
}

// refused tells whether a filter keeps the host out, and counts it there.
func refused(h *host, n need, refusals []refusal) bool {
	for i, f := range filters {
		if n.cleanup && !f.always || f.meets(h, n) {
			continue
		}
		if f.free != nil {
			free := max(0, f.free(h, n))
			if refusals[i].hosts == 0 || free > refusals[i].most {
				refusals[i].most = free
			}
		}
		refusals[i].hosts++
		return true
	}
	return false
}

// sentence explains why none of the hosts fits, the commonest reason first.
func sentence(n need, hosts int, refusals []refusal) string {
	if hosts == 0 {
		return "no host fits: there is none, enrol one first"
	}
	if n.DataHost != "" && refusals[0].hosts == hosts {
		return fmt.Sprintf("no host fits: its data disk is on host %s, which is not known: enrol that host again, or delete the desktop with its data",
			n.DataHost)
	}
	if n.DataHost != "" {
		refusals[0].hosts = 0 // that the others do not hold the disk is no news
	}
	order := make([]int, len(refusals))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(refusals[b].hosts, refusals[a].hosts) })
	var parts []string
	for _, i := range order {
		if refusals[i].hosts > 0 {
			parts = append(parts, filters[i].explain(n, refusals[i].hosts, refusals[i].most))
		}
	}
	if n.DataHost != "" {
		return fmt.Sprintf("its data disk is on host %s, and %s", n.DataHost, strings.Join(parts, ", "))
	}
	return "no host fits: " + strings.Join(parts, ", ")
}

func has(n int, one, many string) string {
	if n == 1 {
		return "1 host " + one
	}
	return fmt.Sprintf("%d hosts %s", n, many)
}

func lacks(n int, what, needs string, most int64) string {
	if n == 1 {
		return fmt.Sprintf("1 host lacks %s (%s, %d free)", what, needs, most)
	}
	return fmt.Sprintf("%d hosts lack %s (%s, at most %d free)", n, what, needs, most)
}
