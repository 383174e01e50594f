package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
)

const (
	hostCPUs     = 4
	hostMemory   = 16 << 10 // MiB
	maxBoots     = 3
	bootDeadline = 300 * time.Second // Readiness.deadline's default
)

// mood is how a host's hypervisor and guests behave now.
type mood struct {
	hung  bool    // the hypervisor does not answer
	flaky float64 // share of calls that fail, half of them after they were done
	never float64 // share of boots that never get ready
	slow  bool    // boots take minutes
}

// node is one machine: a host in memory, an agent on it, a link. Journal and host outlive the agent.
type node struct {
	sim   *sim
	name  string
	zones []string
	path  string
	link  *link
	host  *fakehost.Host

	mu    sync.Mutex
	rng   *rand.Rand
	mood  mood
	boots map[hostagent.Life]fakehost.Boot
	// digests are the versions of the lives that were to be started.
	digests map[hostagent.Life]string

	on     bool // has power
	forgot bool // lost its journal once, and with it which lives had ended
	cancel context.CancelFunc
	group  *errgroup.Group
}

func newNode(s *sim, i int, zones []string) *node {
	n := &node{
		sim: s, name: fmt.Sprintf("host-%d", i), zones: zones, link: newLink(), on: true, boots: map[hostagent.Life]fakehost.Boot{},
		digests: map[hostagent.Life]string{},
		rng:     rand.New(rand.NewPCG(s.seed, uint64(i)+1000)),
	}
	n.path = filepath.Join(s.dir, n.name, "journal.db")
	n.host = fakehost.New(fakehost.Config{
		Hardware: hostagent.Hardware{CPUs: s.cpus, MemoryMiB: hostMemory, BootID: n.name}, StoreBytes: 200 << 30,
		Fetch: 20 * time.Second, Boot: n.boot, Fault: n.fault, Pressure: func() (cpu, memory, io float64) { return 0, 0, 0 },
	})
	return n
}

func (n *node) setMood(change func(*mood)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(&n.mood)
}

// boot draws how a VM comes up.
func (n *node) boot(life hostagent.Life) fakehost.Boot {
	n.mu.Lock()
	defer n.mu.Unlock()
	after := time.Duration(10+n.rng.IntN(30)) * time.Second
	if n.mood.slow {
		after = time.Duration(60+n.rng.IntN(300)) * time.Second
	}
	boot := fakehost.Boot{After: after, Hangs: n.rng.Float64() < n.mood.never}
	n.boots[life] = n.sim.spoil(n, life, n.digests[life], boot)
	return n.boots[life]
}

// answers says whether a guest that started then is up now.
func (n *node) answers(life hostagent.Life, since time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.boots[life].Hangs && time.Since(since) >= n.boots[life].After
}

var errFlaky = errors.New("internal error: client socket is closed")

// fault draws what goes wrong with a call.
func (n *node) fault(op fakehost.Op, _ hostagent.Life) fakehost.Fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	disk := op == fakehost.OpList || op == fakehost.OpEnsureBase || op == fakehost.OpCreateOverlay || op == fakehost.OpCreateData ||
		op == fakehost.OpTrashOverlay || op == fakehost.OpTrashData
	switch {
	case n.mood.hung && !disk:
		return fakehost.Fault{Hang: true, Done: n.rng.IntN(2) == 0}
	case n.rng.Float64() >= n.mood.flaky:
		return fakehost.Fault{}
	case n.rng.IntN(2) == 0:
		return fakehost.Fault{Refuse: errFlaky}
	default:
		return fakehost.Fault{Lie: errFlaky}
	}
}

// start runs an agent on what the journal and the host hold.
func (n *node) start() {
	if n.cancel != nil || !n.on {
		return
	}
	journal, err := hostagent.OpenJournal(n.path, hostagent.JournalOptions{NoSync: true})
	if err != nil {
		n.sim.t.Fatal(err)
	}
	bridges := map[string]string{}
	for _, zone := range n.zones {
		bridges[zone] = bridgeOf(zone)
	}
	seen := &witness{Host: n.host, node: n}
	agent, err := hostagent.New(hostagent.Config{
		Version: "sim", Servers: []string{"0", "1"}, Dial: n.dial, Zones: bridges, VNCDir: "/run/vnc", MaxBoots: maxBoots, Platform: hostagent.Platform{KVM: true},
		Rand: n.random, Registerer: prometheus.NewRegistry(), Log: n.sim.log.With().Str("host", n.name).Logger(),
	}, journal, seen, n.host, seen, n.host)
	if err != nil {
		n.sim.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(n.sim.ctx)
	n.cancel, n.group = cancel, &errgroup.Group{}
	n.group.Go(func() error { return errors.Join(agent.Run(ctx), journal.Close()) })
}

func bridgeOf(zone string) string { return "br-" + zone }

func (n *node) random() float64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.Float64()
}

// crash ends the agent. Its VMs go on.
func (n *node) crash() {
	if n.cancel == nil {
		return
	}
	n.cancel()
	if err := n.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		n.sim.problem("crash", "agent of %s ended with %v", n.name, err)
	}
	n.cancel = nil
}

// powerLoss ends the agent and every VM.
func (n *node) powerLoss() {
	n.crash()
	for _, life := range n.host.Running() {
		n.sim.truth.killed(life)
	}
	n.host.PowerLoss()
	n.on = false
}

func (n *node) powerOn() {
	n.on = true
	n.start()
}

// kill ends one of the VMs as a crash of QEMU would.
func (n *node) kill(pick int) string {
	lives := n.host.Running()
	if len(lives) == 0 {
		return ""
	}
	life := lives[pick%len(lives)]
	n.sim.truth.killed(life)
	n.host.Kill(life)
	return life.Desktop
}

func (n *node) dial(server string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///daybreakd-"+server,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(certificate(n.name)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return n.link.dial(ctx, func(ctx context.Context) (net.Conn, error) { return n.sim.connect(ctx, server) })
		}))
}

// certificate stands for a host's client certificate.
type certificate string

func (c certificate) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{hostHeader: string(c)}, nil
}

func (certificate) RequireTransportSecurity() bool { return false }

// witness stands between an agent and its host and sees what is done to the world.
type witness struct {
	*fakehost.Host
	node *node
}

func (w *witness) Start(ctx context.Context, m hostagent.Machine) error {
	w.node.mu.Lock()
	w.node.digests[m.Life] = strings.TrimPrefix(m.Base.Raw, "/fake/bases/")
	w.node.mu.Unlock()
	err := w.Host.Start(ctx, m)
	w.node.sim.truth.started(w.node, m)
	return err
}

func (w *witness) Shutdown(ctx context.Context, life hostagent.Life) error {
	w.node.sim.truth.stopped(w.node, life, "shut down")
	return w.Host.Shutdown(ctx, life)
}

func (w *witness) Destroy(ctx context.Context, life hostagent.Life) error {
	w.node.sim.truth.stopped(w.node, life, "destroyed")
	return w.Host.Destroy(ctx, life)
}

func (w *witness) TrashOverlay(ctx context.Context, life hostagent.Life) error {
	w.node.sim.truth.trashed(w.node, life)
	return w.Host.TrashOverlay(ctx, life)
}

func (w *witness) TrashData(ctx context.Context, uid string) error {
	w.node.sim.truth.dataTrashed(w.node, uid)
	return w.Host.TrashData(ctx, uid)
}
