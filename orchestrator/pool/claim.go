package pool

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels of the Claimer. A pool that does not exist is store.ErrNotFound.
var (
	// ErrNoneReady: every desktop is taken, or none that is free is ready. The error's text has the counts.
	ErrNoneReady = errors.New("no desktop is ready")
	// ErrNotClaimed: the user holds no desktop of the pool.
	ErrNotClaimed = errors.New("no desktop is claimed")
	// ErrPoolDeleted: the pool is being deleted and lends nothing any more.
	ErrPoolDeleted = errors.New("pool is being deleted")
)

// NoneReadyError is ErrNoneReady with the counts.
type NoneReadyError struct {
	Pool string
	// Why there is none: counts of desktops by what they are, for people.
	Counts string
}

func (e *NoneReadyError) Error() string {
	return fmt.Sprintf("no desktop of pool %s is ready: %s", e.Pool, e.Counts)
}

// Is makes errors.Is find ErrNoneReady.
func (e *NoneReadyError) Is(target error) bool { return target == ErrNoneReady }

// claimAttempts bounds how often one call begins anew after somebody else was quicker. Each time somebody else made
// progress, so a call that runs out had very many rivals.
const claimAttempts = 64

// Claimer lends desktops to users. A claim is one transaction on two objects, so any daybreakd may make it, leader or
// not, and two users never get one desktop, nor one user two.
type Claimer struct {
	store  *store.Store
	mirror *store.Mirror
}

// NewClaimer makes a Claimer. st is opened for WriterPool; mirror knows pools, desktops and hosts at least.
func NewClaimer(st *store.Store, mirror *store.Mirror) *Claimer {
	return &Claimer{store: st, mirror: mirror}
}

// Claim lends a ready desktop of the pool to the user and returns it. A user who holds one gets the same again, whatever
// the request id: the call may be repeated until it is answered. ErrNoneReady, ErrPoolDeleted, store.ErrNotFound (no
// such pool).
func (c *Claimer) Claim(ctx context.Context, pool, user, requestID string, now time.Time) (*v1.Desktop, error) {
	if _, err := c.mirror.Wait(ctx, 0); err != nil {
		return nil, fmt.Errorf("claim a desktop of pool %s: %w", pool, err)
	}
	caughtUp := false
	for range claimAttempts {
		desktop, err := c.held(ctx, pool, user)
		if err == nil || !errors.Is(err, ErrNotClaimed) {
			return desktop, err
		}
		desktop, err = c.take(ctx, pool, user, requestID, now)
		refused := errors.Is(err, ErrNoneReady) || errors.Is(err, store.ErrNotFound)
		if err == nil || !refused && !lookAgain(err) || refused && caughtUp {
			return desktop, err
		}
		if refused { // by what the mirror knew; nobody who saw a desktop get ready is to hear that there is none
			if err := c.catchUp(ctx); err != nil {
				return nil, fmt.Errorf("claim a desktop of pool %s: %w", pool, err)
			}
			caughtUp = true
		}
	}
	return nil, fmt.Errorf("claim a desktop of pool %s: others were quicker %d times: %w", pool, claimAttempts, store.ErrConflict)
}

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
	desktop, err := store.Get[*v1.Desktop](ctx, c.store, claim.GetDesktop())
	if err != nil {
		return nil, fmt.Errorf("get the desktop of the claim: %w", err)
	}
	return desktop, nil
}

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
// each candidate is read anew, and the transaction holds only if nobody changed it since.
func (c *Claimer) take(ctx context.Context, pool, user, requestID string, now time.Time) (*v1.Desktop, error) {
	view := c.mirror.View()
	object, ok := store.Lookup[*v1.Pool](view, pool)
	if !ok {
		return nil, fmt.Errorf("claim a desktop: pool %s: %w", pool, store.ErrNotFound)
	}
	if object.GetMeta().GetDeletion() != nil {
		return nil, fmt.Errorf("claim a desktop of pool %s: %w", pool, ErrPoolDeleted)
	}
	conflict := error(nil)
	for _, candidate := range candidates(view, object, user) {
		desktop, err := store.Get[*v1.Desktop](ctx, c.store, candidate.GetMeta().GetName())
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("get a desktop to claim: %w", err)
		}
		if !free(view, desktop, user) {
			continue
		}
		claimed, err := c.bind(ctx, desktop, user, requestID, now)
		switch {
		case err == nil:
			return claimed, nil
		case errors.Is(err, store.ErrExists):
			return nil, err // the user's other call was quicker: see what it got
		case !errors.Is(err, store.ErrConflict): // of an unknown outcome, too, no second desktop is tried
			return nil, fmt.Errorf("claim desktop %s: %w", desktop.GetMeta().GetName(), err)
		}
		conflict = err
	}
	if conflict != nil {
		return nil, conflict
	}
	return nil, &NoneReadyError{Pool: pool, Counts: census(view, pool)}
}

