package show

import (
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/orchestrator/rollout"
	v1 "daybreak/proto/daybreak/v1"
)

// Rollout describes a rollout: how far it is, what failed, when it will be done. pool may be nil: its waves are not known then.
func Rollout(out io.Writer, r *v1.Rollout, pool *v1.Pool, events []*v1.Event, now time.Time) error {
	p := &page{now: now}
	spec, s := r.GetSpec(), r.GetStatus()
	p.head(r.GetMeta())
	p.line("Pool", spec.GetPool())
	p.line("Version", moveWord(spec))
	by := ""
	if spec.GetBy() != "" {
		by = " (" + spec.GetBy() + ")"
	}
	p.line("Because", spec.GetReason()+by)
	p.line("Phase", phaseWord(r)+", since "+orDash(Moment(now, s.GetPhaseSince())))
	p.line("Message", s.GetMessage())
	p.line("Began", Moment(now, s.GetStarted()))
	p.line("Ended", Moment(now, s.GetEnded()))
	p.line("Done about", Moment(now, s.GetEstimatedEnd()))
	p.line("Desktops", movedWord(s, spec.GetToVersion()))
	if spec.GetRollback() || pool == nil {
		p.line("Wave", waveWord(s))
	} else {
		p.section("Waves", waves(s, pool))
	}
	t := Table{Header: []string{"DESKTOP", "HOST", "GENERATION", "WHEN", "WHY"}}
	for _, f := range s.GetFailures() {
		t.Rows = append(t.Rows, []string{f.GetDesktop(), f.GetHost(), count(f.GetGeneration()), Age(now, f.GetAt()) + " ago", f.GetMessage()})
	}
	p.section("Failures", t)
	p.events(events)
	return p.writeTo(out)
}

func rolloutRow(r *v1.Rollout, now time.Time) (narrow, wide []string) {
	spec, s := r.GetSpec(), r.GetStatus()
	from := ""
	if spec.GetFromVersion() != 0 {
		from = count(spec.GetFromVersion())
	}
	narrow = []string{
		name(r), spec.GetPool(), from, count(spec.GetToVersion()), phaseWord(r), waveWord(s),
		fmt.Sprintf("%d/%d", s.GetMoved(), s.GetTotal()), count(s.GetFailed()), age(r, now),
	}
	return narrow, []string{count(s.GetInUse()), Moment(now, s.GetEstimatedEnd()), spec.GetReason(), s.GetMessage()}
}

// moveWord is where a rollout goes: "4 to 5 of debian".
func moveWord(spec *v1.RolloutSpec) string {
	text := fmt.Sprintf("%d to %d of %s", spec.GetFromVersion(), spec.GetToVersion(), spec.GetImage())
	if spec.GetFromVersion() == 0 {
		text = versionWord(spec.GetImage(), spec.GetToVersion()) + ", from another image"
	}
	if spec.GetRollback() {
		text += " (rollback)"
	}
	return text
}

func movedWord(s *v1.RolloutStatus, to uint32) string {
	text := fmt.Sprintf("%d of %d ready with version %d", s.GetMoved(), s.GetTotal(), to)
	if s.GetInUse() > 0 {
		text += fmt.Sprintf("; %d in use", s.GetInUse())
	}
	if s.GetFailed() > 0 {
		text += fmt.Sprintf("; %d failed", s.GetFailed())
	}
	if s.GetAccepted() > 0 {
		text += fmt.Sprintf(", %d of these accepted", s.GetAccepted())
	}
	return text
}

// phaseWord is the phase as tables have it.
func phaseWord(r *v1.Rollout) string {
	text := word(r.GetStatus().GetPhase())
	if r.GetSpec().GetPaused() && r.GetStatus().GetEnded() == nil {
		text += ", paused"
	}
	return text
}

// waveWord is the wave as tables have it: "2/4".
func waveWord(s *v1.RolloutStatus) string {
	if s.GetWaves() == 0 {
		return ""
	}
	return fmt.Sprintf("%d/%d", s.GetWave(), s.GetWaves())
}

