// Package fleet is a control plane and hosts in one process, for benchmarks of how images travel: the real services, sessions,
// stores and certificates over loopback, with lines of a chosen speed; only the hypervisors are made up.
//
// Here: the plane, the hosts, their lines. Not here: what is measured. Only benchmarks in deploy/bench call it.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"daybreak/api"
	"daybreak/api/audit"
	"daybreak/api/pki"
	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/images/pack"
	"daybreak/images/sign"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Plane is a control plane whose image store is a directory and whose objects are in memory.
type Plane struct {
	// Line is its connection to the hosts.
	Line *Line

	dir     string
	ca      *pki.CA
	backend *store.Memory
	mirror  *store.Mirror
	chunks  *chunkstore.Dir
	codec   *images.Codec
	server  *api.Server
	agents  net.Listener
	stop    context.CancelFunc
	group   *errgroup.Group
	log     zerolog.Logger
}

// NewPlane starts a control plane on the image store in dir, which is made when it is not there.
func NewPlane(dir string, line *Line, log zerolog.Logger) (*Plane, error) {
	p := &Plane{Line: line, dir: dir, backend: store.NewMemory(), log: log}
	var err error
	if p.codec, err = images.NewCodec(); err != nil {
		return nil, err
	}
	if p.chunks, err = chunkstore.OpenDir(filepath.Join(dir, "images"), p.codec); err != nil {
		return nil, err
	}
	if p.ca, err = pki.NewCA(time.Now()); err != nil {
		return nil, err
	}
	key, err := sign.NewKey()
	if err != nil {
		return nil, err
	}
	trail, err := audit.Open(filepath.Join(dir, "audit.log"))
	if err != nil {
		return nil, err
	}
	p.mirror = store.NewMirror(p.backend)
	registry := prometheus.NewRegistry()
	sessions, err := dispatch.NewServer(dispatch.Config{Epoch: 1}, api.HostOf, log, registry)
	if err != nil {
		return nil, err
	}
	p.server, err = api.NewServer(api.Config{
		Log: log, Registerer: registry, Backend: p.backend, Mirror: p.mirror, CA: p.ca, Audit: trail, Chunks: p.chunks, Publisher: key,
		Sessions: sessions, Explain: func(context.Context, string) (*v1.ExplainResponse, error) {
			return nil, errors.New("nothing to explain")
		},
		Cluster: api.Cluster{Version: "bench", ID: "bench", Epoch: 1},
	})
	if err != nil {
		return nil, err
	}
	return p, p.run(sessions)
}

func (p *Plane) run(sessions *dispatch.Server) (err error) {
	people, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if p.agents, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return errors.Join(err, people.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.group, ctx = errgroup.WithContext(ctx)
	p.group.Go(func() error { return p.mirror.Run(ctx) })
	p.group.Go(func() error { return sessions.Run(ctx, store.Open(p.backend, store.WriterDispatch), p.mirror) })
	p.group.Go(func() error {
		return p.server.Run(ctx, []net.Listener{people}, []net.Listener{p.Line.listener(p.agents)})
	})
	return nil
}

// Close ends the plane.
func (p *Plane) Close() error {
	p.stop()
	if err := p.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Import puts a raw disk into the image store and returns its version's digest.
func (p *Plane) Import(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	m, _, err := pack.Disk(ctx, f, p.codec, p.chunks, func(pack.Progress) {})
	if err != nil {
		return "", fmt.Errorf("import %s: %w", path, err)
	}
	return m.Digest().String(), p.chunks.PutManifest(ctx, m)
}

// Want has hosts hold a version, or with no digest none.
func (p *Plane) Want(ctx context.Context, hosts []*Host, digest string) error {
	handle := store.Open(p.backend, store.WriterRollout)
	var ops []store.Op
	for _, h := range hosts {
		object, err := store.Get[*v1.Host](ctx, handle, h.name)
		if err != nil {
			return err
		}
		object = proto.CloneOf(object)
		object.WantedImages = nil
		if digest != "" {
			object.WantedImages = []*v1.WantedImage{{Image: "bench", Digest: digest}}
		}
		ops = append(ops, store.Update(object))
	}
	_, failed, err := handle.CommitEach(ctx, ops)
	if err == nil && len(failed) > 0 {
		err = failed[0]
	}
	return err
}
