package hostagent

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	v1 "daybreak/proto/daybreak/v1"
)

// errOldEpoch: the control plane was restored from a backup that is older than what this host has seen.
var errOldEpoch = errors.New("the control plane's epoch is older than this host has seen")

// orders is one message from the control plane, every part of it valid.
type orders struct {
	complete bool
	set      []*v1.Assignment
	drop     []string
	epoch    uint64
	// bootID is that of the boot in which they came.
	bootID string
	// reserved is the memory that the host shall keep for itself, MiB.
	reserved uint64
}

// edits is what orders do to the book: written to the journal first, shown afterwards.
type edits struct {
	// What the book knew of the control plane, and what it knows from now on.
	oldEpoch, epoch uint64
	oldTold, told   string
	oldKeep, keep   uint64

	highest map[string]int64
	put     map[lifeKey]*entry
	forget  map[lifeKey]Life
	// fresh are those of put that the book does not have yet.
	fresh map[lifeKey]bool
	// refused are assignments older than what this host has seen.
	refused []*v1.Assignment
	touched map[string]bool
}

// newEdits begins edits that change nothing. The caller holds mu.
func (b *book) newEdits() edits {
	return edits{
		oldEpoch: b.epoch, epoch: b.epoch, oldTold: b.told, told: b.told, oldKeep: b.reserved, keep: b.reserved, highest: map[string]int64{}, put: map[lifeKey]*entry{},
		forget: map[lifeKey]Life{}, fresh: map[lifeKey]bool{}, touched: map[string]bool{},
	}
}

// apply takes orders in. It returns the desktops whose worker must look again, and the assignments that were refused
// because a higher generation was seen. Nothing it does ends a VM or removes a disk.
func (b *book) apply(now time.Time, o orders) (touched map[string]bool, refused []*v1.Assignment, err error) {
	if b.readOnly() {
		return nil, nil, b.journal.damage
	}
	b.applying.Lock()
	defer b.applying.Unlock()
	b.mu.Lock()
	if o.epoch < b.epoch {
		seen := b.epoch
		b.mu.Unlock()
		return nil, nil, fmt.Errorf("%w: it is %d, seen was %d", errOldEpoch, o.epoch, seen)
	}
	e := b.newEdits()
	e.epoch, e.keep = max(o.epoch, b.epoch), o.reserved
	b.planDrops(o, &e)
	if o.complete && o.bootID != b.told {
		e.told = o.bootID
		for key := range b.entries {
			e.touched[key.uid] = true // those that waited for it
		}
	}
	for _, assignment := range o.set {
		b.planAssignment(now, assignment, &e)
	}
	b.supersede(&e)
	b.mu.Unlock()
	if err := b.commit(e); err != nil {
		return nil, nil, err
	}
	return e.touched, e.refused, nil
}

// planDrops plans what happens to lives that orders no longer name: those that have ended are forgotten, all others become
// orphans.
func (b *book) planDrops(o orders, e *edits) {
	named := map[lifeKey]bool{}
	for _, assignment := range o.set {
		named[assignedKey(assignment)] = true
	}
	dropped := b.dropped(o.drop)
	for key, current := range b.entries {
		if named[key] || !o.complete && !dropped[key] {
			continue
		}
		if current.status.GetState() == v1.DesktopState_DESKTOP_STATE_DELETED {
			e.forget[key] = current.life
		} else if current.assignment != nil {
			orphan := *current
			orphan.assignment = nil
			e.put[key] = &orphan
		}
		e.touched[key.uid] = true
	}
}

// dropped says which lives are meant by names that were dropped: those that have ended, else those that a later life came
// after, else the one there is. A drop may cross with a report or a later life; it must not take that one's assignment.
func (b *book) dropped(names []string) map[lifeKey]bool {
	if len(names) == 0 {
		return nil
	}
	open := map[string]bool{}
	for _, name := range names {
		open[name] = true
	}
	lives := map[lifeKey]bool{}
	for _, meant := range []func(lifeKey, *entry) bool{
		func(_ lifeKey, e *entry) bool { return e.status.GetState() == v1.DesktopState_DESKTOP_STATE_DELETED },
		func(key lifeKey, _ *entry) bool { return key.generation < b.highest[key.uid] },
		func(lifeKey, *entry) bool { return true },
	} {
		found := map[string]bool{}
		for key, current := range b.entries {
			if open[current.life.Desktop] && meant(key, current) {
				lives[key], found[current.life.Desktop] = true, true
			}
		}
		for name := range found {
			delete(open, name)
		}
	}
	return lives
}

func assignedKey(a *v1.Assignment) lifeKey {
	return lifeKey{uid: a.GetUid(), generation: a.GetIncarnation().GetGeneration()}
}

// planAssignment is the fence: a generation lower than the highest seen is refused, but for the order to end exactly that
// life; and a life that has ended on this host stays ended.
func (b *book) planAssignment(now time.Time, assignment *v1.Assignment, e *edits) {
	key := assignedKey(assignment)
	highest := max(b.highest[key.uid], e.highest[key.uid])
	ending := assignment.GetIncarnation().GetDesired() == v1.DesiredState_DESIRED_STATE_DELETED
	if key.generation < highest && !ending {
		e.refused = append(e.refused, assignment)
		return
	}
	current, known := b.entries[key]
	if planned, ok := e.put[key]; ok {
		current, known = planned, true
	}
	if known && proto.Equal(current.assignment, assignment) {
		return
	}
	e.touched[key.uid] = true
	delete(e.forget, key)
	if known {
		changed := *current
		changed.assignment = assignment
		e.put[key] = &changed
	} else {
		e.put[key], e.fresh[key] = newEntry(now, assignment, key.generation == highest), true
	}
	if key.generation > highest {
		e.highest[key.uid] = key.generation
	}
}

