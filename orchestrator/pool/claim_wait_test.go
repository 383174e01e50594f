package pool

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// lead runs the pool loop on the shop's store until the returned function is called.
func (s *shop) lead(t *testing.T) (end func()) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	controller := New(s.mirror, rand.Reader, zerolog.Nop(), prometheus.NewRegistry())
	go func() { ended <- controller.Run(ctx, store.Open(s.backend, store.WriterPool)) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the loop: %v", err)
		}
	})
	t.Cleanup(end)
	return end
}

// visit is a call of Wait under way.
type visit struct {
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	words  []*v1.WaitResponse
	err    error
	over   bool
}

func (s *shop) visit(ctx context.Context, user string) *visit {
	v := &visit{}
	ctx, v.cancel = context.WithCancelCause(ctx)
	go func() {
		err := s.claimer.Wait(ctx, "sales", user, "", func(word *v1.WaitResponse) error {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.words = append(v.words, word)
			return nil
		})
		v.mu.Lock()
		defer v.mu.Unlock()
		v.err, v.over = err, true
	}()
	return v
}

// place is the last place that the visitor heard of, 0 once they have a desktop; -1 when nothing was heard.
func (v *visit) place() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.words) == 0 {
		return -1
	}
	return int(v.words[len(v.words)-1].GetPosition())
}

// got is the name of the desktop that was ready in the end; "" when the call is not over or failed.
func (v *visit) got() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.over || v.err != nil {
		return ""
	}
	return v.words[len(v.words)-1].GetDesktop().GetMeta().GetName()
}

func (v *visit) failed() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.err
}

// booting is a pool whose desktops are not ready yet.
func booting(t *testing.T, seats uint32, edits ...func(*world)) *world {
	w := settled(t, seats, edits...)
	for _, name := range w.names() {
		w.change(name, func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_STARTING })
	}
	w.now = time.Now()
	return w
}

func (s *shop) boot(t *testing.T, name string) {
	s.edit(t, name, func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_READY })
}

// openForWorld is openShop with the image and the zone that the loop needs.
func openForWorld(t *testing.T, w *world) *shop {
	s := openShop(t, w, plain)
	image, zone := proto.CloneOf(w.image), &v1.Zone{Meta: &v1.Meta{Name: "lgwan"}}
	revision, err := s.backend.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(image), store.Create(zone)})
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, revision)
	return s
}

// rest lets everything settle for a while of virtual time.
func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestQueueIsServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, booting(t, 4))
		end := s.lead(t)
		var visits []*visit
		for i := range 4 {
			visits = append(visits, s.visit(t.Context(), fmt.Sprintf("user%d", i)))
			rest(time.Second)
			if place := visits[i].place(); place != i+1 {
				t.Fatalf("user%d has place %d", i, place)
			}
		}
		var none *NoneReadyError
		if _, err := s.claimer.Claim(t.Context(), "sales", "late", "", time.Now()); !errors.As(err, &none) || none.Place != 5 || none.Queued != 4 {
			t.Errorf("a claim behind four who wait: %v", err)
		}
		late := s.visit(t.Context(), "late")
		if rest(time.Second); !errors.Is(late.failed(), ErrQueueFull) {
			t.Errorf("a fifth one waits for four desktops: %v", late.failed())
		}
		rest(5 * time.Minute) // every place is renewed
		s.boot(t, "sales-2")
		rest(time.Second)
		if visits[0].got() != "sales-2" || visits[1].place() != 1 || visits[3].place() != 3 {
			t.Fatalf("the first got %q, the second has place %d, the fourth %d", visits[0].got(), visits[1].place(), visits[3].place())
		}
		end() // another leader goes on with the same queue
		visits[1].cancel(context.Canceled)
		rest(time.Second)
		if _, err := s.claimer.Release(t.Context(), "sales", "user1", ""); err != nil {
			t.Fatal(err)
		}
		s.lead(t)
		s.boot(t, "sales-1")
		s.boot(t, "sales-3")
		rest(2 * time.Second)
		if visits[2].got() == "" || visits[3].got() == "" || !errors.Is(visits[1].failed(), context.Canceled) {
			t.Errorf("%q, %q, %v", visits[2].got(), visits[3].got(), visits[1].failed())
		}
		if claims, _, err := store.List[*v1.Claim](t.Context(), s.claimer.store); err != nil || len(claims) != 3 {
			t.Errorf("%d claims are left: %v", len(claims), err)
		}
	})
}

func TestOnePlaceForOneUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, booting(t, 2))
		s.lead(t)
		first := s.visit(t.Context(), "taro")
		rest(time.Second)
		behind := s.visit(t.Context(), "hanako")
		rest(time.Second)
		second := s.visit(t.Context(), "taro")
		rest(2 * time.Minute)
		if first.place() != 1 || second.place() != 1 || behind.place() != 2 {
			t.Fatalf("places %d, %d, %d", first.place(), second.place(), behind.place())
		}
		second.cancel(context.Canceled) // the other call goes on, at the same place
		rest(3 * time.Second)
		if first.place() != 1 || first.failed() != nil || behind.place() != 2 {
			t.Fatalf("places %d, %d: %v", first.place(), behind.place(), first.failed())
		}
		s.boot(t, "sales-1")
		rest(time.Second)
		if first.got() != "sales-1" || behind.place() != 1 {
			t.Errorf("%q, %d, %v", first.got(), behind.place(), first.failed())
		}
	})
}

func TestLeavingTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, booting(t, 2))
		s.lead(t)
		cutOff, released := s.visit(t.Context(), "taro"), s.visit(t.Context(), "hanako")
		rest(time.Second)
		cutOff.cancel(context.Canceled)
		if name, err := s.claimer.Release(t.Context(), "sales", "hanako", ""); err != nil || name != "" {
			t.Errorf("release of one who waits: %q, %v", name, err)
		}
		rest(2 * time.Second)
		if !errors.Is(cutOff.failed(), context.Canceled) || !errors.Is(released.failed(), ErrWaitEnded) {
			t.Errorf("%v, %v", cutOff.failed(), released.failed())
		}
		if _, queued := placeOf(s.mirror.View(), "sales", "jiro", time.Now()); queued != 1 {
			t.Errorf("%d wait, want the one who was cut off", queued)
		}
		rest(placeLife)
		if claims := store.All[*v1.Claim](s.mirror.View()); len(claims) != 0 {
			t.Errorf("nobody is heard, and %v wait", claims)
		}
		crowd := []*visit{s.visit(t.Context(), "a"), s.visit(t.Context(), "b")}
		rest(time.Second)
		full := s.visit(t.Context(), "c")
		rest(time.Second)
		if !errors.Is(full.failed(), ErrQueueFull) || crowd[0].failed() != nil {
			t.Errorf("the third where two may wait: %v", full.failed())
		}
	})
}

// Who holds a desktop that sleeps waits until it is awake.
func TestWaitWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, settled(t, 1))
		s.lead(t)
		if _, err := s.claimer.Claim(t.Context(), "sales", "taro", "", time.Now()); err != nil {
			t.Fatal(err)
		}
		s.edit(t, "sales-1", func(d *v1.Desktop) {
			d.Incarnation.Desired, d.Status.State = v1.DesiredState_DESIRED_STATE_SUSPENDED, v1.DesktopState_DESKTOP_STATE_SUSPENDED
			d.Claim.Reclaim = &v1.Reclaim{Action: suspend, Acting: true}
			d.Status.Message = "waits for memory"
		})
		v := s.visit(t.Context(), "taro")
		rest(time.Second)
		d, _ := store.Lookup[*v1.Desktop](s.mirror.View(), "sales-1")
		if v.got() != "" || !strings.Contains(v.words[0].GetMessage(), "is being woken on host h1: waits for memory") || d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_READY {
			t.Fatalf("%v, %v", v.words, d.Incarnation)
		}
		s.boot(t, "sales-1")
		rest(time.Second)
		if v.got() != "sales-1" {
			t.Errorf("%v", v.failed())
		}
	})
}

// 20 claims at once of one user in 20 pools that give a user no more than two.
func TestLimitPerUser(t *testing.T) {
	w := settled(t, 1, func(w *world) { w.pool.Spec.Claims = &v1.ClaimPolicy{MaxPerUser: 2} })
	s := openShop(t, w, plain)
	var ops []store.Op
	for i := range 19 {
		pool, desktop := proto.CloneOf(w.pool), proto.CloneOf(w.desktops["sales-1"])
		pool.Meta = &v1.Meta{Name: fmt.Sprintf("pool%d", i)}
		desktop.Meta, desktop.Spec.Pool = &v1.Meta{Name: pool.Meta.Name + "-1"}, pool.Meta.Name
		ops = append(ops, store.Create(pool), store.Create(desktop))
	}
	revision, err := s.backend.Commit(t.Context(), store.Guard{}, ops)
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, revision)
	for round := range 20 {
		user := fmt.Sprintf("user%d", round)
		var group sync.WaitGroup
		var mu sync.Mutex
		got := map[string]bool{}
		for _, pool := range store.All[*v1.Pool](s.mirror.View()) {
			group.Go(func() {
				_, err := s.claimer.Claim(t.Context(), pool.Meta.Name, user, "", time.Now())
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					got[pool.Meta.Name] = true
				case !errors.Is(err, ErrUserLimit) && !errors.Is(err, ErrNoneReady):
					t.Errorf("%s: %v", pool.Meta.Name, err)
				}
			})
		}
		group.Wait()
		if len(got) != 2 {
			t.Fatalf("round %d: %d desktops, want 2", round, len(got))
		}
		for pool := range got {
			if _, err := s.claimer.Release(t.Context(), pool, user, ""); err != nil {
				t.Fatal(err)
			}
			s.edit(t, pool+"-1", func(d *v1.Desktop) { d.Incarnation.UsedBy = "" })
		}
	}
	_, err = s.claimer.Claim(t.Context(), "sales", "x", "", time.Now())
	_, again := s.claimer.Claim(t.Context(), "pool1", "x", "", time.Now())
	_, third := s.claimer.Claim(t.Context(), "pool2", "x", "", time.Now())
	if err := errors.Join(err, again); err != nil || !strings.Contains(fmt.Sprint(third), `"x" holds or waits for 2 desktops, of pool pool1, sales, and this pool lends to users who have fewer than 2 (maxPerUser)`) {
		t.Errorf("%v, %v", err, third)
	}
}

