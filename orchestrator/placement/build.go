package placement

import (
	"fmt"
	"strings"

	"daybreak/orchestrator/room"
	"daybreak/orchestrator/store"
)

// weightHeld is what it is worth to a build that a host has its base: to fetch one takes longer than the build may.
const weightHeld = 3.0

// Build is what the VM of a build asks of a host. It is no desktop: nothing is promised to it, and it is gone soon.
type Build struct {
	// Host is the only one that will do; empty: any.
	Host string
	// Not are hosts that will not do, whatever they have: they said so.
	Not map[string]bool
	// Zone of its one NIC; empty: it has none.
	Zone string
	// Bases by digest, with the bytes that each takes where it is not yet.
	Bases map[string]uint64
	// MemoryMiB is the VM's memory, DiskMiB what it may write.
	MemoryMiB, DiskMiB uint64
	// Taken is the memory of builds that were begun, by host, MiB: reports of the hosts come later than that.
	Taken map[string]uint64
}

// ForBuild chooses the host for a build: one that passes the filters, best one that has its base. It returns "" and the
// sentence that says why none does.
func ForBuild(view *store.View, b Build) (chosen, why string) {
	refusals := make([]refusal, len(filters))
	best, points, known := "", 0.0, 0
	for _, h := range open(view).hosts {
		if b.Host != "" && h.Name() != b.Host || b.Not[h.Name()] {
			continue
		}
		known++
		if unreported := int64(b.Taken[h.Name()]) - h.BuildMiB; unreported > 0 {
			h.FreeMemoryMiB -= unreported
		}
		n := b.needOn(h)
		if refused(h, n, refusals) {
			continue
		}
		held := 0
		for digest := range b.Bases {
			if h.Images[digest] {
				held++
			}
		}
		if p := score(h, n) + weightHeld*float64(held); best == "" || p > points {
			best, points = h.Name(), p
		}
	}
	switch {
	case best != "":
		return best, ""
	case b.Host != "" && known == 0:
		return "", fmt.Sprintf("there is no host %s", b.Host)
	}
	why = sentence(b.needOn(&host{Host: &room.Host{}}), known, refusals)
	if b.Host != "" {
		why = strings.Replace(why, "no host fits: 1 host", "host "+b.Host, 1)
	}
	return "", why
}

// needOn is what the build asks of one host, which may have some of the bases.
func (b Build) needOn(h *host) need {
	var bytes uint64
	for digest, size := range b.Bases {
		if !h.Images[digest] && !h.Coming[digest] {
			bytes += size
		}
	}
	return b.need(room.Mebibytes(bytes))
}

// need is what the build asks of a host that lacks so much of the bases. No digest: the sum is made here.
func (b Build) need(baseMiB uint64) need {
	return need{Need: room.Need{Zone: b.Zone, MemoryMiB: b.MemoryMiB, OverlayMiB: b.DiskMiB, BaseMiB: baseMiB}, named: b.Host != ""}
}
