package dispatch

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

func TestStoryOfASession(t *testing.T) {
	inHouse(t, Config{Epoch: 3}, func(h *house) {
		put(h, newHost("h1"))
		d1 := put(h, newDesktop("sales-1", "h1", 10))
		put(h, newDesktop("sales-2", "h2", 11))
		a, m := h.connect("h1")
		if got := told(m); got != "complete, set sales-1/10 READY, images 0" || m.GetAppliesTo() != 0 || m.GetResultsIn() != 1 || m.GetClusterEpoch() != 3 {
			t.Fatalf("first message: %v", m)
		}
		if in := m.GetSet()[0].GetIncarnation(); in.GetUsedBy() != "" || in.GetReason() != "" {
			t.Errorf("the agent was told who uses the desktop: %v", in)
		}
		synctest.Wait()
		if s := get[*v1.Host](h, "h1").GetStatus(); s.GetPhase() != v1.HostPhase_HOST_PHASE_UP || s.GetCapacity().GetCpus() != 8 || s.GetBootId() != "boot-1" {
			t.Errorf("host status after the first report: %v", s)
		}

		put(h, newDesktop("sales-3", "h1", 12))
		put(h, newDesktop("sales-4", "h1", 13))
		if got := told(a.next()); got != "set sales-3/12 READY, set sales-4/13 READY" {
			t.Errorf("two desktops placed at once: %s", got)
		}
		if err := a.report(false, says(d1, ready)); err != nil {
			t.Fatal(err)
		}
		stored := get[*v1.Desktop](h, "sales-1")
		if stored.GetStatus().GetState() != ready {
			t.Errorf("an acknowledged status is not stored: %v", stored.GetStatus())
		}
		end := proto.CloneOf(stored)
		end.Incarnation.Desired = v1.DesiredState_DESIRED_STATE_DELETED
		put(h, end)
		m = a.next()
		if got := told(m); got != "set sales-1/10 DELETED" || m.GetAppliesTo() != 2 || m.GetResultsIn() != 3 {
			t.Errorf("desired DELETED (and nothing for the status written): %v", m)
		}
		if err := a.report(false, says(d1, deleted)); err != nil {
			t.Fatal(err)
		}
		h.remove(get[*v1.Desktop](h, "sales-1"))
		if got := told(a.next()); got != "drop sales-1" {
			t.Errorf("removed desktop: %s", got)
		}
		host := proto.CloneOf(get[*v1.Host](h, "h1"))
		host.WantedImages = []*v1.WantedImage{{Image: "debian", Digest: strings.Repeat("b", 64)}}
		put(h, host)
		if got := told(a.next()); got != "images 1" {
			t.Errorf("wanted images: %s", got)
		}
		a.beat(10 * time.Minute)
		if s := get[*v1.Host](h, "h1").GetStatus(); s.GetPhase() != v1.HostPhase_HOST_PHASE_UP {
			t.Errorf("after ten minutes of heartbeats: %v", s)
		}
	})
}

func TestNewerSessionEndsTheOlder(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		older, _ := h.connect("h1")
		newer, _ := h.connect("h1")
		if _, err := older.stream.Recv(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "newer session") {
			t.Errorf("older session's stream: %v", err)
		}
		if err := older.report(false); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("older session's report: %v", err)
		}
		newer.beat(time.Minute)
	})
}

func TestReportOfASessionWhoseStreamEnded(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		a, _ := h.connect("h1")
		a.hangUp()
		synctest.Wait()
		a.ctx = as(h.ctx, "h1")
		if err := a.report(false); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("report: %v", err)
		}
	})
}

