package hostagent

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
)

// maxTimes bounds DesktopStatus.times, as the message's rule does.
const maxTimes = 64

// entry is one life as the agent knows it. Messages in it are replaced, never changed in place.
type entry struct {
	life Life
	// assignment is nil for an orphan: it is watched and reported, and nothing is done to it.
	assignment *v1.Assignment
	status     *v1.DesktopStatus
	start      startMark
	// startedAt is when STARTING began; within one process it keeps the monotonic clock's reading.
	startedAt time.Time
	// noticed is the id of the last notice that was shown, or given up.
	noticed string
	// revision of the book at which it last changed.
	revision uint64
}

// book is the agent's list of lives: the journal's content, plus what need not be durable. What it shows was durable
// before. It is safe for concurrent use; a life's status has one writer, the worker of its desktop.
type book struct {
	journal *Journal
	// changed gets a token when something that is reported changed.
	changed chan struct{}

	// applying is held while the set of lives changes, disk writes included; mu only while memory does.
	applying sync.Mutex
	mu       sync.Mutex
	revision uint64
	epoch    uint64
	// told is the id of the boot in which the control plane last said all that this host shall run.
	told string
	// reserved is the memory that the host keeps for itself, MiB, as the control plane last said; 0 when it did not.
	reserved uint64
	highest  map[string]int64
	entries  map[lifeKey]*entry
	// desktops holds the generations of entries by uid.
	desktops map[string][]int64
	// unruly are the journal's complaints at its opening, for the log.
	unruly []error
	// fault of the last write to the journal, empty when it went well.
	fault string
}

// openBook reads the journal. With a damaged one the book begins empty, and the error says why. A start that the journal
// puts after now, by a clock that was wrong, counts as one of now.
func openBook(journal *Journal, now time.Time) (*book, error) {
	b := &book{journal: journal, changed: make(chan struct{}, 1), highest: map[string]int64{}, entries: map[lifeKey]*entry{}, desktops: map[string][]int64{}}
	m, err := journal.load()
	if err != nil {
		return b, err
	}
	b.epoch, b.told, b.reserved, b.highest, b.unruly = m.epoch, m.told, m.reserved, m.highest, m.unruly
	for key, rec := range m.lives {
		b.revision++
		b.desktops[key.uid] = append(b.desktops[key.uid], key.generation)
		b.entries[key] = &entry{
			life: rec.life, assignment: rec.assignment, status: rec.status, start: rec.start, noticed: rec.noticed, revision: b.revision,
			startedAt: timeOf(rec.status, v1.DesktopState_DESKTOP_STATE_STARTING),
		}
		if e := b.entries[key]; e.startedAt.After(now) {
			e.startedAt = now
		}
	}
	return b, nil
}

// timeOf says when a state was reached; zero when it was not.
func timeOf(status *v1.DesktopStatus, state v1.DesktopState) time.Time {
	for _, reached := range status.GetTimes() {
		if reached.GetState() == state {
			return reached.GetAt().AsTime()
		}
	}
	return time.Time{}
}

// enter notes that a life is in its state from now on. Its times keep when it first was.
func enter(status *v1.DesktopStatus, now time.Time) {
	status.Since = timestamppb.New(now)
	if timeOf(status, status.GetState()).IsZero() && len(status.GetTimes()) < maxTimes {
		status.Times = append(status.Times, &v1.StateTime{State: status.GetState(), At: status.GetSince()})
	}
}

// lives returns the lives of a desktop, oldest first.
func (b *book) lives(uid string) []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []entry
	for _, generation := range b.desktops[uid] {
		found = append(found, *b.entries[lifeKey{uid: uid, generation: generation}])
	}
	slices.SortFunc(found, func(a, b entry) int { return cmp.Compare(a.life.Generation, b.life.Generation) })
	return found
}

// all returns every life.
func (b *book) all() []entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	found := make([]entry, 0, len(b.entries))
	for _, e := range b.entries {
		found = append(found, *e)
	}
	return found
}

// find returns the life with that desktop name and generation.
func (b *book) find(desktop string, generation int64) (Life, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		if e.life.Desktop == desktop && e.life.Generation == generation {
			return e.life, true
		}
	}
	return Life{}, false
}

// newest reports whether no higher generation of the life's desktop was ever seen.
func (b *book) newest(life Life) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.highest[life.UID] <= life.Generation
}

