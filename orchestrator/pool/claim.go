package pool

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels of the Claimer. A pool that does not exist is store.ErrNotFound.
var (
	// ErrNoneReady: every desktop is taken, none that is free is ready, or others wait already. The error's text says which.
	ErrNoneReady = errors.New("no desktop is ready")
	// ErrNotClaimed: the user holds no desktop of the pool, nor waits for one where that would do.
	ErrNotClaimed = errors.New("there is no such claim")
	// ErrPoolDeleted: the pool is being deleted and lends nothing any more.
	ErrPoolDeleted = errors.New("pool is being deleted")
	// ErrUserLimit: the user holds, or waits for, as many desktops as the pool lets a user have.
	ErrUserLimit = errors.New("too many desktops for one user")
	// ErrRequestUsed: the request id is of a claim that ended, or of another user's. The error's text says which.
	ErrRequestUsed = errors.New("the request id was used before")
)

// NoneReadyError is ErrNoneReady with the counts.
type NoneReadyError struct {
	Pool string
	// Why there is none: counts of desktops by what they are, for people.
	Counts string
	// Queued is how many wait, and Place where this user stands among them, or would, from 1.
	Queued, Place int
}

func (e *NoneReadyError) Error() string {
	text := fmt.Sprintf("no desktop of pool %s is ready: %s", e.Pool, e.Counts)
	if e.Queued > 0 {
		text += fmt.Sprintf("; %s for one, and this user's place is number %d", waitPhrase(e.Queued), e.Place)
	}
	return text
}

func waitPhrase(n int) string {
	if n == 1 {
		return "1 user waits"
	}
	return fmt.Sprintf("%d users wait", n)
}

// Is makes errors.Is find ErrNoneReady.
func (e *NoneReadyError) Is(target error) bool { return target == ErrNoneReady }

// claimAttempts bounds how often one call begins anew after somebody else was quicker. Each time somebody else made
// progress, so a call that runs out had very many rivals.
const claimAttempts = 64

// Claimer lends desktops to users. A claim is one transaction on two objects, so any daybreakd may make it, leader or
// not, and two users never get one desktop, nor one user two of a pool. Users who wait are served by the leader's loop
// (queue.go), in order; that nobody overtakes them goes by what this daybreakd's mirror knows, which is behind the store
// by a moment.
type Claimer struct {
	store  *store.Store
	mirror *store.Mirror
}

// NewClaimer makes a Claimer. st is opened for WriterPool; mirror has all kinds.
func NewClaimer(st *store.Store, mirror *store.Mirror) *Claimer {
	return &Claimer{store: st, mirror: mirror}
}

// Claim lends a ready desktop of the pool to the user and returns it. A user who holds one gets the same again, whatever
// the request id: the call may be repeated until it is answered. One that is theirs wakes when it was suspended or shut
// down, and is then returned before it is ready. ErrNoneReady, ErrUserLimit, ErrPoolDeleted, ErrRequestUsed,
// store.ErrNotFound (no such pool).
func (c *Claimer) Claim(ctx context.Context, pool, user, requestID string, now time.Time) (*v1.Desktop, error) {
	if _, err := c.mirror.Wait(ctx, 0); err != nil {
		return nil, fmt.Errorf("claim a desktop of pool %s: %w", pool, err)
	}
	caughtUp := false
	for range claimAttempts {
		claim, err := c.claimOf(ctx, pool, user)
		if err != nil && !errors.Is(err, ErrNotClaimed) {
			return nil, err
		}
		if claim.GetDesktop() != "" {
			desktop, err := c.comeBack(ctx, claim, now)
			if err == nil || !lookAgain(err) {
				return desktop, err
			}
			continue
		}
		desktop, err := c.take(ctx, pool, user, claim, requestID, now, caughtUp)
		stale := errors.Is(err, errMirrorOld)
		unsure := errors.Is(err, store.ErrUnknownOutcome) // it may have made a claim that is over by now: the request must not make another
		refused := stale || errors.Is(err, ErrNoneReady) || errors.Is(err, store.ErrNotFound)
		if err == nil || !refused && !lookAgain(err) || refused && caughtUp {
			return desktop, err
		}
		if refused || unsure { // by what the mirror knew; nobody who saw a desktop get ready is to hear that there is none
			if err := c.catchUp(ctx); err != nil {
				return nil, fmt.Errorf("claim a desktop of pool %s: %w", pool, err)
			}
			caughtUp = true
		}
	}
	return nil, fmt.Errorf("claim a desktop of pool %s: others were quicker %d times: %w", pool, claimAttempts, store.ErrConflict)
}

// errMirrorOld: what is to be decided must not be decided on an old view.
var errMirrorOld = errors.New("the mirror may be behind")

