package rollout_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

func drawPolicy(t *rapid.T) *v1.RolloutPolicy {
	p := &v1.RolloutPolicy{
		Waves:       rapid.SampledFrom([][]string{nil, {"1"}, {"2", "50%"}, {"25%", "100%"}, {"1", "2", "4"}, {"90%"}}).Draw(t, "waves"),
		Monitor:     durationpb.New(rapid.SampledFrom([]time.Duration{time.Minute, 10 * time.Minute}).Draw(t, "monitor")),
		MaxFailures: rapid.SampledFrom([]uint32{0, 0, 0, 1, 3}).Draw(t, "max failures"),
		OnFailure:   v1.OnFailure(rapid.IntRange(0, 2).Draw(t, "on failure")),
	}
	if rapid.IntRange(0, 3).Draw(t, "deadline") == 0 {
		p.InUse = &v1.InUse{Deadline: durationpb.New(time.Hour)}
	}
	if rapid.IntRange(0, 3).Draw(t, "remind") == 0 {
		p.InUse = &v1.InUse{Mode: v1.InUseMode_IN_USE_MODE_REMIND, Deadline: p.GetInUse().GetDeadline()}
	}
	return p
}

func drawWindow(t *rapid.T) *calendar.Window {
	from := rapid.IntRange(0, 23).Draw(t, "window")
	if from%3 != 0 {
		return nil
	}
	w, err := calendar.NewWindow(&v1.Window{From: fmt.Sprintf("%02d:00", from), To: fmt.Sprintf("%02d:30", (from+1)%24), TimeZone: "Asia/Tokyo"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// happen does one thing that may happen to a pool.
func (w *world) happen(t *rapid.T) {
	seats := len(w.desktops)
	which := func(label string, n int) int { return rapid.IntRange(0, max(n-1, 0)).Draw(t, label) }
	switch what := rapid.SampledFrom([]string{
		"publish", "publish a bad one", "name", "withdraw", "claim", "claim", "claim", "release", "release", "host goes", "host comes", "host comes",
		"pause", "resume", "roll back", "start", "policy", "window", "seats", "min_ready", "time", "time", "night",
	}).Draw(t, "what"); what {
	case "publish":
		w.publish(healthy)
	case "publish a bad one":
		w.publish(rapid.SampledFrom([]health{neverReady, diesSoon}).Draw(t, "health"))
	case "name":
		w.pool.Spec.Version = uint32(which("version", len(w.image.GetStatus().GetVersions())+1))
	case "withdraw":
		if n := which("version", len(w.image.GetStatus().GetVersions())); n > 0 {
			w.withdraw(uint32(n + 1))
		}
	case "claim":
		w.claim(which("desktop", seats))
	case "release":
		w.release(which("desktop", seats))
	case "host goes":
		w.setHost(which("host", 3), v1.HostPhase_HOST_PHASE_DOWN)
	case "host comes":
		w.setHost(which("host", 3), v1.HostPhase_HOST_PHASE_UP)
	case "policy":
		w.pool.Spec.Rollout = drawPolicy(t)
	case "window":
		w.window = drawWindow(t)
	case "seats":
		w.pool.Spec.Desktops = uint32(rapid.IntRange(1, 14).Draw(t, "seats"))
		w.pool.Spec.MinReady = min(w.pool.Spec.MinReady, w.pool.Spec.Desktops-1)
	case "min_ready":
		w.pool.Spec.MinReady = uint32(which("min_ready", int(w.pool.Spec.Desktops)))
	case "time":
		w.settle(time.Duration(rapid.IntRange(1, 20).Draw(t, "minutes")) * time.Minute)
	case "night":
		w.settle(3 * time.Hour)
	default:
		w.ask(what)
	}
}

// ask does what a person asks for; what is refused changes nothing.
func (w *world) ask(what string) {
	var a rollout.Actions
	var err error
	switch what {
	case "pause", "resume":
		if r := w.active(); r != nil && r.GetSpec().GetPaused() != (what == "pause") {
			paused := proto.CloneOf(r)
			paused.Spec.Paused = what == "pause"
			w.apply(rollout.Actions{Update: []*v1.Rollout{paused}})
			return
		}
		if what == "pause" {
			return
		}
		a, err = rollout.ResumeFor(w.now, w.snapshot())
		w.resumed = err == nil
	case "roll back":
		a, err = rollout.BackFor(w.now, w.snapshot())
	case "start":
		a, err = rollout.StartFor(w.now, w.snapshot())
	}
	if err == nil {
		w.apply(a)
	}
	w.resumed = false
}

// waits says what a rollout that does not end waits for; empty when nobody could know.
func (w *world) waits() string {
	r := w.active()
	if r == nil {
		return "nothing"
	}
	s := r.GetStatus()
	for _, sign := range []struct {
		is   bool
		word string
	}{
		{s.GetPhase() == phaseHalted, "halted"}, {r.GetSpec().GetPaused(), "paused"}, {s.GetInUse() > 0, "in use"},
		{w.pool.GetSpec().GetMinReady() > 0, "minReady"}, {true, "in its user's hands"},
	} {
		if sign.is && strings.Contains(s.GetMessage(), sign.word) {
			return sign.word
		}
	}
	return ""
}

// Whatever happens, rollouts keep their promises; and when nothing more happens, each comes to an end, or waits for
// somebody and says for whom.
func TestEveryHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { everyHistory(t, false) })
}

func everyHistory(t *rapid.T, real bool) {
	w := newWorld(rapid.IntRange(1, 12).Draw(t, "seats"), drawPolicy(t))
	w.real = real
	w.pool.Spec.MinReady = uint32(rapid.IntRange(0, int(w.pool.Spec.Desktops)-1).Draw(t, "min_ready"))
	for range rapid.IntRange(1, 16).Draw(t, "length") {
		w.happen(t)
		w.settle(time.Minute)
		w.fail(t)
	}
	for i := range w.hosts {
		w.setHost(i, v1.HostPhase_HOST_PHASE_UP)
	}
	w.settle(4 * 24 * time.Hour)
	w.fail(t)
	if w.waits() == "" {
		t.Fatalf("not at rest: %v\nrelease %v\n%s", w.active(), w.pool.GetRelease(), w.picture())
	}
	before := fmt.Sprint(w.newest().GetMeta().GetName(), w.newest().GetStatus().GetPhase())
	w.settle(26 * time.Hour)
	if after := fmt.Sprint(w.newest().GetMeta().GetName(), w.newest().GetStatus().GetPhase()); after != before {
		t.Fatalf("came to rest as %s, and went on to %s", before, after)
	}
}

func (w *world) fail(t *rapid.T) {
	if len(w.wrong) > 0 {
		t.Fatalf("%s\nrelease %v\n%s", strings.Join(w.wrong, "\n"), w.pool.GetRelease(), w.picture())
	}
}

func (w *world) picture() string {
	var text strings.Builder
	for _, d := range w.desktops {
		fmt.Fprintf(&text, "%s: version %d on %s, %v, wanted %v, user %q, used by %q\n", d.GetMeta().GetName(), d.GetIncarnation().GetVersion(),
			d.GetIncarnation().GetHost(), state(d), d.GetIncarnation().GetDesired(), d.GetClaim().GetUser(), d.GetIncarnation().GetUsedBy())
	}
	for _, n := range w.notes[max(0, len(w.notes)-8):] {
		text.WriteString(n.Reason + ": " + n.Message + "\n")
	}
	return text.String()
}
