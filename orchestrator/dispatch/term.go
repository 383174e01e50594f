package dispatch

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// term is one time of leading: what is known in it is gone with it.
type term struct {
	cfg     Config
	log     zerolog.Logger
	metrics *metrics
	store   *store.Store
	mirror  *store.Mirror
	began   time.Time

	mu     sync.Mutex
	closed error // why the term ended; nil while it lasts
	peers  map[string]*peer
	open   *batch        // changes that wait for the writer
	ready  chan struct{} // tells the writer that open has something
	frozen bool
	// streams counts calls of Watch that have not returned, the ones that were replaced included.
	streams int
	asked   map[string]*question
}

// peer is one host as this term knows it.
type peer struct {
	facts
	name    string
	session *session // nil while the host has none
	streams int
	// sessions limits how often the host may begin one.
	sessions     *rate.Limiter
	orphans      map[life]v1.DesktopState
	erase        map[life]*v1.Assignment
	usageWritten time.Time
	// warned is when an event about this host's hello was last written.
	warned time.Time
}

func newTerm(cfg Config, log zerolog.Logger, m *metrics, st *store.Store, mirror *store.Mirror, now time.Time) *term {
	return &term{
		cfg: cfg, log: log, metrics: m, store: st, mirror: mirror, began: now,
		peers: map[string]*peer{}, open: newBatch(), ready: make(chan struct{}, 1), asked: map[string]*question{},
	}
}

// close ends all sessions and lets nobody wait.
func (t *term) close(why error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = why
	for _, p := range t.peers {
		t.endSession(p, why)
	}
	t.open.finish(why)
}

// peer returns what is known of a host, beginning with one grace period for it. The caller holds mu.
func (t *term) peer(host string, now time.Time) *peer {
	p, ok := t.peers[host]
	if !ok {
		p = &peer{
			facts: facts{heard: now}, name: host,
			sessions: rate.NewLimiter(rate.Every(3*time.Second), 10),
			orphans:  map[life]v1.DesktopState{},
		}
		t.peers[host] = p
	}
	return p
}

// changed is told of every change in the store. It only marks what the sessions must look at.
func (t *term) changed(before, after *store.View, refs []store.Ref) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, ref := range refs {
		switch ref.Kind {
		case v1.Kind_KIND_DESKTOP:
			t.mark(hostOf(before, ref.Name), ref.Name)
			t.mark(hostOf(after, ref.Name), ref.Name)
		case v1.Kind_KIND_HOST:
			if _, ok := store.Lookup[*v1.Host](after, ref.Name); ok {
				p := t.peer(ref.Name, now)
				p.session.note(func(n *news) { n.wanted = true })
			} else {
				t.forget(ref.Name)
			}
		}
	}
}

func hostOf(view *store.View, desktop string) string {
	if view == nil {
		return ""
	}
	d, _ := store.Lookup[*v1.Desktop](view, desktop)
	return d.GetIncarnation().GetHost()
}

// mark makes the host's session look at a desktop. The caller holds mu.
func (t *term) mark(host, desktop string) {
	if p, ok := t.peers[host]; ok {
		p.session.note(func(n *news) { n.desktops[desktop] = struct{}{} })
	}
}

// forget ends what is known of a host that was deleted. The caller holds mu.
func (t *term) forget(host string) {
	if p, ok := t.peers[host]; ok {
		t.endSession(p, errUnknownHost(host))
		delete(t.peers, host)
	}
}

func errUnknownHost(host string) error {
	return status.Errorf(codes.PermissionDenied, "host %s is not known: it was deleted, or never enrolled; enrol it again with a new token", host)
}

// nextPeriod tells a host when to report again. The caller holds mu.
func (t *term) nextPeriod() time.Duration {
	return period(t.cfg.Period, t.cfg.Grace, len(t.peers), rand.Float64())
}
