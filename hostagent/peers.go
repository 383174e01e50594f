package hostagent

import (
	"context"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	// maxPeers that one fetch knows, by the service's contract.
	maxPeers        = 256
	findPeerTimeout = 10 * time.Second
)

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// peerSource gets the content of one version from other hosts, and from the store what they do not have. It implements
// Source.
type peerSource struct {
	*remoteSource
	neighbours []neighbour
	conns      []*grpc.ClientConn
	log        zerolog.Logger
}

// sourceOf finds out who gives out a version. done lets go of what that took.
func (a *Agent) sourceOf(ctx context.Context, digest string) (source Source, done func()) {
	nobody := func() {}
	if a.cfg.Peers.Dial == nil {
		return a.source, nobody
	}
	client, err := a.source.now()
	if err != nil {
		return a.source, nobody
	}
	ctx, cancel := context.WithTimeout(ctx, findPeerTimeout)
	defer cancel()
	found, err := client.FindPeers(ctx, &v1.FindPeersRequest{Digest: digest})
	if err != nil {
		a.log.Info().Err(err).Msg("other hosts that have the image not found; it comes from the control plane")
		return a.source, nobody
	}
	p := &peerSource{remoteSource: a.source, log: a.log.With().Str("digest", digest).Logger()}
	for _, peer := range found.GetPeers()[:min(len(found.GetPeers()), maxPeers)] {
		p.add(a.cfg.Peers, peer)
	}
	if len(p.neighbours) == 0 {
		return a.source, nobody
	}
	if a.cfg.Peers.Listener != nil {
		p.neighbours = append(p.neighbours, neighbour{host: a.cfg.Peers.Host, self: true})
	}
	slices.SortFunc(p.neighbours, func(a, b neighbour) int { return strings.Compare(a.host, b.host) })
	return p, p.close
}

// add takes in one host that the control plane named. No connection is made yet.
func (p *peerSource) add(peers Peers, peer *v1.Peer) {
	_, _, err := net.SplitHostPort(peer.GetAddress())
	known := slices.ContainsFunc(p.neighbours, func(n neighbour) bool { return n.host == peer.GetHost() })
	if err != nil || known || peer.GetHost() == peers.Host || !hostName.MatchString(peer.GetHost()) {
		return
	}
	conn, err := peers.Dial(peer.GetHost(), peer.GetAddress())
	if err != nil {
		p.log.Warn().Err(err).Str("peer", peer.GetHost()).Msg("a peer cannot be dialled")
		return
	}
	p.conns = append(p.conns, conn)
	p.neighbours = append(p.neighbours, neighbour{host: peer.GetHost(), client: v1.NewPeerServiceClient(conn), complete: peer.GetComplete()})
}

func (p *peerSource) close() {
	for _, conn := range p.conns {
		_ = conn.Close()
	}
}

// Chunks implements Source. Peers that turned out to be of no use are not asked in the next call.
func (p *peerSource) Chunks(ctx context.Context, wants []Want, sink func(images.Chunk) error) error {
	swarm := newSwarm(p.remoteSource, p.neighbours, p.log)
	err := swarm.Chunks(ctx, wants, sink)
	p.neighbours = swarm.good()
	return err
}
