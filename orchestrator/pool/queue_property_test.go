package pool

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// counter is a pool, its desktops, and the users who stand before it.
type counter struct {
	now      time.Time
	view     *store.View
	pool     *v1.Pool // as decideQueue is told of it; nil when it is gone
	desktops []*v1.Desktop
	queue    []*v1.Claim // in order
}

// TestDecideQueueProperties draws a pool and a queue, and holds what is decided against the rules of both.
func TestDecideQueueProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawCounter(t)
		s := decideQueue(c.now, c.view, "sales", c.pool)
		if again := decideQueue(c.now, c.view, "sales", c.pool); servedText(s) != servedText(again) {
			t.Fatalf("not deterministic: %s, %s", servedText(s), servedText(again))
		}
		c.checkPlaces(t, s)
		lent := c.checkLoans(t, s)
		c.checkOrder(t, s, lent)
	})
}

func servedText(s service) string {
	text := fmt.Sprint(s.again)
	for _, l := range s.loans {
		text += " " + l.desktop.GetMeta().GetName() + "→" + l.claim.GetUser()
	}
	for _, claim := range s.drop {
		text += " -" + claim.GetUser()
	}
	return text
}

func drawCounter(t *rapid.T) *counter {
	now := time.Date(2027, 4, 5, 8, 0, 0, 0, time.UTC)
	w := newWorld(8)
	w.pool.Spec.Claims = &v1.ClaimPolicy{Mode: rapid.SampledFrom([]v1.ClaimMode{
		v1.ClaimMode_CLAIM_MODE_FLOATING, v1.ClaimMode_CLAIM_MODE_DEDICATED,
	}).Draw(t, "mode")}
	if rapid.Bool().Draw(t, "rollout") {
		w.pool.Release = &v1.Release{Version: 1, Next: 2, Admitted: uint32(rapid.IntRange(0, 8).Draw(t, "admitted"))}
	}
	users := []string{"a", "b", "c", "d", "e"}
	objects := []store.Object{
		&v1.Host{Meta: &v1.Meta{Name: "h1"}, Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}},
		&v1.Host{Meta: &v1.Meta{Name: "h2"}, Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_DOWN}},
	}
	owners, holders := map[string]bool{}, map[string]bool{}
	for i := range rapid.IntRange(0, 7).Draw(t, "desktops") {
		objects = append(objects, drawDesktop(t, fmt.Sprintf("sales-%d", i+1), users, owners, holders))
	}
	for _, user := range users {
		if holders[user] || rapid.IntRange(0, 3).Draw(t, user+" waits") == 0 {
			continue
		}
		objects = append(objects, &v1.Claim{
			Meta: &v1.Meta{Name: claimName("sales", user)}, Pool: "sales", User: user,
			Queued:  timestamppb.New(now.Add(-time.Duration(rapid.IntRange(0, 4).Draw(t, "waited")) * time.Minute)),
			Expires: timestamppb.New(now.Add(time.Duration(rapid.IntRange(-20, 90).Draw(t, "left")) * time.Second)),
		})
	}
	c := &counter{now: now, pool: w.pool, view: viewOf(t, objects)}
	switch rapid.IntRange(0, 15).Draw(t, "pool") {
	case 0:
		c.pool = nil
	case 1:
		c.pool.Meta.Deletion = &v1.Deletion{By: "admin"}
	}
	c.desktops, c.queue = c.view.DesktopsOfPool("sales"), c.view.ClaimsWaiting("sales")
	slices.SortStableFunc(c.queue, func(a, b *v1.Claim) int { return a.Queued.AsTime().Compare(b.Queued.AsTime()) })
	return c
}

