package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// shop is a store with a warm pool in it, and a Claimer.
type shop struct {
	backend store.Backend
	mirror  *store.Mirror
	claimer *Claimer
}

// openShop writes the world into a memory store and starts a mirror of it.
func openShop(t *testing.T, w *world, wrap func(store.Backend) store.Backend) *shop {
	t.Helper()
	return openShopOn(t, store.NewMemory(), w, wrap)
}

// openShopOn is openShop with a store of the caller's.
func openShopOn(t testing.TB, backend store.Backend, w *world, wrap func(store.Backend) store.Backend) *shop {
	t.Helper()
	s := &shop{backend: wrap(backend), mirror: storetest.Mirror(t, backend)}
	s.claimer = NewClaimer(store.Open(s.backend, store.WriterPool), s.mirror)
	var ops []store.Op
	for name := range w.hosts {
		ops = append(ops, store.Create(&v1.Host{Meta: &v1.Meta{Name: name},
			Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}}))
	}
	ops = append(ops, store.Create(proto.CloneOf(w.pool)))
	for _, name := range w.names() {
		ops = append(ops, store.Create(proto.CloneOf(w.desktops[name])))
	}
	revision, err := backend.Commit(t.Context(), store.Guard{}, ops)
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, revision)
	return s
}

func (s *shop) wait(t testing.TB, revision int64) {
	t.Helper()
	if _, err := s.mirror.Wait(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
}

// edit changes a desktop past all owners, however often somebody else is quicker, and waits until the mirror knows.
func (s *shop) edit(t testing.TB, name string, change func(*v1.Desktop)) {
	t.Helper()
	for {
		o, err := s.backend.Get(t.Context(), store.Ref{Kind: v1.Kind_KIND_DESKTOP, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		d := proto.CloneOf(o.(*v1.Desktop))
		change(d)
		revision, err := s.backend.Commit(t.Context(), store.Guard{}, []store.Op{store.Update(d)})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		s.wait(t, revision)
		return
	}
}

func plain(b store.Backend) store.Backend { return b }

func TestClaimAndRelease(t *testing.T) {
	s := openShop(t, settled(t, 2), plain)
	ctx, now := t.Context(), time.Date(2027, 4, 5, 8, 30, 0, 0, time.UTC)
	first, err := s.claimer.Claim(ctx, "sales", "山田 太郎", "r1", now)
	if err != nil {
		t.Fatal(err)
	}
	if c := first.GetClaim(); c.GetUser() != "山田 太郎" || c.GetRequestId() != "r1" || !c.GetSince().AsTime().Equal(now) {
		t.Errorf("claim %v", c)
	}
	for _, request := range []string{"r1", "r2", ""} {
		again, err := s.claimer.Claim(ctx, "sales", "山田 太郎", request, now.Add(time.Hour))
		if err != nil || again.GetMeta().GetName() != first.GetMeta().GetName() || again.GetClaim().GetRequestId() != "r1" {
			t.Errorf("request %q: %v, %v", request, again.GetClaim(), err)
		}
	}
	second, err := s.claimer.Claim(ctx, "sales", "hanako", "", now)
	if err != nil || second.GetMeta().GetName() == first.GetMeta().GetName() {
		t.Fatalf("second user: %v, %v", second, err)
	}
	_, err = s.claimer.Claim(ctx, "sales", "jiro", "", now)
	if !errors.Is(err, ErrNoneReady) || err.Error() != "no desktop of pool sales is ready: 2 claimed" {
		t.Errorf("third user: %v", err)
	}
	name, err := s.claimer.Release(ctx, "sales", "山田 太郎", "")
	if err != nil || name != first.GetMeta().GetName() {
		t.Errorf("release: %q, %v", name, err)
	}
	if _, err := s.claimer.Release(ctx, "sales", "山田 太郎", ""); !errors.Is(err, ErrNotClaimed) {
		t.Errorf("second release: %v", err)
	}
	if _, err := s.claimer.Claim(ctx, "nosuch", "jiro", "", now); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("claim of a pool that is not: %v", err)
	}
}

// What one user left on a desktop no other user gets.
func TestUsedIsForItsUserOnly(t *testing.T) {
	for _, test := range []struct {
		name    string
		refresh bool
		data    bool
		other   string // what another user is told; "" when it gets the desktop
	}{
		{"used overlay", false, false, "1 being made anew"},
		{"fresh overlay", true, false, ""},
		{"fresh overlay and a data disk", true, true, "1 kept for its user"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := settled(t, 1, func(w *world) {
				if test.data {
					withData(w)
				}
			})
			s := openShop(t, w, plain)
			ctx := t.Context()
			if _, err := s.claimer.Claim(ctx, "sales", "taro", "", w.now); err != nil {
				t.Fatal(err)
			}
			if _, err := s.claimer.Release(ctx, "sales", "taro", ""); err != nil {
				t.Fatal(err)
			}
			s.edit(t, "sales-1", func(d *v1.Desktop) {
				if test.refresh {
					d.Incarnation.Generation++
					d.Incarnation.UsedBy = ""
					d.Status.Generation++
				}
			})
			_, err := s.claimer.Claim(ctx, "sales", "hanako", "", w.now)
			if test.other == "" && err != nil || test.other != "" && (!errors.Is(err, ErrNoneReady) || !strings.HasSuffix(err.Error(), test.other)) {
				t.Fatalf("another user: %v", err)
			}
			if _, err := s.claimer.Claim(ctx, "sales", "taro", "", w.now); test.other != "" && err != nil {
				t.Errorf("the same user: %v", err)
			}
		})
	}
}

func TestWhatIsNotFree(t *testing.T) {
	for _, test := range []struct {
		want string
		edit func(d *v1.Desktop)
	}{
		{"1 starting", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_STARTING }},
		{"1 starting", func(d *v1.Desktop) { d.Status.Generation-- }},
		{"1 failed", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_FAILED }},
		{"1 on a silent host", func(d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_LOST }},
		{"1 paused", func(d *v1.Desktop) { d.Status.PausedIo = true }},
		{"1 being made anew", func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED }},
		{"1 being made anew", func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{} }},
		{"1 being made anew", func(d *v1.Desktop) { d.Incarnation.UsedBy = "taro" }},
	} {
		s := openShop(t, settled(t, 1), plain)
		s.edit(t, "sales-1", test.edit)
		_, err := s.claimer.Claim(t.Context(), "sales", "hanako", "", time.Now())
		if !errors.Is(err, ErrNoneReady) || err.Error() != "no desktop of pool sales is ready: "+test.want {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

func TestClaimNames(t *testing.T) {
	long := strings.Repeat("p", 40)
	seen := map[string]bool{}
	for _, pool := range []string{"a", "a-b", long} {
		for _, user := range []string{"a", "b", "A", "太郎", strings.Repeat("ü", 128)} {
			name := claimName(pool, user)
			if len(name) > 63 || seen[name] {
				t.Errorf("claim name %q of %s, %s", name, pool, user)
			}
			seen[name] = true
		}
	}
}

// unsure does what it is told and sometimes says that it does not know whether it did.
type unsure struct {
	store.Backend
	mu sync.Mutex
	n  int
}

func (u *unsure) Commit(ctx context.Context, g store.Guard, ops []store.Op) (int64, error) {
	u.mu.Lock()
	u.n++
	n := u.n
	u.mu.Unlock()
	if n%5 == 1 {
		return 0, store.ErrUnknownOutcome
	}
	revision, err := u.Backend.Commit(ctx, g, ops)
	if err == nil && n%5 == 3 {
		return 0, store.ErrUnknownOutcome
	}
	return revision, err
}

// borrow is one call in a history.
type borrow struct {
	user    string
	release bool
}

// loans is the model: who holds what, and who used it last.
type loans struct {
	holder, used map[string]string
}

// lending says which answers are possible, given what everybody was told before.
var lending = porcupine.Model{
	Init: func() any { return loans{map[string]string{}, map[string]string{}} },
	Step: func(state, input, output any) (bool, any) {
		s, in, desktop := state.(loans), input.(borrow), output.(string)
		held := ""
		for d, user := range s.holder {
			if user == in.user {
				held = d
			}
		}
		if in.release || held != "" || desktop == "" {
			if desktop != held {
				return false, s
			}
			if in.release && held != "" {
				next := loans{maps.Clone(s.holder), s.used}
				delete(next.holder, held)
				return true, next
			}
			return true, s
		}
		if s.holder[desktop] != "" || !isOr(s.used[desktop], in.user) {
			return false, s
		}
		next := loans{maps.Clone(s.holder), maps.Clone(s.used)}
		next.holder[desktop], next.used[desktop] = in.user, in.user
		return true, next
	},
	Equal: func(a, b any) bool {
		return maps.Equal(a.(loans).holder, b.(loans).holder) && maps.Equal(a.(loans).used, b.(loans).used)
	},
}

// The answers that users get fit an order of the calls in which no desktop has two users, no user two desktops, and
// nobody gets what another used. Few clients, since the search for the order grows with those at work at once.
func TestClaimsAreLinearizable(t *testing.T) {
	s := openShop(t, settled(t, 3), func(b store.Backend) store.Backend { return &unsure{Backend: b} })
	var mu sync.Mutex
	var history []porcupine.Operation
	begin := time.Now()
	s.crowd(t, 6, 4, func(client int, call borrow, answer func() string) {
		called := time.Since(begin).Nanoseconds()
		got := answer()
		returned := time.Since(begin).Nanoseconds()
		mu.Lock()
		history = append(history, porcupine.Operation{ClientId: client, Input: call, Call: called, Output: got, Return: returned})
		mu.Unlock()
	})
	if !porcupine.CheckOperations(lending, history) {
		t.Errorf("no order explains the %d answers", len(history))
	}
}

// The same with a crowd, judged by the store's own history: after every transaction both sides of every claim agree.
func TestCrowdOfClaims(t *testing.T) {
	s := openShop(t, settled(t, 8), func(b store.Backend) store.Backend { return &unsure{Backend: b} })
	judged := 0
	used := map[string]string{}
	cancel := s.mirror.Subscribe(func(_, after *store.View, _ []store.Ref) {
		judged++
		holders := map[string]string{}
		for _, claim := range store.All[*v1.Claim](after) {
			if holders[claim.Desktop] != "" {
				t.Errorf("%s is %s's and %s's", claim.Desktop, claim.User, holders[claim.Desktop])
			}
			holders[claim.Desktop] = claim.User
		}
		users := map[string]string{}
		for _, d := range store.All[*v1.Desktop](after) {
			user := d.GetClaim().GetUser()
			if user != holders[d.Meta.Name] || user != "" && users[user] != "" {
				t.Errorf("%s says %q, the claims say %q; %q holds %q too", d.Meta.Name, user, holders[d.Meta.Name], user, users[user])
			}
			if user == "" {
				continue
			}
			if !isOr(used[d.Meta.Name], user) {
				t.Errorf("%s went from %s to %s", d.Meta.Name, used[d.Meta.Name], user)
			}
			users[user], used[d.Meta.Name] = d.Meta.Name, user
		}
	})
	s.crowd(t, 24, 10, func(_ int, _ borrow, answer func() string) { answer() })
	_, last, err := s.backend.List(t.Context(), v1.Kind_KIND_CLAIM)
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, last)
	cancel()
	s.mirror.Subscribe(func(*store.View, *store.View, []store.Ref) {})() // comes after the last call of the judge
	if judged < 20 {
		t.Errorf("only %d transactions", judged)
	}
}

// crowd lets clients call at once, 12 times each, in the name of so many users.
func (s *shop) crowd(t *testing.T, clients, users int, each func(client int, call borrow, answer func() string)) {
	var group sync.WaitGroup
	for client := range clients {
		group.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(client)))
			for range 12 {
				call := borrow{user: fmt.Sprintf("user%d", client%users), release: random.IntN(3) == 0}
				each(client, call, func() string {
					answer, err := s.call(t.Context(), call)
					if err != nil && !errors.Is(err, ErrNoneReady) && !errors.Is(err, ErrNotClaimed) {
						t.Errorf("%+v: %v", call, err)
					}
					return answer
				})
			}
		})
	}
	group.Wait()
}

func (s *shop) call(ctx context.Context, b borrow) (string, error) {
	if b.release {
		return s.claimer.Release(ctx, "sales", b.user, "")
	}
	d, err := s.claimer.Claim(ctx, "sales", b.user, "", time.Now())
	return d.GetMeta().GetName(), err
}

func TestMorningRush(t *testing.T) {
	const seats = 30
	s := openShop(t, settled(t, seats), plain)
	names := make([]string, seats)
	var users sync.WaitGroup
	for i := range seats {
		users.Go(func() {
			d, err := s.claimer.Claim(t.Context(), "sales", fmt.Sprintf("user%d", i), "", time.Now())
			if err != nil {
				t.Errorf("user %d: %v", i, err)
			}
			names[i] = d.GetMeta().GetName()
		})
	}
	users.Wait()
	slices.Sort(names)
	if got := len(slices.Compact(names)); got != seats {
		t.Errorf("%d users hold %d desktops", seats, got)
	}
}
