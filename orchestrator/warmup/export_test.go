package warmup

import "time"

// Free are the least amounts of memory and vCPUs that a plan ever leaves free on each host.
func Free(now time.Time, in Input) (memory, vcpus map[string]int64) {
	p := newPlanner(now, in, false, map[Boot]Estimate{})
	p.plan()
	memory, vcpus = map[string]int64{}, map[string]int64{}
	for _, h := range p.hosts {
		m, v := h.memory, h.vcpus
		memory[h.Name], vcpus[h.Name] = m, v
		for _, each := range h.promises {
			m, v = m+each.memory, v+each.vcpus
			memory[h.Name], vcpus[h.Name] = min(memory[h.Name], m), min(vcpus[h.Name], v)
		}
	}
	return memory, vcpus
}