// drawDesktop makes a desktop in any state. A user holds one at most, and owns one at most.
func drawDesktop(t *rapid.T, name string, users []string, owners, holders map[string]bool) *v1.Desktop {
	somebody := func(what string, odds int) string {
		if rapid.IntRange(1, odds).Draw(t, what+"?") > 1 {
			return ""
		}
		return rapid.SampledFrom(users).Draw(t, what)
	}
	one := func(what string, odds int, had map[string]bool) string {
		user := somebody(what, odds)
		if had[user] {
			return ""
		}
		had[user] = user != ""
		return user
	}
	d := &v1.Desktop{
		Meta: &v1.Meta{Name: name}, Spec: &v1.DesktopSpec{Pool: "sales"},
		Incarnation: &v1.Incarnation{Generation: 7, Image: "office", Version: uint32(rapid.IntRange(1, 2).Draw(t, "version")), Host: "h1", Desired: v1.DesiredState_DESIRED_STATE_READY},
		Status:      &v1.DesktopStatus{Generation: 7, State: v1.DesktopState_DESKTOP_STATE_READY},
	}
	if rapid.Bool().Draw(t, "somebody's") {
		d.Spec.Owner, d.Spec.DataUser, d.Incarnation.UsedBy = one("owner", 2, owners), somebody("data", 3), somebody("used", 2)
		if user := one("holder", 4, holders); user != "" {
			d.Claim, d.Incarnation.UsedBy = &v1.DesktopClaim{User: user}, user
		}
	}
	if rapid.IntRange(0, 2).Draw(t, "well") > 0 {
		return d
	}
	d.Incarnation.Host = rapid.SampledFrom([]string{"h1", "h1", "h1", "h2", "gone", ""}).Draw(t, "host")
	d.Incarnation.Desired = v1.DesiredState(rapid.IntRange(1, 5).Draw(t, "desired"))
	d.Status.State = v1.DesktopState(rapid.IntRange(1, 12).Draw(t, "state"))
	d.Status.PausedIo = rapid.IntRange(0, 4).Draw(t, "paused") == 0
	if rapid.IntRange(0, 4).Draw(t, "deleted") == 0 {
		d.Meta.Deletion = &v1.Deletion{By: "admin"}
	}
	return d
}

