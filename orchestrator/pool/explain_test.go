package pool

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestExplainDesktop(t *testing.T) {
	for _, test := range []struct {
		name    string
		edit    func(w *world, d *v1.Desktop)
		want    string
		details []string
	}{
		{"ready", nil, "sales-1 is ready", []string{
			"generation 100 began at 2027-04-05 08:00:00 UTC with version 1 of image office: new",
			"by its host's clock: PREPARED at 2027-04-05 08:01:00 UTC, STARTING 1m0s later, READY 1m0s later",
		}},
		{"woken again", func(_ *world, d *v1.Desktop) {
			d.Status.Since = timestamppb.New(d.Status.Times[2].At.AsTime().Add(time.Hour))
		}, "sales-1 is ready", []string{
			"by its host's clock: PREPARED at 2027-04-05 08:01:00 UTC, STARTING 1m0s later, READY 1m0s later, READY again 1h0m0s later",
		}},
		{"claimed", func(w *world, d *v1.Desktop) { d.Claim = &v1.DesktopClaim{User: "taro", Since: timestamppb.New(w.now)} },
			"sales-1 is ready, and taro has held it since 2027-04-05 08:04:00 UTC", nil},
		{"used", func(_ *world, d *v1.Desktop) { d.Incarnation.UsedBy, d.Spec.DataUser = "taro", "taro" }, "sales-1 is ready", []string{
			"taro used it: nobody else gets it before its overlay is thrown away",
			"its data disk is taro's: nobody else ever gets it",
		}},
		{"somebody's for ever", func(_ *world, d *v1.Desktop) { d.Incarnation.UsedBy, d.Spec.Owner = "taro", "taro" }, "sales-1 is ready", []string{
			"it is taro's for ever: nobody else ever gets it",
		}},
		{"at its owner's", func(w *world, d *v1.Desktop) {
			d.Spec.Owner, d.Claim = "taro", &v1.DesktopClaim{User: "taro", Since: timestamppb.New(w.now)}
		}, "sales-1 is ready, and taro has held it since 2027-04-05 08:04:00 UTC", []string{"it stays taro's for ever, also when they release it"}},
		{"starting", func(_ *world, d *v1.Desktop) {
			d.Status.State, d.Status.Message = v1.DesktopState_DESKTOP_STATE_STARTING, "the guest agent has not answered yet"
		}, "sales-1 is not ready: starting on host h1: the guest agent has not answered yet", nil},
		{"unplaced", func(_ *world, d *v1.Desktop) {
			d.Incarnation.Host, d.Incarnation.UnplacedReason, d.Status = "", "no host fits: …", nil
		},
			"sales-1 is not ready: no host fits: …", nil},
		{"failed", func(_ *world, d *v1.Desktop) {
			d.Status.State, d.Status.Message = v1.DesktopState_DESKTOP_STATE_FAILED, "not ready within 5m0s"
		}, "sales-1 is not ready: it failed on host h1: not ready within 5m0s; it is made anew", nil},
		{"failed and claimed", func(_ *world, d *v1.Desktop) {
			d.Status.State, d.Claim = v1.DesktopState_DESKTOP_STATE_FAILED, &v1.DesktopClaim{User: "taro"}
		}, "sales-1 is not ready: it failed on host h1: the host gave no reason; it is made anew, with nothing of what was on it but its data disk, once taro, who holds it, lets go of it", nil},
		{"failed without an image to run", func(w *world, d *v1.Desktop) {
			d.Status.State, w.image.Status.Current = v1.DesktopState_DESKTOP_STATE_FAILED, 0
		}, "it is made anew once this is mended: image office has no published version", nil},
		{"lost", func(_ *world, d *v1.Desktop) { d.Status.State = v1.DesktopState_DESKTOP_STATE_LOST },
			"sales-1 is not ready: its host h1 is not heard from, and it may still run there", nil},
		{"paused", func(_ *world, d *v1.Desktop) { d.Status.PausedIo = true },
			"sales-1 is not ready: it stands still on host h1, whose store is full or failing", nil},
		{"being renewed", func(_ *world, d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED },
			"sales-1 is not ready: its life is being ended on host h1; then a new one begins", nil},
		{"going", func(_ *world, d *v1.Desktop) {
			d.Incarnation.Desired, d.Meta.Deletion = v1.DesiredState_DESIRED_STATE_DELETED, &v1.Deletion{By: "admin"}
		}, "sales-1 is not ready: its life is being ended on host h1; then it is removed, deleted, as admin asked", nil},
		{"host gone", func(w *world, _ *v1.Desktop) { delete(w.hosts, "h1") },
			"sales-1 is not ready: its life ended; a new one begins", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := settled(t, 4)
			if test.edit != nil {
				d := proto.CloneOf(w.desktops["sales-1"])
				test.edit(w, d)
				w.desktops["sales-1"] = d
			}
			answer, err := Explain(shown(t, w), w.now, "sales-1")
			if err != nil || !strings.Contains(answer.GetSummary(), test.want) {
				t.Errorf("summary\n got %s (%v)\nwant %s", answer.GetSummary(), err, test.want)
			}
			for _, want := range test.details {
				if !strings.Contains(strings.Join(answer.GetDetails(), "\n"), want) {
					t.Errorf("details %q lack %q", answer.GetDetails(), want)
				}
			}
		})
	}
}