func TestDedicated(t *testing.T) {
	w := settled(t, 2, func(w *world) { w.pool.Spec.Claims = &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED} })
	s := openShop(t, w, plain)
	claim := func(user string) (string, error) {
		d, err := s.claimer.Claim(t.Context(), "sales", user, "", time.Now())
		return d.GetMeta().GetName(), err
	}
	own, err := claim("taro")
	if err != nil {
		t.Fatal(err)
	}
	release := func() {
		if _, err := s.claimer.Release(t.Context(), "sales", "taro", ""); err != nil {
			t.Fatal(err)
		}
	}
	release()
	s.edit(t, own, func(d *v1.Desktop) { // its life ended and the next one waits
		if d.Spec.Owner != "taro" {
			t.Errorf("%s is of %q", own, d.Spec.Owner)
		}
		d.Incarnation.UsedBy, d.Incarnation.Desired = "", v1.DesiredState_DESIRED_STATE_PREPARED
		d.Status.State = v1.DesktopState_DESKTOP_STATE_PREPARED
	})
	other, err := claim("hanako")
	if err != nil || other == own {
		t.Fatalf("%q, %v", other, err)
	}
	if _, err := claim("jiro"); !errors.Is(err, ErrNoneReady) || !strings.HasSuffix(err.Error(), "1 claimed, 1 kept for its user") {
		t.Errorf("the third: %v", err)
	}
	if again, err := claim("taro"); err != nil || again != own {
		t.Errorf("taro again: %q, %v", again, err)
	}
	d, err := store.Get[*v1.Desktop](t.Context(), s.claimer.store, own)
	if err != nil || d.Incarnation.Desired != v1.DesiredState_DESIRED_STATE_READY || d.Incarnation.Woken == nil {
		t.Errorf("not woken: %v, %v", d.GetIncarnation(), err)
	}
	release()
	s.edit(t, own, func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_FAILED })
	if _, err := claim("taro"); !errors.Is(err, ErrNoneReady) { // and no other is given to him for ever
		t.Errorf("while his own is broken: %v", err)
	}
}

func TestKeep(t *testing.T) {
	w, _ := heldWorld(t)
	s := openShop(t, w, plain)
	claim := &v1.Claim{Meta: &v1.Meta{Name: claimName("sales", "taro")}, Pool: "sales", User: "taro", Desktop: "sales-1"}
	if _, err := s.backend.Commit(t.Context(), store.Guard{}, []store.Op{store.Create(claim)}); err != nil {
		t.Fatal(err)
	}
	s.edit(t, "sales-1", func(d *v1.Desktop) { d.Claim.Reclaim = &v1.Reclaim{Action: suspend} })
	d, err := s.claimer.Keep(t.Context(), "sales", "taro", 2*time.Hour, w.now)
	if err != nil || !d.Claim.BusyUntil.AsTime().Equal(w.now.Add(2*time.Hour)) || d.Claim.Reclaim != nil {
		t.Errorf("%v, %v", d.GetClaim(), err)
	}
	if d, err = s.claimer.Keep(t.Context(), "sales", "taro", 0, w.now); err != nil || d.Claim.BusyUntil != nil {
		t.Errorf("%v, %v", d.GetClaim(), err)
	}
	if _, err := s.claimer.Keep(t.Context(), "sales", "hanako", 0, w.now); !errors.Is(err, ErrNotClaimed) {
		t.Errorf("of one who holds nothing: %v", err)
	}
}
