package dispatch

import (
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"buf.build/go/protovalidate"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	v1 "daybreak/proto/daybreak/v1"
)

func TestAdvance(t *testing.T) {
	with := func(generation int64, state v1.DesktopState) *v1.Desktop {
		d := newDesktop("sales-1", "h1", 10)
		if state != 0 {
			d.Status = &v1.DesktopStatus{Generation: generation, State: state}
		}
		return d
	}
	uid := with(0, 0).GetMeta().GetUid()
	rows := []struct {
		name       string
		d          *v1.Desktop
		host, uid  string
		generation int64
		state      v1.DesktopState
		want       outcome
	}{
		{"first word", with(0, 0), "h1", uid, 10, placed, outcomeChanged},
		{"forward", with(10, starting), "h1", uid, 10, ready, outcomeChanged},
		{"leap", with(10, placed), "h1", uid, 10, deleted, outcomeChanged},
		{"same", with(10, ready), "h1", uid, 10, ready, outcomeSame},
		{"back", with(10, ready), "h1", uid, 10, starting, outcomeBackward},
		{"suspend", with(10, ready), "h1", uid, 10, suspended, outcomeChanged},
		{"resume", with(10, suspended), "h1", uid, 10, ready, outcomeChanged},
		{"failed ends", with(10, failed), "h1", uid, 10, deleted, outcomeChanged},
		{"failed only ends", with(10, failed), "h1", uid, 10, stopping, outcomeBackward},
		{"failed does not heal", with(10, failed), "h1", uid, 10, ready, outcomeBackward},
		{"deleted is the end", with(10, deleted), "h1", uid, 10, failed, outcomeBackward},
		{"lost and found", with(10, lost), "h1", uid, 10, starting, outcomeChanged},
		{"status of the life before", with(9, deleted), "h1", uid, 10, placed, outcomeChanged},
		{"earlier generation", with(10, ready), "h1", uid, 9, deleted, outcomeForeign},
		{"later generation", with(10, ready), "h1", uid, 11, ready, outcomeForeign},
		{"another host's desktop", with(10, starting), "h2", uid, 10, ready, outcomeForeign},
		{"another life of the name", with(10, starting), "h1", "other", 10, ready, outcomeForeign},
	}
	for _, row := range rows {
		next, got := advance(row.d, row.host, row.uid, &v1.DesktopStatus{Generation: row.generation, State: row.state})
		if got != row.want || (got == outcomeChanged) != (next.GetState() == row.state) {
			t.Errorf("%s: %v %v, want %v", row.name, got, next, row.want)
		}
	}
}

// A host that lost its journal does not know when a life was ready. It was.
func TestAdvanceRemembers(t *testing.T) {
	at := func(state v1.DesktopState, second int64) *v1.StateTime {
		return &v1.StateTime{State: state, At: timestamppb.New(time.Unix(second, 0))}
	}
	d := newDesktop("sales-1", "h1", 10)
	d.Status = &v1.DesktopStatus{Generation: 10, State: lost, Times: []*v1.StateTime{at(placed, 1), at(ready, 5), at(lost, 9)}}
	report := &v1.DesktopStatus{Generation: 10, State: failed, Times: []*v1.StateTime{at(placed, 20), at(failed, 21)}}
	next, what := advance(d, "h1", d.GetMeta().GetUid(), report)
	want := []*v1.StateTime{at(ready, 5), at(placed, 20), at(failed, 21)}
	if what != outcomeChanged || !cmp.Equal(want, next.GetTimes(), protocmp.Transform()) {
		t.Errorf("%v, %v", what, next)
	}
	d.Status = next
	if again, what := advance(d, "h1", d.GetMeta().GetUid(), report); what != outcomeSame {
		t.Errorf("the same report again: %v, %v", what, again)
	}
}