// shown makes a view of a world with its image and zone.
func shown(t *testing.T, w *world, others ...store.Object) *store.View {
	t.Helper()
	s := openShop(t, w, plain)
	ops := []store.Op{store.Create(w.image), store.Create(&v1.Zone{Meta: &v1.Meta{Name: "lgwan"}})}
	for _, other := range others {
		ops = append(ops, store.Create(other))
	}
	for _, event := range w.events {
		ops = append(ops, store.Create(event))
	}
	revision, err := s.backend.Commit(t.Context(), store.Guard{}, ops)
	if err != nil {
		t.Fatal(err)
	}
	s.wait(t, revision)
	return s.mirror.View()
}

func TestExplainPool(t *testing.T) {
	w := settled(t, 4)
	answer, err := Explain(shown(t, w), w.now, "sales")
	if err != nil || answer.GetSummary() != "pool sales is as it should be: 4 desktops ready" || len(answer.GetDetails()) != 0 {
		t.Errorf("a warm pool: %v, %v", answer, err)
	}

	w = newWorld(30)
	doom(w, 30)
	answer, err = Explain(shown(t, w), w.now, "sales")
	if err != nil {
		t.Fatal(err)
	}
	if got := answer.GetSummary(); !strings.Contains(got, "0 of 30 are ready") || !strings.Contains(got, "too many failed in a row") {
		t.Errorf("a broken pool: %s", got)
	}
	details := strings.Join(answer.GetDetails(), "\n")
	for _, want := range []string{"it failed on host h1: kernel panic; it is made anew after", "and 10 more", "PoolHeldBack: "} {
		if !strings.Contains(details, want) {
			t.Errorf("details lack %q:\n%s", want, details)
		}
	}
	if len(answer.GetDetails()) > maxExplained+1+maxRecounted {
		t.Errorf("%d details", len(answer.GetDetails()))
	}
	if _, err := Explain(shown(t, w), time.Now(), "nosuch"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a name that is not: %v", err)
	}
}

func TestExplainGivenUpVersion(t *testing.T) {
	w := settled(t, 4, published)
	w.image.Status.Current = 2
	w.pool.Release = &v1.Release{Image: "office", Version: 1, Previous: 2, Refused: 2}
	answer, err := Explain(shown(t, w), w.now, "sales")
	if err != nil || !strings.Contains(strings.Join(answer.GetDetails(), "\n"), `version 2 of image office is current but was rolled back here, and the pool stays with version 1: "daybreak rollout start sales"`) {
		t.Errorf("a pool that gave up the current version: %v, %v", answer, err)
	}
}

