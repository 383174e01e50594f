package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// house runs the controller on a memory store in a bubble, with a helping hand that does what placement, dispatch and
// one host do: every virtual second each desktop goes one step.
type house struct {
	t       *testing.T
	memory  *store.Memory
	mirror  *store.Mirror
	api     *store.Store
	claimer *Claimer
	// broken makes what starts fail.
	broken atomic.Bool
	// cursed is the one desktop that fails whatever the others do; it is set before the pool is made.
	cursed string
	// boot is how long a start takes, when hosts are to know cold desktops and start times.
	boot atomic.Int64
	// idle tells the hand that there is nothing to do for long.
	idle atomic.Bool
}

// story runs a test in a bubble with a house in it.
func story(t *testing.T, tell func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		memory := store.NewMemory()
		h := &house{t: t, memory: memory, mirror: store.NewMirror(memory), api: store.Open(memory, store.WriterAPI)}
		handle := store.Open(memory, store.WriterPool)
		h.claimer = NewClaimer(handle, h.mirror)
		controller := New(h.mirror, rand.NewChaCha8([32]byte{1}), zerolog.New(zerolog.NewTestWriter(t)), prometheus.NewRegistry())
		ctx, cancel := context.WithCancel(t.Context())
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return h.mirror.Run(ctx) })
		group.Go(func() error { return controller.Run(ctx, handle) })
		group.Go(func() error { return h.hand(ctx) })
		defer func() {
			cancel()
			if err := group.Wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("the house ended with %v", err)
			}
		}()
		w := newWorld(0)
		h.create(&v1.Zone{Meta: &v1.Meta{Name: "lgwan"}}, store.WriterAPI)
		h.create(&v1.Host{Meta: &v1.Meta{Name: "h1"}}, store.WriterAPI)
		h.create(w.image, store.WriterRollout)
		tell(h)
	})
}

func (h *house) create(o store.Object, w store.Writer) {
	h.t.Helper()
	if _, err := store.Open(h.memory, w).Commit(h.t.Context(), store.Create(o)); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) hand(ctx context.Context) error {
	for {
		pause := time.Second
		if h.idle.Load() { // a week of seconds takes long
			pause = time.Hour
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		for _, d := range store.All[*v1.Desktop](h.mirror.View()) {
			if err := h.step(ctx, d.GetMeta().GetName()); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
	}
}

func (h *house) step(ctx context.Context, name string) error {
	d, err := store.Get[*v1.Desktop](ctx, h.api, name)
	if err != nil {
		return err
	}
	if d.Incarnation.Host == "" {
		home := "h1"
		if host, _ := store.Lookup[*v1.Host](h.mirror.View(), home); host.GetSpec().GetUnschedulable() {
			home = "h2"
		}
		_, err := store.Modify(ctx, store.Open(h.memory, store.WriterPlacement), name, func(d *v1.Desktop) error {
			d.Incarnation.Host = home
			return nil
		})
		return err
	}
	next, message := store.State(d), ""
	switch {
	case h.boot.Load() > 0:
		return h.live(ctx, d)
	case d.Incarnation.Desired == v1.DesiredState_DESIRED_STATE_DELETED:
		next = v1.DesktopState_DESKTOP_STATE_DELETED
	case next == v1.DesktopState_DESKTOP_STATE_PLACED:
		next = v1.DesktopState_DESKTOP_STATE_STARTING
	case next == v1.DesktopState_DESKTOP_STATE_STARTING && (h.broken.Load() || name == h.cursed):
		next, message = v1.DesktopState_DESKTOP_STATE_FAILED, "kernel panic"
	case next == v1.DesktopState_DESKTOP_STATE_STARTING:
		next = v1.DesktopState_DESKTOP_STATE_READY
	}
	return h.report(ctx, name, next, message)
}

func (h *house) report(ctx context.Context, name string, state v1.DesktopState, message string) error {
	_, err := store.Modify(ctx, store.Open(h.memory, store.WriterDispatch), name, func(d *v1.Desktop) error {
		if store.Present(d).GetState() == state {
			return nil
		}
		times := append(store.Present(d).GetTimes(), &v1.StateTime{State: state, At: timestamppb.Now()})
		d.Status = &v1.DesktopStatus{Generation: d.Incarnation.Generation, State: state, Message: message, Times: times}
		return nil
	})
	return err
}

func (h *house) pool() *v1.Pool {
	p, _ := store.Lookup[*v1.Pool](h.mirror.View(), "sales")
	return p
}

func (h *house) edit(change func(p *v1.Pool)) {
	h.t.Helper()
	if _, err := store.Modify(h.t.Context(), h.api, "sales", func(p *v1.Pool) error { change(p); return nil }); err != nil {
		h.t.Fatal(err)
	}
}

// expect lets time go by and wants so many ready desktops then, and nothing to complain of.
func (h *house) expect(after time.Duration, ready uint32) {
	h.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	s := h.pool().GetStatus()
	if s.GetReady() != ready || s.GetDesktops() != ready || s.GetMessage() != "" {
		h.t.Fatalf("after %v: %v, want %d ready", after, s, ready)
	}
}

// told counts the events with a reason.
func (h *house) told(reason string) (n int) {
	for _, e := range store.All[*v1.Event](h.mirror.View()) {
		if e.GetReason() == reason {
			n++
		}
	}
	return n
}

func TestStory(t *testing.T) {
	story(t, func(h *house) {
		ctx := h.t.Context()
		h.create(&v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "office", Zone: "lgwan", Desktops: 6}}, store.WriterAPI)
		h.expect(5*time.Second, 6)

		d, err := h.claimer.Claim(ctx, "sales", "taro", "", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := h.pool().GetStatus(); got.GetClaimed() != 1 || got.GetReady() != 6 {
			t.Errorf("status with one claimed: %v", got)
		}
		if _, err := h.claimer.Release(ctx, "sales", "taro", ""); err != nil {
			t.Fatal(err)
		}
		h.expect(10*time.Second, 6)
		if again, _ := store.Lookup[*v1.Desktop](h.mirror.View(), d.GetMeta().GetName()); again.GetIncarnation().GetUsedBy() != "" ||
			again.GetIncarnation().GetReason() != "refresh after release" {
			t.Errorf("not refreshed: %v", again.GetIncarnation())
		}

		if err := h.report(ctx, "sales-4", v1.DesktopState_DESKTOP_STATE_FAILED, "the VM died"); err != nil {
			t.Fatal(err)
		}
		h.expect(10*time.Second, 6)
		h.edit(func(p *v1.Pool) { p.Spec.Desktops = 90 }) // more than one round makes
		h.expect(10*time.Second, 90)
		h.edit(func(p *v1.Pool) { p.Spec.Desktops = 2 })
		h.expect(10*time.Second, 2)
		for reason, want := range map[string]int{ReasonCreated: 3, ReasonRenewed: 2, ReasonReplaced: 1, ReasonDeleted: 88} {
			if got := h.told(reason); got != want {
				t.Errorf("%d events %s, want %d", got, reason, want)
			}
		}
		h.edit(func(p *v1.Pool) { p.Meta.Deletion = &v1.Deletion{By: "admin"} })
		time.Sleep(10 * time.Second)
		if n := len(store.All[*v1.Desktop](h.mirror.View())); n != 0 || h.pool() != nil {
			t.Errorf("%d desktops and pool %v are left of a deleted pool", n, h.pool())
		}
	})
}

func TestStoryOfABrokenImage(t *testing.T) {
	story(t, func(h *house) {
		h.broken.Store(true)
		h.create(&v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "office", Zone: "lgwan", Desktops: 12}}, store.WriterAPI)
		time.Sleep(50 * time.Minute)
		if s := h.pool().GetStatus(); s.GetHeldUntil() == nil || !strings.Contains(s.GetMessage(), "kernel panic") {
			t.Errorf("status %v", s)
		}
		if n := h.told(ReasonHeldBack); n < 4 || n > 7 {
			t.Errorf("held back %d times in 50 minutes", n)
		}
		if n := h.told(ReasonReplaced); n > 12 {
			t.Errorf("%d desktops were replaced in vain", n)
		}
		h.broken.Store(false)
		time.Sleep(30 * time.Minute)
		h.expect(5*time.Minute, 12)
	})
}