func TestLose(t *testing.T) {
	now := timestamppb.New(time.Unix(1000, 0))
	rows := []struct {
		generation int64
		state      v1.DesktopState
		host       string
		want       outcome
	}{
		{0, 0, "h1", outcomeChanged},
		{9, deleted, "h1", outcomeChanged},
		{10, ready, "h1", outcomeChanged},
		{10, stopping, "h1", outcomeChanged},
		{10, failed, "h1", outcomeSame},
		{10, deleted, "h1", outcomeSame},
		{10, lost, "h1", outcomeSame},
		{10, ready, "h2", outcomeForeign},
	}
	for _, row := range rows {
		d := newDesktop("sales-1", "h1", 10)
		d.Status = &v1.DesktopStatus{Generation: row.generation, State: row.state, DataDisk: true}
		next, got := lose(d, row.host, now, "silent")
		if got != row.want || got == outcomeChanged && (next.GetState() != lost || next.GetGeneration() != 10 || next.GetMessage() == "") {
			t.Errorf("%v: %v %v", row, got, next)
		}
		if got == outcomeChanged && !next.GetSince().AsTime().Equal(now.AsTime()) {
			t.Errorf("%v: since %v", row, next.GetSince())
		}
		if got == outcomeChanged && next.GetDataDisk() != (row.generation == 10) {
			t.Errorf("%v: data disk %v", row, next.GetDataDisk())
		}
	}
}

func TestCleanedStatusIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.OneOf(rapid.String(), rapid.StringN(0, 3000, -1))
		s := &v1.DesktopStatus{
			Generation: 1, State: ready, Message: word.Draw(t, "message"),
			ProgressPercent: rapid.Uint32().Draw(t, "percent"),
			Times:           make([]*v1.StateTime, rapid.IntRange(0, 200).Draw(t, "times")),
			Guest: &v1.GuestReport{
				ImageVersion: word.Draw(t, "version"), BootNonce: word.Draw(t, "nonce"), Hostname: word.Draw(t, "hostname"),
				AgentVersion: word.Draw(t, "agent"), Addresses: rapid.SliceOf(word).Draw(t, "addresses"),
			},
		}
		for i := range s.GetTimes() {
			s.Times[i] = &v1.StateTime{State: ready}
		}
		clean(s)
		if err := protovalidate.Validate(s); err != nil {
			t.Fatal(err)
		}
		for _, text := range append(s.GetGuest().GetAddresses(), s.GetMessage(), s.GetGuest().GetHostname()) {
			if strings.ContainsAny(text, "\x00\x1b\n\r\u202e\u2028") || !utf8.ValidString(text) {
				t.Fatalf("%q is not clean", text)
			}
		}
	})
}

func TestCleanKeepsWords(t *testing.T) {
	for in, want := range map[string]string{
		"":                        "",
		"起動中 12 %":                "起動中 12 %",
		"a\x1b[31mred\x00":        "a[31mred",
		strings.Repeat("窓", 2000): strings.Repeat("窓", 1024),
	} {
		s := &v1.DesktopStatus{Message: in}
		if clean(s); s.GetMessage() != want {
			t.Errorf("%.20q became %.20q", in, s.GetMessage())
		}
	}
}

