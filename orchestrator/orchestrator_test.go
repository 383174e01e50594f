package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"daybreak/orchestrator"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/placement"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a control plane with all its loops, on a memory store, and hosts with agents.
type house struct {
	t       *testing.T
	ctx     context.Context
	memory  *store.Memory
	mirror  *store.Mirror
	brain   *orchestrator.Orchestrator
	claimer *pool.Claimer
	agents  []*agent
	group   *errgroup.Group
	term    int64
	retire  func()
}

// story tells what happens in a house with so many hosts, in virtual time.
func story(t *testing.T, hosts int, tell func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := &house{t: t, memory: store.NewMemory()}
		h.group, h.ctx = errgroup.WithContext(ctx)
		h.mirror = store.NewMirror(h.memory)
		metrics, log := prometheus.NewRegistry(), zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
		server, err := dispatch.NewServer(dispatch.Config{}, identify, log, metrics)
		if err != nil {
			t.Fatal(err)
		}
		h.brain = orchestrator.New(orchestrator.Deps{Backend: h.memory, Mirror: h.mirror, Dispatch: server,
			Entropy: rand.NewChaCha8([32]byte{1}), Log: log, Metrics: metrics})
		h.claimer = pool.NewClaimer(store.Open(h.memory, store.WriterPool), h.mirror)
		h.group.Go(func() error { return h.mirror.Run(h.ctx) })
		h.create(store.WriterAPI, &v1.Zone{Meta: &v1.Meta{Name: "lgwan"}})
		h.create(store.WriterRollout, &v1.Image{Meta: &v1.Meta{Name: "office"}, Status: &v1.ImageStatus{Current: 1, Versions: []*v1.ImageVersion{
			{Number: 1, Digest: strings.Repeat("1", 64), State: v1.VersionState_VERSION_STATE_READY, SizeBytes: 2 << 30},
		}}})
		for i := range hosts {
			a := &agent{name: fmt.Sprintf("h%d", i+1), server: server, lives: map[string]*life{}}
			h.create(store.WriterAPI, &v1.Host{Meta: &v1.Meta{Name: a.name}})
			h.agents = append(h.agents, a)
			h.group.Go(func() error { return a.run(h.ctx) })
		}
		h.group.Go(h.watchVMs)
		h.lead()
		time.Sleep(5 * time.Second) // all hosts are up
		defer func() {
			h.retire()
			cancel()
			if err := h.group.Wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("the house ended with %v", err)
			}
		}()
		tell(h)
	})
}

// lead begins a term.
func (h *house) lead() {
	h.term++
	guard := store.Guard{Key: "leader", Revision: h.term}
	h.memory.SetGuard(guard)
	ctx, cancel := context.WithCancel(h.ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.brain.Lead(ctx, guard) }()
	h.retire = func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("term %d ended with %v", guard.Revision, err)
		}
		h.retire = func() {}
	}
}

// watchVMs checks every second that no desktop has two VMs.
func (h *house) watchVMs() error {
	for {
		select {
		case <-h.ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
		where := map[string]string{}
		for _, a := range h.agents {
			for _, name := range a.running() {
				if where[name] != "" {
					h.t.Errorf("%s runs on %s and on %s", name, where[name], a.name)
				}
				where[name] = a.name
			}
		}
	}
}

func (h *house) create(w store.Writer, o store.Object) {
	h.t.Helper()
	if _, err := store.Open(h.memory, w).Commit(h.ctx, store.Create(o)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) newPool(seats uint32) {
	h.create(store.WriterAPI, &v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "office", Zone: "lgwan", Desktops: seats}})
}

