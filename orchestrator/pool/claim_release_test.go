package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
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

// overtaken lets something happen before its next look at a desktop.
type overtaken struct {
	store.Backend
	by func()
}

func (b *overtaken) Get(ctx context.Context, ref store.Ref) (store.Object, error) {
	if by := b.by; by != nil && ref.Kind == v1.Kind_KIND_DESKTOP {
		b.by = nil
		by()
	}
	return b.Backend.Get(ctx, ref)
}

// serve lets a desktop get ready, and those who wait have what there is.
func (s *shop) serve(t *testing.T, desktop string) {
	s.boot(t, desktop)
	leader := &term{Controller: &Controller{mirror: s.mirror}, store: store.Open(s.backend, store.WriterPool)}
	if _, err := leader.serve(t.Context(), "sales"); err != nil {
		t.Error(err)
	}
}

// Who waits gets one desktop: when it was released at once from elsewhere the wait is over, whatever of it this call had heard.
func TestOneLoanForOneWait(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, s *shop, release func()) *Claimer{
		"the answer to its place was lost": func(t *testing.T, s *shop, release func()) *Claimer {
			line := &interrupted{Backend: s.backend}
			line.then = func() {
				s.serve(t, "sales-1")
				release()
			}
			return NewClaimer(store.Open(line, store.WriterPool), s.mirror)
		},
		"and the user waits elsewhere by then": func(t *testing.T, s *shop, release func()) *Claimer {
			line := &interrupted{Backend: s.backend}
			line.then = func() {
				s.serve(t, "sales-1")
				release()
				elsewhere := &waiting{Claimer: s.claimer, pool: "sales", user: "taro", request: "two"}
				if _, err := elsewhere.stand(t.Context(), time.Now()); err != nil {
					t.Error(err)
				}
			}
			return NewClaimer(store.Open(line, store.WriterPool), s.mirror)
		},
		"it saw the loan, and not yet the desktop": func(t *testing.T, s *shop, release func()) *Claimer {
			time.AfterFunc(time.Second, func() { s.serve(t, "sales-1") })
			return NewClaimer(store.Open(&overtaken{Backend: s.backend, by: release}, store.WriterPool), s.mirror)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := openForWorld(t, booting(t, 2))
				claimer := begin(t, s, func() {
					if released, err := s.claimer.Release(t.Context(), "sales", "taro", ""); err != nil || released != "sales-1" {
						t.Errorf("released %q, %v", released, err)
					}
				})
				time.AfterFunc(2*time.Second, func() { s.serve(t, "sales-2") })
				got := ""
				err := claimer.Wait(t.Context(), "sales", "taro", "one", func(word *v1.WaitResponse) error {
					got = word.GetDesktop().GetMeta().GetName()
					return nil
				})
				if !errors.Is(err, ErrWaitEnded) {
					t.Errorf("got %q, %v: want %v", got, err, ErrWaitEnded)
				}
			})
		})
	}
}