func TestHostStatus(t *testing.T) {
	now := time.Unix(100000, 0)
	up := &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_UP, PhaseSince: timestamppb.New(now.Add(-time.Hour)), BootId: "b1",
		Usage: &v1.HostUsage{MemoryAvailableMib: 6400}}
	down := &v1.HostStatus{Phase: v1.HostPhase_HOST_PHASE_DOWN, PhaseSince: up.GetPhaseSince(), BootId: "b1", Message: "not heard"}
	unheard := proto.CloneOf(up)
	unheard.Unheard = true
	said := func(boot, unwell string, memory uint64) facts {
		return facts{heard: now, hello: &v1.WatchAssignmentsRequest{BootId: boot},
			report: &v1.ReportRequest{Unwell: unwell, Usage: &v1.HostUsage{MemoryAvailableMib: memory}}}
	}
	never, recently := now.Add(-time.Hour), now.Add(-10*time.Second)
	rows := []struct {
		name  string
		old   *v1.HostStatus
		f     facts
		usage time.Time
		phase v1.HostPhase // 0: nothing is written
		since time.Time
	}{
		{"not heard in this term, within grace", up, facts{heard: now}, never, v1.HostPhase_HOST_PHASE_UP, now.Add(-time.Hour)},
		{"that is known", unheard, facts{heard: now}, never, 0, now},
		{"heard before, in another session", up, facts{heard: now, spoke: true}, never, 0, now},
		{"heard at last", unheard, said("b1", "", 6400), never, v1.HostPhase_HOST_PHASE_UP, now.Add(-time.Hour)},
		{"silent", up, facts{heard: now, silent: true}, never, v1.HostPhase_HOST_PHASE_DOWN, now},
		{"never heard", nil, facts{heard: now, silent: true}, never, v1.HostPhase_HOST_PHASE_DOWN, now},
		{"still silent", down, facts{heard: now, silent: true}, never, 0, now},
		{"back", down, said("b1", "", 6400), never, v1.HostPhase_HOST_PHASE_UP, now},
		{"first", nil, said("b1", "", 6400), never, v1.HostPhase_HOST_PHASE_UP, now},
		{"unwell", up, said("b1", "libvirt does not answer", 6400), never, v1.HostPhase_HOST_PHASE_DEGRADED, now},
		{"nothing new", up, said("b1", "", 6401), never, 0, now},
		{"usage, due", up, said("b1", "", 3200), never, v1.HostPhase_HOST_PHASE_UP, now.Add(-time.Hour)},
		{"usage, too soon", up, said("b1", "", 3200), recently, 0, now},
		{"another boot, and usage at once", up, said("b2", "", 3200), recently, v1.HostPhase_HOST_PHASE_UP, now.Add(-time.Hour)},
	}
	for _, row := range rows {
		next, worth := hostStatus(row.old, row.f, now, row.usage)
		if worth != (row.phase != 0) || worth && (next.GetPhase() != row.phase || !next.GetPhaseSince().AsTime().Equal(row.since)) {
			t.Errorf("%s: %v %v", row.name, worth, next)
		}
		if worth && next.GetUnheard() != (row.f.report == nil && !row.f.silent) {
			t.Errorf("%s: unheard is %v", row.name, next.GetUnheard())
		}
		if worth && row.f.report != nil && next.GetUsage().GetMemoryAvailableMib() != row.f.report.GetUsage().GetMemoryAvailableMib() {
			t.Errorf("%s: usage %v", row.name, next.GetUsage())
		}
		if worth && row.f.silent && row.old != nil && next.GetBootId() != "b1" {
			t.Errorf("%s: forgot what was known: %v", row.name, next)
		}
	}
}

func TestTooManySilent(t *testing.T) {
	for _, row := range []struct {
		silent, hosts int
		want          bool
	}{{0, 0, false}, {2, 2, false}, {3, 3, true}, {3, 10, false}, {4, 10, true}, {60, 200, false}, {61, 200, true}} {
		if got := tooManySilent(row.silent, row.hosts); got != row.want {
			t.Errorf("%d of %d: %v", row.silent, row.hosts, got)
		}
	}
}

func TestPeriod(t *testing.T) {
	for _, row := range []struct {
		base, grace time.Duration
		hosts       int
		want        time.Duration
	}{
		{5 * time.Second, 40 * time.Second, 0, 5 * time.Second},
		{5 * time.Second, 40 * time.Second, 1000, 5 * time.Second},
		{5 * time.Second, 40 * time.Second, 2000, 10 * time.Second},
		{5 * time.Second, 40 * time.Second, 100000, 40 * time.Second / 3},
		{5 * time.Second, 10 * time.Second, 100000, 5 * time.Second},
	} {
		got := period(row.base, row.grace, row.hosts, 0.5)
		if math.Abs((got - row.want).Seconds()) > 0.001 {
			t.Errorf("%v: %v", row, got)
		}
	}
	if early, late := period(10*time.Second, time.Minute, 1, 0), period(10*time.Second, time.Minute, 1, 0.999); early != 9*time.Second || late < 10900*time.Millisecond {
		t.Errorf("jitter from %v to %v", early, late)
	}
}