// expect lets time go by and wants the pool warm and spread as said.
func (h *house) expect(after time.Duration, spread map[string]int) {
	h.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	got := map[string]int{}
	for _, d := range h.mirror.View().DesktopsOfPool("sales") {
		if store.State(d) == v1.DesktopState_DESKTOP_STATE_READY {
			got[d.GetIncarnation().GetHost()]++
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(spread) {
		h.t.Fatalf("ready desktops by host: %v, want %v; the pool says %q", got, spread, h.explain("sales").GetSummary())
	}
}

func (h *house) explain(name string) *v1.ExplainResponse {
	h.t.Helper()
	answer, err := orchestrator.Explain(h.mirror.View(), time.Now(), name)
	if err != nil {
		h.t.Fatal(err)
	}
	return answer
}

func (h *house) desktop(name string) *v1.Desktop {
	d, _ := store.Lookup[*v1.Desktop](h.mirror.View(), name)
	return d
}

func (h *house) removeHost(name string) {
	h.t.Helper()
	host, _ := store.Lookup[*v1.Host](h.mirror.View(), name)
	if _, err := store.Open(h.memory, store.WriterAPI).Commit(h.ctx, store.Delete(host)); err != nil {
		h.t.Fatal(err)
	}
}

func TestFromApplyToWarm(t *testing.T) {
	story(t, 3, func(h *house) {
		h.newPool(12)
		h.expect(30*time.Second, map[string]int{"h1": 4, "h2": 4, "h3": 4})
		if got := h.explain("sales").GetSummary(); got != "pool sales is as it should be: 12 desktops ready" {
			t.Errorf("explain says %q", got)
		}
		if got := h.explain("sales-1"); got.GetSummary() != "sales-1 is ready" || !strings.HasPrefix(got.GetDetails()[0], "it is on host h") {
			t.Errorf("explain says %v", got)
		}

		d, err := h.claimer.Claim(h.ctx, "sales", "taro", "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		name := d.GetMeta().GetName()
		if _, err := h.claimer.Release(h.ctx, "sales", "taro", ""); err != nil {
			t.Fatal(err)
		}
		victim := h.agents[0].running()[0]
		h.agents[0].kill(victim)
		h.expect(30*time.Second, map[string]int{"h1": 4, "h2": 4, "h3": 4})
		if after := h.desktop(name).GetIncarnation(); after.GetUsedBy() != "" || after.GetGeneration() == d.GetIncarnation().GetGeneration() {
			t.Errorf("not refreshed after release: %v", after)
		}
		if after := h.desktop(victim).GetIncarnation(); !strings.Contains(after.GetReason(), "which failed") {
			t.Errorf("not replaced after its end: %v", after)
		}
	})
}

func TestAnotherLeader(t *testing.T) {
	story(t, 2, func(h *house) {
		h.newPool(6)
		h.expect(30*time.Second, map[string]int{"h1": 3, "h2": 3})
		before := h.desktop("sales-3").GetIncarnation().GetGeneration()
		h.retire()
		if _, err := store.Modify(h.ctx, store.Open(h.memory, store.WriterAPI), "sales", func(p *v1.Pool) error {
			p.Spec.Desktops = 8
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		h.expect(2*time.Minute, map[string]int{"h1": 3, "h2": 3}) // nobody leads, and everything runs on
		h.lead()
		h.expect(time.Minute, map[string]int{"h1": 4, "h2": 4})
		if after := h.desktop("sales-3").GetIncarnation().GetGeneration(); after != before {
			t.Errorf("sales-3 was made anew because of a new leader")
		}
	})
}

func TestSilentHost(t *testing.T) {
	story(t, 3, func(h *house) {
		h.newPool(6)
		h.expect(30*time.Second, map[string]int{"h1": 2, "h2": 2, "h3": 2})
		h.agents[2].set(func(a *agent) { a.silent = true })
		h.expect(10*time.Minute, map[string]int{"h1": 2, "h2": 2}) // unreachable is not free
		if got := h.explain("sales").GetSummary(); !strings.Contains(got, "it may still run on h3") {
			t.Errorf("explain says %q", got)
		}
		h.agents[2].set(func(a *agent) { a.silent = false })
		h.expect(time.Minute, map[string]int{"h1": 2, "h2": 2, "h3": 2}) // the same ones are back
		h.agents[2].set(func(a *agent) { a.silent = true })
		time.Sleep(10 * time.Minute)
		h.agents[2].set(func(a *agent) { clear(a.lives) }) // somebody pulls the plug, and says so
		h.removeHost("h3")
		h.expect(time.Minute, map[string]int{"h1": 3, "h2": 3})
	})
}

func TestTooSmallForAll(t *testing.T) {
	story(t, 1, func(h *house) {
		h.newPool(9) // a host of 7680 MiB takes 7
		h.expect(time.Minute, map[string]int{"h1": 7})
		want := "no host fits: 1 host lacks memory (needs 1024 MiB, 512 free)"
		if got := h.explain("sales").GetSummary(); !strings.Contains(got, "7 of 9 are ready, 2 on the way; 2 desktops without a host") || !strings.Contains(got, want) {
			t.Errorf("explain says %q", got)
		}
		if got := h.explain("sales-9").GetSummary(); got != "sales-9 is not ready: "+want {
			t.Errorf("explain says %q", got)
		}
	})
}

func TestBrokenImage(t *testing.T) {
	story(t, 2, func(h *house) {
		for _, a := range h.agents {
			a.set(func(a *agent) { a.broken = "not ready within 5m0s" })
		}
		h.newPool(6)
		h.expect(45*time.Minute, map[string]int{})
		if got := h.explain("sales").GetSummary(); !strings.Contains(got, "too many failed in a row") || !strings.Contains(got, "not ready within 5m0s") {
			t.Errorf("explain says %q", got)
		}
		for _, a := range h.agents {
			a.set(func(a *agent) { a.broken = "" })
		}
		h.expect(45*time.Minute, map[string]int{"h1": 3, "h2": 3})
	})
}

// A host on which nothing gets ready: who asks about the pool, or about the host, hears why the others have all of it.
func TestBrokenHost(t *testing.T) {
	story(t, 3, func(h *house) {
		h.agents[0].set(func(a *agent) { a.broken = "not ready within 5m0s" })
		h.newPool(6)
		h.expect(2*time.Minute, map[string]int{"h2": 3, "h3": 3})
		const why = "host h1 is the last choice for desktops until "
		if got := h.explain("sales").GetDetails(); len(got) == 0 || !strings.HasPrefix(got[0], why) {
			t.Errorf("the pool: %q", got)
		}
		if got := h.explain("h1").GetSummary(); !strings.HasPrefix(got, why) {
			t.Errorf("the host: %q", got)
		}
		events := 0
		for _, e := range store.All[*v1.Event](h.mirror.View()) {
			if e.GetReason() == placement.ReasonShunned {
				events++
			}
		}
		if events != 1 {
			t.Errorf("%d events", events)
		}
		if _, err := orchestrator.Explain(h.mirror.View(), time.Now(), "h9"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a name that nothing has: %v", err)
		}
	})
}
