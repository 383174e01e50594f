package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/etcdstore"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// deed is one call in a history.
type deed struct {
	verb string // "claim", "release", or "renew": the desktop gets a fresh life
	pool string
	user string
	what string // renew: the desktop
}

// unknownOutcome is the answer to a release that nobody heard.
const unknownOutcome = "?"

// lendingModel says which answers are possible in one pool, given what was answered before.
func lendingModel() porcupine.Model {
	heldBy := func(s loans, user string) string {
		for desktop, holder := range s.holder {
			if holder == user {
				return desktop
			}
		}
		return ""
	}
	without := func(s loans, desktop string) loans {
		next := loans{maps.Clone(s.holder), s.used}
		delete(next.holder, desktop)
		return next
	}
	nondeterministic := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			pools := map[string][]porcupine.Operation{}
			for _, operation := range history {
				pool := operation.Input.(deed).pool
				pools[pool] = append(pools[pool], operation)
			}
			return slices.Collect(maps.Values(pools))
		},
		Init: func() []any { return []any{loans{map[string]string{}, map[string]string{}}} },
		Step: func(state, input, output any) []any {
			s, in, desktop := state.(loans), input.(deed), output.(string)
			held := heldBy(s, in.user)
			switch {
			case in.verb == "renew":
				if s.holder[in.what] != "" {
					return nil
				}
				next := loans{s.holder, maps.Clone(s.used)}
				delete(next.used, in.what)
				return []any{next}
			case in.verb == "release" && desktop == unknownOutcome && held != "":
				return []any{s, without(s, held)}
			case in.verb == "release" && desktop == unknownOutcome:
				return []any{s}
			case in.verb == "release" && held != "" && desktop == held:
				return []any{without(s, held)}
			case desktop == held: // again the same one, or nothing to release, or refused
				return []any{s}
			case in.verb == "release" || held != "" || desktop == "" || s.holder[desktop] != "" || !isOr(s.used[desktop], in.user):
				return nil
			}
			next := loans{maps.Clone(s.holder), maps.Clone(s.used)}
			next.holder[desktop], next.used[desktop] = in.user, in.user
			return []any{next}
		},
		Equal: func(a, b any) bool {
			return maps.Equal(a.(loans).holder, b.(loans).holder) && maps.Equal(a.(loans).used, b.(loans).used)
		},
	}
	return nondeterministic.ToModel()
}

// trial is a cluster of daybreakds under trial, and what was seen of it.
type trial struct {
	backend store.Backend
	lines   []*line
	begin   time.Time

	mu      sync.Mutex
	history []porcupine.Operation
	calls   map[string]int    // where in history a claim stands, by request id
	lent    map[string]string // desktops that the store says were lent, by request id
	twice   []string          // request ids that were lent two desktops
	silent  int
	sites   []*site // on each line the daybreakd that lives
	deaths  int
}

var trialPools = []string{"a", "b", "c"}

func newTrial(t *testing.T, backend store.Backend) *trial {
	tr := &trial{backend: backend, begin: time.Now(), calls: map[string]int{}, lent: map[string]string{}}
	w := settled(t, 4)
	ops := []store.Op{}
	for name := range w.hosts {
		ops = append(ops, store.Create(&v1.Host{Meta: &v1.Meta{Name: name}, Status: &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP}}))
	}
	for _, pool := range trialPools {
		object := proto.CloneOf(w.pool)
		object.Meta, object.Spec.Claims = &v1.Meta{Name: pool}, &v1.ClaimPolicy{MaxQueued: 100}
		ops = append(ops, store.Create(object))
		for i, name := range w.names() {
			desktop := proto.CloneOf(w.desktops[name])
			desktop.Meta, desktop.Spec.Pool = &v1.Meta{Name: fmt.Sprintf("%s-%d", pool, i+1)}, pool
			ops = append(ops, store.Create(desktop))
		}
	}
	if _, err := backend.Commit(t.Context(), store.Guard{}, ops); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		l := newLine(backend, uint64(i))
		l.committed = tr.lend
		tr.lines = append(tr.lines, l)
		tr.sites = append(tr.sites, newSite(t, l))
	}
	return tr
}

