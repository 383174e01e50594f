package pool

import (
	"context"
	"testing"
	"time"

	"daybreak/orchestrator/store"
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
