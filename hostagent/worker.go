package hostagent

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	v1 "daybreak/proto/daybreak/v1"
)

// worker does what is to be done for one desktop, one step at a time, over all its lives. It decides anew after every step
// and whenever it is poked.
type worker struct {
	agent *Agent
	uid   string
	// pokes gets a token when something changed that the worker's decisions depend on.
	pokes chan struct{}

	mu sync.Mutex
	// interrupt ends a question to the guest that is no longer worth an answer; nil when none is asked.
	interrupt context.CancelFunc

	// known is touched by run only.
	known map[lifeKey]*progress
}

// progress is what a worker knows of a life for as long as the process runs; all of it can be found out again.
type progress struct {
	assignment *v1.Assignment
	// untrusted is what the check of the assignment's signatures found.
	untrusted error
	base      Base
	overlay   string
	data      string
	// acted is the number of the newest list begun when the worker last changed something about the VM.
	acted uint64
	// sought: asked for by name after two lists lacked it, the hypervisor did not know the VM.
	sought       bool
	answered     bool
	proven       bool
	doubt        string
	nextPing     time.Time
	described    int
	nextDescribe time.Time
	// telling is the id of the notice that was tried to be shown so many times.
	telling  string
	tellings int
	nextTell time.Time
	// nextUse is when to ask again who uses the guest, lookedAt when it was last tried.
	nextUse, lookedAt time.Time
	// unusedAt is when the guest said that nobody uses it, as the assignment supposes; unsaid how often it did not say.
	unusedAt, nextConfirm time.Time
	unsaid                int
	stopAsked             time.Time
	overlayTrashed        bool
	dataTrashed           bool
	// file is where its saved memory is, and kept how much of it there is, if known.
	file      string
	kept      Kept
	keptKnown bool
	// woken: let go on by this process, which began to wake it at wakingSince.
	woken       bool
	wakingSince time.Time
	// slotWhy is why it was given no boot slot.
	slotWhy string
	// atOnce VMs booted when this process started it, itself included; 0 when another did. read is what its guest had read when it
	// got ready.
	atOnce   int
	read     uint64
	trouble  trouble
	failures int
}

// fail remembers that a step failed, and succeed that one went well.
func (p *progress) fail(now time.Time, err error) {
	p.failures++
	p.trouble = p.trouble.grow(now, p.failures, err)
}

func (p *progress) succeed() { p.failures, p.trouble = 0, trouble{} }

// poke makes the worker look again.
func (w *worker) poke() {
	select {
	case w.pokes <- struct{}{}:
	default:
	}
}

// reassign is poke after an assignment changed: what is being asked of the guest may not matter any more.
func (w *worker) reassign() {
	w.mu.Lock()
	if w.interrupt != nil {
		w.interrupt()
	}
	w.mu.Unlock()
	w.poke()
}

