package api

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	v1 "daybreak/proto/daybreak/v1"
)

func TestPeersOf(t *testing.T) {
	const digest, other = "aa", "bb"
	host := func(name string, edit func(*v1.Host)) *v1.Host {
		h := &v1.Host{Meta: &v1.Meta{Name: name}, Status: &v1.HostStatus{
			Phase: v1.HostPhase_HOST_PHASE_UP, PeerAddress: name + ":7447", Zones: []string{"office"}, Images: []string{other, digest},
		}}
		edit(h)
		return h
	}
	caller := host("me", func(*v1.Host) {})
	hosts := []*v1.Host{
		caller,
		host("whole", func(*v1.Host) {}),
		host("half", func(h *v1.Host) {
			h.Status.Images = []string{other}
			h.WantedImages = []*v1.WantedImage{{Digest: other}, {Digest: digest}}
		}),
		host("without", func(h *v1.Host) { h.Status.Images = nil }),
		host("silent", func(h *v1.Host) { h.Status.PeerAddress = "" }),
		host("down", func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DOWN }),
		host("unwell", func(h *v1.Host) { h.Status.Phase = v1.HostPhase_HOST_PHASE_DEGRADED }),
		host("elsewhere", func(h *v1.Host) { h.Status.Zones = []string{"lgwan"} }),
		host("both", func(h *v1.Host) { h.Status.Zones = []string{"lgwan", "office"} }),
		{Meta: &v1.Meta{Name: "new"}},
	}
	want := []*v1.Peer{{Host: "both", Address: "both:7447", Complete: true}, {Host: "half", Address: "half:7447"}, {Host: "whole", Address: "whole:7447", Complete: true}}
	if diff := cmp.Diff(want, peersOf(caller, hosts, digest), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	var many []*v1.Host
	for i := range 300 {
		many = append(many, host(fmt.Sprintf("h%03d", i), func(h *v1.Host) {
			if i < 290 {
				h.Status.Images, h.WantedImages = nil, []*v1.WantedImage{{Digest: digest}}
			}
		}))
	}
	got := peersOf(caller, many, digest)
	complete := 0
	for _, peer := range got {
		if peer.GetComplete() {
			complete++
		}
	}
	if len(got) != maxPeers || complete != 10 {
		t.Errorf("%d peers of 300, %d of them complete", len(got), complete)
	}
}