// viewOf is what a mirror shows of objects.
func viewOf(t *rapid.T, objects []store.Object) *store.View {
	ctx, cancel := context.WithCancel(t.Context())
	memory := store.NewMemory()
	mirror, ended := store.NewMirror(memory), make(chan error, 1)
	go func() { ended <- mirror.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	var ops []store.Op
	for _, object := range objects {
		ops = append(ops, store.Create(object))
	}
	revision, err := memory.Commit(ctx, store.Guard{}, ops)
	if err == nil {
		_, err = mirror.Wait(ctx, revision)
	}
	if err != nil {
		t.Fatal(err)
	}
	return mirror.View()
}

func (c *counter) closed() bool { return c.pool == nil || c.pool.Meta.Deletion != nil }

// checkPlaces: those places go that ran out, all of a pool that is gone, and no other; the next look is no later than the next
// that runs out, and comes only when somebody still waits.
func (c *counter) checkPlaces(t *rapid.T, s service) {
	var over []*v1.Claim
	next := time.Duration(0)
	for _, claim := range c.queue {
		left := claim.Expires.AsTime().Sub(c.now)
		served := slices.ContainsFunc(s.loans, func(l loan) bool { return l.claim.User == claim.User })
		switch {
		case left < 0 || c.closed():
			over = append(over, claim)
		case !served:
			next = sooner(next, left+time.Millisecond) // when it is over, not when it is about to be
		}
	}
	if !slices.Equal(over, s.drop) {
		t.Fatalf("dropped %v, want %v", s.drop, over)
	}
	if s.again != next {
		t.Fatalf("looks again in %v, want %v", s.again, next)
	}
}

// checkLoans: nobody gets two desktops or one that they must not have, no desktop goes to two. It returns the place in the queue
// of the user that a desktop went to.
func (c *counter) checkLoans(t *rapid.T, s service) (lent map[string]int) {
	lent = map[string]int{}
	served := map[string]bool{}
	for _, l := range s.loans {
		name, user := l.desktop.Meta.Name, l.claim.User
		before, _ := store.Lookup[*v1.Desktop](c.view, name)
		at := slices.IndexFunc(c.queue, func(claim *v1.Claim) bool { return claim.User == user })
		if _, twice := lent[name]; twice || served[user] || at < 0 || before == nil || slices.Contains(s.drop, c.queue[max(at, 0)]) {
			t.Fatalf("%s goes to %s: %s", name, user, servedText(s))
		}
		lent[name], served[user] = at, true
		inc := before.Incarnation
		if !lendable(c.view, before, user, c.now) || before.Claim != nil || !isOr(inc.UsedBy, user) || !isOr(before.Spec.DataUser, user) || !isOr(before.Spec.Owner, user) {
			t.Fatalf("%s must not have %v", user, before)
		}
		if owned := c.ownedBy(user); owned != "" && owned != name {
			t.Fatalf("%s owns %s and gets %s", user, owned, name)
		}
		after, owner := l.desktop, before.Spec.Owner
		if isDedicated(c.pool) {
			owner = user
		}
		if after.Claim.GetUser() != user || after.Incarnation.UsedBy != user || after.Spec.Owner != owner || after.Meta.Revision != before.Meta.Revision {
			t.Fatalf("lent to %s: %v", user, after)
		}
		if l.claim.Desktop != name || l.claim.Expires != nil || !proto.Equal(l.claim.Queued, c.queue[at].Queued) || l.claim.Meta.Revision != c.queue[at].Meta.Revision {
			t.Fatalf("the claim of %s: %v", name, l.claim)
		}
	}
	return lent
}

// ownedBy is the desktop of a dedicated pool that a user owns.
func (c *counter) ownedBy(user string) string {
	for _, d := range c.desktops {
		if isDedicated(c.pool) && d.Spec.Owner == user {
			return d.Meta.Name
		}
	}
	return ""
}

// checkOrder: what a user could have had and did not get went to somebody before them; and what they got was the best: their own,
// else one of the version that lasts.
func (c *counter) checkOrder(t *rapid.T, s service, lent map[string]int) {
	rank := func(d *v1.Desktop, user string) int {
		switch {
		case isTheirs(d, user):
			return 0
		case d.Incarnation.Version == lastingVersion(c.pool):
			return 1
		}
		return 2
	}
	for at, claim := range c.queue {
		if c.closed() || slices.Contains(s.drop, claim) {
			continue
		}
		got := 3 // nothing
		for _, d := range c.desktops {
			if to, ok := lent[d.Meta.Name]; ok && to == at {
				got = rank(d, claim.User)
			}
		}
		for _, d := range c.desktops {
			owned := c.ownedBy(claim.User)
			if !lendable(c.view, d, claim.User, c.now) || owned != "" && owned != d.Meta.Name || rank(d, claim.User) >= got {
				continue
			}
			if to, ok := lent[d.Meta.Name]; !ok || to > at {
				t.Fatalf("%s, number %d, was passed over for %s: %s", claim.User, at+1, d.Meta.Name, servedText(s))
			}
		}
	}
}

// Who owns a desktop that cannot run now gets no other for ever, not even one that kept their data while the pool was floating.
func TestOwnerWaitsForTheOwn(t *testing.T) {
	w := settled(t, 2, func(w *world) { w.pool.Spec.Claims = &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED} })
	w.change("sales-1", func(d *v1.Desktop) {
		d.Spec.Owner, d.Status.State = "taro", v1.DesktopState_DESKTOP_STATE_FAILED
	})
	w.change("sales-2", func(d *v1.Desktop) { d.Spec.DataUser = "taro" })
	view := shown(t, w, waiter(w, "taro"))
	if s := decideQueue(w.now, view, "sales", w.pool); len(s.loans) != 0 || s.again != time.Hour+time.Millisecond {
		t.Errorf("in the queue: %s", servedText(s))
	}
	if found := candidates(view, w.pool, "taro", w.now); len(found) != 0 {
		t.Errorf("at once: %v", found)
	}
}
