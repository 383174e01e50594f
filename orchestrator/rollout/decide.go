package rollout

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Reasons of the events that rollouts leave. Their subject is the pool, their label LabelRollout names the rollout.
const (
	ReasonStarted    = "RolloutStarted"
	ReasonStaged     = "RolloutStaged"
	ReasonWave       = "WaveStarted"
	ReasonHealthy    = "WaveHealthy"
	ReasonHalted     = "RolloutHalted"
	ReasonResumed    = "RolloutResumed"
	ReasonPaused     = "RolloutPaused"
	ReasonDone       = "RolloutDone"
	ReasonRolledBack = "RolloutRolledBack"
	ReasonSuperseded = "RolloutSuperseded"
	ReasonOpened     = "WindowOpened"
	ReasonClosed     = "WindowClosed"
)

// LabelRollout is the label of events that names the rollout they tell of.
const LabelRollout = "rollout"

// Short names of the phases.
const (
	running    = v1.RolloutPhase_ROLLOUT_PHASE_RUNNING
	halted     = v1.RolloutPhase_ROLLOUT_PHASE_HALTED
	done       = v1.RolloutPhase_ROLLOUT_PHASE_DONE
	rolledBack = v1.RolloutPhase_ROLLOUT_PHASE_ROLLED_BACK
	superseded = v1.RolloutPhase_ROLLOUT_PHASE_SUPERSEDED
	staging    = v1.RolloutPhase_ROLLOUT_PHASE_STAGING
)

// Snapshot is all that Decide looks at: one pool and what it stands on.
type Snapshot struct {
	// Revision of the store that the rest was true at.
	Revision int64
	Pool     *v1.Pool
	// Image is the one the pool names; nil when there is none.
	Image *v1.Image
	// Rollouts of the pool, all of them.
	Rollouts []*v1.Rollout
	// Desktops of the pool, all of them.
	Desktops []*v1.Desktop
	// Hosts, whatever their state.
	Hosts []*v1.Host
	// Failed are the events that tell of desktops' failures.
	Failed []*v1.Event
	// Window in which the pool may be changed; nil when that is always. NoWindow says why it cannot be told; then it never is.
	Window   *calendar.Window
	NoWindow string
	// Clock is the time zone in which the pool's people read times; nil means UTC.
	Clock *time.Location
}

// Note is an event about the pool.
type Note struct {
	Rollout         string
	Reason, Message string
	Warning         bool
}

// Actions is what is to be done now, all of it or nothing.
type Actions struct {
	// Release the pool should have; nil leaves it.
	Release *v1.Release
	Create  []*v1.Rollout
	Update  []*v1.Rollout
	Remove  []*v1.Rollout
	Notes   []Note
	// Again is when to look again even if nothing changes; 0 means never.
	Again time.Duration
}

// decision is the work sheet of one round.
type decision struct {
	Snapshot
	now     time.Time
	target  uint32        // version that the pool should run by its spec; 0 for none
	release *v1.Release   // as it should be; nil while the pool has none
	active  *v1.Rollout   // that runs, as it should be; nil when none does
	touched []*v1.Rollout // rollouts, active or ended, that are changed if they differ from the snapshot's
	created []*v1.Rollout // rollouts that begin
	notes   []Note
	again   time.Duration
}

// Decide says how to go on with the rollouts of one pool. It is pure: equal arguments give equal actions. Each round does
// one step at most; the change that it makes brings the next.
func Decide(now time.Time, s Snapshot) Actions {
	d := newDecision(now, s)
	switch {
	case s.Pool.GetMeta().GetDeletion() != nil:
		d.abandon("the pool is being deleted")
	case d.mend():
	case d.release == nil:
		d.first()
	case d.release.GetImage() != s.Pool.GetSpec().GetImage():
		d.otherImage()
	case d.wantsOther():
		d.begin(d.target, "", d.whyTarget())
	case d.active != nil:
		d.proceed()
	}
	return d.actions()
}

func newDecision(now time.Time, s Snapshot) *decision {
	d := &decision{Snapshot: s, now: now, target: store.WantedVersion(s.Pool, s.Image)}
	if r := s.Pool.GetRelease(); r != nil {
		d.release = proto.CloneOf(r)
	}
	for _, r := range s.Rollouts {
		if r.GetMeta().GetName() == s.Pool.GetRelease().GetRollout() && isActive(r) {
			d.active = d.touch(r)
		}
	}
	return d
}

func isActive(r *v1.Rollout) bool {
	phase := r.GetStatus().GetPhase()
	return phase == staging || phase == running || phase == halted
}

// touch returns a copy of a rollout that is written if it is changed.
func (d *decision) touch(r *v1.Rollout) *v1.Rollout {
	changed := proto.CloneOf(r)
	if changed.Status == nil {
		changed.Status = &v1.RolloutStatus{}
	}
	d.touched = append(d.touched, changed)
	return changed
}

// mend ends rollouts that no release names and forgets one that is gone, which a pool that was made anew under an old name
// can leave. It tells whether there was anything to mend.
func (d *decision) mend() bool {
	for _, r := range d.Rollouts {
		if isActive(r) && (d.active == nil || r.GetMeta().GetName() != d.active.GetMeta().GetName()) {
			d.end(d.touch(r), superseded, "the pool does not know of it any more")
		}
	}
	if d.active == nil && d.release.GetRollout() != "" {
		d.settle(d.release.GetVersion(), d.release.GetPrevious())
		return true
	}
	return false
}

