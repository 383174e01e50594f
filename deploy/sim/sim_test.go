package sim

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"daybreak/images"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "seed of the faults; 0 takes one by the clock")
	hoursFlag = flag.Float64("hours", 0, "virtual hours of faults; 0 means the usual")
	hostsFlag = flag.Int("hosts", 200, "hosts, each with an agent")
	logFlag   = flag.String("simlog", "", "file for the product's log")
)

const (
	faultEvery = 8 * time.Second // on average
	// settleLimit is how long all pools may take to be whole again after the last fault: the longest hold of creation
	// after failures in a row, a boot that fails, and one that does not.
	settleLimit = 45 * time.Minute
)

// poolPlan is what a pool of the simulation is.
type poolPlan struct {
	name, zone string
	seats      int
	memory     uint32
	dataGiB    uint32
}

// sim is the world.
type sim struct {
	t     *testing.T
	ctx   context.Context
	seed  uint64
	dir   string
	log   zerolog.Logger
	rng   *rand.Rand // draws the faults
	dice  *rand.Rand // draws all that depends on how the system is doing
	group *errgroup.Group

	// reports is how often hosts report and how long they may be silent; the zero value is what daybreakd has.
	reports struct{ period, grace time.Duration }
	// cpus is how many each host has.
	cpus int

	backend *troubled
	history *history
	truth   *truth
	shelf   *shelf
	nodes   []*node
	pools   []poolPlan
	zoneOf  map[string]string
	users   []*user
	heals   []heal
	term    int64

	versions uint32
	flawOf   map[uint32]flaw // by version
	// publishedAt is when the newest version came.
	publishedAt time.Time
	claimed     atomic.Int64
	struck      int

	mu       sync.Mutex
	planes   []*plane
	problems []string
	flaws    map[string]flaw // by digest
	dooms    []doom
	lagged   time.Time // when the store last was slow to tell
	trace    []string
}

type heal struct {
	at   time.Time
	what string
	do   func()
}

// problem notes a broken invariant.
func (s *sim) problem(invariant, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < 20 {
		s.problems = append(s.problems, fmt.Sprintf("%s invariant %s: %s", clock(), invariant, fmt.Sprintf(format, args...)))
	}
}

func (s *sim) broken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.problems...)
}

func clock() string { return time.Now().Sub(midnight).Round(time.Millisecond).String() }

// midnight is when every bubble begins.
var midnight = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *sim) did(what string) {
	s.trace = append(s.trace, clock()+" "+what)
	s.log.Info().Str("sim", what).Msg("done to the system")
}

// inSim runs a story on a system that has just come up.
func inSim(t *testing.T, seed uint64, hosts int, story func(*sim)) {
	t.Helper()
	inWorld(t, seed, func(s *sim) { s.build(hosts) }, story)
}

// inWorld runs a story in a world of one's own.
func inWorld(t *testing.T, seed uint64, build, story func(*sim)) {
	t.Helper()
	dir := t.TempDir()
	log := zerolog.Nop()
	if *logFlag != "" {
		file, err := os.Create(*logFlag)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		zerolog.TimestampFunc = time.Now
		log = zerolog.New(zerolog.SyncWriter(file)).With().Timestamp().Logger()
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := &sim{
			t: t, ctx: ctx, seed: seed, dir: dir, log: log, cpus: hostCPUs, rng: rand.New(rand.NewPCG(seed, 1)),
			dice: rand.New(rand.NewPCG(seed, 3)), group: &errgroup.Group{},
			shelf: &shelf{manifests: map[string]*images.Manifest{}, chunks: map[images.Digest][]byte{}}, zoneOf: map[string]string{},
			flawOf: map[uint32]flaw{}, flaws: map[string]flaw{},
		}
		s.backend = &troubled{Memory: store.NewMemory(), rng: rand.New(rand.NewPCG(seed, 2))}
		s.history, s.truth = newHistory(s.problem, s.slow), newTruth(s)
		s.group.Go(func() error { return ignoreEnd(s.backend.Memory.Watch(ctx, nil, s.history.read)) })
		defer func() {
			for _, n := range s.nodes {
				n.crash()
			}
			for _, p := range s.planes {
				p.crash()
			}
			cancel()
			if err := s.group.Wait(); err != nil {
				t.Error(err)
			}
		}()
		build(s)
		story(s)
	})
}