// bind writes both sides of the claim.
func (c *Claimer) bind(ctx context.Context, desktop *v1.Desktop, user, requestID string, now time.Time) (*v1.Desktop, error) {
	changed := proto.CloneOf(desktop)
	changed.Claim = &v1.DesktopClaim{User: user, Since: timestamppb.New(now), RequestId: requestID}
	changed.Incarnation.UsedBy = user
	if holdsData(changed) {
		changed.Spec.DataUser = user
	}
	pool := desktop.GetSpec().GetPool()
	claim := &v1.Claim{
		Meta: &v1.Meta{Name: claimName(pool, user)},
		Pool: pool, User: user, Desktop: desktop.GetMeta().GetName(), Since: timestamppb.New(now), RequestId: requestID,
	}
	revision, err := c.store.Commit(ctx, store.Update(changed), store.Create(claim))
	if err != nil {
		return nil, err
	}
	changed.Meta.Revision = revision
	return changed, nil
}

// Release ends the user's claim and returns the desktop's name. The pool loop throws the overlay away before anybody
// else gets the desktop. ErrNotClaimed when the user holds none.
func (c *Claimer) Release(ctx context.Context, pool, user string) (string, error) {
	name, unsure := "", false
	for range claimAttempts {
		claim, err := c.claimOf(ctx, pool, user)
		if unsure && errors.Is(err, ErrNotClaimed) {
			return name, nil // it went through
		}
		if err != nil {
			return "", err
		}
		name = claim.GetDesktop()
		desktop, err := store.Get[*v1.Desktop](ctx, c.store, name)
		if err != nil {
			return "", fmt.Errorf("get the desktop of the claim: %w", err)
		}
		changed := proto.CloneOf(desktop)
		changed.Claim = nil
		_, err = c.store.Commit(ctx, store.Update(changed), store.Delete(claim))
		if err == nil {
			return name, nil
		}
		unsure = unsure || errors.Is(err, store.ErrUnknownOutcome)
		if !lookAgain(err) {
			return "", fmt.Errorf("release desktop %s: %w", name, err)
		}
	}
	return "", fmt.Errorf("release a desktop of pool %s: others were quicker %d times: %w", pool, claimAttempts, store.ErrConflict)
}