func TestExplainVersions(t *testing.T) {
	w := settled(t, 6, published, func(w *world) { w.pool.Spec.MaxUnavailable, w.pool.Spec.MinReady = 2, 3 })
	w.claim("sales-1", "taro")
	w.change("sales-2", func(d *v1.Desktop) { d.Incarnation.Version, d.Incarnation.Digest = 2, digestTwo })
	remind := func(w *world) {
		reminding(w)
		w.change("sales-1", func(d *v1.Desktop) { d.Claim.RestartAt = timestamppb.New(w.now.Add(time.Hour)) })
	}
	for _, test := range []struct {
		name, desktop string
		release       *v1.Release
		edit          func(w *world)
		want          string
	}{
		{"on the new one", "sales-2", rolling(3), nil, "it has version 2, which is being rolled out (sales-1)"},
		{"next to move", "sales-3", rolling(3), nil, "and is to have version 2 of image office: now"},
		{"later wave", "sales-3", rolling(1), nil, "it waits for a later wave; 1 is admitted so far"},
		{"window", "sales-3", &v1.Release{Version: 1, Next: 2, Admitted: 3, Rollout: "sales-1"}, nil,
			"when the rollout goes on (waits for 22:00)"},
		{"min_ready", "sales-3", rolling(3), func(w *world) { w.pool.Spec.MinReady = 5 }, "more than minReady=5 ready desktops are free"},
		{"budget", "sales-3", rolling(6), func(w *world) {
			for _, name := range []string{"sales-4", "sales-5"} {
				w.change(name, func(d *v1.Desktop) { d.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED })
			}
			w.pool.Spec.MinReady = 0
		}, "fewer than maxUnavailable=2 are out of service"},
		{"logoff", "sales-1", rolling(3), nil, "image office: when taro releases it"},
		{"deadline", "sales-1", func() *v1.Release {
			r := rolling(3)
			r.ForceFrom = timestamppb.New(w.now.Add(time.Hour))
			return r
		}(), nil, "when taro releases it, at the latest at 2027-04-05 09:04:00 UTC"},
		{"told", "sales-1", rolling(3), remind, "taro, who holds it, was told that it restarts at 2027-04-05 09:04:00 UTC, and can put that off 2 times"},
		{"not told yet", "sales-1", rolling(3), reminding, "taro, who holds it, will be told to save their work when its turn comes, 10m0s before"},
		{"withdrawn", "sales-3", rolling(3), func(w *world) { w.image.Status.Versions[1].State = v1.VersionState_VERSION_STATE_WITHDRAWN },
			"version 2 of image office is withdrawn"},
		{"goes back", "sales-2", &v1.Release{Version: 1, Moving: true}, nil, "it has version 2 of image office, and is to have version 1 of image office: now"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := w.copy()
			w.let(test.release)
			if test.edit != nil {
				test.edit(w)
			}
			view := shown(t, w, &v1.Rollout{Meta: &v1.Meta{Name: "sales-1"}, Spec: &v1.RolloutSpec{Pool: "sales", ToVersion: 2},
				Status: &v1.RolloutStatus{Message: "waits for 22:00"}})
			answer, err := Explain(view, w.now, test.desktop)
			if err != nil || !strings.Contains(strings.Join(answer.GetDetails(), "\n"), test.want) {
				t.Errorf("%v\n got %q\nwant %s", err, answer.GetDetails(), test.want)
			}
			if test.release.Next == 0 {
				return
			}
			answer, err = Explain(view, w.now, "sales")
			want := "rollout sales-1 to version 2: 1 of 6 desktops run it, "
			if err != nil || !strings.HasPrefix(answer.GetDetails()[0], want) || answer.GetDetails()[1] != "1 desktop on another version is in use: sales-1 (taro)" {
				t.Errorf("of the pool: %v, %q", err, answer.GetDetails())
			}
		})
	}
}

// Times are those of the clocks on the walls of the people who use the pool.
func TestExplainInThePoolsZone(t *testing.T) {
	w := settled(t, 1)
	w.pool.Spec.Calendar = "office"
	view := shown(t, w, &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo"}})
	answer, err := Explain(view, w.now, "sales-1")
	got := strings.Join(answer.GetDetails(), "\n")
	if err != nil || !strings.Contains(got, "began at 2027-04-05 17:00:00 JST") || !strings.Contains(got, "PREPARED at 2027-04-05 17:01:00 JST") || strings.Contains(got, "UTC") {
		t.Error(got, err)
	}
}
