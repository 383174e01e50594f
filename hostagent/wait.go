package hostagent

import (
	"context"
	"math/rand/v2"
	"time"
)

// Times between tries of what failed: they double up to maxBackoff, and are scattered, so that a fleet does not knock in
// step.
const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// grow is the trouble after one more failure in a row.
func (t trouble) grow(now time.Time, failures int, err error) trouble {
	if t.since.IsZero() {
		t.since = now
	}
	pause := min(minBackoff<<min(failures-1, 10), maxBackoff)
	t.err, t.next = err, now.Add(pause/2+rand.N(pause/2))
	return t
}

// earlier returns the earlier of two times, where zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// sleepUntil waits for a time (zero: for ever) or a token on wake. It is false when ctx ended.
func sleepUntil(ctx context.Context, until time.Time, wake <-chan struct{}) bool {
	var expired <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-wake:
	case <-expired:
	}
	return ctx.Err() == nil
}