// waves says how many desktops run the new version at the end of each wave, by the pool's policy as it is now.
func waves(s *v1.RolloutStatus, pool *v1.Pool) Table {
	t := Table{Header: []string{"WAVE", "DESKTOPS", "STATE"}}
	if s.GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_SUPERSEDED || s.GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_ROLLED_BACK {
		return t
	}
	for i, size := range rollout.Waves(pool.GetSpec().GetRollout(), int(max(s.GetTotal(), pool.GetSpec().GetDesktops()))) {
		number, state := uint32(i+1), "to come"
		switch {
		case number < s.GetWave() || s.GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_DONE:
			state = "healthy"
		case number == s.GetWave() && s.GetPhase() == v1.RolloutPhase_ROLLOUT_PHASE_HALTED:
			state = "failed"
		case number == s.GetWave() && s.GetWaveReady() != nil:
			state = "ready, watched"
		case number == s.GetWave():
			state = "goes on"
		}
		t.Rows = append(t.Rows, []string{count(number), count(size), state})
	}
	return t
}

// release adds what a pool runs and how it moves.
func (p *page) release(pool *v1.Pool) {
	r := pool.GetRelease()
	if r.GetVersion() != 0 {
		text := versionWord(r.GetImage(), r.GetVersion())
		if r.GetPrevious() != 0 {
			text += fmt.Sprintf(", before that version %d", r.GetPrevious())
		}
		if r.GetRefused() != 0 {
			text += fmt.Sprintf("; version %d was given up", r.GetRefused())
		}
		p.line("Runs", text)
	}
	switch {
	case r.GetRollout() != "" && r.GetNext() != 0:
		p.line("Rollout", fmt.Sprintf("%s to version %d, %d admitted%s", r.GetRollout(), r.GetNext(), r.GetAdmitted(), movingWord(r)))
	case r.GetRollout() != "":
		p.line("Rollout", fmt.Sprintf("%s back to version %d%s", r.GetRollout(), r.GetVersion(), movingWord(r)))
	}
	var versions []string
	for _, v := range pool.GetStatus().GetVersions() {
		versions = append(versions, fmt.Sprintf("%d on version %d (%d ready)", v.GetDesktops(), v.GetVersion(), v.GetReady()))
	}
	if len(versions) > 1 {
		p.line("Versions", strings.Join(versions, ", "))
	}
	p.line("Moves", policyWord(pool.GetSpec()))
}

func movingWord(r *v1.Release) string {
	if r.GetMoving() {
		return ", moving"
	}
	return ", not moving now"
}

// policyWord is a pool's policy for rollouts in one line, with its defaults.
func policyWord(spec *v1.PoolSpec) string {
	policy := spec.GetRollout()
	if spec.GetDesktops() == 0 {
		return ""
	}
	var sizes []string
	for _, size := range rollout.Waves(policy, int(spec.GetDesktops())) {
		sizes = append(sizes, count(size))
	}
	watched := 5 * time.Minute
	if policy.GetMonitor() != nil {
		watched = policy.GetMonitor().AsDuration()
	}
	failure := "halts"
	if policy.GetOnFailure() == v1.OnFailure_ON_FAILURE_ROLL_BACK {
		failure = "goes back"
	}
	parts := []string{
		"waves of " + strings.Join(sizes, ", ") + " desktops, each watched for " + Span(watched),
		failure + " " + failureWord(policy.GetMaxFailures()),
	}
	if w := policy.GetWindow(); w != nil {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("from %s to %s %s", w.GetFrom(), w.GetTo(), w.GetTimeZone())))
	}
	if spec.GetMinReady() > 0 {
		parts = append(parts, fmt.Sprintf("%d stay ready and free", spec.GetMinReady()))
	}
	return strings.Join(append(parts, inUseWord(policy.GetInUse())), "; ")
}

func failureWord(limit uint32) string {
	if limit == 0 {
		return "at the first failure"
	}
	return fmt.Sprintf("when more than %d fail", limit)
}

func inUseWord(policy *v1.InUse) string {
	text := "desktops in use move at logoff"
	if policy.GetMode() == v1.InUseMode_IN_USE_MODE_REMIND {
		text = fmt.Sprintf("users are told %s ahead and may put it off %s", Span(durationOr(policy.GetNotice(), 15*time.Minute)), often(policy.GetDeferrals()))
	}
	if policy.GetDeadline() != nil {
		text += ", after " + Span(policy.GetDeadline().AsDuration()) + " without asking"
	}
	return text
}

func durationOr(d *durationpb.Duration, standard time.Duration) time.Duration {
	if d == nil {
		return standard
	}
	return d.AsDuration()
}

func often(n uint32) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