// update changes what is said of a life. A new state, what the guest says, and an order that is declined are durable before
// they are seen; words and progress are not worth a write.
func (b *book) update(life Life, now time.Time, change func(*v1.DesktopStatus)) error {
	return b.change(life, now, nil, change)
}

// enterStarting begins or finds a start: state and mark change together, or not at all.
func (b *book) enterStarting(life Life, now time.Time, mark startMark) error {
	return b.change(life, now, &mark, func(status *v1.DesktopStatus) {
		if rank(status.GetState()) < rank(v1.DesktopState_DESKTOP_STATE_STARTING) {
			status.State = v1.DesktopState_DESKTOP_STATE_STARTING
		}
	})
}

func (b *book) change(life Life, now time.Time, mark *startMark, change func(*v1.DesktopStatus)) error {
	b.mu.Lock()
	current, ok := b.entries[keyOf(life)]
	b.mu.Unlock()
	if !ok {
		return fmt.Errorf("update status of %s generation %d: %w", life.Desktop, life.Generation, ErrNotFound)
	}
	old := current.status
	status := proto.CloneOf(old)
	change(status)
	status.Message = cleanText(status.GetMessage(), 1024)
	entered := status.GetState() != old.GetState()
	if entered {
		enter(status, now)
	}
	if mark == nil && proto.Equal(old, status) {
		return nil
	}
	lasts := entered || !proto.Equal(old.GetGuest(), status.GetGuest()) || !proto.Equal(old.GetDeclined(), status.GetDeclined())
	if (lasts || mark != nil) && !b.readOnly() {
		err := b.kept(b.journal.join(func(tx journalTx) error {
			if mark != nil {
				if err := tx.putStart(keyOf(life), *mark); err != nil {
					return err
				}
			}
			return tx.putStatus(life, status)
		}))
		if err != nil {
			return err
		}
	}
	b.publish(life, func(e *entry) {
		e.status = status
		if mark != nil {
			e.start = *mark
		}
		if status.GetState() == v1.DesktopState_DESKTOP_STATE_STARTING && e.startedAt.IsZero() {
			e.startedAt = now
		}
	})
	return nil
}

func (b *book) publish(life Life, change func(*entry)) {
	b.mu.Lock()
	if e, ok := b.entries[keyOf(life)]; ok {
		changed := *e
		change(&changed)
		b.revision++
		changed.revision = b.revision
		b.entries[keyOf(life)] = &changed
	}
	b.mu.Unlock()
	b.signal()
}

func (b *book) signal() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// readOnly reports whether there is no journal to write to: then the book only remembers what it sees.
func (b *book) readOnly() bool { return b.journal.damage != nil }

// kept remembers whether the journal can be written.
func (b *book) kept(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = ""
	if err != nil {
		b.fault = err.Error()
	}
	return err
}

// journalFault says why the journal cannot be written; empty when it can.
func (b *book) journalFault() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fault
}

// since returns reports of what changed after a revision, oldest change first, and the revision that they bring their reader
// to. They are at most limit, and of at most limitBytes in a message, though always one; changed gets a token when more are
// left.
func (b *book) since(revision uint64, limit, limitBytes int) ([]*v1.IncarnationReport, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []*entry
	for _, e := range b.entries {
		if e.revision > revision {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.revision, b.revision) })
	reports := make([]*v1.IncarnationReport, 0, min(len(found), limit))
	size := 0
	for _, e := range found {
		report := &v1.IncarnationReport{Desktop: e.life.Desktop, Uid: e.life.UID, Status: e.status, Orphan: e.assignment == nil}
		size += 1 + protowire.SizeBytes(proto.Size(report)) // a field's tag, its length and its bytes
		if len(reports) > 0 && (len(reports) == limit || size > limitBytes) {
			b.signal()
			return reports, revision
		}
		reports, revision = append(reports, report), e.revision
	}
	return reports, b.revision
}

// toldIn reports whether the control plane has said, since the host booted, all that it shall run.
func (b *book) toldIn(bootID string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.told == bootID
}

// reservedMemory is the memory that the host keeps for itself, MiB; 0 when nobody said.
func (b *book) reservedMemory() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reserved
}

// seenEpoch is the highest cluster epoch ever seen.
func (b *book) seenEpoch() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.epoch
}

// knownDesktops is the set of uids that an assignment names.
func (b *book) knownDesktops() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known := map[string]bool{}
	for key, e := range b.entries {
		if e.assignment != nil {
			known[key.uid] = true
		}
	}
	return known
}
