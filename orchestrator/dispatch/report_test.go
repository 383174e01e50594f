package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

func TestRefusedReports(t *testing.T) {
	d := newDesktop("sales-1", "h1", 10)
	rows := []struct {
		name  string
		first bool // the session's first, full report was made
		spoil func(*v1.ReportRequest)
		code  codes.Code
	}{
		{"fine", true, func(r *v1.ReportRequest) {}, codes.OK},
		{"first is not full", false, func(r *v1.ReportRequest) { r.Full = false }, codes.FailedPrecondition},
		{"another session", true, func(r *v1.ReportRequest) { r.SessionId = strings.Repeat("x", 36) }, codes.FailedPrecondition},
		{"sequence again", true, func(r *v1.ReportRequest) { r.Sequence = 1 }, codes.FailedPrecondition},
		{"no state", true, func(r *v1.ReportRequest) { r.Desktops[0].Status.State = 0 }, codes.InvalidArgument},
		{"unknown state", true, func(r *v1.ReportRequest) { r.Desktops[0].Status.State = 99 }, codes.InvalidArgument},
		{"LOST", true, func(r *v1.ReportRequest) { r.Desktops[0].Status.State = lost }, codes.InvalidArgument},
		{"PENDING", true, func(r *v1.ReportRequest) { r.Desktops[0].Status.State = v1.DesktopState_DESKTOP_STATE_PENDING }, codes.InvalidArgument},
		{"no status", true, func(r *v1.ReportRequest) { r.Desktops[0].Status = nil }, codes.InvalidArgument},
		{"image that is no digest", true, func(r *v1.ReportRequest) { r.Images = []string{"../../etc"} }, codes.InvalidArgument},
		{"pressure above 100", true, func(r *v1.ReportRequest) { r.Usage = &v1.HostUsage{PsiCpu: 101} }, codes.InvalidArgument},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			inHouse(t, Config{}, func(h *house) {
				put(h, newHost("h1"))
				put(h, proto.CloneOf(d))
				a := h.watch("h1", nil)
				a.next()
				if row.first {
					if err := a.report(true); err != nil {
						t.Fatal(err)
					}
				}
				req := &v1.ReportRequest{SessionId: a.session, Sequence: a.sequence + 1, Full: !row.first, Desktops: []*v1.IncarnationReport{says(d, ready)}}
				row.spoil(req)
				_, err := h.client.Report(a.ctx, req)
				if status.Code(err) != row.code {
					t.Errorf("got %v, want %v", err, row.code)
				}
				if got := get[*v1.Desktop](h, "sales-1").GetStatus() != nil; got != (row.code == codes.OK) {
					t.Errorf("status was written: %v", got)
				}
			})
		})
	}
}

func TestAHostSpeaksOnlyOfItsOwn(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		put(h, newHost("h2"))
		d1, d2 := put(h, newDesktop("sales-1", "h1", 10)), put(h, newDesktop("sales-2", "h2", 11))
		h.connect("h1", says(d1, ready), says(d2, failed), orphan(d2, 11, failed))
		if got := get[*v1.Desktop](h, "sales-2").GetStatus(); got != nil {
			t.Errorf("h1 wrote the status of h2's desktop: %v", got)
		}
		if got := get[*v1.Desktop](h, "sales-1").GetStatus().GetState(); got != ready {
			t.Errorf("its own desktop is %v", got)
		}
	})
}

