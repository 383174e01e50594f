package placement

import (
	"strings"
	"testing"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestForBuild(t *testing.T) {
	holds := func(h *v1.Host) { h.Status.Images = []string{digest} }
	drained := func(h *v1.Host) { h.Spec.Unschedulable = true }
	down := func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN }
	building := func(h *v1.Host) { h.Status.Usage.BuildMemoryMib = 6000 }
	small := func(h *v1.Host) { h.Status.Usage.StoreAvailableBytes = 3 * gib }
	usual := Build{Zone: "lgwan", Bases: map[string]uint64{digest: 2 * gib}, MemoryMiB: 2048, DiskMiB: 2048}
	with := func(edit func(*Build)) Build {
		b := usual
		edit(&b)
		return b
	}
	for name, c := range map[string]struct {
		build     Build
		hosts     []store.Object
		host, why string
	}{
		"none at all":          {usual, nil, "", "enrol one first"},
		"the one that holds":   {usual, []store.Object{newHost("h1"), newHost("h2", holds), newHost("h3")}, "h2", ""},
		"room before holding":  {usual, []store.Object{newHost("h1"), newHost("h2", holds, building)}, "h1", ""},
		"drained and down":     {usual, []store.Object{newHost("h1", drained), newHost("h2", down)}, "", "1 host is unschedulable, 1 host is not up"},
		"named though drained": {with(func(b *Build) { b.Host = "h1" }), []store.Object{newHost("h1", drained), newHost("h2")}, "h1", ""},
		"named and down":       {with(func(b *Build) { b.Host = "h2" }), []store.Object{newHost("h1"), newHost("h2", down)}, "", "host h2 is not up"},
		"named and not there":  {with(func(b *Build) { b.Host = "h9" }), []store.Object{newHost("h1")}, "", "there is no host h9"},
		"no zone asked for":    {with(func(b *Build) { b.Zone = "" }), []store.Object{newHost("h1")}, "h1", ""},
		"zone that none has":   {with(func(b *Build) { b.Zone = "core" }), []store.Object{newHost("h1")}, "", "1 host has no zone core"},
		"memory of builds":     {usual, []store.Object{newHost("h1", building)}, "", "1 host lacks memory (needs 2048 MiB, 1680 free)"},
		"begun, not reported": {with(func(b *Build) { b.Taken = map[string]uint64{"h1": 6000} }), []store.Object{newHost("h1")}, "",
			"1 host lacks memory (needs 2048 MiB, 1680 free)"},
		"begun and reported": {with(func(b *Build) { b.Taken = map[string]uint64{"h1": 6000}; b.MemoryMiB = 1024 }),
			[]store.Object{newHost("h1", building)}, "h1", ""},
		"store for the base": {usual, []store.Object{newHost("h1", small)}, "", "needs 2048 MiB and 2048 for its image where that is not yet, 3072 free"},
		"base is there":      {usual, []store.Object{newHost("h1", small, holds)}, "h1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			host, why := ForBuild(viewOf(t, append(c.hosts, image())...), c.build)
			if host != c.host || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
				t.Errorf("got %q %q, want %q %q", host, why, c.host, c.why)
			}
		})
	}
}

// A build's memory is not for desktops.
func TestDesktopsLeaveBuildsTheirMemory(t *testing.T) {
	building := newHost("h1", func(h *v1.Host) { h.Status.Usage.BuildMemoryMib = 7000 })
	plan := Plan(viewOf(t, image(), building, newDesktop("sales-1")))
	if len(plan) != 1 || plan[0].Host != nil || !strings.Contains(plan[0].Desktop.GetIncarnation().GetUnplacedReason(), "lacks memory") {
		t.Errorf("planned %v", plan)
	}
}
