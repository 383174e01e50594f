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
		{"claimed", func(w *world, d *v1.Desktop) { d.Claim = &v1.DesktopClaim{User: "taro", Since: timestamppb.New(w.now)} },
			"sales-1 is ready, and taro has held it since 2027-04-05 08:04:00 UTC", nil},
		{"used", func(_ *world, d *v1.Desktop) { d.Incarnation.UsedBy, d.Spec.DataUser = "taro", "taro" }, "sales-1 is ready", []string{
			"taro used it: nobody else gets it before its overlay is thrown away",
			"its data disk is taro's: nobody else ever gets it",
		}},
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
		}, "sales-1 is not ready: it failed on host h1: the host gave no reason; it is made anew once taro, who holds it, lets go of it", nil},
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
func shown(t *testing.T, w *world) *store.View {
	t.Helper()
	s := openShop(t, w, plain)
	ops := []store.Op{store.Create(w.image), store.Create(&v1.Zone{Meta: &v1.Meta{Name: "lgwan"}})}
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