// note writes a call into the history. A call whose answer nobody heard may still do what it does at any later time.
func (tr *trial) note(client int, called time.Time, call deed, request, answer string, heard bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	operation := porcupine.Operation{ClientId: client, Input: call, Call: called.Sub(tr.begin).Nanoseconds(), Output: answer, Return: time.Since(tr.begin).Nanoseconds()}
	if !heard {
		tr.silent++
		operation.Return = math.MaxInt64
	}
	if call.verb == "claim" {
		tr.calls[request] = len(tr.history)
	}
	tr.history = append(tr.history, operation)
}

// client makes its calls, one after the other.
func (tr *trial) client(ctx context.Context, t *testing.T, number, calls int) {
	random := rand.New(rand.NewPCG(3, uint64(number)))
	user := fmt.Sprintf("user%d", number%12)
	for i := range calls {
		call := deed{verb: "claim", pool: trialPools[random.IntN(len(trialPools))], user: user}
		claimer, request := tr.site(random.IntN(len(tr.lines))), fmt.Sprintf("%d-%d", number, i)
		patience := 2 * time.Second
		if random.IntN(8) == 0 { // it is killed
			patience = time.Duration(random.IntN(3000)) * time.Microsecond
		}
		within, cancel := context.WithTimeout(ctx, patience)
		stop := context.AfterFunc(claimer.ctx, cancel)
		called := time.Now()
		// Of two clients of one user only one releases: which of two releases of one claim did it, nobody could say.
		what := random.IntN(10)
		switch {
		case what < 4 && number < 12:
			call.verb = "release"
			name, err := claimer.Release(within, call.pool, user, "")
			heard := err == nil || errors.Is(err, ErrNotClaimed)
			if !heard {
				name = unknownOutcome
			}
			tr.note(number, called, call, request, name, heard)
		case what < 7:
			desktop, err := claimer.Claim(within, call.pool, user, request, time.Now())
			tr.note(number, called, call, request, desktop.GetMeta().GetName(), err == nil || errors.Is(err, ErrNoneReady))
		default:
			impatient, hurry := context.WithTimeout(within, time.Duration(10+random.IntN(60))*time.Millisecond)
			last := ""
			err := claimer.Wait(impatient, call.pool, user, request, func(word *v1.WaitResponse) error {
				last = word.GetDesktop().GetMeta().GetName()
				return nil
			})
			hurry()
			tr.note(number, called, call, request, last, err == nil)
		}
		stop()
		cancel()
	}
}