func ignoreEnd(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// build makes zones, an image, pools, hosts and users, and starts everything.
func (s *sim) build(hosts int) {
	zones := []string{"lgwan", "juki", "net", "tight"}
	for _, zone := range zones {
		s.create(&v1.Zone{Meta: &v1.Meta{Name: zone}, Spec: &v1.ZoneSpec{DisplayName: zone}})
	}
	s.create(&v1.Image{Meta: &v1.Meta{Name: "debian"}})
	s.publish(sound)
	s.pools = []poolPlan{
		{"lgwan", "lgwan", hosts, 1024, 0}, {"juki", "juki", max(1, hosts/2), 2048, 0}, {"net", "net", max(1, hosts/2), 1024, 0},
		{"data", "lgwan", max(1, hosts/10), 1024, 2}, {"tight", "tight", 12, 2048, 0},
	}
	for i := range hosts {
		on := [][]string{{"lgwan", "net"}, {"juki"}, {"lgwan"}}[i%3]
		if i < 2 {
			on = []string{"tight"}
		}
		n := newNode(s, i, on)
		s.nodes = append(s.nodes, n)
		s.enrol(n)
	}
	for _, p := range s.pools {
		s.zoneOf[p.name] = p.zone
		spec := &v1.PoolSpec{Image: "debian", Zone: p.zone, Desktops: uint32(p.seats), Shape: &v1.Shape{MemoryMib: p.memory, DataDiskGib: p.dataGiB}}
		policies()[p.name](spec)
		s.create(&v1.Pool{Meta: &v1.Meta{Name: p.name}, Spec: spec})
		for i := range max(1, p.seats*3/4) {
			s.users = append(s.users, &user{sim: s, name: fmt.Sprintf("%s-user-%d", p.name, i), pool: p.name, stays: i%3 == 0})
		}
	}
	s.powerUp()
}

// powerUp starts two daybreakds, of which one leads, and all agents.
func (s *sim) powerUp() {
	for slot := range 2 {
		s.planes = append(s.planes, startPlane(s, fmt.Sprint("daybreakd-", slot)))
	}
	s.planes[0].lead(s.elect())
	for _, n := range s.nodes {
		n.start()
	}
}

// elect gives leadership to the next term and takes it from all before.
func (s *sim) elect() store.Guard {
	s.term++
	guard := store.Guard{Key: "leader", Revision: s.term}
	s.backend.SetGuard(guard)
	return guard
}

func (s *sim) leader() *plane {
	for _, p := range s.planes {
		if p.leading() {
			return p
		}
	}
	return nil
}

// boot starts a daybreakd in place of one that crashed.
func (s *sim) boot(slot int) {
	if s.planes[slot].up {
		return
	}
	p := startPlane(s, fmt.Sprint("daybreakd-", slot))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.planes[slot] = p
}

var errRefused = errors.New("connection refused")

func (s *sim) connect(ctx context.Context, slot string) (net.Conn, error) {
	s.mu.Lock()
	p := s.planes[int(slot[0]-'0')]
	up := p.up
	s.mu.Unlock()
	if !up {
		return nil, errRefused
	}
	return p.network.DialContext(ctx)
}

// anyPlane picks a daybreakd that is up, leader or not.
func (s *sim) anyPlane() *plane {
	first := s.dice.IntN(len(s.planes))
	for i := range s.planes {
		if p := s.planes[(first+i)%len(s.planes)]; p.up {
			return p
		}
	}
	return nil
}

// run lets faults and users loose for a while.
func (s *sim) run(d time.Duration) bool {
	all := faults()
	weights := 0
	for _, f := range all {
		weights += f.weight
	}
	leaderless := 0
	for second := range int(d / time.Second) {
		time.Sleep(time.Second)
		s.mend(time.Now())
		s.tick(time.Now())
		if second%30 == 29 {
			s.attend()
		}
		if s.leader() != nil {
			leaderless = 0
		} else if leaderless++; leaderless > s.dice.IntN(15) {
			s.takeOver()
		}
		if s.rng.Float64() < time.Second.Seconds()/faultEvery.Seconds() {
			s.strike(all, weights)
		}
		for range 1 + len(s.users)/200 {
			s.users[s.dice.IntN(len(s.users))].step(false)
		}
		if second%60 == 59 && !s.check() {
			return false
		}
	}
	return s.check()
}

// tick lets the world go on by a second.
func (s *sim) tick(now time.Time) {
	s.collect(now)
	if s.backend.now().lag > 0 {
		s.mu.Lock()
		s.lagged = now
		s.mu.Unlock()
	}
}

func (s *sim) slow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.lagged.IsZero() && time.Since(s.lagged) < slowGrace
}

func (s *sim) strike(all []fault, weights int) {
	pick := s.rng.IntN(weights)
	for _, f := range all {
		if pick -= f.weight; pick >= 0 {
			continue
		}
		what, undo, after := f.strike(s)
		if what == "" {
			return
		}
		s.struck++
		s.did(what)
		if undo != nil {
			s.heals = append(s.heals, heal{time.Now().Add(after), what, undo})
		}
		return
	}
}

// mend makes good what is due.
func (s *sim) mend(now time.Time) {
	var later []heal
	due := s.heals
	s.heals = nil
	for _, h := range due {
		if h.at.After(now) {
			later = append(later, h)
			continue
		}
		h.do()
		s.did("over: " + h.what)
	}
	s.heals = append(s.heals, later...)
}

// takeOver lets a daybreakd lead when none does.
func (s *sim) takeOver() {
	if p := s.anyPlane(); p != nil {
		p.resign()
		p.lead(s.elect())
		s.did(p.name + " leads")
	}
}

// check holds the world against the invariants; false when one is broken.
func (s *sim) check() bool {
	synctest.Wait()
	s.truth.look()
	for _, u := range s.users {
		u.check()
	}
	return len(s.broken()) == 0
}

// report says what went wrong and how it came to that.
func (s *sim) report() {
	from := max(0, len(s.trace)-80)
	s.t.Errorf("seed %d, after %s and %d faults:\n%s\n\nwhat was done before:\n%s", s.seed, clock(), s.struck,
		strings.Join(s.broken(), "\n"), strings.Join(s.trace[from:], "\n"))
}