// run works until the desktop has no lives on this host any more, or ctx ends.
func (w *worker) run(ctx context.Context) error {
	for {
		next, more := w.round(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if more {
			continue
		}
		if w.agent.retire(w) {
			return nil
		}
		if !sleepUntil(ctx, next, w.pokes) {
			return ctx.Err()
		}
	}
}

// round decides for each life, oldest first, and does the first thing that is to be done. Otherwise it says when to look
// again.
func (w *worker) round(ctx context.Context) (next time.Time, more bool) {
	a := w.agent
	lives := a.book.lives(w.uid)
	w.forget(lives)
	for _, e := range lives {
		now := time.Now()
		p := w.progressOf(now, e)
		s := w.situation(now, e, p, lives)
		decided := decide(now, s)
		if decided.do == start && !w.sound(ctx, e, p) {
			return next, true
		}
		if err := w.settle(now, e, p, s, decided); err != nil {
			w.agent.log.Error().Err(err).Str("desktop", e.life.Desktop).Int64("generation", e.life.Generation).Msg("state not kept; it will be tried again")
			next = earlier(next, now.Add(5*time.Second))
			continue
		}
		if decided.do == askSlot {
			if w.slotted(now, e, p) {
				return next, true
			}
			next = earlier(next, decided.until)
			continue
		}
		if decided.do == askSaver {
			if ok, _ := a.savers.ask(now, keyOf(e.life), need{}, w.poke); !ok {
				next = earlier(next, decided.until)
				continue
			}
			return next, true
		}
		if decided.do != wait {
			w.perform(ctx, e, p, decided.do)
			return next, true
		}
		if changed(e, s, decided) {
			return next, true
		}
		next = earlier(next, decided.until)
	}
	return next, false
}

// slotted asks for a boot slot, and says in the status why there is none.
func (w *worker) slotted(now time.Time, e entry, p *progress) bool {
	a := w.agent
	due := e.assignment.GetIncarnation().GetStartAt().AsTime()
	ok, why := a.governor.ask(now, keyOf(e.life), need{due: due, mib: a.memoryMiB(e)}, w.poke)
	if p.slotWhy = why; ok || e.status.GetMessage() == why {
		return ok
	}
	// Words are no reason to fail: they are said again the next time.
	_ = a.book.update(e.life, now, func(status *v1.DesktopStatus) { status.Message = why })
	return false
}

// changed reports whether a decision to wait entered a state from which more may follow.
func changed(e entry, s situation, decided step) bool {
	return decided.state != e.status.GetState() || confirms(s, decided) != nil
}

// forget drops what was known of lives that are not on this host any more.
func (w *worker) forget(lives []entry) {
	here := map[lifeKey]bool{}
	for _, e := range lives {
		here[keyOf(e.life)] = true
	}
	for key := range w.known {
		if !here[key] {
			w.agent.governor.release(time.Now(), key, false)
			w.agent.savers.release(time.Now(), key, false)
			delete(w.known, key)
		}
	}
}

func (w *worker) progressOf(now time.Time, e entry) *progress {
	p, ok := w.known[keyOf(e.life)]
	if !ok {
		p = &progress{assignment: e.assignment, untrusted: w.agent.checkImage(e.assignment.GetIncarnation())}
		if e.status.GetState() == v1.DesktopState_DESKTOP_STATE_READY {
			// All of an agent's desktops are there when it starts: do not ask them all at once.
			p.described, p.nextDescribe = 1, now.Add(rand.N(time.Minute))
		}
		// However many come at once, their guests are asked one after another.
		p.nextUse = now.Add(rand.N(useEvery))
		w.known[keyOf(e.life)] = p
	}
	if p.assignment != e.assignment {
		if e.assignment.GetUsed() && !p.assignment.GetUsed() {
			p.nextUse = now.Add(rand.N(useEvery))
		}
		p.assignment, p.untrusted = e.assignment, w.agent.checkImage(e.assignment.GetIncarnation())
		p.wakingSince, p.unusedAt, p.nextConfirm, p.unsaid = time.Time{}, time.Time{}, time.Time{}, 0
		p.succeed()
	}
	return p
}

func (w *worker) situation(now time.Time, e entry, p *progress, lives []entry) situation {
	a := w.agent
	inc := e.assignment.GetIncarnation()
	s := situation{
		assignment: e.assignment, frozen: a.frozen() != "", status: e.status, start: e.start, startedAt: e.startedAt,
		bootID: a.bootID, told: a.book.toldIn(a.bootID), newest: a.book.newest(e.life), overlay: p.overlay != "", data: p.data != "",
		slot: a.governor.has(keyOf(e.life)), slotWhy: p.slotWhy, answered: p.answered, proven: p.proven, doubt: p.doubt,
		nextPing: p.nextPing, nextDescribe: p.nextDescribe, noticed: e.noticed, nextTell: p.nextTell, nextUse: p.nextUse, lookedAt: p.lookedAt,
		unusedAt: p.unusedAt, nextConfirm: p.nextConfirm, stopAsked: p.stopAsked, overlayTrashed: p.overlayTrashed, dataTrashed: p.dataTrashed, trouble: p.trouble, untrusted: p.untrusted, kept: p.kept, keptKnown: p.keptKnown,
		saver: a.savers.has(keyOf(e.life)), woken: p.woken, wakingSince: p.wakingSince,
	}
	s.domain, s.domainState = w.look(e, p)
	_, s.hasZone = a.cfg.Zones[e.assignment.GetSpec().GetZone()]
	if e.assignment != nil {
		s.base = a.fetcher.state(inc.GetDigest())
		if !s.base.done && s.base.trouble.err != nil {
			s.trouble = s.base.trouble
		}
	}
	for _, other := range lives {
		if other.life.Generation != e.life.Generation && w.mayRun(now, other) {
			s.rival = other.life.Generation
		}
	}
	return s
}

// look says whether a life's VM exists, by the lists and by what came of seeking it.
func (w *worker) look(e entry, p *progress) (presence, DomainState) {
	where, state := w.agent.view.look(keyOf(e.life), p.acted)
	switch {
	case where == presenceMissing && p.sought:
		where = presenceAbsent
	case where != presenceMissing:
		p.sought = false
	}
	return where, state
}

// mayRun reports whether a life's VM may exist: it is listed, or was started and is not proven gone. Stopped and deleted is
// only what was proven gone.
func (w *worker) mayRun(now time.Time, e entry) bool {
	where, _ := w.look(e, w.progressOf(now, e))
	switch e.status.GetState() {
	case v1.DesktopState_DESKTOP_STATE_STOPPED, v1.DesktopState_DESKTOP_STATE_DELETED:
		return where == presentNow
	}
	return where == presentNow || where != presenceAbsent && e.start.phase != startNever
}

// confirms returns the mark that a decision makes of a VM seen on a list for the first time.
func confirms(s situation, decided step) *startMark {
	running := decided.state == v1.DesktopState_DESKTOP_STATE_STARTING || decided.state == v1.DesktopState_DESKTOP_STATE_READY
	if s.domain == presentNow && running && s.start.phase != startConfirmed {
		return &startMark{phase: startConfirmed, bootID: s.bootID}
	}
	return nil
}

// settle makes a decision's state durable, and takes or gives back what goes with it.
func (w *worker) settle(now time.Time, e entry, p *progress, s situation, decided step) error {
	a := w.agent
	key := keyOf(e.life)
	mark := confirms(s, decided)
	if decided.do == start {
		mark = &startMark{phase: startIntended, bootID: a.bootID}
	}
	if mark != nil {
		if err := a.book.enterStarting(e.life, now, *mark); err != nil {
			return err
		}
	}
	hasData := s.data || a.inventory.hasData(e.life.UID) && !s.dataTrashed
	if !says(e.status, decided, hasData) {
		err := a.book.update(e.life, now, func(status *v1.DesktopStatus) {
			status.State, status.Message, status.PausedIo = decided.state, decided.message, decided.paused
			status.ProgressPercent, status.DataDisk = decided.percent, hasData
			if e.status.GetState() == v1.DesktopState_DESKTOP_STATE_STARTING && decided.state == v1.DesktopState_DESKTOP_STATE_READY && p.atOnce > 0 {
				status.Boot = bootReport(now, e, p)
			}
		})
		if err != nil {
			return err
		}
	}
	switch {
	case decided.state == v1.DesktopState_DESKTOP_STATE_STARTING, decided.waking:
		a.governor.hold(key, a.memoryMiB(e))
	case decided.do != askSlot:
		a.governor.release(now, key, decided.state == v1.DesktopState_DESKTOP_STATE_READY)
	}
	if decided.do != suspend && decided.do != askSaver && decided.do != confirm {
		a.savers.release(now, key, false)
	}
	if decided.state != e.status.GetState() && mayHaveVM(e.status.GetState()) && !mayHaveVM(decided.state) {
		a.governor.nudge() // there is room again
	}
	if decided.listen {
		a.view.listen(w.uid)
		a.observer.hurry()
	}
	return nil
}

// says: the status tells already what was decided, as it does nearly always.
func says(status *v1.DesktopStatus, decided step, hasData bool) bool {
	return status.GetState() == decided.state && status.GetMessage() == decided.message && status.GetPausedIo() == decided.paused &&
		status.GetProgressPercent() == decided.percent && status.GetDataDisk() == hasData
}

// bootReport is how a start went that has just come to its end.
func bootReport(now time.Time, e entry, p *progress) *v1.BootReport {
	return &v1.BootReport{Took: durationpb.New(max(now.Sub(e.startedAt), 0)), AtOnce: uint32(min(p.atOnce, 4096)), ReadBytes: p.read}
}

// perform does one step and remembers how it went.
func (w *worker) perform(ctx context.Context, e entry, p *progress, do action) {
	a := w.agent
	began := time.Now()
	err := w.do(ctx, e, p, do)
	now := time.Now()
	if do != fetchBase {
		a.metrics.step(do, now.Sub(began), err)
	}
	switch {
	case ctx.Err() != nil:
	case do == ping, do == probe, do == describe, do == tell, do == seek, do == askUse, do == confirm:
		// The guest's silence is no trouble of the host's; doubt says it.
	case err == nil:
		p.succeed()
	default:
		p.fail(now, err)
		a.log.Warn().Err(err).Stringer("step", do).Str("desktop", e.life.Desktop).Int64("generation", e.life.Generation).Int("failures", p.failures).Msg("step failed")
	}
}

// sound looks at a life's disks once more before its VM is started: they may have been made hours ago, and what became of
// them since is found before anything boots from it. The base is fetched again then.
func (w *worker) sound(ctx context.Context, e entry, p *progress) bool {
	err := w.createOverlay(ctx, e, p)
	if err == nil {
		return true
	}
	p.overlay = ""
	if ctx.Err() == nil {
		p.fail(time.Now(), err)
		w.agent.log.Warn().Err(err).Str("desktop", e.life.Desktop).Int64("generation", e.life.Generation).Msg("not started: its disks are not as they were made")
	}
	return false
}

// setGuest shows what the guest says of itself.
func (w *worker) setGuest(e entry, now time.Time, guest *v1.GuestReport) error {
	return w.agent.book.update(e.life, now, func(status *v1.DesktopStatus) {
		if guest != nil && !proto.Equal(status.GetGuest(), guest) {
			status.Guest = guest
		}
	})
}
