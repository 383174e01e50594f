package pool

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

func waiter(w *world, user string) *v1.Claim {
	return &v1.Claim{Meta: &v1.Meta{Name: claimName("sales", user)}, Pool: "sales", User: user,
		Queued: timestamppb.New(w.now), Expires: timestamppb.New(w.now.Add(time.Hour))}
}

func TestFullPool(t *testing.T) {
	for name, test := range map[string]struct {
		claimed, owned, queued int
		minReady               uint32
		dedicated              bool
		free                   uint32
		want                   string
	}{
		"all are free":                 {minReady: 2, free: 4},
		"spares are left":              {claimed: 2, minReady: 2, free: 2},
		"one spare is left":            {claimed: 3, minReady: 2, free: 1, want: "1 is free: 3 of 4 are claimed, 1 spare is missing"},
		"all are claimed":              {claimed: 4, want: "none is free: all 4 are claimed"},
		"no spare is left":             {claimed: 4, minReady: 2, want: "none is free: all 4 are claimed, 2 spares are missing"},
		"one waits":                    {claimed: 4, queued: 1, minReady: 2, want: "none is free: all 4 are claimed, 1 user waits, 2 spares are missing"},
		"dedicated, bound":             {claimed: 3, owned: 4, minReady: 2, dedicated: true},
		"dedicated, one is not bound":  {claimed: 3, owned: 3, minReady: 2, dedicated: true, free: 1},
		"dedicated, bound, a stranger": {claimed: 3, owned: 4, queued: 1, dedicated: true, want: "none is free: 3 of 4 are claimed, 1 kept for one user each, 1 user waits"},
	} {
		w := settled(t, 4)
		w.pool.Spec.MinReady = test.minReady
		if test.dedicated {
			w.pool.Spec.Claims = &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED}
		}
		for i, name := range w.names() {
			w.change(name, func(d *v1.Desktop) {
				if i < test.owned {
					d.Spec.Owner = "u" + name
				}
				if i < test.claimed {
					d.Claim = &v1.DesktopClaim{User: "u" + name, Since: timestamppb.New(w.now)}
				}
			})
		}
		s := w.snapshot()
		for i := range test.queued {
			s.Queue = append(s.Queue, waiter(w, "q"+string(rune('a'+i))))
		}
		if got := Decide(w.now, s).Status; got.GetMessage() != test.want || got.GetFree() != test.free {
			t.Errorf("%s: %d free, %q; want %d, %q", name, got.GetFree(), got.GetMessage(), test.free, test.want)
		}
	}
}

func TestNotFree(t *testing.T) {
	for name, edit := range map[string]func(d *v1.Desktop){
		"used":    func(d *v1.Desktop) { d.Incarnation.UsedBy = "taro" },
		"owned":   func(d *v1.Desktop) { d.Spec.Owner = "taro" },
		"data":    func(d *v1.Desktop) { d.Spec.DataUser = "taro" },
		"paused":  func(d *v1.Desktop) { d.Status.PausedIo = true },
		"deleted": func(d *v1.Desktop) { d.Meta.Deletion = &v1.Deletion{} },
		"ending":  func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED },
	} {
		w := settled(t, 2)
		w.change("sales-1", edit)
		if got := w.round().Status; got.GetFree() != 1 || got.GetReady() != 2 {
			t.Errorf("%s: %d free of %d ready", name, got.GetFree(), got.GetReady())
		}
	}
}

// What goes since the pool is to have fewer is nowhere said to begin anew.
func TestSurplusGoesForGood(t *testing.T) {
	w := settled(t, 4)
	w.pool.Spec.Desktops = 3
	w.claim("sales-1", "a")
	w.claim("sales-2", "b")
	w.claim("sales-3", "c")
	w.change("sales-4", func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED })
	view := shown(t, w, waiter(w, "d"))
	answer, err := Explain(view, w.now, "sales-4")
	if want := "sales-4 is not ready: its life is being ended on host h1; then it is removed, since the pool wants fewer desktops"; err != nil || answer.GetSummary() != want {
		t.Errorf("%v, %v\nwant %s", answer, err, want)
	}
	if got, want := census(view, "sales", ""), "3 claimed, 1 going for good"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !allTaken(view, "sales") {
		t.Error("somebody may get one without waiting for a release")
	}
	answer, err = Explain(view, w.now, "sales")
	if want := "pool sales: none is free: all 3 are claimed, 1 user waits"; err != nil || answer.GetSummary() != want {
		t.Errorf("%v, %v\nwant %s", answer, err, want)
	}

	w.pool.Spec.Desktops = 4
	view = shown(t, w)
	if got, want := census(view, "sales", ""), "3 claimed, 1 being made anew"; got != want || allTaken(view, "sales") {
		t.Errorf("%s, want %s", got, want)
	}
	if answer, err = Explain(view, w.now, "sales-4"); err != nil || !strings.HasSuffix(answer.GetSummary(), "then a new one begins") {
		t.Errorf("%v, %v", answer, err)
	}
}

// A user who waits for a pool with nothing on its way is told what for.
func TestWaitTellsWhatFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openForWorld(t, settled(t, 1, func(w *world) { w.now = time.Now() }))
		s.lead(t)
		if _, err := s.claimer.Claim(t.Context(), "sales", "a", "", time.Now()); err != nil {
			t.Fatal(err)
		}
		v := s.visit(t.Context(), "b")
		rest(time.Second)
		v.mu.Lock()
		defer v.mu.Unlock()
		const want = "number 1 of 1 in the queue of pool sales: 1 claimed; waiting for somebody to release one"
		if n := len(v.words); n == 0 || v.words[n-1].GetMessage() != want {
			t.Errorf("%v", v.words)
		}
	})
}

// No release helps who waits for a dedicated pool whose seats are all bound; they hear what would.
func TestWaitForBoundSeats(t *testing.T) {
	w := settled(t, 2, func(w *world) { w.pool.Spec.Claims = &v1.ClaimPolicy{Mode: v1.ClaimMode_CLAIM_MODE_DEDICATED} })
	for desktop, owner := range map[string]string{"sales-1": "a", "sales-2": "b"} {
		w.change(desktop, func(d *v1.Desktop) { d.Spec.Owner = owner })
	}
	view := shown(t, w, waiter(w, "c"))
	if !allBound(view, "sales", "c") {
		t.Error("the seats of a and b are nobody else's")
	}
	if allBound(view, "sales", "b") {
		t.Error("b has a seat")
	}
	w.change("sales-2", func(d *v1.Desktop) { d.Spec.Owner = "" })
	if allBound(shown(t, w), "sales", "c") {
		t.Error("one seat is nobody's yet")
	}
}
