package pool

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// A wait that is cut off goes on at its place when the user is back, however often that happens.
func TestBrokenLineKeepsThePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, booting(t, 2))
		s.lead(t)
		first := s.visit(t.Context(), "taro")
		rest(time.Second)
		behind := s.visit(t.Context(), "hanako")
		rest(time.Second)
		for _, away := range []time.Duration{time.Second, 20 * time.Second, placeRenew - time.Second} {
			first.cancel(context.Canceled)
			rest(away)
			if behind.place() != 2 || !errors.Is(first.failed(), context.Canceled) {
				t.Fatalf("the second has place %d while the first is away: %v", behind.place(), first.failed())
			}
			first = s.visit(t.Context(), "taro")
			rest(time.Second)
			if first.place() != 1 || behind.place() != 2 {
				t.Fatalf("back after %v: places %d and %d", away, first.place(), behind.place())
			}
			rest(time.Minute)
		}
		s.boot(t, "sales-2")
		rest(2 * time.Second)
		if first.got() != "sales-2" || behind.place() != 1 {
			t.Errorf("the first got %q, the second has place %d", first.got(), behind.place())
		}
	})
}

// Who went for good: what gets ready while the place lasts is theirs, and one call ends that; later it is the next one's.
func TestGoneFromTheQueue(t *testing.T) {
	for away, want := range map[time.Duration]string{placeRenew - 2*time.Second: "taro", placeLife + time.Second: "hanako"} {
		synctest.Test(t, func(t *testing.T) {
			s := openForWorld(t, booting(t, 2))
			s.lead(t)
			gone := s.visit(t.Context(), "taro")
			rest(time.Second)
			behind := s.visit(t.Context(), "hanako")
			rest(time.Second)
			gone.cancel(context.Canceled)
			rest(away)
			s.boot(t, "sales-1")
			rest(2 * time.Second)
			d, _ := store.Lookup[*v1.Desktop](s.mirror.View(), "sales-1")
			if user := d.GetClaim().GetUser(); user != want {
				t.Fatalf("after %v it is %q's, want %s's", away, user, want)
			}
			name, err := s.claimer.Release(t.Context(), "sales", "taro", "")
			if want == "taro" && (name != "sales-1" || behind.place() != 1) || want != "taro" && (!errors.Is(err, ErrNotClaimed) || behind.got() != "sales-1") {
				t.Errorf("after %v: released %q, %v; the next got %q", away, name, err, behind.got())
			}
			behind.cancel(context.Canceled)
		})
	}
}

// A request id ends the claim of that request only: who gives up waiting takes nothing from the user's other call.
func TestReleaseOfARequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, booting(t, 1))
		s.lead(t)
		under := errors.New("under way")
		ended := []error{under, under}
		for i, request := range []string{"r1", "r2"} {
			go func() {
				ended[i] = s.claimer.Wait(t.Context(), "sales", "taro", request, func(*v1.WaitResponse) error { return nil })
			}()
			rest(time.Second)
		}
		if _, err := s.claimer.Release(t.Context(), "sales", "taro", "r1"); !errors.Is(err, ErrNotClaimed) {
			t.Fatalf("release of the place that another request took over: %v", err)
		}
		s.boot(t, "sales-1")
		rest(2 * time.Second)
		if err := errors.Join(ended...); err != nil {
			t.Fatal(err)
		}
		if _, err := s.claimer.Release(t.Context(), "sales", "taro", "r3"); !errors.Is(err, ErrNotClaimed) {
			t.Errorf("release of a request that has nothing: %v", err)
		}
		if name, err := s.claimer.Release(t.Context(), "sales", "taro", "r2"); err != nil || name != "sales-1" {
			t.Errorf("release of the request that has it: %q, %v", name, err)
		}
	})
}
