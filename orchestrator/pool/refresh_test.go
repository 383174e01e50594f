package pool

import (
	"slices"
	"testing"
	"time"

	v1 "daybreak/proto/daybreak/v1"
)

// A life that had a user ends when it is as old as the policy says, not a second before, and the pool looks again then.
func TestRefreshAfterDays(t *testing.T) {
	w := settled(t, 2, func(w *world) {
		w.pool.Spec.Refresh = &v1.RefreshPolicy{Mode: v1.RefreshMode_REFRESH_MODE_AFTER_DAYS, Days: 3}
	})
	w.claim("sales-1", "taro")
	w.release("sales-1")
	due := w.desktops["sales-1"].Incarnation.Created.AsTime().Add(3 * 24 * time.Hour)
	if a := w.round(); changed(a) != 0 || a.Again != due.Sub(w.now) {
		t.Fatalf("right after the release: %d changes, looks again in %v, want none and %v", changed(a), a.Again, due.Sub(w.now))
	}
	w.now = due.Add(-time.Second)
	if a := w.round(); changed(a) != 0 || a.Again != time.Second {
		t.Fatalf("a second too early: retired %v, looks again in %v", changedNames(a.Retire), a.Again)
	}
	w.now = due
	if got := changedNames(w.round().Retire); !slices.Equal(got, []string{"sales-1"}) {
		t.Errorf("retired %v after 3 days, want the one that had a user", got)
	}
}