// catchUp waits until the mirror knows all that the store knows now.
func (c *Claimer) catchUp(ctx context.Context) error {
	_, revision, err := c.store.List(ctx, v1.Kind_KIND_ZONE)
	if err != nil {
		return err
	}
	_, err = c.mirror.Wait(ctx, revision)
	return err
}

// lookAgain: somebody changed the objects first, or nobody knows whether the transaction went through. Either way the
// store's newest word tells what to do.
func lookAgain(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrUnknownOutcome)
}

// held returns the desktop that the user holds by the store's newest word, or ErrNotClaimed.
func (c *Claimer) held(ctx context.Context, pool, user string) (*v1.Desktop, error) {
	claim, err := c.claimOf(ctx, pool, user)
	if err != nil {
		return nil, err
	}
	if claim.GetDesktop() == "" {
		return nil, fmt.Errorf("user %q holds no desktop of pool %s and waits for one: %w", user, pool, ErrNotClaimed)
	}
	return c.desktopOf(ctx, claim)
}

// desktopOf returns the desktop of a claim. store.ErrConflict: the claim ended since it was read.
func (c *Claimer) desktopOf(ctx context.Context, claim *v1.Claim) (*v1.Desktop, error) {
	desktop, err := store.Get[*v1.Desktop](ctx, c.store, claim.GetDesktop())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("get the desktop of the claim: %w", err)
	}
	if desktop.GetClaim().GetUser() != claim.GetUser() {
		return nil, fmt.Errorf("get the desktop of the claim of %q in pool %s: %w", claim.GetUser(), claim.GetPool(), store.ErrConflict)
	}
	return desktop, nil
}

// claimOf returns the user's claim by the store's newest word, whether they hold a desktop or wait, or ErrNotClaimed.
func (c *Claimer) claimOf(ctx context.Context, pool, user string) (*v1.Claim, error) {
	claim, err := store.Get[*v1.Claim](ctx, c.store, claimName(pool, user))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("user %q holds no desktop of pool %s: %w", user, pool, ErrNotClaimed)
	}
	if err != nil {
		return nil, fmt.Errorf("get the claim: %w", err)
	}
	if claim.GetUser() != user || claim.GetPool() != pool {
		return nil, fmt.Errorf("claim %s is not of user %q in pool %s: %w", claimName(pool, user), user, pool, store.ErrInvalid)
	}
	return claim, nil
}

// take claims one of the desktops that the mirror shows as free, or says why there is none. The mirror may be behind:
// each candidate is read anew, and the transaction holds only if nobody changed it since. waiting is the user's place in
// the queue, nil when they have none. errMirrorOld: a first desktop for ever is given by a fresh view only, and the store
// says that a claim is over which the mirror still has.
func (c *Claimer) take(ctx context.Context, pool, user string, waiting *v1.Claim, requestID string, now time.Time, fresh bool) (*v1.Desktop, error) {
	view := c.mirror.View()
	object, err := lendingPool(view, pool)
	if err != nil {
		return nil, err
	}
	if err := unused(view, pool, user, requestID, now); err != nil {
		if errors.Is(err, errMirrorOld) && fresh {
			err = store.ErrConflict // it is the claim that was read that is old: another call made it meanwhile
		}
		return nil, err
	}
	candidates := candidates(view, object, user, now)
	if isDedicated(object) && !fresh && len(candidates) > 0 && !isTheirs(candidates[0], user) {
		return nil, errMirrorOld
	}
	if refusal := inTurn(view, object, user, now, candidates); refusal != nil {
		return nil, refusal
	}
	var pins []store.Op
	if waiting == nil && len(candidates) > 0 {
		if pins, err = c.underLimit(ctx, object, user); err != nil {
			return nil, err
		}
	}
	conflict := error(nil)
	for _, candidate := range candidates {
		desktop, err := store.Get[*v1.Desktop](ctx, c.store, candidate.GetMeta().GetName())
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("get a desktop to claim: %w", err)
		}
		if !lendable(view, desktop, user, now) {
			continue
		}
		lent := lend(object, desktop, waiting, user, requestID, now)
		revision, err := c.store.Commit(ctx, append(lent.ops(), pins...)...)
		switch {
		case err == nil:
			lent.desktop.Meta.Revision = revision
			return lent.desktop, nil
		case errors.Is(err, store.ErrExists):
			return nil, err // the user's other call was quicker: see what it got
		case !errors.Is(err, store.ErrConflict): // of an unknown outcome, too, no second desktop is tried
			return nil, fmt.Errorf("claim desktop %s: %w", desktop.GetMeta().GetName(), err)
		case len(pins) > 0 || waiting != nil: // it may be the user's other claims that changed
			return nil, err
		}
		conflict = err
	}
	if conflict != nil {
		return nil, conflict
	}
	return nil, noneReady(view, pool, user, now)
}

