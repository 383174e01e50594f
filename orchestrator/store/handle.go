package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/rules"
)

// Store is one writer's handle: it reads everything and writes what its writer owns. Safe for concurrent use.
type Store struct {
	backend Backend
	writer  Writer
	guard   Guard
}

// Open returns a handle that writes without a leader's guard.
func Open(b Backend, w Writer) *Store {
	return &Store{backend: b, writer: w}
}

// Guarded returns a handle whose every write fails with ErrNotLeader once the guard's leadership is over.
func (s *Store) Guarded(g Guard) *Store {
	return &Store{backend: s.backend, writer: s.writer, guard: g}
}

// Get returns the object or ErrNotFound. It is shared: clone before changing.
func (s *Store) Get(ctx context.Context, ref Ref) (Object, error) {
	return s.backend.Get(ctx, ref)
}

// Fetch is Get for up to MaxOps at once, all as they were at one revision; nil stands where there is no such object.
func (s *Store) Fetch(ctx context.Context, refs []Ref) ([]Object, error) {
	return s.backend.Fetch(ctx, refs)
}

// List returns all objects of a kind sorted by name, and the revision at which they were all so.
func (s *Store) List(ctx context.Context, kind v1.Kind) ([]Object, int64, error) {
	return s.backend.List(ctx, kind)
}

// Watch passes on Backend.Watch.
func (s *Store) Watch(ctx context.Context, kinds []v1.Kind, sink func(Batch) error) error {
	return s.backend.Watch(ctx, kinds, sink)
}

// Commit applies every op or none and returns the revision for Mirror.Wait; 0 when there are no ops. Each object must
// keep its proto's rules (ErrInvalid) and differ from the stored one only in fields of this writer (ErrNotOwner).
// uid and created of an updated object are kept whatever the op's object says.
func (s *Store) Commit(ctx context.Context, ops ...Op) (int64, error) {
	if len(ops) == 0 {
		return 0, nil
	}
	checked, failed, err := s.check(ctx, ops)
	if err != nil {
		return 0, err
	}
	if len(failed) > 0 {
		return 0, joined(failed)
	}
	return s.backend.Commit(ctx, s.guard, checked)
}

// check returns the ops as they may be committed, and those that may not be.
func (s *Store) check(ctx context.Context, ops []Op) (checked []Op, failed []*OpError, err error) {
	current, err := s.current(ctx, ops)
	if err != nil {
		return nil, nil, err
	}
	for _, op := range ops {
		op, err := s.checkOp(op, current[op.Ref])
		if err != nil {
			failed = append(failed, &OpError{Op: op, Err: err})
			continue
		}
		checked = append(checked, op)
	}
	return checked, failed, nil
}

// current reads what the updates among ops would replace.
func (s *Store) current(ctx context.Context, ops []Op) (map[Ref]Object, error) {
	var refs []Ref
	for _, op := range ops {
		if op.Verb == VerbUpdate {
			refs = append(refs, op.Ref)
		}
	}
	if len(refs) == 0 {
		return nil, nil
	}
	objects, err := s.backend.Fetch(ctx, refs)
	if err != nil {
		return nil, fmt.Errorf("read what is to be updated: %w", err)
	}
	current := make(map[Ref]Object, len(refs))
	for i, o := range objects {
		current[refs[i]] = o
	}
	return current, nil
}

func (s *Store) checkOp(op Op, current Object) (Op, error) {
	if err := checkForm(op); err != nil {
		return op, err
	}
	switch op.Verb {
	case VerbCreate:
		if err := checkCreate(s.writer, op.Object); err != nil {
			return op, err
		}
	case VerbUpdate:
		if current == nil || current.GetMeta().GetRevision() != op.Revision {
			return op, ErrConflict
		}
		op.Object = withIdentity(op.Object, current.GetMeta())
		if err := checkUpdate(s.writer, current, op.Object); err != nil {
			return op, err
		}
	case VerbDelete:
		return op, checkDelete(s.writer, op.Ref.Kind)
	case VerbCheck:
		return op, nil
	}
	return op, checkRules(op.Object)
}

// checkRules checks an object against the rules in its proto, and names every field that breaks one.
func checkRules(o Object) error {
	mistakes, err := rules.Check(o)
	if err != nil || len(mistakes) == 0 {
		return err
	}
	var words []string
	for _, m := range mistakes {
		words = append(words, strings.TrimPrefix(m.Field+": "+m.Text, ": "))
	}
	return fmt.Errorf("%s: %w", strings.Join(words, "; "), ErrInvalid)
}

