package pool

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	"daybreak/orchestrator/store/storetest"
	v1 "daybreak/proto/daybreak/v1"
)

// A request that comes again after its claim was ended takes no desktop, nor does another user's with the same id.
func TestRequestMakesOneClaim(t *testing.T) {
	s := openShop(t, settled(t, 3), plain)
	claim := func(user, request string, after time.Duration) error {
		if err := s.claimer.catchUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := s.claimer.Claim(t.Context(), "sales", user, request, time.Now().Add(after))
		return err
	}
	refused := func(what string, err error, words ...string) {
		t.Helper()
		for _, word := range words {
			if !errors.Is(err, ErrRequestUsed) || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v, want %q", what, err, word)
			}
		}
	}
	if err := errors.Join(claim("taro", "r1", 0), claim("taro", "r1", 0)); err != nil {
		t.Fatal(err)
	}
	refused("another user's, while the claim lasts", claim("hanako", "r1", 0), `request id "r1" is of a claim of "taro", not of "hanako"`)
	name, err := s.claimer.Release(t.Context(), "sales", "taro", "")
	if err != nil {
		t.Fatal(err)
	}
	refused("late", claim("taro", "r1", 0), `the claim of "taro" with request id "r1", of desktop `+name+`, was ended at 2`, "use a new request id")
	s.edit(t, name, func(d *v1.Desktop) { // it is made anew
		d.Incarnation.UsedBy, d.Incarnation.Generation, d.Status.Generation = "", d.Incarnation.Generation+1, d.Incarnation.Generation+1
	})
	refused("late, and the life is over", claim("taro", "r1", requestLife-time.Minute), "was ended at")
	refused("another user's, after it", claim("hanako", "r1", 0), `of a claim of "taro"`)
	if err := errors.Join(claim("jiro", "", 0), claim("hanako", "r2", 0), claim("taro", "r1", requestLife+time.Minute)); err != nil {
		t.Errorf("without an id, with a new one, and with one that is forgotten: %v", err)
	}
}

// A place in the queue has its request's id, too.
func TestRequestOfOneWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, booting(t, 1))
		silent := func(*v1.WaitResponse) error { return nil }
		ended := make(chan error, 1)
		go func() { ended <- s.claimer.Wait(t.Context(), "sales", "taro", "r1", silent) }()
		rest(time.Second)
		if err := s.claimer.Wait(t.Context(), "sales", "hanako", "r1", silent); !errors.Is(err, ErrRequestUsed) {
			t.Errorf("another user waits with the same id: %v", err)
		}
		s.lead(t)
		s.boot(t, "sales-1")
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if _, err := s.claimer.Release(t.Context(), "sales", "taro", "r1"); err != nil {
			t.Fatal(err)
		}
		if err := s.claimer.Wait(t.Context(), "sales", "taro", "r1", silent); !errors.Is(err, ErrRequestUsed) {
			t.Errorf("the wait comes again: %v", err)
		}
	})
}

// A daybreakd that has not heard yet that the claim was ended hears it before it decides.
func TestLateRequestAtAnOldMirror(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openShop(t, settled(t, 2), plain)
		l := newLine(s.backend, 1)
		behind := NewClaimer(store.Open(s.backend, store.WriterPool), storetest.Mirror(t, l))
		if _, err := behind.Claim(t.Context(), "sales", "taro", "r1", time.Now()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		mend := l.cut(false)
		if _, err := s.claimer.Release(t.Context(), "sales", "taro", ""); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := behind.Claim(t.Context(), "sales", "taro", "r1", time.Now())
			ended <- err
		}()
		synctest.Wait()
		mend()
		if err := <-ended; !errors.Is(err, ErrRequestUsed) {
			t.Errorf("%v", err)
		}
	})
}

// What is remembered has a bound, whoever ends the claims, and goes in time.
func TestRememberedRequests(t *testing.T) {
	w, d := heldWorld(t)
	end := func(request string, now time.Time) {
		d.Claim = &v1.DesktopClaim{User: "taro", RequestId: request}
		d = letGo(d, now)
	}
	for i := range maxEnded + 4 {
		end(fmt.Sprintf("r%d", i), w.now)
	}
	if n := len(d.Ended); n != maxEnded || d.Ended[0].RequestId != "r4" || d.Ended[n-1].RequestId != fmt.Sprintf("r%d", n+3) {
		t.Fatalf("%d are remembered: %v", n, d.Ended)
	}
	d.Claim = &v1.DesktopClaim{User: "taro", RequestId: "idle", Reclaim: &v1.Reclaim{}}
	change := takenBack(w.now, d, "no session")
	if got := change.desktop.Ended; len(got) != maxEnded || got[maxEnded-1].RequestId != "idle" {
		t.Errorf("after it was taken back as idle: %v", got)
	}
	late := w.now.Add(requestLife + time.Second)
	if lent := lend(w.pool, proto.CloneOf(d), nil, "hanako", "", late).desktop; len(lent.Ended) != 0 {
		t.Errorf("when it is lent later: %v", lent.Ended)
	}
	if end("", late); len(d.Ended) != 0 {
		t.Errorf("when it is let go later: %v", d.Ended)
	}
}
