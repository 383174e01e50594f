package hostagent_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"daybreak/hostagent"
	"daybreak/hostagent/fakehost"
	v1 "daybreak/proto/daybreak/v1"
)

const (
	placed   = v1.DesktopState_DESKTOP_STATE_PLACED
	prepared = v1.DesktopState_DESKTOP_STATE_PREPARED
	starting = v1.DesktopState_DESKTOP_STATE_STARTING
	ready    = v1.DesktopState_DESKTOP_STATE_READY
	stopping = v1.DesktopState_DESKTOP_STATE_STOPPING
	stopped  = v1.DesktopState_DESKTOP_STATE_STOPPED
	deleted  = v1.DesktopState_DESKTOP_STATE_DELETED
	failed   = v1.DesktopState_DESKTOP_STATE_FAILED
)

// rig is a host with an agent and a control plane, in a bubble of virtual time.
type rig struct {
	t     *testing.T
	host  *fakehost.Host
	plane *plane
	path  string
	// configure changes the agent's configuration before each start.
	configure func(*hostagent.Config)
	// real, if set, keeps bases in real files.
	real *realBases

	agent  *hostagent.Agent
	mu     sync.Mutex // guards ctx and cancel against kill
	ctx    context.Context
	cancel context.CancelFunc
	group  *errgroup.Group
}

// story runs a test in a bubble on a host made of cfg, with an agent that runs.
func story(t *testing.T, cfg fakehost.Config, test func(*rig)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	synctest.Test(t, func(t *testing.T) {
		p, err := newPlane()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var group errgroup.Group
		group.Go(func() error { return p.serve(ctx) })
		r := &rig{t: t, host: fakehost.New(cfg), plane: p, path: path}
		defer func() {
			r.crash()
			cancel()
			_ = group.Wait()
		}()
		r.start()
		test(r)
		for _, wrong := range r.host.Tally().Wrongs {
			t.Error(wrong)
		}
		for _, regression := range p.regressions {
			t.Errorf("a state went backward: %s", regression)
		}
	})
}

// start runs the agent on what the journal and the host hold.
func (r *rig) start() {
	r.t.Helper()
	journal, err := hostagent.OpenJournal(r.path, hostagent.JournalOptions{NoSync: true})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := hostagent.Config{
		Version: "test", Servers: []string{"plane"}, Dial: r.plane.dial, Zones: map[string]string{"office": "br-office"},
		VNCDir: "/run/vnc", Registerer: prometheus.NewRegistry(), Log: zerolog.New(zerolog.NewTestWriter(r.t)).Level(zerolog.WarnLevel),
	}
	if r.configure != nil {
		r.configure(&cfg)
	}
	var hypervisor hostagent.Hypervisor = r.host
	var disks hostagent.Disks = r.host
	if r.real != nil {
		hypervisor, disks = r.real, r.real
	}
	r.agent, err = hostagent.New(cfg, journal, hypervisor, r.host, disks, r.host)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	r.mu.Lock()
	r.ctx, r.cancel = ctx, cancel
	r.mu.Unlock()
	r.group = &errgroup.Group{}
	r.group.Go(func() error {
		err := r.agent.Run(ctx)
		return errors.Join(ignoreCanceled(err), journal.Close())
	})
}

// kill ends the agent from within one of its own calls; crash must follow.
func (r *rig) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel()
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// crash ends the agent; only journal and host remain.
func (r *rig) crash() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := r.group.Wait(); err != nil {
		r.t.Errorf("agent ended with %v", err)
	}
	r.mu.Lock()
	r.cancel = nil
	r.mu.Unlock()
}

func (r *rig) restart() {
	r.crash()
	r.start()
}

// await waits, in virtual time, until a condition holds.
func (r *rig) await(what string, limit time.Duration, holds func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("after %s: not %s\nlast report: %v", limit, what, r.plane.lastReport())
		}
	}
}

// awaitState waits until a life is reported in a state.
func (r *rig) awaitState(a *v1.Assignment, state v1.DesktopState, limit time.Duration) {
	r.t.Helper()
	r.await(fmt.Sprintf("%s generation %d in %s", a.GetDesktop(), a.GetIncarnation().GetGeneration(), state), limit, func() bool {
		return r.plane.state(a) == state
	})
}

// desktop makes an assignment of a fresh desktop that is to be READY.
func (r *rig) desktop(name string, generation int64) *v1.Assignment {
	return &v1.Assignment{
		Desktop: name, Uid: uuid.NewSHA1(uuid.NameSpaceDNS, []byte(name)).String(),
		Spec: &v1.DesktopSpec{Pool: "p", Zone: "office", Mac: "52:54:00:00:00:01", VmUuid: uuid.NewSHA1(uuid.NameSpaceURL, []byte(name)).String()},
		Incarnation: &v1.Incarnation{
			Generation: generation, Image: "i", Version: 1, Digest: r.plane.manifest.Digest().String(), Host: "h",
			Desired: v1.DesiredState_DESIRED_STATE_READY, Shape: &v1.Shape{Vcpus: 1, MemoryMib: 512},
		},
	}
}

// with returns a changed copy of an assignment.
func with(a *v1.Assignment, change func(*v1.Assignment)) *v1.Assignment {
	changed := proto.CloneOf(a)
	change(changed)
	return changed
}

func desired(a *v1.Assignment, state v1.DesiredState) *v1.Assignment {
	return with(a, func(a *v1.Assignment) { a.Incarnation.Desired = state })
}

func toBeDeleted(a *v1.Assignment) *v1.Assignment {
	return desired(a, v1.DesiredState_DESIRED_STATE_DELETED)
}

func lifeOf(a *v1.Assignment) hostagent.Life {
	return hostagent.Life{Desktop: a.GetDesktop(), UID: a.GetUid(), Generation: a.GetIncarnation().GetGeneration()}
}

// starts is how often a life's VM came to be.
func (r *rig) starts(a *v1.Assignment) int { return r.host.Tally().Starts[lifeOf(a)] }

// runs reports whether a life's VM runs now.
func (r *rig) runs(a *v1.Assignment) bool {
	for _, life := range r.host.Running() {
		if life == lifeOf(a) {
			return true
		}
	}
	return false
}