// withIdentity returns o with the uid and creation time that the stored object has.
func withIdentity(o Object, stored *v1.Meta) Object {
	if meta := o.GetMeta(); meta.GetUid() == stored.GetUid() && proto.Equal(meta.GetCreated(), stored.GetCreated()) {
		return o
	}
	o = proto.CloneOf(o)
	o.GetMeta().Uid, o.GetMeta().Created = stored.GetUid(), proto.CloneOf(stored.GetCreated())
	return o
}

// joined makes one error of the ops that failed; errors.Is and errors.As see all of them.
func joined(failed []*OpError) error {
	errs := make([]error, len(failed))
	for i, f := range failed {
		errs[i] = f
	}
	return errors.Join(errs...)
}

// Get returns the named object of T's kind, or ErrNotFound. It is shared: clone before changing.
func Get[T Object](ctx context.Context, s *Store, name string) (T, error) {
	var zero T
	o, err := s.backend.Get(ctx, Ref{Kind: KindOf(zero), Name: name})
	if err != nil {
		return zero, err
	}
	return o.(T), nil
}

// List returns all objects of T's kind sorted by name, and the revision at which they were all so.
func List[T Object](ctx context.Context, s *Store) ([]T, int64, error) {
	var zero T
	objects, revision, err := s.backend.List(ctx, KindOf(zero))
	if err != nil {
		return nil, 0, err
	}
	typed := make([]T, len(objects))
	for i, o := range objects {
		typed[i] = o.(T)
	}
	return typed, revision, nil
}

// modifyAttempts bounds how often Modify reads again after a conflict.
const modifyAttempts = 10

// Modify reads an object, lets change work on a copy and commits that. When somebody else was quicker it does so again,
// so change may be called several times. A change that changes nothing is not written. It returns the object as stored.
func Modify[T Object](ctx context.Context, s *Store, name string, change func(T) error) (T, error) {
	var zero T
	for attempt := 1; ; attempt++ {
		current, err := Get[T](ctx, s, name)
		if err != nil {
			return zero, err
		}
		changed := proto.CloneOf(current)
		if err := change(changed); err != nil {
			return zero, err
		}
		if proto.Equal(current, changed) {
			return current, nil
		}
		op := Update(changed)
		op.Revision = current.GetMeta().GetRevision()
		revision, err := s.Commit(ctx, op)
		if err == nil {
			meta := changed.GetMeta()
			meta.Revision, meta.Uid, meta.Created = revision, current.GetMeta().GetUid(), current.GetMeta().GetCreated()
			return changed, nil
		}
		if !errors.Is(err, ErrConflict) || attempt == modifyAttempts {
			return zero, err
		}
	}
}

// Bounds of an event's texts, as in its proto, in characters.
const (
	maxReason  = 64
	maxMessage = 1024
)

// Event records something that happened to subject.
func (s *Store) Event(ctx context.Context, now time.Time, subject Object, reason, message string, warning bool) error {
	if _, err := s.Commit(ctx, Create(NewEvent(now, subject, reason, message, warning))); err != nil {
		return fmt.Errorf("record event %s of %s: %w", reason, RefOf(subject), err)
	}
	return nil
}

// Labels of events about desktops: the life that the desktop had then.
const (
	LabelGeneration = "generation"
	LabelImage      = "image"
	LabelVersion    = "version"
	LabelHost       = "host"
	// LabelAttempt marks events that tell what came of trying to get a desktop ready, and names what was tried (see Attempt): image, shape
	// and readiness. An event about a desktop that has it and warns says that the life failed before it was ready.
	LabelAttempt = "attempt"
)

// NewEvent makes an event, for those who commit many at once. Names sort by time. Texts that are too long are cut.
func NewEvent(now time.Time, subject Object, reason, message string, warning bool) *v1.Event {
	ref := RefOf(subject)
	return &v1.Event{
		Meta:        &v1.Meta{Name: eventStamp(now) + "-" + uuid.NewString()[:8], Labels: lifeLabels(subject)},
		At:          timestamppb.New(now),
		SubjectKind: KindName(ref.Kind),
		Subject:     ref.Name,
		Reason:      Cut(reason, maxReason),
		Message:     Cut(message, maxMessage),
		Warning:     warning,
	}
}

// eventStamp is what the names of a moment's events begin with, in the order of time.
func eventStamp(at time.Time) string {
	return strings.ReplaceAll(at.UTC().Format("20060102-150405.000000000"), ".", "-")
}

func lifeLabels(subject Object) map[string]string {
	desktop, ok := subject.(*v1.Desktop)
	if !ok {
		return map[string]string{}
	}
	inc := desktop.GetIncarnation()
	return map[string]string{
		LabelGeneration: strconv.FormatInt(inc.GetGeneration(), 10), LabelImage: inc.GetImage(),
		LabelVersion: strconv.FormatUint(uint64(inc.GetVersion()), 10), LabelHost: inc.GetHost(),
	}
}