// newEntry begins a life. One whose generation was the highest before, and is not in the book, was here and has ended.
func newEntry(now time.Time, assignment *v1.Assignment, ended bool) *entry {
	state := v1.DesktopState_DESKTOP_STATE_PLACED
	if ended {
		state = v1.DesktopState_DESKTOP_STATE_DELETED
	}
	status := &v1.DesktopStatus{Generation: assignment.GetIncarnation().GetGeneration(), State: state}
	enter(status, now)
	return &entry{
		life:       Life{Desktop: assignment.GetDesktop(), UID: assignment.GetUid(), Generation: assignment.GetIncarnation().GetGeneration()},
		assignment: assignment,
		status:     status,
	}
}

// supersede takes the older lives of desktops that got a higher generation out of service: nothing is started for them any
// more. Those already told to stop or to end go on with that.
func (b *book) supersede(e *edits) {
	for uid := range e.highest {
		for _, generation := range b.desktops[uid] {
			if key := (lifeKey{uid: uid, generation: generation}); e.put[key] == nil {
				changed := *b.entries[key]
				if changed.assignment != nil {
					e.put[key] = &changed
				}
			}
		}
	}
	for key, planned := range e.put {
		if planned.assignment == nil || key.generation >= max(b.highest[key.uid], e.highest[key.uid]) {
			continue
		}
		switch planned.assignment.GetIncarnation().GetDesired() {
		case v1.DesiredState_DESIRED_STATE_STOPPED, v1.DesiredState_DESIRED_STATE_DELETED:
		default:
			planned.assignment = nil
		}
	}
}

// adopt takes in lives that were found on the host and that the book does not have, as orphans in the given state.
func (b *book) adopt(now time.Time, found map[Life]*v1.DesktopStatus, marks map[Life]startMark) (touched map[string]bool, err error) {
	b.applying.Lock()
	defer b.applying.Unlock()
	b.mu.Lock()
	e := b.newEdits()
	for life, status := range found {
		key := keyOf(life)
		if _, known := b.entries[key]; known {
			continue
		}
		enter(status, now)
		e.put[key] = &entry{life: life, status: status, start: marks[life], startedAt: now}
		e.fresh[key], e.touched[life.UID] = true, true
		if life.Generation > max(b.highest[life.UID], e.highest[life.UID]) {
			e.highest[life.UID] = life.Generation
		}
	}
	b.supersede(&e)
	b.mu.Unlock()
	if len(e.put) == 0 {
		return nil, nil
	}
	return e.touched, b.commit(e)
}

// commit makes edits durable, then visible. A status that its worker changed in the meantime stays as the worker left it.
func (b *book) commit(e edits) error {
	if e.epoch == e.oldEpoch && e.told == e.oldTold && e.keep == e.oldKeep && len(e.highest)+len(e.put)+len(e.forget) == 0 {
		return nil
	}
	if !b.readOnly() {
		if err := b.kept(b.journal.write(func(tx journalTx) error { return e.write(tx) })); err != nil {
			return err
		}
	}
	b.mu.Lock()
	b.epoch, b.told, b.reserved = e.epoch, e.told, e.keep
	for uid, generation := range e.highest {
		b.highest[uid] = generation
	}
	for key, planned := range e.put {
		b.revision++
		planned.revision = b.revision
		if current, ok := b.entries[key]; ok {
			changed := *current
			changed.assignment, changed.revision = planned.assignment, planned.revision
			planned = &changed
		} else {
			b.desktops[key.uid] = append(b.desktops[key.uid], key.generation)
		}
		b.entries[key] = planned
	}
	for key := range e.forget {
		delete(b.entries, key)
		b.desktops[key.uid] = slices.DeleteFunc(b.desktops[key.uid], func(g int64) bool { return g == key.generation })
		if len(b.desktops[key.uid]) == 0 {
			delete(b.desktops, key.uid)
		}
	}
	b.mu.Unlock()
	b.signal()
	return nil
}

func (e *edits) write(tx journalTx) error {
	if e.epoch != e.oldEpoch {
		if err := tx.putEpoch(e.epoch); err != nil {
			return err
		}
	}
	if e.told != e.oldTold {
		if err := tx.putTold(e.told); err != nil {
			return err
		}
	}
	if e.keep != e.oldKeep {
		if err := tx.putReserved(e.keep); err != nil {
			return err
		}
	}
	for uid, generation := range e.highest {
		if err := tx.putHighest(uid, generation); err != nil {
			return err
		}
	}
	for key, planned := range e.put {
		if err := e.writeEntry(tx, key, planned); err != nil {
			return err
		}
	}
	for key := range e.forget {
		if err := tx.forget(key); err != nil {
			return err
		}
	}
	return nil
}

// writeEntry writes the status and mark of new lives only: those of known ones are their worker's.
func (e *edits) writeEntry(tx journalTx, key lifeKey, planned *entry) error {
	if err := tx.putAssignment(key, planned.assignment); err != nil || !e.fresh[key] {
		return err
	}
	if err := tx.putStatus(planned.life, planned.status); err != nil {
		return err
	}
	return tx.putStart(key, planned.start)
}
