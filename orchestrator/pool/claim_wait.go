package pool

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels of Wait.
var (
	// ErrQueueFull: as many wait as the pool lets wait.
	ErrQueueFull = errors.New("the queue is full")
	// ErrWaitEnded: somebody released the claim of who waited.
	ErrWaitEnded = errors.New("the wait was ended")
	// ErrDesktopFailed: the user's desktop failed while it was being waited for.
	ErrDesktopFailed = errors.New("the desktop failed")
)

// A place in the queue falls free when nobody was heard for placeLife from who waits; a waiting call is heard of when
// less than placeRenew is left.
const (
	placeLife  = 90 * time.Second
	placeRenew = 60 * time.Second
	// waitPace is how often at most who waits is told how far that is.
	waitPace = time.Second
)

// Wait is Claim for one who can wait: when no desktop is ready, the user gets a place in the queue, and who waits longest is
// served first. tell is called when something changed: with the place, then with what the desktop does, and last with
// the desktop READY; then Wait returns nil. A user has one place however many calls wait for them.
//
// When ctx ends the place stays: a line that broke and a user who went look the same from here. Another Wait goes on with
// it, Release ends it at once, and by itself it runs out a minute to a minute and a half later. Who is gone may be lent a
// desktop until then: it is a claim like any other whose answer was lost, which the user's next call finds, Release ends,
// and the pool's policy for idle desktops takes back.
//
// Errors of Claim but ErrNoneReady, and ErrQueueFull, ErrWaitEnded, ErrNotClaimed (released meanwhile), ErrDesktopFailed.
func (c *Claimer) Wait(ctx context.Context, pool, user, requestID string, tell func(*v1.WaitResponse) error) error {
	w := &waiting{Claimer: c, pool: pool, user: user, request: requestID, tell: tell, news: make(chan struct{}, 1)}
	cancel := c.mirror.Subscribe(w.hear)
	defer cancel()
	desktop, err := c.Claim(ctx, pool, user, requestID, time.Now())
	if errors.Is(err, ErrNoneReady) {
		desktop, err = w.queue(ctx)
	}
	if err != nil {
		return err
	}
	return w.follow(ctx, desktop)
}

// waiting is one call that waits.
type waiting struct {
	*Claimer
	pool, user, request string
	tell                func(*v1.WaitResponse) error
	said                *v1.WaitResponse
	seen                int64         // revision of the view that a place in the queue was told of
	news                chan struct{} // holds a token when the user's claim or the pool's desktops changed

	place   *v1.Claim // the place in the queue as it was last known; nil before there is one
	written int64     // revision at which this call last wrote it
	tried   bool      // it was to be written, and may have been, whoever heard of it
}

// hear is called by the mirror with what changed.
func (w *waiting) hear(_, after *store.View, changed []store.Ref) {
	own := claimName(w.pool, w.user)
	for _, ref := range changed {
		desktop, isDesktop := (*v1.Desktop)(nil), ref.Kind == v1.Kind_KIND_DESKTOP
		if isDesktop {
			desktop, _ = store.Lookup[*v1.Desktop](after, ref.Name)
		}
		if ref.Kind == v1.Kind_KIND_CLAIM && ref.Name == own || isDesktop && desktop.GetClaim().GetUser() == w.user {
			select {
			case w.news <- struct{}{}:
			default:
			}
			return
		}
	}
}

// pause waits for news of the user's own, or for the next look at the others.
func (w *waiting) pause(ctx context.Context, tick <-chan time.Time) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.news:
	case <-tick:
	}
	return nil
}

// queue waits for a turn and returns the desktop that the user got.
func (w *waiting) queue(ctx context.Context) (*v1.Desktop, error) {
	ticker := time.NewTicker(waitPace)
	defer ticker.Stop()
	for {
		claim, err := w.stand(ctx, time.Now())
		if err != nil {
			return nil, err
		}
		if claim.GetDesktop() != "" {
			desktop, err := w.desktopOf(ctx, claim)
			if err == nil || !lookAgain(err) {
				return desktop, err
			}
		} else if err := w.say(w.outlook(time.Now())); err != nil {
			return nil, err
		}
		if err := w.pause(ctx, ticker.C); err != nil {
			return nil, err
		}
	}
}