// candidates returns the desktops of the pool that the user may have, the best first: the user's own, then those whose
// version most of the pool is to run now, and among equals in an order that differs between users, so that many who claim
// at once do not fight for one desktop.
func candidates(view *store.View, pool *v1.Pool, user string) []*v1.Desktop {
	type ranked struct {
		desktop *v1.Desktop
		rank    int
		lot     [sha256.Size]byte
	}
	var found []ranked
	lasting := lastingVersion(pool)
	for _, desktop := range view.DesktopsOfPool(pool.GetMeta().GetName()) {
		if !free(view, desktop, user) {
			continue
		}
		inc, rank := desktop.GetIncarnation(), 2
		switch {
		case desktop.GetSpec().GetDataUser() == user || inc.GetUsedBy() == user:
			rank = 0
		case inc.GetVersion() == lasting && inc.GetImage() == pool.GetSpec().GetImage():
			rank = 1
		}
		found = append(found, ranked{
			desktop: desktop,
			rank:    rank,
			lot:     sha256.Sum256([]byte(user + "\x00" + desktop.GetMeta().GetName())),
		})
	}
	slices.SortFunc(found, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), bytes.Compare(a.lot[:], b.lot[:]))
	})
	desktops := make([]*v1.Desktop, len(found))
	for i, f := range found {
		desktops[i] = f.desktop
	}
	return desktops
}

// lastingVersion returns the version that users should get: one that is not about to give way. While a rollout has not
// taken in half of the pool, the new version is on trial, and no user should serve as its test.
func lastingVersion(pool *v1.Pool) uint32 {
	release := pool.GetRelease()
	if release.GetNext() != 0 && 2*release.GetAdmitted() >= pool.GetSpec().GetDesktops() {
		return release.GetNext()
	}
	return release.GetVersion()
}

// free: the desktop is ready, nobody holds it, and nothing that another user left is on it.
func free(view *store.View, d *v1.Desktop, user string) bool {
	inc := d.GetIncarnation()
	if store.State(d) != v1.DesktopState_DESKTOP_STATE_READY || store.Present(d).GetPausedIo() || d.GetClaim() != nil {
		return false
	}
	if inc.GetDesired() != v1.DesiredState_DESIRED_STATE_READY || d.GetMeta().GetDeletion() != nil {
		return false
	}
	if !isOr(inc.GetUsedBy(), user) || !isOr(d.GetSpec().GetDataUser(), user) {
		return false
	}
	host, ok := store.Lookup[*v1.Host](view, inc.GetHost())
	return ok && host.GetStatus().GetPhase() != v1.HostPhase_HOST_PHASE_DOWN
}

func isOr(value, user string) bool { return value == "" || value == user }

// census says in words what the desktops of a pool are that nobody can have.
func census(view *store.View, pool string) string {
	counts := map[string]int{}
	desktops := view.DesktopsOfPool(pool)
	for _, d := range desktops {
		counts[standing(view, d)]++
	}
	var parts []string
	for _, what := range []string{"claimed", "starting", "being made anew", "paused", "on a silent host", "failed", "kept for its user", "taken just now"} {
		if n := counts[what]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	if len(parts) == 0 {
		return "it has no desktops"
	}
	return strings.Join(parts, ", ")
}

// standing says in a few words what a desktop is to somebody who wants one.
func standing(view *store.View, d *v1.Desktop) string {
	state := store.State(d)
	host, _ := store.Lookup[*v1.Host](view, d.GetIncarnation().GetHost())
	switch {
	case d.GetClaim() != nil:
		return "claimed"
	case d.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED || d.GetMeta().GetDeletion() != nil ||
		d.GetIncarnation().GetUsedBy() != "":
		return "being made anew"
	case isStarting(state):
		return "starting"
	case state == v1.DesktopState_DESKTOP_STATE_LOST || host.GetStatus().GetPhase() == v1.HostPhase_HOST_PHASE_DOWN:
		return "on a silent host"
	case store.Broken(state):
		return "failed"
	case store.Present(d).GetPausedIo():
		return "paused"
	case d.GetSpec().GetDataUser() != "":
		return "kept for its user"
	case state == v1.DesktopState_DESKTOP_STATE_DELETED:
		return "being made anew"
	}
	return "taken just now" // it looked free a moment ago
}

// claimName makes the name of a user's claim in a pool: 105 bits of a hash, since users have names of any script.
func claimName(pool, user string) string {
	sum := sha256.Sum256([]byte(user))
	return pool + "-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:21])
}
