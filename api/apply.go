package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// attempts bounds how often a change is tried again because something it stands on changed meanwhile.
const attempts = 10

// Apply makes the spec and the labels of an object what the request says. What else the request's object holds (status,
// creation time) is not looked at, so that what Get returned can be edited and applied.
func (s *objectService) Apply(ctx context.Context, request *v1.ApplyRequest) (*v1.ApplyResponse, error) {
	if unknownField(request.ProtoReflect()) {
		return nil, status.Error(codes.InvalidArgument, "the request holds a field that this daybreakd does not know: it was made by a newer program")
	}
	wanted := unwrap(request.GetObject())
	if err := applicable(wanted); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		response, err := s.apply(ctx, wanted, request.GetDryRun())
		// With a revision given, a conflict is the caller's to decide upon.
		if attempt == attempts || wanted.GetMeta().GetRevision() != 0 || !retryable(err) {
			return response, err
		}
	}
}

// retryable: the objects were changed between reading and writing; reading again settles it.
func retryable(err error) bool {
	return errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrExists)
}

// applicable refuses kinds that people do not write, and says what they may do instead.
func applicable(wanted store.Object) error {
	instead := ""
	switch wanted.(type) {
	case *v1.Zone, *v1.Host, *v1.Image, *v1.Pool, *v1.Calendar:
		return nil
	case *v1.Desktop:
		instead = "desktops are made by their pool: change its spec.desktops"
	case *v1.Claim:
		instead = "use \"daybreak claim\" and \"daybreak release\""
	case *v1.JoinToken:
		instead = "use \"daybreak token create\""
	case *v1.Rollout:
		instead = "they begin by themselves when a version is published (\"daybreak image publish\") or a pool names another one; see \"daybreak rollout\""
	case *v1.Event:
		instead = "events are written by the orchestrator"
	case *v1.Plan:
		instead = "they are made from the pool's schedule and calendar: see \"daybreak plan\""
	case *v1.History:
		instead = "it is what the pool remembers"
	}
	return status.Errorf(codes.InvalidArgument, "%ss cannot be applied: %s", store.KindName(store.KindOf(wanted)), instead)
}

func (s *objectService) apply(ctx context.Context, wanted store.Object, dryRun bool) (*v1.ApplyResponse, error) {
	ref := store.RefOf(wanted)
	current, err := s.store.Get(ctx, ref)
	if errors.Is(err, store.ErrNotFound) {
		current, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := sameLife(wanted, current); err != nil {
		return nil, err
	}
	next := merge(wanted, current)
	if pool, ok := next.(*v1.Pool); ok {
		before, _ := current.(*v1.Pool)
		mergeWishes(pool.GetSpec().GetSchedule(), before.GetSpec().GetSchedule(), time.Now())
	}
	change := v1.Change_CHANGE_CREATED
	if current != nil {
		change = v1.Change_CHANGE_CONFIGURED
		if proto.Equal(current, next) {
			return &v1.ApplyResponse{Object: wrap(current), Change: v1.Change_CHANGE_UNCHANGED}, nil
		}
	}
	pinned, err := s.check(ctx, next, current)
	if err != nil || dryRun {
		return &v1.ApplyResponse{Object: wrap(next), Change: change}, err
	}
	op := store.Create(next)
	if current != nil {
		op = store.Update(next)
	}
	if _, err := s.store.Commit(ctx, append(pinned, op)...); err != nil {
		return nil, err
	}
	written, err := s.store.Get(ctx, ref)
	if err != nil {
		return nil, status.Errorf(codes.Unknown, "%s was applied, but could not be read back: %v", ref, err)
	}
	return &v1.ApplyResponse{Object: wrap(written), Change: change}, nil
}

// sameLife checks that the object that is there is the one that the request means.
func sameLife(wanted, current store.Object) error {
	ref, meta := store.RefOf(wanted), wanted.GetMeta()
	if current == nil {
		if meta.GetRevision() != 0 {
			return status.Errorf(codes.Aborted, "%s is gone; leave meta.revision out to make it anew", ref)
		}
		if ref.Kind == v1.Kind_KIND_HOST {
			return status.Errorf(codes.FailedPrecondition, "%s does not exist: hosts come to be when their agent enrols (\"daybreak token create\")", ref)
		}
		return nil
	}
	have := current.GetMeta()
	if meta.GetRevision() != 0 && meta.GetRevision() != have.GetRevision() {
		return status.Errorf(codes.Aborted, "%s changed meanwhile: it is at revision %d, not %d; get it again and redo the change",
			ref, have.GetRevision(), meta.GetRevision())
	}
	if meta.GetUid() != "" && meta.GetUid() != have.GetUid() {
		return status.Errorf(codes.Aborted, "%s was deleted and made anew meanwhile: its uid is %s, not %s", ref, have.GetUid(), meta.GetUid())
	}
	if have.GetDeletion() != nil {
		return status.Errorf(codes.FailedPrecondition, "%s is being deleted, as %s asked", ref, have.GetDeletion().GetBy())
	}
	return nil
}

// merge is the current object with spec and labels of the wanted one; a new object when there is none.
func merge(wanted, current store.Object) store.Object {
	next := proto.CloneOf(wanted)
	if current == nil {
		blank, _ := store.New(store.KindOf(wanted))
		m := blank.ProtoReflect()
		meta := &v1.Meta{Name: wanted.GetMeta().GetName()}
		m.Set(m.Descriptor().Fields().ByName("meta"), protoreflect.ValueOfMessage(meta.ProtoReflect()))
		m.Mutable(m.Descriptor().Fields().ByName("spec"))
		copySpec(blank, next)
		return blank
	}
	merged := proto.CloneOf(current)
	copySpec(merged, next)
	return merged
}

// copySpec moves spec and labels over. A missing spec and an empty one are the same.
func copySpec(to, from store.Object) {
	source, target := from.ProtoReflect(), to.ProtoReflect()
	field := source.Descriptor().Fields().ByName("spec")
	if source.Has(field) || target.Has(field) {
		target.Set(field, source.Mutable(field))
	}
	to.GetMeta().Labels = from.GetMeta().GetLabels()
}