// abandon ends the rollout that runs, if one does.
func (d *decision) abandon(why string) {
	if d.active == nil {
		return
	}
	d.end(d.active, superseded, why)
	d.note(ReasonSuperseded, false, "%s ends: %s", d.title(), why)
	d.settle(d.release.GetVersion(), d.release.GetPrevious())
	d.active = nil
}

// first gives a pool without a release one, as soon as there is a version to run: the one that most of its desktops run,
// so that those that are there move in waves.
func (d *decision) first() {
	if d.target == 0 {
		return
	}
	counts := map[uint32]int{}
	most := d.target
	for _, desktop := range d.Desktops {
		inc := desktop.GetIncarnation()
		if inc.GetImage() != d.Pool.GetSpec().GetImage() || store.Runnable(d.Image, inc.GetVersion()) == nil {
			continue
		}
		counts[inc.GetVersion()]++
		if n, best := counts[inc.GetVersion()], counts[most]; n > best || n == best && inc.GetVersion() > most {
			most = inc.GetVersion()
		}
	}
	d.release = &v1.Release{Image: d.Pool.GetSpec().GetImage(), Version: most}
}

// wantsOther: by its spec the pool should run a version that it neither runs, nor moves to, nor gave up. Wanting another
// one than the one that was given up ends that verdict.
func (d *decision) wantsOther() bool {
	if d.target == 0 || d.target == d.release.GetRefused() {
		return false
	}
	d.release.Refused = 0
	if d.active != nil {
		return d.target != d.active.GetSpec().GetToVersion()
	}
	return d.target != d.release.GetVersion()
}

func (d *decision) whyTarget() string {
	if d.Pool.GetSpec().GetVersion() != 0 {
		return fmt.Sprintf("the pool asks for version %d", d.target)
	}
	return fmt.Sprintf("version %d of image %s was published", d.target, d.Pool.GetSpec().GetImage())
}

// actions is what differs from what there was.
func (d *decision) actions() Actions {
	a := Actions{Create: d.created, Notes: d.notes, Again: d.again}
	if !proto.Equal(d.release, d.Pool.GetRelease()) {
		a.Release = d.release
	}
	before := map[string]*v1.Rollout{}
	for _, r := range d.Rollouts {
		before[r.GetMeta().GetName()] = r
	}
	for _, r := range d.touched {
		if old := before[r.GetMeta().GetName()]; old != nil && !proto.Equal(old, r) {
			a.Update = append(a.Update, r)
		}
	}
	a.Remove = d.outdated()
	return a
}

// keptRollouts is how many ended rollouts of a pool are kept.
const keptRollouts = 10

// outdated are the ended rollouts that need not be kept.
func (d *decision) outdated() []*v1.Rollout {
	var ended []*v1.Rollout
	for _, r := range d.Rollouts {
		if !isActive(r) {
			ended = append(ended, r)
		}
	}
	slices.SortFunc(ended, func(a, b *v1.Rollout) int { return Ordinal(b) - Ordinal(a) })
	return ended[min(keptRollouts, len(ended)):]
}

// note records an event about the active rollout.
func (d *decision) note(reason string, warning bool, format string, args ...any) {
	d.notes = append(d.notes, Note{
		Rollout: d.active.GetMeta().GetName(), Reason: reason, Message: fmt.Sprintf(format, args...), Warning: warning,
	})
}

// title names the active rollout in a sentence.
func (d *decision) title() string { return Title(d.active) }

// Title names a rollout in a sentence: "rollout sales-3 (version 4 to 5)".
func Title(r *v1.Rollout) string {
	word := "rollout"
	if r.GetSpec().GetRollback() {
		word = "rollback"
	}
	return fmt.Sprintf("%s %s (%s)", word, r.GetMeta().GetName(), span(r.GetSpec()))
}

func span(spec *v1.RolloutSpec) string {
	if spec.GetFromVersion() == 0 {
		return fmt.Sprintf("to %s:%d", spec.GetImage(), spec.GetToVersion())
	}
	return fmt.Sprintf("version %d to %d", spec.GetFromVersion(), spec.GetToVersion())
}

// phase sets the phase of a rollout.
func (d *decision) phase(r *v1.Rollout, phase v1.RolloutPhase) {
	if r.GetStatus().GetPhase() != phase {
		r.Status.Phase, r.Status.PhaseSince = phase, timestamppb.New(d.now)
	}
}

// end brings a rollout to a phase that is its last.
func (d *decision) end(r *v1.Rollout, phase v1.RolloutPhase, message string) {
	d.phase(r, phase)
	r.Status.Ended, r.Status.Message = timestamppb.New(d.now), store.Cut(message, maxMessage)
	r.Status.EstimatedEnd, r.Status.WaveReady, r.Status.InUse = nil, nil, 0
}

// settle lets the release rest on a version.
func (d *decision) settle(version, previous uint32) {
	d.release = &v1.Release{
		Image: d.release.GetImage(), Version: version, Previous: previous, Refused: d.release.GetRefused(),
	}
}

// lookAgain asks for another round after a time.
func (d *decision) lookAgain(at time.Time) {
	wait := max(at.Sub(d.now), time.Millisecond)
	if d.again == 0 || wait < d.again {
		d.again = wait
	}
}

// maxMessage is the proto's bound of RolloutStatus.message and of an event's, in characters.
const maxMessage = 1024

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