func TestMissingImageAndZone(t *testing.T) {
	story(t, func(h *house) {
		h.create(&v1.Pool{Meta: &v1.Meta{Name: "sales"}, Spec: &v1.PoolSpec{Image: "cad", Zone: "core", Desktops: 1}}, store.WriterAPI)
		time.Sleep(time.Second)
		if got := h.pool().GetStatus().GetMessage(); !strings.Contains(got, "zone core does not exist") {
			t.Errorf("status says %q", got)
		}
		h.create(&v1.Zone{Meta: &v1.Meta{Name: "core"}}, store.WriterAPI)
		time.Sleep(time.Second)
		if got := h.pool().GetStatus().GetMessage(); !strings.Contains(got, "image cad does not exist") {
			t.Errorf("status says %q", got)
		}
		w := newWorld(0)
		w.image.Meta.Name = "cad"
		h.create(w.image, store.WriterRollout)
		h.expect(5*time.Second, 1)
	})
}

func TestEventsAreSwept(t *testing.T) {
	now := time.Date(2027, 4, 5, 8, 0, 0, 0, time.UTC)
	subject := &v1.Pool{Meta: &v1.Meta{Name: "sales"}}
	var events []*v1.Event
	for i := range maxEvents + 50 {
		events = append(events, store.NewEvent(now.Add(time.Duration(i)*time.Second), subject, "Test", "", false))
	}
	if got := len(expired(now.Add(time.Hour), events)); got != 50 {
		t.Errorf("%d events beyond the count, want 50", got)
	}
	week := now.Add(eventLife + 100*time.Second + time.Millisecond)
	if got := len(expired(week, events)); got != 101 {
		t.Errorf("%d events older than a week, want 101", got)
	}
	story(t, func(h *house) {
		h.idle.Store(true)
		for i := range 3 {
			if err := h.api.Event(h.t.Context(), time.Now(), subject, "Test", fmt.Sprint(i), false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(48 * time.Hour)
		}
		if got := h.told("Test"); got != 3 {
			t.Errorf("%d events after 6 days, want 3", got)
		}
		time.Sleep(25 * time.Hour)
		if got := h.told("Test"); got != 2 {
			t.Errorf("%d events after 7 days and an hour, want 2", got)
		}
	})
}
