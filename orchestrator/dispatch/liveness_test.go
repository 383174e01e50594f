package dispatch

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func (h *house) phase(host string) v1.HostPhase {
	h.t.Helper()
	synctest.Wait()
	return get[*v1.Host](h, host).GetStatus().GetPhase()
}

func (h *house) state(desktop string) v1.DesktopState {
	h.t.Helper()
	synctest.Wait()
	return get[*v1.Desktop](h, desktop).GetStatus().GetState()
}

func TestSilenceAndReturn(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		d1, d2 := put(h, newDesktop("sales-1", "h1", 10)), put(h, newDesktop("sales-2", "h1", 11))
		put(h, newDesktop("sales-3", "h1", 12))
		a, _ := h.connect("h1", says(d1, ready), says(d2, failed))
		time.Sleep(39 * time.Second)
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_UP {
			t.Errorf("within the grace period: %v", got)
		}
		time.Sleep(5 * time.Second)
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_DOWN {
			t.Errorf("after the grace period: %v", got)
		}
		if s1, s2, s3 := h.state("sales-1"), h.state("sales-2"), h.state("sales-3"); s1 != lost || s2 != failed || s3 != lost {
			t.Errorf("desktops of a silent host: %v %v %v", s1, s2, s3)
		}
		put(h, newDesktop("sales-4", "h1", 13))
		time.Sleep(5 * time.Second)
		if got := h.state("sales-4"); got != lost {
			t.Errorf("placed on a host that is down: %v", got)
		}
		if err := a.report(false); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("a host that was down speaks on in its old session: %v", err)
		}
		h.connect("h1", says(d1, ready), says(d2, failed))
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_UP {
			t.Errorf("after its return: %v", got)
		}
		if s1, s3 := h.state("sales-1"), h.state("sales-3"); s1 != ready || s3 != lost {
			t.Errorf("desktops after the return: %v %v", s1, s3)
		}
		if got := strings.Join(h.events(), " "); got != "DesktopFailed HostUp HostDown HostUp" && got != "HostUp DesktopFailed HostDown HostUp" {
			t.Errorf("events: %s", got)
		}
	})
}

func TestNewLeaderGivesGrace(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		d := put(h, newDesktop("sales-1", "h1", 10))
		h.connect("h1", says(d, ready))
		h.retire()
		time.Sleep(time.Hour)
		h.lead()
		time.Sleep(38 * time.Second)
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_UP {
			t.Errorf("within the new leader's grace: %v", got)
		}
		time.Sleep(6 * time.Second)
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_DOWN || h.state("sales-1") != lost {
			t.Errorf("after the new leader's grace: %v %v", got, h.state("sales-1"))
		}
	})
}

func TestMassSilenceFreezes(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		var agents []*agent
		for i := range 9 {
			put(h, newHost(fmt.Sprint("h", i)))
		}
		for i := range 9 {
			a, _ := h.connect(fmt.Sprint("h", i))
			agents = append(agents, a)
		}
		talk := func(who []*agent, d time.Duration) {
			for range d / (5 * time.Second) {
				time.Sleep(5 * time.Second)
				for _, a := range who {
					if err := a.report(false); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		talk(agents[2:], time.Minute)
		if h.server.Frozen() || h.phase("h1") != v1.HostPhase_HOST_PHASE_DOWN {
			t.Errorf("two of nine silent: frozen %v", h.server.Frozen())
		}
		talk(agents[3:], time.Minute)
		if !h.server.Frozen() || h.phase("h2") != v1.HostPhase_HOST_PHASE_DOWN {
			t.Errorf("three of nine silent: frozen %v, h2 %v", h.server.Frozen(), h.phase("h2"))
		}
		h.connect("h0")
		talk(agents[3:], 5*time.Second)
		if h.server.Frozen() {
			t.Error("frozen still after one came back")
		}
		events := h.events()
		if !slices.Contains(events, "MassSilence") || !slices.Contains(events, "MassSilenceOver") {
			t.Errorf("events: %v", events)
		}
	})
}

func TestHeartbeatsAreNotWritten(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		d := put(h, newDesktop("sales-1", "h1", 10))
		a, _ := h.connect("h1", says(d, ready))
		a.beat(time.Minute)
		before := h.mirror.View().Revision
		a.beat(time.Hour)
		if after := h.mirror.View().Revision; after != before {
			t.Errorf("%d writes in an hour in which nothing changed", after-before)
		}
	})
}