// stand makes sure that the user has a place in the queue that does not run out, and returns their claim: with a desktop when
// it came to their turn.
func (w *waiting) stand(ctx context.Context, now time.Time) (*v1.Claim, error) {
	if w.place != nil {
		claim, ok := store.Lookup[*v1.Claim](w.mirror.View(), w.place.GetMeta().GetName())
		if ok && claim.GetMeta().GetUid() == w.place.GetMeta().GetUid() && (claim.GetDesktop() != "" || claim.GetExpires().AsTime().Sub(now) > placeRenew) {
			w.place = claim
			return claim, nil
		}
	}
	for range claimAttempts {
		claim, err := w.claimOf(ctx, w.pool, w.user)
		switch {
		case errors.Is(err, ErrNotClaimed):
			claim, err = w.join(ctx, now)
		case err != nil:
			return nil, err
		case claim.GetDesktop() != "":
			w.place = claim
			return claim, nil
		case w.place != nil && w.place.GetMeta().GetUid() == claim.GetMeta().GetUid() && claim.GetExpires().AsTime().Sub(now) > placeRenew:
			w.place = claim // the mirror is behind
			return claim, nil
		default:
			claim, err = w.renew(ctx, claim, now)
		}
		if err == nil {
			return claim, nil
		}
		if !lookAgain(err) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("wait for a desktop of pool %s: others were quicker %d times: %w", w.pool, claimAttempts, store.ErrConflict)
}

// renew makes a place last that is there, of this call or of another one for the same user.
func (w *waiting) renew(ctx context.Context, place *v1.Claim, now time.Time) (*v1.Claim, error) {
	if place.GetMeta().GetUid() != w.place.GetMeta().GetUid() {
		if err := w.unserved(ctx, now); err != nil {
			return nil, err
		}
	}
	place = proto.CloneOf(place)
	place.Expires = timestamppb.New(now.Add(placeLife))
	if w.request != "" { // of several that wait for one user, the one heard last can end the place by its id
		place.RequestId = w.request
	}
	return place, w.write(ctx, place, store.Update(place))
}

// join takes a place at the queue's end; the old one when that ran out, or was given up by another call for the same user.
func (w *waiting) join(ctx context.Context, now time.Time) (*v1.Claim, error) {
	view := w.mirror.View()
	object, err := lendingPool(view, w.pool)
	if err != nil {
		return nil, err
	}
	queued := timestamppb.New(now)
	if w.place != nil {
		if w.place.GetDesktop() != "" || w.place.GetMeta().GetRevision() == w.written && !isExpired(w.place, now) {
			return nil, w.ended()
		}
		queued = w.place.GetQueued()
	}
	if err := w.unserved(ctx, now); err != nil {
		return nil, err
	}
	_, others := placeOf(view, w.pool, w.user, now)
	if most := mostQueued(object); w.place == nil && others >= most {
		return nil, fmt.Errorf("wait for a desktop of pool %s: %s already, and it lets no more than %d (maxQueued): %w", w.pool, waitPhrase(others), most, ErrQueueFull)
	}
	pins, err := w.underLimit(ctx, object, w.user)
	if err != nil {
		return nil, err
	}
	claim := &v1.Claim{
		Meta: &v1.Meta{Name: claimName(w.pool, w.user)}, Pool: w.pool, User: w.user, RequestId: w.request,
		Queued: queued, Expires: timestamppb.New(now.Add(placeLife)),
	}
	return claim, w.write(ctx, claim, append(pins, store.Create(claim))...)
}

func (w *waiting) ended() error {
	return fmt.Errorf("wait for a desktop of pool %s: the claim of %q was released: %w", w.pool, w.user, ErrWaitEnded)
}

// unserved makes sure that what this call may have written was not lent a desktop already that was released since, all before
// this daybreakd heard of it: one wait gets one desktop.
func (w *waiting) unserved(ctx context.Context, now time.Time) error {
	if !w.tried || w.request == "" {
		return nil
	}
	if err := w.catchUp(ctx); err != nil {
		return err
	}
	switch err := unused(w.mirror.View(), w.pool, w.user, w.request, now); {
	case errors.Is(err, errMirrorOld):
		return store.ErrConflict // it is theirs by now
	case err != nil:
		return fmt.Errorf("%w: %w", ErrWaitEnded, err)
	}
	return nil
}

// mostQueued is how many users may wait for desktops of a pool.
func mostQueued(pool *v1.Pool) int {
	if most := pool.GetSpec().GetClaims().GetMaxQueued(); most > 0 {
		return int(most)
	}
	return int(pool.GetSpec().GetDesktops())
}

// write writes the place and waits until the mirror has it. claim becomes what the store has.
func (w *waiting) write(ctx context.Context, claim *v1.Claim, ops ...store.Op) error {
	w.tried = true
	revision, err := w.store.Commit(ctx, ops...)
	if err != nil {
		return err
	}
	if _, err := w.mirror.Wait(ctx, revision); err != nil {
		return err
	}
	claim.Meta.Revision = revision
	if known, ok := store.Lookup[*v1.Claim](w.mirror.View(), claim.GetMeta().GetName()); ok {
		claim.Meta.Uid = known.GetMeta().GetUid()
	}
	w.place, w.written = claim, revision
	return nil
}

// say tells how far the wait is, if that differs from what was told.
func (w *waiting) say(word *v1.WaitResponse) error {
	if word == nil || proto.Equal(word, w.said) {
		return nil
	}
	w.said = word
	return w.tell(word)
}

// outlook is what there is to say to a user in the queue.
func (w *waiting) outlook(now time.Time) *v1.WaitResponse {
	view := w.mirror.View()
	claim, _ := store.Lookup[*v1.Claim](view, claimName(w.pool, w.user))
	if claim == nil || claim.GetDesktop() != "" || view.Revision == w.seen {
		return w.said // it changed just now, or nothing did
	}
	w.seen = view.Revision
	place, queued := placeOf(view, w.pool, w.user, now)
	word := &v1.WaitResponse{Position: uint32(place), Queued: uint32(queued)}
	word.Expected = forecast(view, w.pool, now, place)
	text := fmt.Sprintf("number %d of %d in the queue of pool %s: %s", place, queued, w.pool,
		census(view, w.pool, "about to be given to those who wait"))
	switch {
	case allBound(view, w.pool, w.user):
		text += "; all of this dedicated pool are their users' for ever, so that it needs more seats"
	case allTaken(view, w.pool):
		text += "; waiting for somebody to release one"
	}
	word.Message = store.Cut(text, maxMessage)
	return word
}

// follow tells what the user's desktop does until it is ready.
func (w *waiting) follow(ctx context.Context, desktop *v1.Desktop) error {
	ticker := time.NewTicker(waitPace)
	defer ticker.Stop()
	if _, err := w.mirror.Wait(ctx, desktop.GetMeta().GetRevision()); err != nil {
		return err
	}
	name := desktop.GetMeta().GetName()
	for {
		view, now := w.mirror.View(), time.Now()
		desktop, _ := store.Lookup[*v1.Desktop](view, name)
		if desktop.GetClaim().GetUser() != w.user {
			return fmt.Errorf("wait for desktop %s: it was released meanwhile: %w", name, ErrNotClaimed)
		}
		word := &v1.WaitResponse{Desktop: desktop, Expected: readyAt(view, desktop, now)}
		what := progressOf(view, desktop)
		if what == "" {
			word.Expected, word.Message = nil, name+" is ready"
			return w.say(word)
		}
		ending := desktop.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED
		if store.Broken(store.State(desktop)) && !ending && !servedNobody(desktop) {
			return fmt.Errorf("wait for desktop %s: %s; release it, and it is made anew: %w", name, failure(desktop), ErrDesktopFailed)
		}
		word.Message = store.Cut(name+" "+what, maxMessage)
		if err := w.say(word); err != nil {
			return err
		}
		if err := w.pause(ctx, ticker.C); err != nil {
			return err
		}
	}
}

// progressOf says what a desktop does that its user waits for; "" when it is ready.
func progressOf(view *store.View, d *v1.Desktop) string {
	inc, state := d.GetIncarnation(), store.State(d)
	switch {
	case inc.GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED || state == v1.DesktopState_DESKTOP_STATE_DELETED:
		return "is being made anew"
	case state == v1.DesktopState_DESKTOP_STATE_LOST:
		return "is" + onHost(view, inc.GetHost()) + ": it is waited for"
	case store.Present(d).GetPausedIo():
		return "stands still" + onHost(view, inc.GetHost()) + ", whose store is full or failing"
	case state == v1.DesktopState_DESKTOP_STATE_READY && inc.GetDesired() == v1.DesiredState_DESIRED_STATE_READY:
		return ""
	case state == v1.DesktopState_DESKTOP_STATE_PENDING && inc.GetUnplacedReason() != "":
		return "waits for a host: " + inc.GetUnplacedReason()
	}
	text := "is " + word(state) + onHost(view, inc.GetHost())
	if state == v1.DesktopState_DESKTOP_STATE_SUSPENDED {
		text = "is being woken" + onHost(view, inc.GetHost())
	}
	if percent := store.Present(d).GetProgressPercent(); state == v1.DesktopState_DESKTOP_STATE_PREPARING && percent > 0 {
		text += fmt.Sprintf(" (%d%%)", percent)
	}
	if message := store.Present(d).GetMessage(); message != "" {
		text += ": " + message
	}
	return text
}
