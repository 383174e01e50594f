package rollout_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// loopRig is a store with the loop on it, in virtual time.
type loopRig struct {
	*testing.T
	api, mine, pools, dispatch *store.Store
}

// inPlant lets the loop run while do works.
func inPlant(t *testing.T, do func(p loopRig)) {
	synctest.Test(t, func(t *testing.T) {
		backend := store.NewMemory()
		p := loopRig{
			T: t, api: store.Open(backend, store.WriterAPI), mine: store.Open(backend, store.WriterRollout),
			pools: store.Open(backend, store.WriterPool), dispatch: store.Open(backend, store.WriterDispatch),
		}
		mirror := store.NewMirror(backend)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 3)
		log := zerolog.New(zerolog.NewTestWriter(t))
		go func() { ended <- mirror.Run(ctx) }()
		go func() { ended <- rollout.NewController(mirror, log).Run(ctx, p.mine) }()
		go func() { ended <- rollout.NewStaging(mirror, log).Run(ctx, p.mine) }()
		p.create(p.api, &v1.Host{Meta: &v1.Meta{Name: "kvm1"}})
		p.host(func(h *v1.Host) {
			h.Status = &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, Zones: []string{"lgwan"}, Images: []string{digest("debian-1")}}
		})
		p.create(p.mine, image("debian", 1, v1.VersionState_VERSION_STATE_READY, v1.VersionState_VERSION_STATE_READY))
		p.create(p.api, pool("sales", "debian", 0, "lgwan", 2))
		do(p)
		cancel()
		for range 3 {
			if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
}

func (p loopRig) create(s *store.Store, o store.Object) {
	p.Helper()
	_, err := s.Commit(p.Context(), store.Create(o))
	must(p.T, err)
	synctest.Wait()
}

func (p loopRig) host(change func(*v1.Host)) {
	p.Helper()
	_, err := store.Modify(p.Context(), p.dispatch, "kvm1", func(h *v1.Host) error { change(h); return nil })
	must(p.T, err)
	synctest.Wait()
}

func (p loopRig) current(number uint32) {
	p.Helper()
	_, err := store.Modify(p.Context(), p.mine, "debian", func(i *v1.Image) error { i.Status.Current = number; return nil })
	must(p.T, err)
	synctest.Wait()
}

// desktop makes a seat that runs a version, or gives it a new life.
func (p loopRig) desktop(name string, version uint32, generation int64, s v1.DesktopState) {
	p.Helper()
	inc := &v1.Incarnation{Generation: generation, Image: "debian", Version: version, Digest: digest("debian"), Desired: wantReady}
	if _, err := store.Get[*v1.Desktop](p.Context(), p.pools, name); err != nil {
		p.create(p.pools, &v1.Desktop{Meta: &v1.Meta{Name: name}, Incarnation: inc, Spec: &v1.DesktopSpec{
			Pool: "sales", Zone: "lgwan", Mac: "52:54:00:00:00:01", VmUuid: "00000000-0000-4000-8000-000000000001"}})
	}
	_, err := store.Modify(p.Context(), p.pools, name, func(d *v1.Desktop) error { d.Incarnation = inc; return nil })
	must(p.T, err)
	_, err = store.Modify(p.Context(), p.dispatch, name, func(d *v1.Desktop) error {
		d.Status = &v1.DesktopStatus{Generation: generation, State: s, Times: []*v1.StateTime{{State: s}}}
		return nil
	})
	must(p.T, err)
	synctest.Wait()
}

func (p loopRig) release() *v1.Release {
	p.Helper()
	found, err := store.Get[*v1.Pool](p.Context(), p.mine, "sales")
	must(p.T, err)
	return found.GetRelease()
}

func (p loopRig) phase(name string, want v1.RolloutPhase) {
	p.Helper()
	r, err := store.Get[*v1.Rollout](p.Context(), p.mine, name)
	must(p.T, err)
	if r.GetStatus().GetPhase() != want {
		p.Errorf("%s is %v, want %v: %s", name, r.GetStatus().GetPhase(), want, r.GetStatus().GetMessage())
	}
}

func TestControllerRollsOut(t *testing.T) {
	inPlant(t, func(p loopRig) {
		same(t, "first release", &v1.Release{Image: "debian", Version: 1}, p.release())
		p.desktop("sales-1", 1, 1, ready)
		p.desktop("sales-2", 1, 1, ready)
		p.current(2)
		p.phase("sales-1", phaseStaging)
		h, err := store.Get[*v1.Host](t.Context(), p.mine, "kvm1")
		must(t, err)
		if list := h.GetWantedImages(); len(list) != 2 {
			t.Errorf("the host is to hold %v", list)
		}
		p.host(func(h *v1.Host) { h.Status.Images = append(h.Status.Images, digest("debian-2")) })
		p.phase("sales-1", phaseRunning)
		same(t, "canary", &v1.Release{Image: "debian", Version: 1, Next: 2, Admitted: 1, Moving: true, Rollout: "sales-1"}, p.release())
		p.desktop("sales-1", 2, 1000, ready)
		if n := p.release().GetAdmitted(); n != 1 {
			t.Errorf("%d admitted while the canary is watched", n)
		}
		time.Sleep(5*time.Minute + time.Second) // the bubble's time: the loop wakes by itself
		synctest.Wait()
		if n := p.release().GetAdmitted(); n != 2 {
			t.Errorf("%d admitted after the canary was watched", n)
		}
		p.desktop("sales-2", 2, 1001, ready)
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		p.phase("sales-1", phaseDone)
		same(t, "at the end", &v1.Release{Image: "debian", Version: 2, Previous: 1}, p.release())
		events, _, err := store.List[*v1.Event](t.Context(), p.mine)
		must(t, err)
		var reasons []string
		for _, e := range events {
			reasons = append(reasons, e.GetReason())
			if e.GetSubject() != "sales" || e.GetSubjectKind() != "pool" || e.GetMeta().GetLabels()[rollout.LabelRollout] != "sales-1" {
				t.Errorf("event %v", e)
			}
		}
		want := []string{
			rollout.ReasonStarted, rollout.ReasonStaged, rollout.ReasonWave, rollout.ReasonHealthy, rollout.ReasonWave, rollout.ReasonDone,
		}
		slices.Sort(reasons) // much happens at one instant of the bubble's time
		slices.Sort(want)
		same(t, "events", want, reasons)
	})
}

// A failure counts although the desktop's next life began before the loop looked.
func TestControllerHearsOfFailures(t *testing.T) {
	inPlant(t, func(p loopRig) {
		p.desktop("sales-1", 1, 1, ready)
		p.current(2)
		p.host(func(h *v1.Host) { h.Status.Images = append(h.Status.Images, digest("debian-2")) })
		d, err := store.Get[*v1.Desktop](t.Context(), p.pools, "sales-1")
		must(t, err)
		d.Incarnation = &v1.Incarnation{Generation: 1000, Image: "debian", Version: 2, Host: "kvm1"}
		must(t, p.dispatch.Event(t.Context(), time.Now(), d, "DesktopFailed", "generation 1000 on host kvm1: the guest did not answer", true))
		synctest.Wait()
		p.phase("sales-1", phaseHalted)
		r, err := store.Get[*v1.Rollout](t.Context(), p.mine, "sales-1")
		must(t, err)
		if f := r.GetStatus().GetFailures(); len(f) != 1 || f[0].GetMessage() != "the guest did not answer" || f[0].GetHost() != "kvm1" {
			t.Errorf("failures %v", f)
		}
	})
}

// A rollout whose window hangs on a calendar that is not there, or cannot be read, waits and says so.
func TestControllerTellsOfCalendars(t *testing.T) {
	inPlant(t, func(p loopRig) {
		_, err := store.Modify(t.Context(), p.api, "sales", func(o *v1.Pool) error {
			o.Spec.Calendar, o.Spec.Rollout = "office", &v1.RolloutPolicy{Window: &v1.Window{From: "22:00", To: "05:00"}}
			return nil
		})
		must(t, err)
		p.desktop("sales-1", 1, 1, ready)
		p.desktop("sales-2", 1, 1, ready)
		p.current(2)
		p.host(func(h *v1.Host) { h.Status.Images = append(h.Status.Images, digest("debian-2")) })
		says := func(want string) {
			t.Helper()
			r, err := store.Get[*v1.Rollout](t.Context(), p.mine, "sales-1")
			must(t, err)
			if got := r.GetStatus().GetMessage(); !strings.Contains(got, want) {
				t.Errorf("%q, want %q", got, want)
			}
		}
		says(`waits for its window, which cannot be told: calendar "office" does not exist`)
		p.create(p.api, &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokio"}})
		says(`calendar "office" cannot be read: spec.timeZone: "Asia/Tokio" is no time zone`)
	})
}

// Times are told in the zone of the pool's calendar, as they are elsewhere in its description. The bubble's time begins at midnight UTC.
func TestControllerTellsTimesOfThePool(t *testing.T) {
	inPlant(t, func(p loopRig) {
		p.create(p.api, &v1.Calendar{Meta: &v1.Meta{Name: "office"}, Spec: &v1.CalendarSpec{TimeZone: "Asia/Tokyo"}})
		_, err := store.Modify(t.Context(), p.api, "sales", func(o *v1.Pool) error { o.Spec.Calendar = "office"; return nil })
		must(t, err)
		p.desktop("sales-1", 1, 1, ready)
		p.desktop("sales-2", 1, 1, ready)
		p.current(2)
		p.host(func(h *v1.Host) { h.Status.Images = append(h.Status.Images, digest("debian-2")) })
		p.desktop("sales-1", 2, 1000, ready)
		r, err := store.Get[*v1.Rollout](t.Context(), p.mine, "sales-1")
		must(t, err)
		if got, want := r.GetStatus().GetMessage(), "watched until 2000-01-01 09:05:00 JST"; !strings.HasSuffix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// What a pool that is gone leaves goes, too; one of the same name begins anew.
func TestControllerForgetsPools(t *testing.T) {
	inPlant(t, func(p loopRig) {
		p.current(2)
		p.phase("sales-1", phaseStaging)
		found, err := store.Get[*v1.Pool](t.Context(), p.pools, "sales")
		must(t, err)
		_, err = p.pools.Commit(t.Context(), store.Delete(found))
		must(t, err)
		synctest.Wait()
		left, _, err := store.List[*v1.Rollout](t.Context(), p.mine)
		must(t, err)
		if len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		p.create(p.api, pool("sales", "debian", 0, "lgwan", 2))
		same(t, "release", &v1.Release{Image: "debian", Version: 2}, p.release())
	})
}

// The loop writes the image back when a pool's release begins to name a version of it.
func TestReleasePinsImage(t *testing.T) {
	inPlant(t, func(p loopRig) {
		pool, err := store.Get[*v1.Pool](t.Context(), p.mine, "sales")
		must(t, err)
		if pool.GetRelease().GetVersion() != 1 {
			t.Errorf("release %v", pool.GetRelease())
		}
		image, err := store.Get[*v1.Image](t.Context(), p.mine, "debian")
		must(t, err)
		if image.GetMeta().GetRevision() != pool.GetMeta().GetRevision() {
			t.Errorf("the pool was written at revision %d, its image at %d", pool.GetMeta().GetRevision(), image.GetMeta().GetRevision())
		}
	})
}
