package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
)

// interrupted does not answer its next commit, and lets something happen before anybody asks again.
type interrupted struct {
	store.Backend
	then func()
}

func (b *interrupted) Commit(ctx context.Context, g store.Guard, ops []store.Op) (int64, error) {
	revision, err := b.Backend.Commit(ctx, g, ops)
	if then := b.then; then != nil && err == nil {
		b.then = nil
		then()
		return 0, store.ErrUnknownOutcome
	}
	return revision, err
}

// A release whose answer got lost ends the claim that there was, and not the next one, which the user made elsewhere meanwhile.
func TestReleaseEndsOneClaim(t *testing.T) {
	line := &interrupted{}
	s := openShop(t, settled(t, 3), func(b store.Backend) store.Backend {
		line.Backend = b
		return line
	})
	first, err := s.claimer.Claim(t.Context(), "sales", "taro", "one", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := NewClaimer(store.Open(line.Backend, store.WriterPool), s.mirror)
	var second string
	line.then = func() {
		next, err := elsewhere.Claim(t.Context(), "sales", "taro", "two", time.Now())
		if err != nil {
			t.Error(err)
		}
		second = next.GetMeta().GetName()
	}
	name, err := s.claimer.Release(t.Context(), "sales", "taro", "")
	if err != nil || name != first.GetMeta().GetName() {
		t.Errorf("released %q, %v: want %s", name, err, first.GetMeta().GetName())
	}
	if held, err := s.claimer.Claim(t.Context(), "sales", "taro", "two", time.Now()); err != nil || held.GetMeta().GetName() != second {
		t.Errorf("taro has %s, %v: want %s", held.GetMeta().GetName(), err, second)
	}
}

// A claim whose answer got lost, and that ended before anybody asked again, is not made a second time, however late its daybreakd hears.
func TestLostClaimIsNotMadeTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t, settled(t, 3), plain)
		line := newLine(s.backend, 1)
		asks := &interrupted{Backend: s.backend}
		claimer := NewClaimer(store.Open(asks, store.WriterPool), storetest.Mirror(t, line))
		synctest.Wait()
		mend := line.cut(false)
		asks.then = func() {
			if _, err := s.claimer.Release(t.Context(), "sales", "taro", ""); err != nil {
				t.Error(err)
			}
			time.AfterFunc(time.Second, mend)
		}
		if again, err := claimer.Claim(t.Context(), "sales", "taro", "one", time.Now()); !errors.Is(err, ErrRequestUsed) {
			t.Errorf("got %s, %v: the request made a claim that ended", again.GetMeta().GetName(), err)
		}
	})
}
