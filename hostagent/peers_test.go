package hostagent_test

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	"daybreak/images"
	v1 "daybreak/proto/daybreak/v1"
)

// twoHosts are two agents, each with a control plane of its own that knows the other's address.
func twoHosts(t *testing.T, test func(a, b *rig, between *bufconn.Listener)) {
	path := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		between := bufconn.Listen(1 << 20)
		ctx, cancel := context.WithCancel(t.Context())
		var group errgroup.Group
		var rigs []*rig
		defer func() {
			for _, r := range rigs {
				r.crash()
			}
			cancel()
			_ = group.Wait()
		}()
		for _, name := range []string{"a", "b"} {
			p, err := newPlane()
			if err != nil {
				t.Fatal(err)
			}
			group.Go(func() error { return p.serve(ctx) })
			r := &rig{t: t, host: fakehost.New(fakehost.Config{KeepContent: true}), plane: p, path: filepath.Join(path, name)}
			r.configure = func(c *hostagent.Config) {
				c.Peers = hostagent.Peers{Host: name, Dial: func(string, string) (*grpc.ClientConn, error) {
					return grpc.NewClient("passthrough:a", grpc.WithTransportCredentials(insecure.NewCredentials()),
						grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return between.DialContext(ctx) }))
				}}
				if name == "a" {
					c.Peers.Listener, c.Peers.Address = between, "a.example.jp:7447"
				}
			}
			rigs = append(rigs, r)
			r.start()
		}
		test(rigs[0], rigs[1], between)
	})
}

func (r *rig) want() *v1.WantedImages {
	return &v1.WantedImages{Images: []*v1.WantedImage{{Image: "i", Digest: r.plane.manifest.Digest().String()}}}
}

func (r *rig) hasBase() bool {
	bases, err := r.host.Bases(r.t.Context())
	return err == nil && len(bases) == 1
}

// tell sends what is wanted.
func (p *plane) tell(wanted *v1.WantedImages) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wanted = wanted
	p.send(&v1.Assignments{WantedImages: wanted})
}

func TestImagesComeFromOtherHosts(t *testing.T) {
	twoHosts(t, func(a, b *rig, _ *bufconn.Listener) {
		a.await("a session", 10*time.Second, func() bool { return len(a.plane.greeted()) > 0 && len(b.plane.greeted()) > 0 })
		if got := a.plane.greeted()[0].GetPeerAddress(); got != "a.example.jp:7447" || b.plane.greeted()[0].GetPeerAddress() != "" {
			t.Errorf("a told %q", got)
		}
		a.plane.tell(a.want())
		a.await("a has the base", time.Minute, a.hasBase)
		// The store of b's control plane gives nothing but manifests.
		b.plane.set(func() {
			b.plane.spoil = func([]byte) []byte { return []byte("no") }
			b.plane.peers = []*v1.Peer{{Host: "a", Address: "a.example.jp:7447", Complete: true}, {Host: "a", Address: "x:1"}, {Host: "../b", Address: "x:1"}, {Host: "b", Address: "b:1"}, {Host: "c", Address: "no port"}}
		})
		b.plane.tell(b.want())
		b.await("b has the base", time.Minute, b.hasBase)
	})
}

// Other hosts get what the host has, and nothing is said of what it has not.
func TestPeerService(t *testing.T) {
	twoHosts(t, func(a, _ *rig, between *bufconn.Listener) {
		t := a.t // that of the bubble
		a.await("a session", 10*time.Second, func() bool { return len(a.plane.greeted()) > 0 })
		a.plane.tell(a.want())
		a.await("a has the base", time.Minute, a.hasBase)
		conn, err := grpc.NewClient("passthrough:a", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return between.DialContext(ctx) }))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ask := func(request *v1.GetChunksRequest) (chunks []*v1.Chunk, err error) {
			stream, err := v1.NewPeerServiceClient(conn).GetChunks(t.Context(), request)
			if err != nil {
				return nil, err
			}
			for {
				answer, err := stream.Recv()
				if err != nil {
					return chunks, err
				}
				chunks = append(chunks, answer.GetChunk())
			}
		}
		first, unknown := a.plane.manifest.Piece(0).Digest, images.Sum([]byte("unknown"))
		chunks, err := ask(&v1.GetChunksRequest{Digests: append(bytes.Clone(unknown[:]), first[:]...)})
		if len(chunks) != 1 || status.Code(err) != codes.Unknown || !bytes.Equal(chunks[0].GetDigest(), first[:]) {
			t.Errorf("%d chunks, %v; want the one that is there", len(chunks), err)
		}
		for name, bad := range map[string]*v1.GetChunksRequest{
			"half a digest":   {Digests: first[:7]},
			"too many":        {Digests: bytes.Repeat(first[:], 257)},
			"bases for some":  {Digests: bytes.Repeat(first[:], 2), Bases: first[:]},
			"half of a base":  {Digests: first[:], Bases: first[:3]},
			"no chunk at all": {Digests: bytes.Repeat([]byte{0}, 1<<17)},
		} {
			if chunks, err := ask(bad); len(chunks) > 0 || status.Code(err) != codes.InvalidArgument && status.Code(err) != codes.ResourceExhausted {
				t.Errorf("%s: %d chunks, %v", name, len(chunks), err)
			}
		}
	})
}