func TestRefusedSessions(t *testing.T) {
	rows := []struct {
		name  string
		host  string
		say   func(*v1.WatchAssignmentsRequest)
		code  codes.Code
		event string
	}{
		{"unknown host", "h9", nil, codes.PermissionDenied, ""},
		{"short session id", "h1", func(r *v1.WatchAssignmentsRequest) { r.SessionId = "x" }, codes.InvalidArgument, ""},
		{"no capacity", "h1", func(r *v1.WatchAssignmentsRequest) { r.Capacity = nil }, codes.InvalidArgument, ""},
		{"later epoch", "h1", func(r *v1.WatchAssignmentsRequest) { r.ClusterEpoch = 4 }, codes.FailedPrecondition, "EpochRefused"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			inHouse(t, Config{Epoch: 3}, func(h *house) {
				put(h, newHost("h1"))
				for range 3 {
					a := h.watch(row.host, row.say)
					if _, err := a.stream.Recv(); status.Code(err) != row.code {
						t.Errorf("got %v, want %v", err, row.code)
					}
				}
				if got := strings.Join(h.events(), " "); got != row.event {
					t.Errorf("events %q, want %q", got, row.event)
				}
			})
		})
	}
}

func TestTooManySessions(t *testing.T) {
	inHouse(t, Config{MaxSessions: 2}, func(h *house) {
		for _, name := range []string{"h1", "h2", "h3"} {
			put(h, newHost(name))
		}
		h.connect("h1")
		h.connect("h2")
		if _, err := h.watch("h3", nil).stream.Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("third session of two: %v", err)
		}
	})
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		put(h, newHost("h2"))
		var refused error
		for range 20 {
			a := h.watch("h1", nil)
			if _, err := a.stream.Recv(); err != nil {
				refused = err
			}
		}
		if status.Code(refused) != codes.ResourceExhausted {
			t.Errorf("a host that begins 20 sessions at once: %v", refused)
		}
		h.connect("h2")
	})
}

func TestNotLeading(t *testing.T) {
	inHouse(t, Config{Leader: func() string { return "cp-2" }}, func(h *house) {
		put(h, newHost("h1"))
		a, _ := h.connect("h1")
		if h.server.Frozen() {
			t.Error("frozen while leading")
		}
		h.retire()
		synctest.Wait()
		for {
			_, err := a.stream.Recv()
			if errors.Is(err, io.EOF) || err == nil {
				continue
			}
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "not the leader (leader: cp-2)") {
				t.Errorf("stream at the end of the term: %v", err)
			}
			break
		}
		if err := a.report(false); status.Code(err) != codes.Unavailable {
			t.Errorf("report: %v", err)
		}
		if _, err := h.client.Answer(a.ctx, &v1.AnswerRequest{SessionId: a.session, Id: "x"}); status.Code(err) != codes.Unavailable {
			t.Errorf("answer: %v", err)
		}
		if !h.server.Frozen() {
			t.Error("not frozen although it does not lead")
		}
		h.lead()
		synctest.Wait()
		h.connect("h1")
	})
}

func TestHostDeleted(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		a, _ := h.connect("h1")
		synctest.Wait()
		h.remove(get[*v1.Host](h, "h1"))
		if _, err := a.stream.Recv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("stream of a deleted host: %v", err)
		}
	})
}

func TestSlowHostHoldsNobodyUp(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("slow"))
		put(h, newHost("h2"))
		slow, _ := h.connect("slow")
		quick, _ := h.connect("h2")
		big := strings.Repeat("x", 4000)
		for round := range 40 {
			for i := range 5 {
				d := newDesktop("sales-"+string(rune('a'+i)), "slow", int64(100+round))
				d.Incarnation.Readiness = &v1.Readiness{Probe: []string{big, big, big, big}}
				put(h, d)
			}
			time.Sleep(time.Second)
		}
		put(h, newDesktop("quick-1", "h2", 7))
		if got := told(quick.next()); got != "set quick-1/7 READY" {
			t.Errorf("the other host was told %s", got)
		}
		synctest.Wait()
		messages, last := 0, map[string]int64{}
		for last["sales-e"] != 139 {
			m := slow.next()
			messages++
			for _, a := range m.GetSet() {
				last[a.GetDesktop()] = a.GetIncarnation().GetGeneration()
			}
		}
		if messages > 10 {
			t.Errorf("%d messages: what changed while the host was slow was not gathered", messages)
		}
		if err := slow.report(false); err != nil {
			t.Errorf("a slow reader may still report: %v", err)
		}
	})
}
