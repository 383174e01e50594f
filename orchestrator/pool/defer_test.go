package pool

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestDefer(t *testing.T) {
	w := settled(t, 1, published, reminding)
	force := w.now.Add(90 * time.Minute)
	w.pool.Release = &v1.Release{Version: 1, Next: 2, Admitted: 1, Moving: true, ForceFrom: timestamppb.New(force)}
	for name, wrap := range map[string]func(store.Backend) store.Backend{"a good line": plain, "answers get lost": func(b store.Backend) store.Backend { return &unsure{Backend: b, n: 3} }} {
		t.Run(name, func(t *testing.T) {
			s := openShop(t, w, wrap)
			if _, _, err := s.claimer.Defer(t.Context(), "sales", "taro", w.now); !errors.Is(err, ErrNotClaimed) {
				t.Errorf("without a claim: %v", err)
			}
			if _, err := s.claimer.Claim(t.Context(), "sales", "taro", "", w.now); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.claimer.Defer(t.Context(), "sales", "taro", w.now); !errors.Is(err, ErrNoRestart) {
				t.Errorf("before anything was announced: %v", err)
			}
			s.edit(t, "sales-1", func(d *v1.Desktop) {
				d.Claim.RestartAt = timestamppb.New(w.now.Add(10 * time.Minute))
				d.Incarnation.Notice = &v1.Notice{Id: "first", Text: "x"}
			})
			d, left, err := s.claimer.Defer(t.Context(), "sales", "taro", w.now)
			if err != nil || left != 1 || d.Claim.Deferrals != 1 || !d.Claim.RestartAt.AsTime().Equal(w.now.Add(70*time.Minute)) {
				t.Fatalf("first: %d left, %v, %v", left, d.GetClaim(), err)
			}
			want := "This desktop will be restarted for an update at 09:14 UTC, in 70 minutes. Please save your work. " +
				"The restart can be put off once more."
			if got := d.Incarnation.Notice; got.Id == "first" || got.Text != want {
				t.Errorf("notice %v, want %q", got, want)
			}
			d, left, err = s.claimer.Defer(t.Context(), "sales", "taro", w.now)
			if err != nil || left != 0 || !d.Claim.RestartAt.AsTime().Equal(force) {
				t.Errorf("the deadline is the end: %d left, %v, %v", left, d.GetClaim(), err)
			}
			if _, _, err := s.claimer.Defer(t.Context(), "sales", "taro", w.now); !errors.Is(err, ErrNoDeferral) {
				t.Errorf("once too often: %v", err)
			}
		})
	}
}

// A window that ends takes the announcement back, and not the count: a user may put restarts off so many times in a rollout,
// not in each of its nights.
func TestDeferralsAreCountedOverNights(t *testing.T) {
	w := held(t, reminding)
	w.let(rolling(1))
	w.round()
	for range 2 {
		put, err := deferred(w.now, w.pool, nil, w.desktops["sales-1"])
		if err != nil {
			t.Fatal(err)
		}
		w.desktops["sales-1"] = put
	}
	w.pool.Release.Moving = false
	if w.round(); w.desktops["sales-1"].Claim.RestartAt != nil {
		t.Fatal("the restart stands, though nothing may move")
	}
	if a := w.round(); len(a.Amend) != 0 {
		t.Errorf("while nothing may move, amended %v", changedNames(a.Amend))
	}
	w.now = w.now.Add(17 * time.Hour)
	w.pool.Release.Moving = true
	w.round()
	if _, err := deferred(w.now, w.pool, nil, w.desktops["sales-1"]); !errors.Is(err, ErrNoDeferral) {
		t.Errorf("the next night: %v, want that nothing is left", err)
	}
	w.let(&v1.Release{Version: 1})
	w.round()
	w.round()
	if claim := w.desktops["sales-1"].Claim; claim.RestartAt != nil || claim.Deferrals != 0 {
		t.Errorf("when the rollout is over: %v", claim)
	}
}

// Users get desktops that stay: of the version that most of the pool runs, while the other is on trial.
func TestClaimPrefersTheLastingVersion(t *testing.T) {
	for _, test := range []struct {
		name    string
		release *v1.Release
		want    uint32
	}{
		{"canary", &v1.Release{Version: 1, Next: 2, Admitted: 2}, 1},
		{"half of the pool", &v1.Release{Version: 1, Next: 2, Admitted: 4}, 2},
		{"going back", &v1.Release{Version: 1, Rollback: true, Moving: true}, 1},
		{"done", &v1.Release{Version: 2}, 2},
	} {
		w := settled(t, 8, published)
		w.pool.Release = test.release
		for _, name := range w.names()[:4] {
			w.change(name, func(d *v1.Desktop) { d.Incarnation.Version, d.Incarnation.Digest = 2, digestTwo })
		}
		s := openShop(t, w, plain)
		for n, user := range []string{"a", "b", "c", "d", "e"} {
			d, err := s.claimer.Claim(t.Context(), "sales", user, "", w.now)
			if err != nil {
				t.Fatal(err)
			}
			if (d.Incarnation.Version == test.want) != (n < 4) {
				t.Errorf("%s: user %d got version %d", test.name, n, d.Incarnation.Version)
			}
		}
	}
}