func TestReportsMeetOtherWriters(t *testing.T) {
	inHouse(t, Config{}, func(h *house) {
		put(h, newHost("h1"))
		var all []*v1.IncarnationReport
		for i := range 300 {
			d := put(h, newDesktop("sales-"+strings.Repeat("a", i%20)+string(rune('a'+i/20)), "h1", 10))
			all = append(all, says(d, ready))
		}
		synctest.Wait() // what the mirror has not seen yet, no host was told to run
		pool := store.Open(h.backend, store.WriterPool)
		h.group.Go(func() error {
			for _, r := range all[:150] {
				_, err := store.Modify(h.ctx, pool, r.GetDesktop(), func(d *v1.Desktop) error {
					d.Claim = &v1.DesktopClaim{User: "taro"}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		h.connect("h1", all...)
		synctest.Wait()
		for i, r := range all {
			d := get[*v1.Desktop](h, r.GetDesktop())
			if d.GetStatus().GetState() != ready || (d.GetClaim() != nil) != (i < 150) {
				t.Fatalf("desktop %d: %v", i, d)
			}
		}
	})
}

// failing refuses some writes, as a store in trouble does.
type failing struct {
	*store.Memory
	err func() error
}

func (f failing) Commit(ctx context.Context, guard store.Guard, ops []store.Op) (int64, error) {
	if err := f.err(); err != nil {
		return 0, err
	}
	return f.Memory.Commit(ctx, guard, ops)
}

func TestNothingIsAcknowledgedThatIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var trouble error
		h := newBareTerm(t, func() error { return trouble })
		defer h.end()
		d := put(&h.house, newDesktop("sales-1", "h1", 10))
		h.hello()
		if err := h.say(says(d, starting)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		trouble = errors.New("etcd has no quorum")
		if err := h.say(says(d, ready)); status.Code(err) != codes.Unavailable {
			t.Errorf("report while the store fails: %v", err)
		}
		synctest.Wait()
		trouble = nil
		if got := get[*v1.Desktop](&h.house, "sales-1").GetStatus().GetState(); got != starting {
			t.Errorf("stored %v", got)
		}
		if err := h.say(says(d, ready)); err != nil {
			t.Errorf("report again: %v", err)
		}
		synctest.Wait()
		trouble = store.ErrNotLeader
		if err := h.say(says(d, failed)); status.Code(err) != codes.Unavailable {
			t.Errorf("report when another leads: %v", err)
		}
		synctest.Wait()
		if h.server.leading() != nil {
			t.Error("it leads on although the store said that another does")
		}
	})
}

func TestStatesOnlyMoveForward(t *testing.T) {
	states := []v1.DesktopState{placed, preparing, v1.DesktopState_DESKTOP_STATE_PREPARED, starting, ready, suspended, stopping,
		v1.DesktopState_DESKTOP_STATE_STOPPED, deleted, failed}
	rapid.Check(t, func(rt *rapid.T) {
		words := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) *v1.IncarnationReport {
			name := rapid.SampledFrom([]string{"sales-1", "sales-2", "sales-3"}).Draw(rt, "desktop")
			d := newDesktop(name, "h1", rapid.Int64Range(9, 12).Draw(rt, "generation"))
			r := says(d, rapid.SampledFrom(states).Draw(rt, "state"))
			r.Orphan = rapid.Bool().Draw(rt, "orphan")
			return r
		}), 1, 30).Draw(rt, "words")
		raise := rapid.SliceOfN(rapid.IntRange(0, 9), len(words), len(words)).Draw(rt, "raise")
		wrong := ""
		synctest.Test(t, func(t *testing.T) {
			h := newBareTerm(t, func() error { return nil })
			defer h.end()
			put(&h.house, newDesktop("sales-1", "h1", 10))
			put(&h.house, newDesktop("sales-2", "h1", 11))
			put(&h.house, newDesktop("sales-3", "h2", 10))
			before := map[string]*v1.Desktop{}
			h.mirror.Subscribe(func(_, after *store.View, _ []store.Ref) {
				for _, d := range store.All[*v1.Desktop](after) {
					wrong += backward(before[d.GetMeta().GetName()], d)
					before[d.GetMeta().GetName()] = d
				}
			})
			h.hello()
			for i, word := range words {
				if err := h.say(word); err != nil {
					wrong += err.Error()
					return
				}
				if raise[i] == 0 {
					next := proto.CloneOf(get[*v1.Desktop](&h.house, "sales-1"))
					next.Incarnation.Generation++
					put(&h.house, next)
				}
				if raise[i] == 1 {
					time.Sleep(30 * time.Second)
				}
			}
			synctest.Wait()
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

// backward holds two stored versions of a desktop against the rule, in words of its own, and says what is wrong.
func backward(before, after *v1.Desktop) string {
	was, is := before.GetStatus(), after.GetStatus()
	if is == nil || proto.Equal(was, is) {
		return ""
	}
	if after.GetIncarnation().GetHost() != "h1" {
		return "h1 wrote the status of another host's desktop; "
	}
	if is.GetGeneration() != after.GetIncarnation().GetGeneration() || is.GetGeneration() < was.GetGeneration() {
		return fmt.Sprintf("status of generation %d in %d after one of %d; ", is.GetGeneration(), after.GetIncarnation().GetGeneration(), was.GetGeneration())
	}
	order := "PLACED PREPARING PREPARED STARTING READY STOPPING STOPPED FAILED DELETED"
	at := func(s v1.DesktopState) int {
		if s == suspended {
			s = ready
		}
		return strings.Index(order, strings.TrimPrefix(s.String(), "DESKTOP_STATE_"))
	}
	if was != nil && is.GetGeneration() == was.GetGeneration() && at(is.GetState()) < at(was.GetState()) {
		return fmt.Sprintf("generation %d went from %v to %v; ", is.GetGeneration(), was.GetState(), is.GetState())
	}
	return ""
}
