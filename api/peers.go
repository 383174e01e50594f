package api

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxPeers in one answer, by the service's contract.
const maxPeers = 256

// FindPeers names hosts that give a version's content out. Only hosts that share a zone with the caller are named: networks
// of other zones are none of its business.
func (s *agentService) FindPeers(ctx context.Context, request *v1.FindPeersRequest) (*v1.FindPeersResponse, error) {
	name, err := HostOf(ctx)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	view := s.mirror.View()
	caller, ok := store.Lookup[*v1.Host](view, name)
	if !ok {
		return &v1.FindPeersResponse{}, nil // it has just enrolled
	}
	return &v1.FindPeersResponse{Peers: peersOf(caller, store.All[*v1.Host](view), request.GetDigest())}, nil
}

// peersOf chooses the peers of a host for a version, by name; hosts that have all of it come before others when there are
// too many.
func peersOf(caller *v1.Host, hosts []*v1.Host, digest string) []*v1.Peer {
	var peers []*v1.Peer
	for _, host := range hosts {
		is := host.GetStatus()
		complete := slices.Contains(is.GetImages(), digest)
		wanted := slices.ContainsFunc(host.GetWantedImages(), func(w *v1.WantedImage) bool { return w.GetDigest() == digest })
		if host.GetMeta().GetName() == caller.GetMeta().GetName() || is.GetPhase() != v1.HostPhase_HOST_PHASE_UP || is.GetPeerAddress() == "" ||
			!complete && !wanted || !shareZone(caller.GetStatus().GetZones(), is.GetZones()) {
			continue
		}
		peers = append(peers, &v1.Peer{Host: host.GetMeta().GetName(), Address: is.GetPeerAddress(), Complete: complete})
	}
	byName := func(a, b *v1.Peer) int { return cmp.Compare(a.GetHost(), b.GetHost()) }
	slices.SortFunc(peers, func(a, b *v1.Peer) int {
		if a.GetComplete() != b.GetComplete() {
			if a.GetComplete() {
				return -1
			}
			return 1
		}
		return byName(a, b)
	})
	peers = peers[:min(len(peers), maxPeers)]
	slices.SortFunc(peers, byName)
	return peers
}

// shareZone says whether two hosts serve the same zone, or none both.
func shareZone(a, b []string) bool {
	return len(a) == 0 && len(b) == 0 || slices.ContainsFunc(a, func(zone string) bool { return slices.Contains(b, zone) })
}