func TestAnotherBoot(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		d := put(h, newDesktop("sales-1", "h1", 10))
		h.connect("h1", says(d, ready))
		a := h.watch("h1", func(r *v1.WatchAssignmentsRequest) { r.BootId = "boot-2" })
		a.next()
		if err := a.report(true, says(d, failed)); err != nil {
			t.Fatal(err)
		}
		if h.state("sales-1") != failed || get[*v1.Host](h, "h1").GetStatus().GetBootId() != "boot-2" || !slices.Contains(h.events(), "HostRebooted") {
			t.Errorf("after a reboot: %v, %v", h.state("sales-1"), h.events())
		}
	})
}

func TestUnwell(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		a, _ := h.connect("h1")
		say := func(why string) {
			a.sequence++
			if _, err := h.client.Report(a.ctx, &v1.ReportRequest{SessionId: a.session, Sequence: a.sequence, Unwell: why}); err != nil {
				t.Fatal(err)
			}
		}
		say("libvirt does not answer")
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_DEGRADED {
			t.Errorf("unwell: %v", got)
		}
		say("")
		if got := h.phase("h1"); got != v1.HostPhase_HOST_PHASE_UP {
			t.Errorf("well again: %v", got)
		}
	})
}

func TestSupersededOrphanIsErased(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		d := newDesktop("sales-1", "", 20) // its life 10 was on h1; 20 has no place yet
		d.Spec.DataHost = "h1"
		d.Incarnation.DataDisposal = v1.DataDisposal_DATA_DISPOSAL_DELETE
		d = put(h, d)
		a, _ := h.connect("h1", orphan(d, 10, ready))
		m := a.next()
		if got := told(m); got != "set sales-1/10 DELETED" {
			t.Fatalf("told %s", got)
		}
		if got := m.GetSet()[0].GetIncarnation().GetDataDisposal(); got != v1.DataDisposal_DATA_DISPOSAL_KEEP {
			t.Errorf("data of the desktop: %v", got)
		}
		if got := get[*v1.Host](h, "h1").GetStatus().GetOrphans(); len(got) != 0 {
			t.Errorf("listed as unknown: %v", got)
		}
		done := orphan(d, 10, deleted)
		done.Orphan = false
		if err := a.report(false, done); err != nil {
			t.Fatal(err)
		}
		if got := told(a.next()); got != "drop sales-1" {
			t.Errorf("after it was erased: %s", got)
		}
		if get[*v1.Desktop](h, "sales-1").GetStatus() != nil {
			t.Error("the end of an earlier life was written as status of the present one")
		}
		next := proto.CloneOf(get[*v1.Desktop](h, "sales-1"))
		next.Incarnation.Host = "h1"
		put(h, next)
		if got := told(a.next()); got != "set sales-1/20 READY" {
			t.Errorf("the present life: %s", got)
		}
	})
}

func TestEarlierLifeBesideThePresentOne(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		d := put(h, newDesktop("sales-1", "h1", 20))
		a, _ := h.connect("h1", orphan(d, 10, ready), says(d, placed))
		if got := told(a.next()); got != "set sales-1/10 DELETED" {
			t.Fatalf("told %s", got)
		}
		if err := a.report(false, orphan(d, 10, deleted), says(d, ready)); err != nil {
			t.Fatal(err)
		}
		if got := told(a.next()); got != "drop sales-1" {
			t.Errorf("after it was erased: %s", got)
		}
		next := proto.CloneOf(get[*v1.Desktop](h, "sales-1"))
		next.Incarnation.Generation = 30
		put(h, next)
		if got := told(a.next()); got != "set sales-1/30 READY, drop sales-1" {
			t.Errorf("the next life, and the end of the last: %s", got)
		}
	})
}