// renewer gives desktops that a user left a fresh life, as the pool loop and a host do, until ctx ends.
func (tr *trial) renewer(ctx context.Context) {
	for ctx.Err() == nil {
		objects, _, err := tr.backend.List(ctx, v1.Kind_KIND_DESKTOP)
		if err != nil {
			return
		}
		for _, object := range objects {
			desktop := object.(*v1.Desktop)
			if desktop.GetClaim() != nil || desktop.GetIncarnation().GetUsedBy() == "" {
				continue
			}
			fresh := proto.CloneOf(desktop)
			fresh.Incarnation.Generation++
			fresh.Incarnation.UsedBy, fresh.Status.Generation = "", fresh.Incarnation.Generation
			called := time.Now()
			if _, err := tr.backend.Commit(context.WithoutCancel(ctx), store.Guard{}, []store.Op{store.Update(fresh)}); err == nil {
				tr.note(20, called, deed{verb: "renew", pool: desktop.Spec.Pool, what: desktop.Meta.Name}, "", "", true)
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// lend notes who was lent what. Who watches the store may see a loan and its end at once, and so neither.
func (tr *trial) lend(ops []store.Op) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, op := range ops {
		if claim, ok := op.Object.(*v1.Claim); ok && claim.GetDesktop() != "" {
			tr.lentTo(claim)
		}
	}
}

// lentTo notes one loan. The caller holds the lock.
func (tr *trial) lentTo(claim *v1.Claim) {
	request, desktop := claim.GetRequestId(), claim.GetDesktop()
	if before := tr.lent[request]; before != "" && before != desktop {
		tr.twice = append(tr.twice, fmt.Sprintf("%s: %s and %s", request, before, desktop))
	}
	tr.lent[request] = desktop
}

// judge watches the store itself: after every transaction both sides of every claim agree.
func (tr *trial) judge(t *testing.T, mirror *store.Mirror) (cancel func()) {
	return mirror.Subscribe(func(_, after *store.View, _ []store.Ref) {
		holders := map[string]string{}
		for _, claim := range store.All[*v1.Claim](after) {
			if claim.Desktop == "" {
				continue
			}
			if holders[claim.Desktop] != "" {
				t.Errorf("%s is %s's and %s's", claim.Desktop, claim.User, holders[claim.Desktop])
			}
			holders[claim.Desktop] = claim.User
			tr.mu.Lock()
			tr.lentTo(claim) // also when who wrote it never heard
			tr.mu.Unlock()
		}
		for _, d := range store.All[*v1.Desktop](after) {
			if user := d.GetClaim().GetUser(); user != holders[d.Meta.Name] {
				t.Errorf("%s says %q, the claims say %q", d.Meta.Name, user, holders[d.Meta.Name])
			}
		}
	})
}

// settledHistory is the history with what the store says of claims. Of calls that nobody heard the end of, those that did nothing are
// left out. A call may be lent one desktop, have it released from elsewhere, and be told of the one that its user claimed there
// since: that is two deeds.
func (tr *trial) settledHistory() []porcupine.Operation {
	gone := map[int]bool{}
	for request, at := range tr.calls {
		desktop, operation := tr.lent[request], &tr.history[at]
		switch {
		case operation.Return == math.MaxInt64 && desktop == "":
			gone[at] = true
		case operation.Return == math.MaxInt64:
			operation.Output = desktop
		case desktop != "" && desktop != operation.Output:
			loan := *operation
			loan.Output = desktop
			tr.history = append(tr.history, loan)
		}
	}
	var kept []porcupine.Operation
	for i, operation := range tr.history {
		if !gone[i] {
			kept = append(kept, operation)
		}
	}
	return kept
}

func (tr *trial) run(t *testing.T, clients, calls int) {
	truth := storetest.Mirror(t, tr.backend)
	cancel := tr.judge(t, truth)
	defer cancel()
	ctx, end := context.WithCancel(t.Context())
	var chores, group sync.WaitGroup
	chores.Go(func() { tr.renewer(ctx) })
	chores.Go(func() { tr.lead(ctx) })
	chores.Go(func() { tr.die(ctx, t) })
	chores.Go(func() { tr.partitions(ctx) })
	for number := range clients {
		group.Go(func() { tr.client(t.Context(), t, number, calls) })
	}
	group.Wait()
	end()
	chores.Wait()
	_, last, err := tr.backend.List(t.Context(), v1.Kind_KIND_ZONE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := truth.Wait(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	cancel()
	truth.Subscribe(func(*store.View, *store.View, []store.Ref) {})() // comes after the last call of the judge
	history := tr.settledHistory()
	if result := porcupine.CheckOperationsTimeout(lendingModel(), history, 30*time.Second); result != porcupine.Ok {
		t.Errorf("no order of the %d answers is found that explains them: %s", len(history), result)
	}
	if len(tr.twice) > 0 {
		t.Errorf("requests that were lent two desktops: %v", tr.twice)
	}
	if tr.silent < clients/4 || len(tr.lent) < clients/4 {
		t.Errorf("%d answers were lost, %d loans: too few to prove anything", tr.silent, len(tr.lent))
	}
	t.Logf("%d answers, %d lost, %d loans, %d daybreakds died", len(tr.history), tr.silent, len(tr.lent), tr.deaths)
}

// 20 clients claim, release and wait at three daybreakds that are cut off from the store in turn, wholly or only their mirrors, die, and lead one
// after the other; answers are lost and callers die.
// What they are told fits an order of the calls in which no desktop has two users, no user two of a pool, and nobody gets
// what another left.
func TestHistoryInMemory(t *testing.T) {
	newTrial(t, store.NewMemory()).run(t, 20, 40)
}

func TestHistoryOnEtcd(t *testing.T) {
	newTrial(t, embedded(t)).run(t, 20, 8)
}

// embedded is a store on an etcd that runs until the test ends.
func embedded(t testing.TB) store.Backend {
	t.Helper()
	server, err := etcdstore.Embedded(t.Context(), etcdstore.EmbedConfig{Dir: t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return etcdstore.New(server.Client, "/history", zerolog.Nop())
}