// lendingPool returns a pool that lends desktops.
func lendingPool(view *store.View, pool string) (*v1.Pool, error) {
	object, ok := store.Lookup[*v1.Pool](view, pool)
	if !ok {
		return nil, fmt.Errorf("claim a desktop: pool %s: %w", pool, store.ErrNotFound)
	}
	if object.GetMeta().GetDeletion() != nil {
		return nil, fmt.Errorf("claim a desktop of pool %s: %w", pool, ErrPoolDeleted)
	}
	return object, nil
}

// loan is both sides of a claim, as they are to be written, and the event that goes with it, if any.
type loan struct {
	desktop *v1.Desktop
	claim   *v1.Claim
	event   *v1.Event
}

func (l loan) ops() []store.Op {
	op := store.Create(l.claim)
	if l.claim.GetMeta().GetRevision() != 0 {
		op = store.Update(l.claim)
	}
	ops := []store.Op{store.Update(l.desktop), op}
	if l.event != nil {
		ops = append(ops, store.Create(l.event))
	}
	return ops
}

// lend makes both sides of a claim. waiting is the user's place in the queue, nil when they have none.
func lend(pool *v1.Pool, desktop *v1.Desktop, waiting *v1.Claim, user, requestID string, now time.Time) loan {
	at := timestamppb.New(now)
	changed := proto.CloneOf(desktop)
	changed.Claim = &v1.DesktopClaim{User: user, Since: at, RequestId: requestID, Asked: at}
	changed.Ended = remembered(changed, now)
	changed.Incarnation.UsedBy = user
	if holdsData(changed) {
		changed.Spec.DataUser = user
	}
	if isDedicated(pool) {
		changed.Spec.Owner = user
	}
	claim := &v1.Claim{Meta: &v1.Meta{Name: claimName(pool.GetMeta().GetName(), user)}, Pool: pool.GetMeta().GetName(), User: user}
	if waiting != nil {
		claim = proto.CloneOf(waiting)
		claim.Expires = nil
	}
	claim.Desktop, claim.Since, claim.RequestId = desktop.GetMeta().GetName(), at, requestID
	made := loan{desktop: changed, claim: claim}
	if what := wake(now, changed); what != "" {
		made.event = store.NewEvent(now, changed, ReasonWoken, what+" for "+user+", whose desktop it is", false)
	}
	return made
}

// Release ends the user's claim and returns the desktop's name. The pool loop throws the overlay away before anybody
// else gets the desktop. Who waits leaves the queue: the name is empty then. With a request id, only a claim of that
// request is ended. ErrNotClaimed when the user has no such claim.
func (c *Claimer) Release(ctx context.Context, pool, user, requestID string) (string, error) {
	name, unsure := "", ""
	for range claimAttempts {
		claim, err := c.claimOf(ctx, pool, user)
		if err == nil && requestID != "" && claim.GetRequestId() != requestID {
			err = fmt.Errorf("the claim of %q in pool %s is not of request %q: %w", user, pool, requestID, ErrNotClaimed)
		}
		if unsure != "" && (errors.Is(err, ErrNotClaimed) || err == nil && claim.GetMeta().GetUid() != unsure) {
			return name, nil // it went through; what there is now is a claim that was made since
		}
		if err != nil {
			return "", err
		}
		ops := []store.Op{store.Delete(claim)}
		if name = claim.GetDesktop(); name != "" {
			desktop, err := c.desktopOf(ctx, claim)
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			if err != nil {
				return "", err
			}
			ops = append(ops, store.Update(letGo(desktop, time.Now())))
		}
		_, err = c.store.Commit(ctx, ops...)
		if err == nil {
			return name, nil
		}
		if errors.Is(err, store.ErrUnknownOutcome) {
			unsure = claim.GetMeta().GetUid()
		}
		if !lookAgain(err) {
			return "", fmt.Errorf("release the claim of %q in pool %s: %w", user, pool, err)
		}
	}
	return "", fmt.Errorf("release a desktop of pool %s: others were quicker %d times: %w", pool, claimAttempts, store.ErrConflict)
}

// letGo returns the desktop without its claim, whose request it remembers.
func letGo(desktop *v1.Desktop, now time.Time) *v1.Desktop {
	changed := proto.CloneOf(desktop)
	changed.Ended = remembered(changed, now)
	if claim := changed.GetClaim(); claim.GetRequestId() != "" {
		ended := &v1.EndedClaim{RequestId: claim.GetRequestId(), User: claim.GetUser(), At: timestamppb.New(now)}
		changed.Ended = append(changed.Ended[max(0, len(changed.Ended)-maxEnded+1):], ended)
	}
	changed.Claim, changed.Incarnation.LookAt, changed.Incarnation.UnlessUsedSince = nil, nil, nil
	return changed
}

// claimName makes the name of a user's claim in a pool: 105 bits of a hash, since users have names of any script.
func claimName(pool, user string) string {
	sum := sha256.Sum256([]byte(user))
	return pool + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:21])
}