func TestUnknownOrphansAreKept(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		known := put(h, newDesktop("sales-1", "h1", 10))
		stranger, other := newDesktop("gone-1", "h1", 5), proto.CloneOf(known)
		other.Meta.Uid = newDesktop("x", "", 1).GetMeta().GetUid()
		a, _ := h.connect("h1", orphan(stranger, 5, ready), orphan(other, 9, v1.DesktopState_DESKTOP_STATE_STOPPED), orphan(known, 11, ready), says(known, ready))
		synctest.Wait()
		orphans := get[*v1.Host](h, "h1").GetStatus().GetOrphans()
		if len(orphans) != 3 || !orphans[0].GetRunning() {
			t.Fatalf("orphans: %v", orphans)
		}
		a.beat(time.Minute)
		found := 0
		for _, reason := range h.events() {
			if reason == "OrphanFound" {
				found++
			}
		}
		if found != 3 {
			t.Errorf("%d events about 3 orphans", found)
		}
		put(h, newDesktop("sales-2", "h1", 12))
		if got := told(a.next()); got != "set sales-2/12 READY" {
			t.Errorf("told %s: nobody decided about the orphans", got)
		}
	})
}

func TestNothingIsErasedWhileFrozen(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		for i := range 5 {
			put(h, newHost(fmt.Sprint("h", i)))
		}
		d := put(h, newDesktop("sales-1", "", 20))
		time.Sleep(time.Minute) // nobody is heard: frozen
		a, _ := h.connect("h1", orphan(d, 10, ready))
		a.beat(20 * time.Second)
		put(h, newDesktop("sales-2", "h1", 21))
		if got := told(a.next()); got != "set sales-2/21 READY" {
			t.Fatalf("told %s while frozen", got)
		}
		for _, name := range []string{"h2", "h3", "h4"} {
			h.connect(name)
		}
		if got := told(a.next()); got != "set sales-1/10 DELETED" {
			t.Errorf("told %s after the freeze", got)
		}
	})
}

// What hosts did while nobody led is not known before they are heard, or called DOWN. A session that begins anew is none of that.
func TestNewLeaderHasHeardNobody(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		for _, name := range []string{"h1", "h2", "h3", "never"} {
			put(h, newHost(name))
		}
		h.connect("h1")
		h.connect("h2")
		unheard := func() string {
			synctest.Wait()
			names := ""
			for _, name := range []string{"h1", "h2", "h3", "never"} {
				if get[*v1.Host](h, name).GetStatus().GetUnheard() {
					names += name + " "
				}
			}
			return names
		}
		if got := unheard(); got != "" {
			t.Errorf("unheard by their first leader: %s", got)
		}
		h.retire()
		time.Sleep(time.Minute)
		if err := h.server.Begin(h.ctx, store.Open(h.backend, store.WriterDispatch), h.mirror); err != nil {
			t.Fatal(err)
		}
		h.lead()
		if got := unheard(); got != "h1 h2 " || h.phase("h1") != v1.HostPhase_HOST_PHASE_UP {
			t.Errorf("unheard as a leader begins: %s", got)
		}
		h.connect("h1")
		if got := unheard(); got != "h2 " {
			t.Errorf("unheard once h1 spoke: %s", got)
		}
		h.connect("h1")
		time.Sleep(45 * time.Second)
		if got := unheard(); got != "" || h.phase("h2") != v1.HostPhase_HOST_PHASE_DOWN {
			t.Errorf("unheard after the grace period: %s, h2 is %v", got, h.phase("h2"))
		}
	})
}
